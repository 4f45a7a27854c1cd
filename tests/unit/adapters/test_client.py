"""Every client against a real server, over the reranker that needs no model."""

import asyncio
import inspect
import pickle
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from rerank_adapters import (
    AsyncHttpRerankClient,
    AsyncRerankClient,
    DeadlineExceeded,
    Document,
    HttpRerankClient,
    InvalidField,
    NotReady,
    RerankClient,
    RerankResponse,
    Unreachable,
    Window,
)
from rerank_adapters.candidates import AsyncSidecar
from rerank_adapters.candidates import Sidecar as BlockingSidecar
from rerank_adapters.transport.wire import parse_response
from rerank_sidecar.in_process import AsyncInProcessRerankClient, InProcessRerankClient
from rerank_sidecar.settings import Settings
from rerank_sidecar.v1 import rerank_pb2 as pb
from tests.unit.adapters.every_client import (
    DOCUMENTS,
    GRPC,
    HTTP,
    IN_PROCESS,
    Ask,
    Sidecar,
    asking,
    client_of,
    failure,
    listening,
    listening_beside,
)

REMOTE = (*GRPC, *HTTP)
EVERY = (*REMOTE, *IN_PROCESS)


@pytest.fixture(params=EVERY)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared() -> Iterator[Sidecar]:
    with listening_beside() as sidecar:
        yield sidecar


@pytest.fixture
async def ask(kind: str, shared: Sidecar) -> AsyncIterator[Ask]:
    async with asking(kind, shared) as asked:
        yield asked


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
    assert response.passed_through is None


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
        on_error="raise",
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
    assert (model.is_default, model.max_tokens, model.is_loaded) == (True, None, True)
    assert model.default_long_document_policy in {"chunk", "truncate"}


async def test_no_documents_have_an_empty_answer(ask: Ask) -> None:
    response: RerankResponse = await ask("rerank", "red", [])
    assert response.results == ()
    assert response.model == "lexical"


async def test_a_document_that_fails_alone_is_told_apart(kind: str) -> None:
    async with listening(max_document_bytes=20) as sidecar, asking(kind, sidecar) as ask:
        response: RerankResponse = await ask("rerank", "red", ["x" * 21, "red"])
    scored, failed = response.results
    assert (scored.index, scored.error) == (1, None)
    assert (failed.index, failed.score) == (0, None)
    assert failed.error is not None
    assert failed.error.reason == "LIMIT_EXCEEDED"


async def test_a_refusal_names_reason_and_field(ask: Ask) -> None:
    error = await failure(ask("rerank", "red", DOCUMENTS, top_n=0))
    assert type(error) is InvalidField
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert error.field == "options.top_n"
    assert error.retry_after_s is None
    assert str(error) == f"INVALID_FIELD: {error.message}"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(copy), str(copy), copy.field) == (InvalidField, str(error), error.field)


@pytest.mark.parametrize("kind", REMOTE)
async def test_a_server_that_is_not_ready_says_when_to_come_back(kind: str) -> None:
    async with listening(is_ready=False) as sidecar, asking(kind, sidecar) as ask:
        errors = [await failure(ask("rerank", "red", DOCUMENTS)), await failure(ask("models"))]
    for error in errors:
        assert type(error) is NotReady
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
        assert error.retry_after_s is not None
        assert error.retry_after_s > 0


@pytest.mark.parametrize("kind", REMOTE)
async def test_a_server_that_is_not_there_gives_no_reason(kind: str) -> None:
    async with listening() as gone:
        pass
    async with asking(kind, gone) as ask:
        error = await failure(ask("rerank", "red", DOCUMENTS))
    assert type(error) is Unreachable
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert (error.reason, error.field, error.retry_after_s) == (None, None, None)


@pytest.mark.parametrize("kind", REMOTE)
@pytest.mark.parametrize(("default_s", "own_s"), [(0.2, None), (20.0, 0.2), (20.0, 0.0)])
async def test_a_call_ends_at_its_deadline(
    kind: str, shared: Sidecar, default_s: float, own_s: float | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        nobody = replace(shared, target=address, url=f"http://{address}")
        async with asking(kind, nobody, default_s) as ask:
            error = await failure(ask("rerank", "red", DOCUMENTS, timeout_s=own_s))
    assert type(error) is DeadlineExceeded
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("documents", "options", "kind_of_error"),
    [
        ("one string", {}, TypeError),
        ([1], {}, TypeError),
        ([Document(1)], {}, TypeError),  # type: ignore[arg-type]
        ([Document("a", 1)], {}, TypeError),  # type: ignore[arg-type]
        (["half of a pair: \ud83d"], {}, ValueError),
        (DOCUMENTS, {"topn": 3}, TypeError),
        (DOCUMENTS, {"top_n": "3"}, TypeError),
        (DOCUMENTS, {"normalization": "minmax"}, ValueError),
        (DOCUMENTS, {"truncation_side": "middle"}, ValueError),
        (DOCUMENTS, {"on_error": "ignore"}, ValueError),
        (DOCUMENTS, {"timeout_s": float("nan")}, ValueError),
    ],
)
async def test_mistakes_are_found_before_anything_is_sent(
    ask: Ask, documents: Any, options: dict[str, Any], kind_of_error: type[Exception]
) -> None:
    with pytest.raises(kind_of_error) as caught:
        await ask("rerank", "red", documents, **options)
    assert "half of a pair: " not in str(caught.value)


