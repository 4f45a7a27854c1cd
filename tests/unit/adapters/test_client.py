"""Both clients against a real server, over the reranker that needs no model."""

import asyncio
import pickle
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from rerank_adapters import (
    AsyncRerankClient,
    Document,
    RerankCallError,
    RerankClient,
    RerankResponse,
    Window,
)
from rerank_adapters.messages import parse_response
from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import Settings
from rerank_sidecar.v1 import rerank_pb2 as pb

DOCUMENTS = ("green vegetable", "red fruit", "a red vegetable")

Ask = Callable[..., Awaitable[Any]]
"""A method of a client by its name, with the same arguments; both clients can be asked."""


@asynccontextmanager
async def listening(*, is_ready: bool = True, **settings: object) -> AsyncIterator[str]:
    chosen = Settings.model_validate({"grpc_port": 0, **settings})
    engine = Engine(chosen)
    if is_ready:
        lexical = LexicalReranker()
        engine.open(Registry([lexical], any_script=lexical))
    server = GrpcServer(engine, chosen)
    port = await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def asking(kind: str, target: str, timeout_s: float = 20.0) -> AsyncIterator[Ask]:
    if kind == "async":
        async with AsyncRerankClient(target, timeout_s) as client:
            yield lambda method, *args, **options: getattr(client, method)(*args, **options)
    else:
        with RerankClient(target, timeout_s) as blocking:
            yield lambda method, *args, **options: asyncio.to_thread(
                getattr(blocking, method), *args, **options
            )


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def ask(kind: str) -> AsyncIterator[Ask]:
    async with listening() as target, asking(kind, target) as asked:
        yield asked


async def failure(call: Awaitable[Any]) -> RerankCallError:
    with pytest.raises(RerankCallError) as caught:
        await call
    return caught.value


async def test_results_come_best_first(ask: Ask) -> None:
    response: RerankResponse = await ask("rerank", "red fruit", DOCUMENTS)
    assert [result.index for result in response.results] == [1, 2, 0]
    scores = [result.score for result in response.results]
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert response.results[0].document is None
    assert (response.model, response.score_kind) == ("lexical", "LEXICAL")
    assert (response.normalization, response.query_truncated) == ("none", False)
    assert response.usage.pairs == 3
    assert response.timing.total_us > 0


async def test_options_and_ids_travel(ask: Ask) -> None:
    documents = [Document(text, id=f"id {number}") for number, text in enumerate(DOCUMENTS)]
    response: RerankResponse = await ask(
        "rerank",
        "red fruit",
        iter(documents),
        model="lexical",
        top_n=1,
        return_documents=True,
        score_threshold=0.1,
        max_tokens_per_document=50,
        truncation_side="left",
        long_document_policy="truncate",
        priority=3,
        normalization="unit",
        timeout_s=20.0,
    )
    (best,) = response.results
    assert best.id == "id 1"
    assert best.document == documents[1]
    assert best.score is not None
    assert 0.0 < best.score < 1.0
    assert response.normalization == "unit"


async def test_unset_options_mean_the_defaults(ask: Ask) -> None:
    plain: RerankResponse = await ask("rerank", "red", DOCUMENTS)
    unset: RerankResponse = await ask(
        "rerank", "red", DOCUMENTS, model=None, top_n=None, normalization=None
    )
    assert unset.results == plain.results


async def test_models_are_listed(ask: Ask) -> None:
    (model,) = await ask("models")
    assert (model.name, model.family, model.score_kind) == ("lexical", "lexical", "LEXICAL")
    assert (model.is_default, model.max_tokens) == (True, None)
    assert model.default_long_document_policy in {"chunk", "truncate"}


async def test_a_document_that_fails_alone_is_told_apart(kind: str) -> None:
    async with listening(max_document_bytes=20) as target, asking(kind, target) as ask:
        response: RerankResponse = await ask("rerank", "red", ["x" * 21, "red"])
    scored, failed = response.results
    assert (scored.index, scored.error) == (1, None)
    assert (failed.index, failed.score) == (0, None)
    assert failed.error is not None
    assert failed.error.reason == "LIMIT_EXCEEDED"


async def test_a_refusal_names_reason_and_field(ask: Ask) -> None:
    error = await failure(ask("rerank", "red", DOCUMENTS, top_n=0))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert error.field == "options.top_n"
    assert error.retry_after_s is None
    assert str(error) == f"INVALID_FIELD: {error.message}"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.field) == (str(error), error.field)


async def test_a_server_that_is_not_ready_says_when_to_come_back(kind: str) -> None:
    async with listening(is_ready=False) as target, asking(kind, target) as ask:
        errors = [await failure(ask("rerank", "red", DOCUMENTS)), await failure(ask("models"))]
    for error in errors:
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
        assert error.retry_after_s is not None
        assert error.retry_after_s > 0


async def test_a_server_that_is_not_there_gives_no_reason(kind: str) -> None:
    async with listening() as target:
        pass
    async with asking(kind, target) as ask:
        error = await failure(ask("rerank", "red", DOCUMENTS))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert (error.reason, error.field, error.retry_after_s) == (None, None, None)


@pytest.mark.parametrize(("default_s", "own_s"), [(0.2, None), (20.0, 0.2)])
async def test_a_call_ends_at_its_deadline(
    kind: str, default_s: float, own_s: float | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asking(kind, f"127.0.0.1:{silent.getsockname()[1]}", default_s) as ask:
            error = await failure(ask("rerank", "red", DOCUMENTS, timeout_s=own_s))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("documents", "options", "kind_of_error"),
    [
        ("one string", {}, TypeError),
        (DOCUMENTS, {"topn": 3}, TypeError),
        (DOCUMENTS, {"top_n": "3"}, TypeError),
        (DOCUMENTS, {"normalization": "minmax"}, ValueError),
        (DOCUMENTS, {"truncation_side": "middle"}, ValueError),
    ],
)
async def test_mistakes_are_found_before_anything_is_sent(
    ask: Ask, documents: Any, options: dict[str, Any], kind_of_error: type[Exception]
) -> None:
    with pytest.raises(kind_of_error):
        await ask("rerank", "red", documents, **options)


async def test_large_requests_and_answers_pass(ask: Ask) -> None:
    documents = ["red " * 25_000] * 60
    response: RerankResponse = await ask("rerank", "red", documents, return_documents=True)
    assert {result.document for result in response.results} == {Document(documents[0])}


async def test_one_async_client_serves_many_calls_at_once() -> None:
    async with listening() as target, AsyncRerankClient(target) as client:
        calls = (client.rerank("red", ["red"] * count) for count in range(1, 50))
        counts = [len(response.results) for response in await asyncio.gather(*calls)]
    assert counts == list(range(1, 50))


def test_an_async_client_can_be_made_before_its_loop_runs() -> None:
    client = AsyncRerankClient("localhost:1")

    async def use() -> RerankCallError:
        async with client:
            return await failure(client.models())

    assert asyncio.run(use()).code is grpc.StatusCode.UNAVAILABLE


def test_windows_are_offsets_into_the_text() -> None:
    score = pb.Score(
        value=0.5, best_window=pb.Window(start=2, end=5), truncated=True, window_count=3
    )
    response = parse_response(pb.RerankResponse(results=[pb.RerankResult(score=score)]))
    (result,) = response.results
    assert result.best_window == Window(2, 5)
    assert (result.truncated, result.window_count) == (True, 3)


def test_values_from_a_newer_server_keep_their_number() -> None:
    summary = pb.RerankSummary(score_kind=77)  # type: ignore[arg-type]
    assert parse_response(pb.RerankResponse(summary=summary)).score_kind == "77"
