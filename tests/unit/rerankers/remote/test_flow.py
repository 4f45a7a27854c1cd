"""How one request's documents go to a server in several calls, and what is left when it ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from aiohttp import web

from rerank_sidecar.errors import DeadlineExceeded, Overloaded, RemoteFailed
from rerank_sidecar.rerankers.base import IndexedDocuments, Meter, Outcome, ScoreOptions
from rerank_sidecar.types import Document, Score
from tests.unit.rerankers.remote.stand_in import (
    WAIT_S,
    like_cohere,
    opened,
    standing_in,
)
from tests.unit.rerankers.toy_models import arriving, outcomes_of


def spelled(count: int) -> list[str]:
    return [str(number / 1024) for number in range(count)]


def scores(texts: list[str]) -> list[Score]:
    return [Score(float(text)) for text in texts]


class Held:
    """Answers as Cohere does, but only when told."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.came = 0
        self.cancelled = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.came += 1
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await like_cohere(request)

    async def until(self, came: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.came < came:  # noqa: ASYNC110 - requests come from another program
                await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("documents", "most", "sizes"),
    [(5, 5, [5]), (6, 5, [3, 3]), (11, 5, [3, 4, 4]), (3, 1, [1, 1, 1])],
)
async def test_documents_go_in_calls_of_about_the_same_size(
    documents: int, most: int, sizes: list[int]
) -> None:
    texts, meter = spelled(documents), Meter()
    async with (
        standing_in(like_cohere) as server,
        opened(f"cohere:{server.url}#m", max_documents_per_call=most) as reranker,
    ):
        how = ScoreOptions(meter=meter)
        assert await outcomes_of(reranker, "q", texts, options=how) == scores(texts)
    assert sorted(len(each.body["documents"]) for each in server.asked) == sizes
    assert meter.remote_calls == len(sizes)
    assert meter.pairs == documents


async def test_a_call_carries_no_more_than_so_many_bytes() -> None:
    texts = ["0.5" + "0" * 40, "0.25" + "0" * 40, "0.125"]
    async with (
        standing_in(like_cohere) as server,
        opened(f"cohere:{server.url}#m", max_bytes_per_call=45) as reranker,
    ):
        assert await outcomes_of(reranker, "q", texts) == scores(texts)
    assert sorted(len(each.body["documents"]) for each in server.asked) == [1, 1, 1]


async def test_what_is_not_sent_does_not_count() -> None:
    texts = ["0.5" + "0" * 1000] * 3
    async with (
        standing_in(like_cohere) as server,
        opened(f"cohere:{server.url}#m", max_bytes_per_call=45, max_characters=10) as reranker,
    ):
        scored = await outcomes_of(reranker, "q", texts)
    assert scored == [Score(0.5, truncated=True)] * 3
    assert len(server.asked) == 1


async def test_no_more_calls_at_once_than_are_allowed() -> None:
    held, texts = Held(), spelled(12)
    async with standing_in(held) as server:
        options = {"max_documents_per_call": 1, "max_concurrency": 3}
        async with opened(f"cohere:{server.url}#m", **options) as reranker:
            one = asyncio.create_task(outcomes_of(reranker, "q", texts))
            other = asyncio.create_task(outcomes_of(reranker, "q", texts))
            await held.until(3)
            held.free.set()
            assert await one == await other == scores(texts)
    assert len(server.asked) == 24
    assert server.most == 3


async def test_a_small_request_does_not_wait_for_all_of_a_large_one() -> None:
    held = Held()
    async with standing_in(held) as server:
        options = {"max_documents_per_call": 1, "max_concurrency": 2}
        async with opened(f"cohere:{server.url}#m", **options) as reranker:
            large = asyncio.create_task(outcomes_of(reranker, "large", spelled(40)))
            await held.until(2)
            small = asyncio.create_task(outcomes_of(reranker, "small", ["0.5"]))
            await asyncio.sleep(0)
            held.free.set()
            assert await small == [Score(0.5)]
            await large
    place = [each.body["query"] for each in server.asked].index("small")
    assert place < 8


async def test_documents_are_sent_as_they_arrive() -> None:
    second = asyncio.Event()

    async def documents() -> AsyncIterator[IndexedDocuments]:
        yield [(0, Document("0.5"))]
        async with asyncio.timeout(WAIT_S):
            await second.wait()
        yield [(1, Document("0.25"))]

    async with standing_in(like_cohere) as server, opened(f"cohere:{server.url}#m") as reranker:
        found: list[tuple[int, Outcome]] = []
        async with aclosing(reranker.score("q", documents(), ScoreOptions())) as outcomes:
            async for outcome in outcomes:
                found.append(outcome)
                second.set()
    assert found == [(0, Score(0.5)), (1, Score(0.25))]


