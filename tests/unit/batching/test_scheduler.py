from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import Completion, ForwardPass, Scheduler
from rerank_sidecar.errors import (
    BackendFailed,
    DeadlineExceeded,
    InternalError,
    InvalidField,
    RerankError,
    ShuttingDown,
)

PATIENCE_S = 30.0
LIMITS = BatchLimits(max_batch_tokens=1024, max_batch_size=8, max_wait_s=60.0)
BAD = 666
DOCUMENT_TEXT = "the text of a document"

Array = npt.NDArray[np.float32]


def sequence(mark: int, length: int = 4) -> TokenSequence:
    """Make a sequence that is recognised by its first token."""
    token_ids = np.full(length, mark, dtype=np.int64)
    return TokenSequence(token_ids, np.zeros(length, dtype=np.int64))


def value(_position: int, array: Array) -> float:
    return float(array[0])


class FakeBackend:
    """Answers each sequence with its first token and keeps what it ran."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[threading.Thread] = set()

    @property
    def info(self) -> BackendInfo:
        return BackendInfo("fake", "1", "cpu", "float32", 1)

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        self.threads.add(threading.current_thread())
        self.batches.append([int(one.token_ids[0]) for one in batch])
        return [one.token_ids[:1].astype(np.float32) for one in batch]

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


class GatedBackend(FakeBackend):
    """Says when a pass has begun and holds it until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.may_go_on = threading.Semaphore(0)

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        arrays = super().run(batch)
        self.begun.release()
        assert self.may_go_on.acquire(timeout=PATIENCE_S)
        return arrays

    async def wait_until_busy(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE_S)

    def open(self) -> None:
        self.may_go_on.release(1000)


class BadSequenceBackend(FakeBackend):
    """Fails every batch that has a bad sequence in it."""

    def __init__(self, make_error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.make_error = make_error

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        arrays = super().run(batch)
        if BAD in self.batches[-1]:
            raise self.make_error()
        return arrays


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[Scheduler]:
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.close()


async def settled(
    futures: Sequence[asyncio.Future[Completion[float]]],
) -> list[float | BaseException]:
    async with asyncio.timeout(PATIENCE_S):
        results = await asyncio.gather(*futures, return_exceptions=True)
    return [each.value if isinstance(each, Completion) else each for each in results]


async def test_every_future_gets_its_own_result_in_order() -> None:
    async with running(Scheduler(FakeBackend(), LIMITS, workers=2)) as scheduler:
        lengths = [3, 400, 7, 2000, 90, 3, 1, 12]
        futures = scheduler.submit(
            [sequence(10 * n, length) for n, length in enumerate(lengths)],
            lambda position, array: float(array[0]) + position,
        )
        assert await settled(futures) == [11.0 * n for n in range(len(lengths))]


async def test_submitting_nothing_gives_nothing() -> None:
    async with running(Scheduler(FakeBackend(), LIMITS, workers=1)) as scheduler:
        assert scheduler.submit([], value) == []


async def test_finish_gets_the_array_of_the_backend_untouched_and_off_the_event_loop() -> None:
    array = np.array([[1.5, np.inf], [np.nan, -0.0]], dtype=np.float32)

    class OneArray(FakeBackend):
        def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
            return [array for _ in batch]

    async with running(Scheduler(OneArray(), LIMITS, workers=1)) as scheduler:
        [future] = scheduler.submit(
            [sequence(1)], lambda position, given: (position, given, threading.current_thread())
        )
        position, given, thread = (await future).value
    assert position == 0
    assert given is array
    assert thread is not threading.current_thread()


async def test_callers_share_the_next_batch_and_similar_lengths_run_together() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        for caller in (10, 20, 30):
            futures += scheduler.submit([sequence(caller, 8), sequence(caller + 1, 300)], value)
        backend.open()
        await settled(futures)
    assert sorted(map(sorted, backend.batches)) == [[0], [10, 20, 30], [11, 21, 31]]


async def test_workers_run_at_once() -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)

    class Meeting(FakeBackend):
        def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
            both.wait()
            return super().run(batch)

    async with running(Scheduler(Meeting(), LIMITS, workers=2)) as scheduler:
        futures = scheduler.submit([sequence(1, 10), sequence(2, 500)], value)
        assert await settled(futures) == [1.0, 2.0]


