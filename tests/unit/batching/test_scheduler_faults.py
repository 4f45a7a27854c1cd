"""What the scheduler promises when things fail, are cancelled or end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import ForwardPass, Scheduler
from rerank_sidecar.errors import (
    BackendFailed,
    DeadlineExceeded,
    InternalError,
    InvalidField,
    RerankError,
    ShuttingDown,
)
from tests.unit.batching.fake_backends import (
    BAD,
    DOCUMENT_TEXT,
    LIMITS,
    PATIENCE_S,
    Array,
    BadSequenceBackend,
    FakeBackend,
    GatedBackend,
    GatedBadSequence,
    running,
    sequence,
    settled,
    value,
)


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
