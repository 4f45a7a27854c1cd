"""A server in its own process under many callers, and what becomes of the work of those who leave.

No test here measures a time: a machine that is busy with something else would fail them.
"""

import asyncio
import json
import re
import socket
import time
from collections.abc import Callable, Iterator

import grpc
import httpx
import pytest

from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub
from tests.contract.running import RunningSidecar, running_sidecar

CONNECTIONS = 500
COUNT = 1000
LARGE = [f"{number} " + "a ripe apple is red and grows on trees " * 20 for number in range(COUNT)]
WAIT_S = 120.0
"""How long to wait for what must happen; only a failure takes as long."""


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSidecar]:
    with running_sidecar(admission="false", request_timeout_s="600") as sidecar:
        yield sidecar


def _post(documents: list[str]) -> bytes:
    body = json.dumps({"query": "which fruit is red", "documents": documents}).encode()
    return b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def test_every_one_of_many_connections_is_answered(running: RunningSidecar) -> None:
    async def ask(number: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
        for _ in range(2):
            writer.write(_post([f"document {number}"]))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            found = re.search(r"content-length: (\d+)", head)
            assert found
            body = json.loads(await reader.readexactly(int(found[1])))
            assert body["scores"][0]["document"] == f"document {number}"
        writer.close()
        await writer.wait_closed()
        return head.split()[1]

    async with asyncio.timeout(WAIT_S):
        statuses = await asyncio.gather(*map(ask, range(CONNECTIONS)))
    assert statuses == ["200"] * CONNECTIONS


async def test_ready_answers_while_many_requests_wait(running: RunningSidecar) -> None:
    limits = httpx.Limits(max_connections=None)
    url = f"http://127.0.0.1:{running.http_port}"
    async with httpx.AsyncClient(base_url=url, timeout=WAIT_S, limits=limits) as client:

        async def ask(number: int) -> int:
            documents = [f"{number} {at} a ripe apple" for at in range(20)]
            body = {"query": "which fruit is red", "documents": documents}
            return (await client.post("/rerank", json=body)).status_code

        asking = asyncio.gather(*map(ask, range(64)))
        ready = 0
        while not asking.done():
            assert (await client.get("/.well-known/ready")).status_code == 204
            ready += 1
        assert set(await asking) == {200}
        lag = "rerank_sidecar_event_loop_lag_seconds_count"
        assert _metric(running, lag) > 0
    assert ready > 1


def test_a_caller_who_disconnects_frees_the_queue(running: RunningSidecar) -> None:
    before = _read(running)
    with socket.create_connection(("127.0.0.1", running.http_port)) as connection:
        connection.sendall(_post(LARGE))
        _until(lambda: _waiting(running) > 0 and _read(running) > before)
        seen = _read(running)
    _assert_freed(running, seen)


def test_a_caller_who_cancels_frees_the_queue(running: RunningSidecar) -> None:
    before = _read(running)
    documents = [pb.Document(text=text) for text in LARGE]
    message = pb.RerankRequest(query="which fruit is green", documents=documents)
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        call = RerankServiceStub(channel).Rerank.future(message)
        _until(lambda: _waiting(running) > 0 and _read(running) > before)
        seen = _read(running)
        call.cancel()
    _assert_freed(running, seen)


def _assert_freed(running: RunningSidecar, seen: float) -> None:
    """What waited is dropped: nothing waits, and most of the request is never read."""
    _until(lambda: _waiting(running) == 0)
    assert _read(running) - seen < COUNT / 2


def _waiting(running: RunningSidecar) -> float:
    return _metric(running, "rerank_sidecar_pending_sequences")


def _read(running: RunningSidecar) -> float:
    """How many sequences forward passes have read so far."""
    return _metric(running, "rerank_sidecar_batch_size_sum")


def _metric(running: RunningSidecar, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{running.http_port}/metrics", timeout=WAIT_S).text
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    assert found, name
    return sum(map(float, found))


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