async def test_one_wakeup_of_the_event_loop_for_each_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    wake = loop.call_soon_threadsafe
    wakers: list[threading.Thread] = []

    def counting_wake(*args: object, **kwargs: object) -> asyncio.Handle:
        wakers.append(threading.current_thread())
        return wake(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_soon_threadsafe", counting_wake)
    backend = FakeBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        await settled(scheduler.submit([sequence(n) for n in range(24)], value))
    assert len(backend.batches) == 3
    assert sum(thread in backend.threads for thread in wakers) == 3


async def test_a_completion_tells_where_the_time_went() -> None:
    backend = GatedBackend()
    seen: list[ForwardPass] = []
    scheduler = Scheduler(backend, LIMITS, workers=1, on_forward_pass=seen.append)
    async with running(scheduler):
        before = time.monotonic()
        futures = scheduler.submit([sequence(1, 30), sequence(2, 10)], value)
        await backend.wait_until_busy()
        backend.open()
        longer, shorter = await asyncio.gather(*futures)
        elapsed = time.monotonic() - before
    assert 0 <= longer.queue_s <= elapsed
    assert longer.infer_s == pytest.approx(3 * shorter.infer_s)
    assert 0 < longer.infer_s + shorter.infer_s <= elapsed
    assert [(p.size, p.tokens, p.padded_tokens, p.failed) for p in seen] == [(2, 40, 60, False)]
    assert 0 < seen[0].infer_s <= elapsed


async def test_what_waits_is_counted() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        assert (scheduler.pending_count, scheduler.pending_tokens) == (0, 0)
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        futures += scheduler.submit([sequence(1, 5), sequence(2, 7)], value)
        assert (scheduler.pending_count, scheduler.pending_tokens) == (2, 12)
        backend.open()
        await settled(futures)
        assert (scheduler.pending_count, scheduler.pending_tokens) == (0, 0)


async def test_an_observer_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: ForwardPass) -> None:
        raise SystemExit(DOCUMENT_TEXT)

    scheduler = Scheduler(FakeBackend(), LIMITS, workers=1, on_forward_pass=fail)
    async with running(scheduler):
        assert await settled(scheduler.submit([sequence(1)], value)) == [1.0]
    assert "SystemExit" in caplog.text
    assert DOCUMENT_TEXT not in caplog.text


@pytest.mark.parametrize("error_type", [ValueError, MemoryError, SystemExit, KeyboardInterrupt])
async def test_a_bad_sequence_fails_alone_and_the_worker_goes_on(
    error_type: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    backend = BadSequenceBackend(lambda: error_type(DOCUMENT_TEXT))
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(mark) for mark in (1, BAD, 2)], value)
        first, bad, second = await settled(futures)
        assert (first, second) == (1.0, 2.0)
        assert isinstance(bad, BackendFailed)
        assert await settled(scheduler.submit([sequence(3)], value)) == [3.0]
    assert error_type.__name__ in caplog.text
    assert DOCUMENT_TEXT not in caplog.text + str(bad)


async def test_an_error_of_ours_from_the_backend_is_passed_on() -> None:
    backend = BadSequenceBackend(lambda: BackendFailed("out of device memory"))
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        [bad] = await settled(scheduler.submit([sequence(BAD)], value))
    assert isinstance(bad, BackendFailed)
    assert bad.message == "out of device memory"


async def test_a_backend_that_loses_an_array_fails_and_mixes_nothing_up() -> None:
    class Forgetful(FakeBackend):
        def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
            return [a for a in super().run(batch) if a[0] != BAD]

    async with running(Scheduler(Forgetful(), LIMITS, workers=1)) as scheduler:
        first, bad, second = await settled(
            scheduler.submit([sequence(mark) for mark in (1, BAD, 2)], value)
        )
    assert (first, second) == (1.0, 2.0)
    assert isinstance(bad, BackendFailed)


