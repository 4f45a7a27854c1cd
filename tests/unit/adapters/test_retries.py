"""What is tried again, over gRPC by its channel and over HTTP by the client, and what is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from rerank_adapters import (
    AsyncRerankClient,
    Cancelled,
    InternalError,
    NotReady,
    Overloaded,
    RerankClient,
    Unreachable,
)
from rerank_sidecar import errors
from tests.unit.adapters.every_client import (
    GRPC,
    HTTP,
    WAIT_S,
    Ask,
    Sidecar,
    asking,
    failure,
    in_thread,
    listening,
)
from tests.unit.adapters.scripted import Scripted

NOT_READY = errors.NotReady("not ready")


@dataclass
class Unreliable:
    """A sidecar that fails as often as it is told, and a way to ask it."""

    reranker: Scripted
    sidecar: Sidecar
    ask: Ask


@pytest.fixture(params=(*GRPC, *HTTP))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def unreliable(kind: str) -> AsyncIterator[Unreliable]:
    reranker = Scripted()
    async with listening(reranker=reranker) as sidecar, asking(kind, sidecar) as ask:
        yield Unreliable(reranker, sidecar, ask)


async def test_a_server_that_is_not_ready_is_asked_again(unreliable: Unreliable) -> None:
    unreliable.reranker.errors = [NOT_READY, errors.ShuttingDown("draining"), NOT_READY]
    assert (await unreliable.ask("rerank", "q", ["a"])).results
    assert unreliable.reranker.asked == 4


async def test_requests_that_are_large_are_sent_again_too(unreliable: Unreliable) -> None:
    unreliable.reranker.errors = [NOT_READY]
    assert (await unreliable.ask("rerank", "q", ["a" * 100_000] * 20)).results
    assert unreliable.reranker.asked == 2


@pytest.mark.parametrize("attempts", [1, 2])
async def test_attempts_are_as_many_as_the_client_says(kind: str, attempts: int) -> None:
    reranker = Scripted(*[NOT_READY] * 5)
    async with (
        listening(reranker=reranker) as sidecar,
        asking(kind, sidecar, max_attempts=attempts) as ask,
    ):
        assert type(await failure(ask("rerank", "q", ["a"]))) is NotReady
    assert reranker.asked == attempts


async def test_what_hardly_ever_succeeds_is_no_longer_repeated(unreliable: Unreliable) -> None:
    unreliable.reranker.errors = [NOT_READY] * 99
    for _ in range(3):
        assert type(await failure(unreliable.ask("rerank", "q", ["a"]))) is NotReady
    assert unreliable.reranker.asked == 4 + 1 + 1


async def test_the_servers_faults_are_not_repeated(unreliable: Unreliable) -> None:
    unreliable.reranker.errors = [errors.InternalError("broken")]
    assert type(await failure(unreliable.ask("rerank", "q", ["a"]))) is InternalError
    assert unreliable.reranker.asked == 1


async def test_a_server_whose_remote_fails_is_asked_again(unreliable: Unreliable) -> None:
    gone = errors.RemoteUnavailable("gone", 0.01)
    unreliable.reranker.errors = [errors.RemoteFailed("broken"), gone]
    assert (await unreliable.ask("rerank", "q", ["a"])).results
    assert unreliable.reranker.asked == 3


async def test_an_overloaded_server_is_asked_again_when_it_says(unreliable: Unreliable) -> None:
    unreliable.reranker.errors = [errors.Overloaded("too much", 0.01)] * 2
    assert (await unreliable.ask("rerank", "q", ["a"])).results
    assert unreliable.reranker.asked == 3


async def test_a_hint_beyond_the_deadline_is_told_at_once(unreliable: Unreliable) -> None:
    unreliable.reranker.errors = [errors.Overloaded("too much", 60.0)]
    error = await failure(unreliable.ask("rerank", "q", ["a"]))
    assert type(error) is Overloaded
    assert error.retry_after_s == 60.0
    assert unreliable.reranker.asked == 1


async def test_calls_take_turns_between_addresses_and_leave_out_what_is_gone() -> None:
    rerankers = [Scripted(name=name) for name in ("a", "b", "gone")]
    async with AsyncExitStack() as stack:
        sidecars = [
            await stack.enter_async_context(listening(reranker=each)) for each in rerankers[:2]
        ]
        async with listening(reranker=rerankers[2]) as gone:
            pass
        targets = [each.target for each in (*sidecars, gone)]
        async with AsyncRerankClient(targets, 20.0) as client, asyncio.timeout(WAIT_S):
            while not all(each.asked for each in rerankers[:2]):
                await client.rerank("q", ["a"])
        with RerankClient(targets, 20.0) as blocking:
            for _ in range(10):
                assert (await in_thread(blocking.rerank, "q", ["a"])).results
    assert not rerankers[2].asked


async def test_a_server_that_comes_back_is_found(kind: str) -> None:
    async with AsyncExitStack() as stack:
        async with listening() as sidecar:
            ask = await stack.enter_async_context(asking(kind, sidecar, max_attempts=1))
            await ask("rerank", "q", ["a"])
        assert type(await failure(ask("rerank", "q", ["a"]))) is Unreachable
        grpc_port, http_port = (
            int(each.rpartition(":")[2]) for each in (sidecar.target, sidecar.url)
        )
        async with listening(grpc_port=grpc_port, http_port=http_port), asyncio.timeout(WAIT_S):
            while (await ask("rerank", "q", ["a"], on_error="passthrough")).passed_through:
                pass


async def test_a_server_that_dies_in_mid_call_is_not_waited_for(kind: str) -> None:
    reranker = Scripted()
    async with AsyncExitStack() as stack:
        async with listening(reranker=reranker) as sidecar:
            ask = await stack.enter_async_context(asking(kind, sidecar, max_attempts=1))
            call = asyncio.create_task(ask("rerank", "q", ["wait"], on_error="passthrough"))
            await asyncio.wait_for(reranker.began.wait(), WAIT_S)
        response = await asyncio.wait_for(call, WAIT_S)
        assert response.passed_through is not None
        assert [each.index for each in response.results] == [0]


async def test_cancelling_a_call_ends_its_work_on_the_server() -> None:
    reranker = Scripted()
    async with listening(reranker=reranker) as sidecar:
        for kind in ("grpc async", "http async"):
            reranker.began.clear()
            reranker.ended.clear()
            async with asking(kind, sidecar) as ask:
                call = asyncio.create_task(ask("rerank", "q", ["wait"]))
                await asyncio.wait_for(reranker.began.wait(), WAIT_S)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                await asyncio.wait_for(reranker.ended.wait(), WAIT_S)
                reranker.release.set()
                assert (await ask("rerank", "q", ["wait"])).results
                reranker.release.clear()


@pytest.mark.parametrize("on_error", ["raise", "passthrough"])
async def test_closing_a_client_ends_its_calls(kind: str, on_error: str) -> None:
    reranker = Scripted()
    async with listening(reranker=reranker) as sidecar:
        async with asking(kind, sidecar) as ask:
            call = asyncio.create_task(ask("rerank", "q", ["wait"], on_error=on_error))
            await asyncio.wait_for(reranker.began.wait(), WAIT_S)
        async with asyncio.timeout(WAIT_S):
            if on_error == "raise":
                assert type(await failure(call)) is Cancelled
            else:
                assert type((await call).passed_through) is Cancelled
