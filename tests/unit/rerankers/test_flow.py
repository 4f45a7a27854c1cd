"""How documents travel: isolation of failures, streaming, deadlines, cancellation, metering."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import BackendFailed, DeadlineExceeded, InvalidField, ShuttingDown
from rerank_sidecar.rerankers.base import IndexedDocuments, Reranker, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.cross_encoder import CrossEncoderConfig, CrossEncoderReranker
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, LongDocumentPolicy, Score
from tests.unit.rerankers.toy_models import (
    ToyBackend,
    ToyEncoder,
    arriving,
    bert_tokenizer,
    outcomes_of,
    running,
)

PATIENCE_S = 30.0
LIMITS = WindowLimits(32, overlap_tokens=4, max_windows=4)
INFO = RerankerInfo(
    name="toy",
    version="1",
    family="toy",
    score_kind=ScoreKind.MAXSIM,
    engine="toy",
    source="tests",
    default_long_document_policy=LongDocumentPolicy.CHUNK,
)
SEA = bert_tokenizer().token_to_id("sea")


class FirstVector(ToyEncoder):
    """An encoder that also serves a cross-encoder: its logit is the first number it gives."""

    def __init__(self, family: str, bad_token: int | None = None) -> None:
        super().__init__(bad_token)
        self._family = family

    def compute(self, sequence: TokenSequence) -> npt.NDArray[np.float32]:
        hidden = super().compute(sequence)
        return hidden if self._family == "late_interaction" else hidden[0, :1]


class Gated(FirstVector):
    """Says when a pass has begun and holds it until it may go on."""

    def __init__(self, family: str) -> None:
        super().__init__(family)
        self.begun = threading.Event()
        self.may_go_on = threading.Semaphore(0)
        self.passes = 0

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        self.begun.set()
        self.passes += 1
        assert self.may_go_on.acquire(timeout=PATIENCE_S)
        return super().run(batch)


class Watched:
    """Documents that note whether they were closed."""

    def __init__(self, *groups: Sequence[str], error: Exception | None = None) -> None:
        self.closed = False
        self._groups = groups
        self._error = error

    async def arrive(self) -> AsyncIterator[IndexedDocuments]:
        try:
            async for group in arriving(*self._groups):
                yield group
            if self._error is not None:
                raise self._error
            await asyncio.Event().wait()
        finally:
            self.closed = True


@pytest.fixture(params=["late_interaction", "cross_encoder"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def reranker_of(family: str, scheduler: Scheduler, executor: Executor | None = None) -> Reranker:
    tokenizer = TextTokenizer(bert_tokenizer())
    if family == "late_interaction":
        config = LateInteractionConfig(LIMITS)
        return LateInteractionReranker(INFO, tokenizer, scheduler, config, executor)
    return CrossEncoderReranker(INFO, tokenizer, scheduler, CrossEncoderConfig(LIMITS), executor)


@asynccontextmanager
async def reranker_on(family: str, backend: ToyBackend) -> AsyncIterator[Reranker]:
    async with running(backend, max_batch_size=1) as scheduler:
        yield reranker_of(family, scheduler)


async def test_every_document_of_a_large_request_has_one_outcome(family: str) -> None:
    async with reranker_on(family, FirstVector(family)) as reranker:
        documents = [f"paris {'a ' * (number % 90)}" for number in range(500)]
        outcomes = await outcomes_of(reranker, "city", documents)
    assert all(isinstance(outcome, Score) for outcome in outcomes)


async def test_a_small_request_does_not_wait_for_all_of_a_large_one(family: str) -> None:
    backend = Gated(family)
    limits = BatchLimits(max_batch_tokens=64, max_batch_size=1, max_wait_s=0.0)
    scheduler = Scheduler(backend, limits, workers=1)
    scheduler.start()
    reranker = reranker_of(family, scheduler)
    large = asyncio.create_task(outcomes_of(reranker, "city", ["paris is a city"] * 400))
    if family == "late_interaction":
        backend.may_go_on.release()  # the query, without which no document is submitted
    await asyncio.sleep(0.3)  # what the large request submits unasked, it has submitted by now
    small = asyncio.create_task(outcomes_of(reranker, "city", ["sea"]))
    while not small.done():
        backend.may_go_on.release()
        await asyncio.sleep(0.001)
    passes_before = backend.passes
    backend.may_go_on.release(500)
    assert len(await large) == 400
    assert passes_before < 100
    await scheduler.close()


async def test_no_documents_have_no_outcomes(family: str) -> None:
    async with reranker_on(family, FirstVector(family)) as reranker:
        assert await outcomes_of(reranker, "city") == []
        assert await outcomes_of(reranker, "city", []) == []


async def test_indexes_are_the_callers_own(family: str) -> None:
    async def documents() -> AsyncIterator[IndexedDocuments]:
        yield [(7, Document("a")), (3, Document("a"))]

    async with reranker_on(family, FirstVector(family)) as reranker:
        scored = [index async for index, _ in reranker.score("a", documents(), ScoreOptions())]
    assert sorted(scored) == [3, 7]


async def test_outcomes_are_told_before_all_documents_have_arrived(family: str) -> None:
    first_is_known = asyncio.Event()

    async def documents() -> AsyncIterator[IndexedDocuments]:
        yield [(0, Document("paris"))]
        await asyncio.wait_for(first_is_known.wait(), PATIENCE_S)
        yield [(1, Document("city"))]

    indexes = []
    async with reranker_on(family, FirstVector(family)) as reranker:
        async for index, _ in reranker.score("city", documents(), ScoreOptions()):
            indexes.append(index)
            first_is_known.set()
    assert indexes == [0, 1]


async def test_a_document_that_the_backend_fails_on_fails_alone(family: str) -> None:
    documents = ["paris", f"{'city ' * 90}sea", "bread"]
    async with reranker_on(family, FirstVector(family, bad_token=SEA)) as reranker:
        good, bad, other = await outcomes_of(reranker, "city", documents)
    assert isinstance(bad, BackendFailed)
    assert isinstance(good, Score)
    assert isinstance(other, Score)


async def test_a_query_that_the_backend_fails_on_fails_the_request() -> None:
    backend = FirstVector("late_interaction", bad_token=SEA)
    async with reranker_on("late_interaction", backend) as reranker:
        with pytest.raises(BackendFailed):
            await outcomes_of(reranker, "sea", ["paris"])


async def test_a_deadline_that_has_passed_fails_the_request(family: str) -> None:
    options = ScoreOptions(deadline=time.monotonic() - 1)
    async with reranker_on(family, FirstVector(family)) as reranker:
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, "city", ["paris", "bread"], options=options)


async def test_a_closed_scheduler_fails_the_request(family: str) -> None:
    async with running(FirstVector(family)) as scheduler:
        reranker = reranker_of(family, scheduler)
        await scheduler.close()
        watched = Watched(["paris"])
        with pytest.raises(ShuttingDown):
            await anext(reranker.score("city", watched.arrive(), ScoreOptions()))


async def test_an_error_of_the_documents_fails_the_request(family: str) -> None:
    watched = Watched(["paris"], error=InvalidField("no", "documents"))
    async with reranker_on(family, FirstVector(family)) as reranker:
        with pytest.raises(InvalidField):
            async for _ in reranker.score("city", watched.arrive(), ScoreOptions()):
                pass
    assert watched.closed


async def test_a_consumer_that_stops_early_leaves_nothing_running(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend, watched = Gated(family), Watched(["paris"] * 40, ["bread"])
    async with reranker_on(family, backend) as reranker:
        backend.may_go_on.release(2)
        scoring = reranker.score("city", watched.arrive(), ScoreOptions())
        async with aclosing(scoring) as outcomes:
            await asyncio.wait_for(anext(outcomes), PATIENCE_S)
        assert watched.closed
        backend.may_go_on.release(100)
    assert len(backend.ran) < 10
    assert no_future_was_forgotten(caplog)


async def test_a_consumer_that_is_cancelled_leaves_nothing_running(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend, watched = Gated(family), Watched(["paris"] * 40)
    async with reranker_on(family, backend) as reranker:
        scoring = reranker.score("city", watched.arrive(), ScoreOptions())
        waiting = asyncio.ensure_future(anext(scoring))
        assert await asyncio.to_thread(backend.begun.wait, PATIENCE_S)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert watched.closed
        backend.may_go_on.release(100)
    assert len(backend.ran) < 10
    assert no_future_was_forgotten(caplog)


async def test_errors_that_nobody_asks_for_are_not_reported_as_forgotten(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FirstVector(family, bad_token=SEA)
    too_late = ScoreOptions(deadline=time.monotonic() - 1)
    async with reranker_on(family, backend) as reranker:
        await outcomes_of(reranker, "city", ["sea " * 100] * 20)
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, "city", ["paris"] * 20, options=too_late)
    assert no_future_was_forgotten(caplog)


def no_future_was_forgotten(caplog: pytest.LogCaptureFixture) -> bool:
    gc.collect()
    return not [record for record in caplog.records if record.name == "asyncio"]


# No two windows of it are the same sequence, which would be run once.
VARIED = np.random.default_rng(3).choice(["bread", "sea", "river", "city"], 100).tolist()


async def test_the_request_is_metered(family: str) -> None:
    backend, options = FirstVector(family), ScoreOptions()
    async with reranker_on(family, backend) as reranker:
        await outcomes_of(reranker, "city", ["paris", " ".join(VARIED)], ["a"], options=options)
    meter = options.meter
    windows = len(backend.ran) - (family == "late_interaction")
    assert meter.tokens == sum(len(sequence) for sequence in backend.ran)
    assert meter.pairs == windows > 3
    assert min(meter.queue_s, meter.tokenise_s, meter.infer_s) > 0


async def test_the_tokeniser_runs_on_the_given_executor(family: str) -> None:
    with ThreadPoolExecutor(1) as executor:
        async with running(FirstVector(family)) as scheduler:
            reranker = reranker_of(family, scheduler, executor)
            executor.shutdown()
            with pytest.raises(RuntimeError, match="shutdown"):
                await outcomes_of(reranker, "city", ["paris"])