async def test_a_failed_pass_is_observed_as_failed() -> None:
    seen: list[ForwardPass] = []
    backend = BadSequenceBackend(ValueError)
    scheduler = Scheduler(backend, LIMITS, workers=1, on_forward_pass=seen.append)
    async with running(scheduler):
        await settled(scheduler.submit([sequence(1), sequence(BAD)], value))
    assert Counter((p.size, p.failed) for p in seen) == {(2, True): 1, (1, True): 1, (1, False): 1}


async def test_what_was_cancelled_is_not_run_alone_after_its_batch_failed() -> None:
    class GatedBadSequence(GatedBackend):
        def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
            arrays = super().run(batch)
            if any(array[0] == BAD for array in arrays):
                raise ValueError
            return arrays

    backend = GatedBadSequence()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        good, bad, left = scheduler.submit([sequence(mark) for mark in (1, BAD, 2)], value)
        await backend.wait_until_busy()
        left.cancel()
        backend.open()
        assert (await settled([good]))[0] == 1.0
        assert isinstance((await settled([bad]))[0], BackendFailed)
    assert [2] not in backend.batches


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (InvalidField("no"), InvalidField),
        (ValueError(DOCUMENT_TEXT), InternalError),
        (StopIteration(DOCUMENT_TEXT), InternalError),
        (SystemExit(DOCUMENT_TEXT), InternalError),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else "",
)
async def test_an_error_in_finish_fails_that_sequence_only(
    raised: BaseException, expected: type[RerankError], caplog: pytest.LogCaptureFixture
) -> None:
    def finish(position: int, array: Array) -> float:
        if position == 1:
            raise raised
        return float(array[0])

    backend = FakeBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        first, bad, last = await settled(scheduler.submit([sequence(n) for n in range(3)], finish))
    assert (first, last) == (0.0, 2.0)
    assert type(bad) is expected
    assert backend.batches == [[0, 1, 2]]
    assert DOCUMENT_TEXT not in caplog.text + str(bad)


async def test_cancelled_sequences_never_run() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        [busy] = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        gone, stays = scheduler.submit([sequence(1), sequence(2)], value)
        gone.cancel()
        backend.open()
        assert await settled([busy, stays]) == [0.0, 2.0]
        assert scheduler.pending_count == 0
    assert backend.batches == [[0], [2]]
    assert gone.cancelled()


async def test_cancelling_what_runs_leaves_its_neighbours_alone() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        gone, stays = scheduler.submit([sequence(1), sequence(2)], value)
        await backend.wait_until_busy()
        gone.cancel()
        backend.open()
        assert await settled([stays]) == [2.0]


async def test_what_is_past_its_deadline_fails_without_running() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        futures += scheduler.submit([sequence(1)], value, deadline=time.monotonic())
        futures += scheduler.submit([sequence(2)], value, deadline=time.monotonic() + 3600)
        backend.open()
        running_then, late, in_time = await settled(futures)
    assert (running_then, in_time) == (0.0, 2.0)
    assert isinstance(late, DeadlineExceeded)
    assert backend.batches == [[0], [2]]