async def test_no_documents_are_no_call() -> None:
    async with standing_in(like_cohere) as server, opened(f"cohere:{server.url}#m") as reranker:
        assert await outcomes_of(reranker, "q") == []
        assert await outcomes_of(reranker, "q", []) == []
    assert not server.asked


async def test_a_caller_who_leaves_leaves_nothing_running() -> None:
    held, closed = Held(), asyncio.Event()

    async def documents() -> AsyncIterator[IndexedDocuments]:
        try:
            yield [(number, Document("0.5")) for number in range(3)]
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with (
        standing_in(held) as server,
        opened(f"cohere:{server.url}#m", max_documents_per_call=1) as reranker,
    ):

        async def ask() -> None:
            async with aclosing(reranker.score("q", documents(), ScoreOptions())) as outcomes:
                async for _ in outcomes:
                    pass

        before = asyncio.all_tasks()
        asking = asyncio.create_task(ask())
        await held.until(3)
        asking.cancel()
        await asyncio.wait([asking])
        assert closed.is_set()
        async with asyncio.timeout(WAIT_S):
            while held.cancelled < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        ours = {each for each in asyncio.all_tasks() - before if "RequestHandler" not in str(each)}
        assert not ours
        held.free.set()
        assert await outcomes_of(reranker, "q", ["0.5"]) == [Score(0.5)]


async def test_whenever_a_caller_leaves_the_connection_is_free_again() -> None:
    async with (
        standing_in(like_cohere) as server,
        opened(f"cohere:{server.url}#m", max_concurrency=1, timeout_s=WAIT_S) as reranker,
    ):
        for steps in range(1000):
            asking = asyncio.create_task(outcomes_of(reranker, "q", ["0.5"]))
            for _ in range(steps):
                await asyncio.sleep(0)
            is_over = asking.done()
            asking.cancel()
            await asyncio.wait([asking])
            assert await outcomes_of(reranker, "q", ["0.25"]) == [Score(0.25)]
            if is_over:
                break
        else:
            raise AssertionError


async def test_one_failed_call_ends_the_others() -> None:
    held = Held()

    async def first_fails(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        if body["documents"] == ["0.0"]:
            await held.until(2)
            return web.json_response({}, status=500)
        return await held(request)

    async with (
        standing_in(first_fails) as server,
        opened(f"cohere:{server.url}#m", max_documents_per_call=1) as reranker,
    ):
        with pytest.raises(RemoteFailed, match="500"):
            await outcomes_of(reranker, "q", spelled(3))
        async with asyncio.timeout(WAIT_S):
            while held.cancelled < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_who_would_wait_beyond_the_deadline_is_refused_at_once() -> None:
    held = Held()

    async def slowly(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return await like_cohere(request)

    async with (
        standing_in(held, slowly) as server,
        opened(f"cohere:{server.url}#m", max_concurrency=1) as reranker,
    ):
        await outcomes_of(reranker, "q", ["0.5"])
        waiting = asyncio.create_task(outcomes_of(reranker, "q", ["0.5"]))
        await held.until(1)
        short = ScoreOptions(deadline=time.monotonic() + 0.4)
        with pytest.raises(Overloaded) as refused:
            await outcomes_of(reranker, "q", ["0.5"], options=short)
        assert refused.value.retry_after_s >= 0.1
        assert len(server.asked) == 2
        held.free.set()
        assert await waiting == [Score(0.5)]


async def test_who_waits_in_vain_for_a_turn_is_told_at_the_deadline() -> None:
    held = Held()
    async with (
        standing_in(held) as server,
        opened(f"cohere:{server.url}#m", max_concurrency=1) as reranker,
    ):
        waiting = asyncio.create_task(outcomes_of(reranker, "q", ["0.5"]))
        await held.until(1)
        short = ScoreOptions(deadline=time.monotonic() + 0.2)
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, "q", ["0.5"], options=short)
        assert len(server.asked) == 1
        held.free.set()
        assert await waiting == [Score(0.5)]
        assert await outcomes_of(reranker, "q", ["0.5"]) == [Score(0.5)]


async def test_results_meet_their_documents_whatever_order_calls_end_in() -> None:
    async def later_first(request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        await asyncio.sleep(0.05 * (1 - float(body["documents"][0])))
        return await like_cohere(request)

    texts = ["0.0", "0.25", "0.5", "0.75"]
    async with (
        standing_in(later_first) as server,
        opened(f"cohere:{server.url}#m", max_documents_per_call=1) as reranker,
    ):
        found = [index async for index, _ in reranker.score("q", arriving(texts), ScoreOptions())]
        assert sorted(found) == [0, 1, 2, 3]
        assert await outcomes_of(reranker, "q", texts) == scores(texts)
