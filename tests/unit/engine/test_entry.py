"""A request at the door: where its estimate runs, and that its ticket is always given back."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest

from rerank_sidecar.engine.admission import Admission
from rerank_sidecar.engine.entry import Entry
from rerank_sidecar.errors import LimitExceeded
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, ScoreOptions
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Document, RerankOptions
from tests.unit.engine.toys import Model, ask, engine_over

LARGE = [Document("x" * 70_000)]


class Slow(Model):
    """Notes where it estimates, and goes on there once `may_go_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []
        self.may_go_on = threading.Event()

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        self.threads.append(threading.current_thread())
        if documents == LARGE:
            assert self.may_go_on.wait(10)
        return super().estimate_tokens(query, documents, options)


@pytest.mark.parametrize(("documents", "is_inline"), [([Document("x")], True), (LARGE, False)])
async def test_many_characters_are_estimated_in_a_thread(
    documents: list[Document], is_inline: bool
) -> None:
    model = Slow()
    model.may_go_on.set()
    entry = Entry(
        Admission(Settings()), model, "query", ScoreOptions(), is_chunk=False, max_tokens=10_000
    )
    await entry.admit(documents, 1)
    assert (model.threads == [threading.current_thread()]) is is_inline


async def test_who_has_left_gets_no_ticket() -> None:
    model, admission = Slow(), Admission(Settings())
    entry = Entry(admission, model, "query", ScoreOptions(), is_chunk=False, max_tokens=10_000)
    admitting = asyncio.create_task(entry.admit(LARGE, 1))
    await asyncio.sleep(0)
    entry.leave()
    model.may_go_on.set()
    await admitting
    assert admission.work_s == 0


async def test_a_request_of_too_many_tokens_is_refused_whatever_else_is_off() -> None:
    for admission in (True, False):
        engine = engine_over(Model(), max_request_tokens=29, admission=admission)
        assert (await engine.rerank(ask("1", "2"))).results
        with pytest.raises(LimitExceeded, match="max_request_tokens, which is 29") as raised:
            await engine.rerank(ask("3", "4", "5"))
        assert raised.value.field == "documents"
        assert raised.value.message.startswith("documents: about 30 tokens")


async def test_what_the_score_cache_knows_does_not_count() -> None:
    engine = engine_over(Model(), max_request_tokens=29)
    assert (await engine.rerank(ask("1", "2"))).results
    assert len((await engine.rerank(ask("1", "2", "3"))).results) == 3


async def test_the_tokens_of_a_stream_add_up() -> None:
    async def documents() -> AsyncIterator[Sequence[Document]]:
        for text in ("1", "2", "3"):
            yield [Document(text)]

    engine = engine_over(Model(), max_request_tokens=29)
    events = engine.stream("query", RerankOptions(), documents())
    with pytest.raises(LimitExceeded, match="about 30 tokens"):
        [event async for event in events]


class Stubborn(Model):
    """Does not end at once when it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.ended = asyncio.Event()

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        async for outcome in super().score(query, documents, options):
            try:
                self.begun.set()
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
                await self.ended.wait()
            yield outcome


async def test_a_request_cancelled_twice_gives_its_ticket_back() -> None:
    model = Stubborn()
    engine = engine_over(model, max_queue_tokens=10)
    running = asyncio.create_task(engine.rerank(ask("a")))
    await model.begun.wait()
    running.cancel()
    await model.cancelled.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    # Were its ticket still there, the queue would be full for the next one.
    model.ended.set()
    following = asyncio.create_task(engine.rerank(ask("bb", options=RerankOptions(timeout_s=30))))
    model.begun.clear()
    await asyncio.wait_for(model.begun.wait(), 10)
    following.cancel()
    await asyncio.wait([following])