async def test_higher_priority_runs_first_then_the_earlier_deadline() -> None:
    one_at_a_time = BatchLimits(max_batch_tokens=1024, max_batch_size=1, max_wait_s=60.0)
    backend = GatedBackend()
    async with running(Scheduler(backend, one_at_a_time, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        now = time.monotonic()
        for mark, priority, deadline in (
            (4, -1, now + 3600),
            (3, 0, now + 3600),
            (2, 0, now + 1800),
            (1, 5, None),
        ):
            futures += scheduler.submit(
                [sequence(mark)], value, priority=priority, deadline=deadline
            )
        backend.open()
        await settled(futures)
    assert backend.batches == [[0], [1], [2], [3], [4]]


async def test_close_lets_what_runs_finish_and_fails_what_waits() -> None:
    backend = GatedBackend()
    scheduler = Scheduler(backend, LIMITS, workers=2)
    scheduler.start()
    futures = scheduler.submit([sequence(0, 10), sequence(1, 500)], value)
    await backend.wait_until_busy()
    await backend.wait_until_busy()
    waiting = scheduler.submit([sequence(n) for n in range(20)], value)
    closing = asyncio.create_task(scheduler.close())

    # The waiting ones are answered while the others still run, so the event loop is not held up.
    assert all(isinstance(each, ShuttingDown) for each in await settled(waiting))
    assert not closing.done()
    with pytest.raises(ShuttingDown):
        scheduler.submit([sequence(2)], value)

    backend.open()
    await closing
    assert [future.result().value for future in futures] == [0.0, 1.0]
    assert not any(thread.is_alive() for thread in backend.threads)
    assert (scheduler.pending_count, scheduler.pending_tokens) == (0, 0)


async def test_closing_twice_or_without_a_start_is_fine() -> None:
    scheduler = Scheduler(FakeBackend(), LIMITS, workers=2)
    [never_run] = scheduler.submit([sequence(1)], value)
    await scheduler.close()
    await scheduler.close()
    assert isinstance(never_run.exception(), ShuttingDown)


@pytest.mark.parametrize("broken_plan", [[], [7]], ids=["chooses nothing", "chooses what is not"])
async def test_a_broken_plan_is_answered_and_the_worker_goes_on(broken_plan: list[int]) -> None:
    plans = iter([broken_plan])
    scheduler = Scheduler(
        FakeBackend(),
        LIMITS,
        workers=1,
        plan=lambda pending, *_: next(plans, list(range(len(pending)))),
    )
    async with running(scheduler):
        failed = await settled(scheduler.submit([sequence(1), sequence(2)], value))
        assert all(isinstance(each, InternalError) for each in failed)
        assert scheduler.pending_count == 0
        assert await settled(scheduler.submit([sequence(3)], value)) == [3.0]


async def test_a_caller_whose_loop_is_closed_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:

        async def submit_and_leave() -> None:
            scheduler.submit([sequence(1)], value)

        await asyncio.to_thread(asyncio.run, submit_and_leave())
        await backend.wait_until_busy()
        await asyncio.to_thread(asyncio.run, submit_and_leave())
        futures = scheduler.submit([sequence(2)], value)
        backend.open()
        assert await settled(futures) == [2.0]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def _call_at_random(scheduler: Scheduler, seed: int) -> None:
    """Submit some sequences, leave some of them, and check that the others are the caller's own."""
    rng = random.Random(seed)  # noqa: S311 - not a secret
    marks = [seed * 1000 + n for n in range(rng.randint(1, 12))]
    lengths = [rng.choice([1, 2, 50, 300, 1500]) for _ in marks]
    futures = scheduler.submit(
        [sequence(mark, length) for mark, length in zip(marks, lengths, strict=True)],
        lambda position, array: (position, float(array[0])),
        priority=rng.randint(0, 2),
        deadline=rng.choice([None, time.monotonic() + 3600]),
    )
    await asyncio.sleep(0)
    left = {n for n in range(len(marks)) if rng.random() < 0.2 and futures[n].cancel()}
    for position, future in enumerate(futures):
        if position not in left:
            async with asyncio.timeout(PATIENCE_S):
                assert (await future).value == (position, float(marks[position]))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=12, unique=True),
    st.integers(1, 3),
    st.integers(1, 6),
)
def test_many_callers_on_two_event_loops_never_get_each_others_results(
    seeds: list[int], workers: int, max_batch_size: int
) -> None:
    scheduler = Scheduler(
        FakeBackend(), BatchLimits(1024, max_batch_size, max_wait_s=0.01), workers=workers
    )

    async def call(own: Sequence[int]) -> None:
        await asyncio.gather(*(_call_at_random(scheduler, seed) for seed in own))

    async def both() -> None:
        async with running(scheduler):
            other_loop = asyncio.to_thread(asyncio.run, call(seeds[1::2]))
            await asyncio.gather(call(seeds[::2]), other_loop)
        assert (scheduler.pending_count, scheduler.pending_tokens) == (0, 0)

    asyncio.run(both())
