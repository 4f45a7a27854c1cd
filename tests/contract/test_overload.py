"""More than the model can read in time: both doors refuse at once and say when to come back."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc
import httpx
import pytest

from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.rerankers.base import ScoreOptions
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Document
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub
from tests.contract.grpc_toy import WAIT_S, Toy, refused, request
from tests.unit.api.every_door import CALLERS, Caller, is_error_of

if TYPE_CHECKING:
    from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceAsyncStub

TIMEOUT_S = 10.0
TOO_MUCH = ["0"] * 20


class SlowToy(Toy):
    """Reads a token a second, and a document has many."""

    @property
    def tokens_per_s(self) -> float:
        return 1.0

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        return 1000 * len(documents)


@dataclass(frozen=True)
class Doors:
    """Both doors of one engine, which has more to do than it can."""

    http: httpx.AsyncClient
    stub: "RerankServiceAsyncStub"


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    settings = Settings(http_port=0, grpc_port=0, request_timeout_s=TIMEOUT_S)
    engine = Engine(settings)
    toy = SlowToy()
    engine.open(Registry([toy], any_script=toy))
    http_server, grpc_server = HttpServer(engine, settings), GrpcServer(engine, settings)
    url = f"http://127.0.0.1:{await http_server.start()}"
    target = f"127.0.0.1:{await grpc_server.start()}"
    async with (
        httpx.AsyncClient(base_url=url, timeout=WAIT_S) as http,
        grpc.aio.insecure_channel(target) as channel,
    ):
        yield Doors(http, cast("RerankServiceAsyncStub", RerankServiceStub(channel)))
    await http_server.stop(0)
    await grpc_server.stop(0)


@pytest.mark.parametrize("caller", CALLERS, ids=str)
async def test_http_refuses_with_429_and_a_time_to_come_back(doors: Doors, caller: Caller) -> None:
    response = await ask(doors.http, caller)
    assert response.status_code == 429
    assert is_error_of(caller.dialect, response)
    assert int(response.headers["Retry-After"]) >= 1
    assert "Server-Timing" not in response.headers


async def ask(http: httpx.AsyncClient, caller: Caller) -> httpx.Response:
    return await http.post(caller.path, content=caller.body, headers=caller.headers)


async def test_weaviate_is_told_by_a_string(doors: Doors) -> None:
    response = await doors.http.post("/rerank", json={"query": "q", "documents": TOO_MUCH})
    (name, value), *others = response.json().items()
    assert (name, others) == ("error", [])
    assert isinstance(value, str)


async def test_the_native_form_is_told_reason_and_time(doors: Doors) -> None:
    response = await doors.http.post("/api/v1/rerank", json={"query": "q", "documents": TOO_MUCH})
    error = response.json()["error"]
    assert error["reason"] == "OVERLOADED"
    assert math.ceil(error["retry_after_s"]) == int(response.headers["Retry-After"])


async def test_grpc_refuses_with_its_two_ways_to_say_when(doors: Doors) -> None:
    failed = await refused(doors.stub.Rerank(request(*TOO_MUCH)))
    assert (failed.code, failed.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert failed.retry_after_s is not None
    pushback = failed.metadata["grpc-retry-pushback-ms"]
    assert int(pushback) == round(failed.retry_after_s * 1000)


async def test_a_deadline_of_the_callers_own_is_what_counts(doors: Doors) -> None:
    enough = {"X-Request-Timeout-Ms": "100000000"}
    body = {"query": "q", "documents": TOO_MUCH}
    assert (await doors.http.post("/rerank", json=body, headers=enough)).status_code == 200
    response = await doors.stub.Rerank(request(*TOO_MUCH), timeout=100_000)
    assert len(response.results) == len(TOO_MUCH)


async def test_live_and_ready_answer_while_all_else_is_refused(doors: Doors) -> None:
    callers = (CALLERS[at % len(CALLERS)] for at in range(200))
    storm = asyncio.gather(*(ask(doors.http, caller) for caller in callers))
    for path in ("live", "ready"):
        assert (await doors.http.get(f"/.well-known/{path}")).status_code == 204
    assert {response.status_code for response in await storm} == {429}
    metrics = (await doors.http.get("/metrics")).text
    assert 'rerank_sidecar_refusals_total{reason="deadline"}' in metrics
