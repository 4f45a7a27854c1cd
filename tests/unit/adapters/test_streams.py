"""The streaming form over gRPC and in process: documents as they come, results as they come."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from rerank_adapters import (
    AsyncRerankClient,
    AsyncRerankStream,
    Cancelled,
    Document,
    InvalidField,
    LimitExceeded,
    RerankCallError,
    RerankClient,
    RerankResult,
    RerankStream,
    Unauthenticated,
    Unreachable,
)
from rerank_sidecar.in_process import AsyncInProcessRerankClient, InProcessRerankClient
from tests.unit.adapters.every_client import (
    DOCUMENTS,
    GRPC,
    IN_PROCESS,
    WAIT_S,
    Sidecar,
    client_of,
    in_thread,
    listening,
    listening_beside,
)
from tests.unit.adapters.scripted import Scripted

Client = RerankClient | AsyncRerankClient | InProcessRerankClient | AsyncInProcessRerankClient


class Broken(Exception):
    """What a caller's own iterable may raise."""


@pytest.fixture(params=(*GRPC, *IN_PROCESS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared() -> Iterator[Sidecar]:
    with listening_beside(max_documents=300) as sidecar:
        yield sidecar


@pytest.fixture
async def client(kind: str, shared: Sidecar) -> AsyncIterator[Client]:
    made = cast("Client", client_of(kind, shared))
    yield made
    if isinstance(made, AsyncRerankClient | AsyncInProcessRerankClient):
        await made.close()
    else:
        await in_thread(made.close)


async def streamed(
    client: Client, documents: Any, **options: Any
) -> tuple[list[RerankResult], RerankStream | AsyncRerankStream]:
    """Read a stream to its end."""
    if isinstance(client, AsyncRerankClient | AsyncInProcessRerankClient):
        async with client.rerank_stream("red fruit", documents, **options) as awaited:
            return [each async for each in awaited], awaited
    return await in_thread(_read, client, documents, options)


def _read(
    client: RerankClient | InProcessRerankClient, documents: Any, options: Any
) -> tuple[list[RerankResult], RerankStream]:
    with client.rerank_stream("red fruit", documents, **options) as stream:
        return list(stream), stream


def one_by_one(documents: Any) -> Iterator[Any]:
    yield from documents


async def asynchronously(documents: Any) -> AsyncIterator[Any]:
    for each in documents:
        await asyncio.sleep(0)
        yield each


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *itertools.product((*GRPC, *IN_PROCESS), (list, tuple, one_by_one)),
        *itertools.product(("grpc async", "in process async"), (asynchronously,)),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
async def test_a_stream_ends_with_the_answer_of_rerank(
    client: Client, given: Any, grouped: bool
) -> None:
    documents = [Document(text, f"id {at}") for at, text in enumerate(DOCUMENTS * 30)]
    groups = [documents[:50], *documents[50:]] if grouped else documents
    results, stream = await streamed(client, given(groups), top_n=2, return_documents=True)
    assert sorted(each.index for each in results) == list(range(90))
    assert [each.document for each in sorted(results, key=lambda each: each.index)] == documents
    if isinstance(client, AsyncRerankClient | AsyncInProcessRerankClient):
        whole = await client.rerank("red fruit", documents, top_n=2, return_documents=True)
    else:
        whole = await in_thread(
            client.rerank, "red fruit", documents, top_n=2, return_documents=True
        )
    assert stream.response.results == whole.results
    assert stream.response.usage.pairs == 90
    assert (stream.response.model, stream.response.score_kind) == ("lexical", "LEXICAL")


async def test_a_document_that_fails_alone_is_a_result(kind: str) -> None:
    async with listening(max_document_bytes=20) as sidecar:
        client = cast("Client", client_of(kind, sidecar))
        results, stream = await streamed(client, ["x" * 21, "red"])
        if isinstance(client, AsyncRerankClient | AsyncInProcessRerankClient):
            await client.close()
        else:
            await in_thread(client.close)
    assert {each.index: each.error is not None for each in results} == {0: True, 1: False}
    assert [each.index for each in stream.response.results] == [1, 0]


async def test_no_documents_have_an_empty_answer(client: Client) -> None:
    results, stream = await streamed(client, [])
    assert (results, stream.response.results) == ([], ())


async def test_a_refusal_is_told_while_documents_still_come(client: Client) -> None:
    for _ in range(20):
        with pytest.raises(InvalidField) as caught:
            await streamed(client, one_by_one(["a"] * 200), top_n=0)
        assert caught.value.field == "options.top_n"


async def test_more_than_the_server_takes_is_told(client: Client) -> None:
    with pytest.raises(LimitExceeded) as caught:
        await streamed(client, ["a"] * 301)
    assert caught.value.field == "documents"


@pytest.mark.parametrize(
    "documents", ["one string", ["a", 1], [["a"], [None]], ["half of a pair: \ud83d"]], ids=str
)
async def test_what_is_no_document_ends_the_call(client: Client, documents: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^documents"):
        await streamed(client, documents)


@pytest.mark.parametrize(
    "options", [{"topn": 3}, {"normalization": "minmax"}, {"timeout_s": float("inf")}], ids=str
)
async def test_mistakes_are_found_before_anything_is_sent(
    client: Client, options: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError)):
        client.rerank_stream("red", [], **options)


async def test_what_the_callers_iterable_raises_is_raised(client: Client) -> None:
    def documents() -> Iterator[str]:
        yield "a"
        raise Broken

    with pytest.raises(Broken):
        await streamed(client, documents())


async def test_the_answer_is_not_there_before_the_end(client: Client) -> None:
    stream = client.rerank_stream("red", DOCUMENTS)
    with pytest.raises(RuntimeError, match="not been read to its end"):
        _ = stream.response
    if isinstance(stream, AsyncRerankStream):
        await stream.close()
    else:
        await in_thread(stream.close)


@pytest.mark.parametrize("blocking", [True, False])
async def test_results_come_before_all_documents_have(shared: Sidecar, blocking: bool) -> None:
    if blocking:
        assert await in_thread(_in_turns, RerankClient(shared.target)) == list(range(5))
        return
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def documents() -> AsyncIterator[str]:
        for at in range(5):
            yield "red"
            assert await asyncio.wait_for(seen.get(), WAIT_S) == at

    async with AsyncRerankClient(shared.target) as client:
        async for result in client.rerank_stream("red", documents()):
            seen.put_nowait(result.index)


def _in_turns(client: RerankClient) -> list[int]:
    seen = threading.Semaphore(0)

    def documents() -> Iterator[str]:
        for _ in range(5):
            yield "red"
            assert seen.acquire(timeout=WAIT_S)

    order = []
    with client:
        for result in client.rerank_stream("red", documents()):
            order.append(result.index)
            seen.release()
    return order


async def test_leaving_a_stream_ends_its_work() -> None:
    reranker = Scripted()
    async with (
        listening(reranker=reranker) as sidecar,
        AsyncRerankClient(sidecar.target) as client,
    ):
        async with client.rerank_stream("q", ["a", "wait"]) as stream:
            assert (await anext(stream)).index == 0
        await asyncio.wait_for(reranker.ended.wait(), WAIT_S)
        reranker.ended.clear()
        with RerankClient(sidecar.target) as blocking:
            await in_thread(_leave, blocking)
            await asyncio.wait_for(reranker.ended.wait(), WAIT_S)


def _leave(client: RerankClient) -> None:
    with client.rerank_stream("q", ["a", "wait"]) as stream:
        assert next(stream).index == 0


async def test_leaving_a_stream_lets_go_of_what_still_comes(shared: Sidecar) -> None:
    let_go = asyncio.Event()

    async def documents() -> AsyncIterator[str]:
        try:
            yield "red"
            await asyncio.Event().wait()
        finally:
            let_go.set()

    async with (
        AsyncRerankClient(shared.target) as client,
        client.rerank_stream("red", documents()) as stream,
    ):
        await anext(stream)
    await asyncio.wait_for(let_go.wait(), WAIT_S)


async def test_cancelling_a_task_cancels_its_stream() -> None:
    reranker = Scripted()
    async with (
        listening(reranker=reranker) as sidecar,
        AsyncRerankClient(sidecar.target) as client,
    ):
        reading = asyncio.create_task(streamed(client, ["wait"]))
        await asyncio.wait_for(reranker.began.wait(), WAIT_S)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(reranker.ended.wait(), WAIT_S)


@pytest.mark.parametrize("kind", GRPC)
async def test_closing_a_client_ends_its_streams_with_an_error(kind: str) -> None:
    reranker = Scripted()
    async with listening(reranker=reranker) as sidecar:
        client = cast("Client", client_of(kind, sidecar))
        reading = asyncio.create_task(streamed(client, ["wait"]))
        await asyncio.wait_for(reranker.began.wait(), WAIT_S)
        if isinstance(client, AsyncRerankClient | AsyncInProcessRerankClient):
            await client.close()
        else:
            await in_thread(client.close)
        with pytest.raises(Cancelled):
            await reading


@pytest.mark.parametrize("kind", GRPC)
async def test_a_token_that_is_wrong_and_a_server_that_is_gone_are_told(kind: str) -> None:
    kinds: list[type[RerankCallError]] = []
    async with listening(auth_tokens="right") as sidecar:
        client = cast("Client", client_of(kind, sidecar, token="wrong"))  # noqa: S106
        with pytest.raises(RerankCallError) as caught:
            await streamed(client, one_by_one(["a"] * 100))
        kinds.append(type(caught.value))
    with pytest.raises(RerankCallError) as caught:
        await streamed(client, ["a"])
    kinds.append(type(caught.value))
    if isinstance(client, AsyncRerankClient | AsyncInProcessRerankClient):
        await client.close()
    else:
        await in_thread(client.close)
    assert kinds == [Unauthenticated, Unreachable]