async def test_an_unknown_value_is_told_the_known_ones(ask: Ask) -> None:
    with pytest.raises(ValueError, match=r"^normalization: .* none, unit, logit$"):
        await ask("rerank", "red", DOCUMENTS, normalization="minmax")
    with pytest.raises(TypeError, match="topn"):
        await ask("rerank", "red", DOCUMENTS, topn=3)


@pytest.mark.parametrize("query", [None, b"red", "half of a pair: \ud83d"])
async def test_a_query_is_a_text(ask: Ask, query: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^query") as caught:
        await ask("rerank", query, DOCUMENTS)
    assert "half of a pair: " not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 0.0},
        {"timeout_s": float("inf")},
        {"max_attempts": 0},
        {"max_attempts": 6},
        {"max_documents_per_call": 0},
        {"on_error": "ignore"},
    ],
    ids=str,
)
def test_options_out_of_range_are_named(
    kind: str, shared: Sidecar, options: dict[str, Any]
) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: "):
        client_of(kind, shared, **options)
    with pytest.raises(TypeError, match="retries"):
        client_of(kind, shared, retries=3)


async def test_a_client_that_is_closed_says_so(kind: str, shared: Sidecar) -> None:
    async with asking(kind, shared) as ask:
        await ask("rerank", "red", DOCUMENTS)
    with pytest.raises(RuntimeError, match="closed"):
        await ask("rerank", "red", DOCUMENTS)


@pytest.mark.parametrize("kind", REMOTE)
async def test_large_requests_and_answers_pass(kind: str, shared: Sidecar) -> None:
    documents = ["red " * 25_000] * 60
    async with asking(kind, shared) as ask:
        response: RerankResponse = await ask("rerank", "red", documents, return_documents=True)
    assert {result.document for result in response.results} == {Document(documents[0])}


async def test_what_is_too_much_for_one_call_is_split(kind: str) -> None:
    documents = [Document(f"red {'fruit ' * (at % 3)}", str(at)) for at in range(20)]
    async with listening(max_documents=6) as sidecar:
        async with asking(
            "in process", replace(sidecar, settings=Settings(model="lexical"))
        ) as alone:
            whole = await alone("rerank", "red fruit", documents, top_n=15)
        async with asking(kind, sidecar) as ask:
            split = await ask("rerank", "red fruit", documents, top_n=15)
    assert split.results == whole.results
    assert split.usage.pairs == whole.usage.pairs == 20


async def test_one_client_serves_many_calls_at_once(ask: Ask) -> None:
    calls = (ask("rerank", "red", ["red"] * count) for count in range(1, 50))
    counts = [len(response.results) for response in await asyncio.gather(*calls)]
    assert counts == list(range(1, 50))


async def test_every_client_gives_the_same(kind: str) -> None:
    documents = [Document("x" * 60, "a"), "red fruit", "a red vegetable", Document("red", "b")]
    async with listening(max_document_bytes=50) as sidecar:
        async with asking("grpc", sidecar) as grpc_client:
            expected = await grpc_client("rerank", "red", documents, return_documents=True)
            models = await grpc_client("models")
        async with asking(kind, sidecar) as ask:
            response = await ask("rerank", "red", documents, return_documents=True)
            assert await ask("models") == models
    assert response.results == expected.results
    assert (response.model, response.model_version) == (expected.model, expected.model_version)
    assert (response.score_kind, response.usage) == (expected.score_kind, expected.usage)


def test_every_client_is_what_the_adapters_need() -> None:
    blocking: list[BlockingSidecar] = [RerankClient(), HttpRerankClient(), InProcessRerankClient()]
    awaited: list[AsyncSidecar] = [
        AsyncRerankClient(),
        AsyncHttpRerankClient(),
        AsyncInProcessRerankClient(),
    ]
    for rerank in (*(each.rerank for each in blocking), *(each.rerank for each in awaited)):
        parameters = inspect.signature(rerank).parameters
        assert {"query", "documents", "on_error", "options"} <= parameters.keys()


def test_an_async_client_can_be_made_before_its_loop_runs() -> None:
    client = AsyncRerankClient("localhost:1", max_attempts=1)

    async def use() -> Exception:
        return await failure(client.models())

    assert [type(asyncio.run(use())) for _ in range(2)] == [Unreachable] * 2


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
