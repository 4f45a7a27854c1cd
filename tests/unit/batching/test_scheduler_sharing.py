"""Identical sequences run once, and nobody who waits for one notices the others."""

from __future__ import annotations

import asyncio
import time
import weakref

import numpy as np
import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.errors import BackendFailed, DeadlineExceeded, InvalidField, ShuttingDown
from tests.unit.batching.fake_backends import (
    BAD,
    LIMITS,
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

ONE_AT_A_TIME = BatchLimits(max_batch_tokens=1024, max_batch_size=1, max_wait_s=60.0)


async def test_identical_sequences_that_wait_run_once() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        futures += scheduler.submit([sequence(1, 9), sequence(2, 9), sequence(1, 9)], value)
        futures += scheduler.submit([sequence(2, 9)], value)
        assert (scheduler.pending_count, scheduler.pending_tokens) == (2, 18)
        backend.open()
        assert await settled(futures) == [0.0, 1.0, 2.0, 1.0, 2.0]
    assert sorted(map(sorted, backend.batches)) == [[0], [1, 2]]


async def test_whoever_comes_while_it_runs_joins_and_whoever_comes_after_runs_anew() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=2)) as scheduler:
        futures = scheduler.submit([sequence(1)], value)
        await backend.wait_until_busy()
        futures += scheduler.submit([sequence(1)], value)
        assert scheduler.pending_count == 0
        backend.open()
        first, joined = await asyncio.gather(*futures)
        assert (first.value, joined.value) == (1.0, 1.0)
        assert joined.queue_s == 0
        assert backend.batches == [[1]]
        assert await settled(scheduler.submit([sequence(1)], value)) == [1.0]
    assert backend.batches == [[1], [1]]


@pytest.mark.parametrize(
    "other",
    [
        TokenSequence(np.array([1, 1, 2]), np.zeros(3, np.int64)),
        TokenSequence(np.array([1, 1, 1]), np.array([0, 0, 1])),
        TokenSequence(np.array([1, 1, 1, 0]), np.zeros(4, np.int64)),
        TokenSequence(np.array([1, 1]), np.zeros(2, np.int64)),
        TokenSequence(np.array([1, 1, 1]), np.zeros(3, np.int64), attended=2),
        TokenSequence(np.array([1, 1, 1]), np.zeros(3, np.int64), wanted=np.array([0])),
    ],
    ids=["token", "type", "longer", "shorter", "attended", "wanted"],
)
async def test_sequences_that_differ_in_anything_run_each(other: TokenSequence) -> None:
    backend = FakeBackend()
    scheduler = Scheduler(backend, LIMITS, workers=1)
    futures = scheduler.submit([sequence(1, 3), other], value)
    async with running(scheduler):
        await settled(futures)
    assert backend.batches == [[1, 1]]


async def test_each_has_its_own_finish_and_position() -> None:
    def fail(_position: int, _array: Array) -> float:
        raise InvalidField("no")

    scheduler = Scheduler(FakeBackend(), LIMITS, workers=1)
    futures = scheduler.submit([sequence(7), sequence(7)], lambda position, _: float(position))
    futures += scheduler.submit([sequence(7)], fail)
    futures += scheduler.submit([sequence(7)], value)
    async with running(scheduler):
        first, second, failed, last = await settled(futures)
    assert (first, second, last) == (0.0, 1.0, 7.0)
    assert isinstance(failed, InvalidField)


async def test_those_who_share_part_the_time_among_them() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(1), sequence(2), sequence(1), sequence(1)], value)
        await backend.wait_until_busy()
        backend.open()
        one, other, *joined = await asyncio.gather(*futures)
    assert [each.shared for each in (one, other, *joined)] == [False, False, True, True]
    assert all(each.infer_s == one.infer_s for each in joined)
    assert 3 * one.infer_s == pytest.approx(other.infer_s)


async def test_of_those_who_are_left_one_has_the_pass_as_its_own() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        gone, stays = scheduler.submit([sequence(1), sequence(1)], value)
        await backend.wait_until_busy()
        gone.cancel()
        backend.open()
        assert not (await stays).shared


@pytest.mark.parametrize("leaver", [0, 1, 2])
@pytest.mark.parametrize("is_running", [False, True])
async def test_whoever_leaves_harms_nobody(leaver: int, is_running: bool) -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        busy = scheduler.submit([sequence(1 if is_running else 0)], value)
        await backend.wait_until_busy()
        futures = [scheduler.submit([sequence(1)], value)[0] for _ in range(3)]
        futures.pop(leaver).cancel()
        await asyncio.sleep(0)
        backend.open()
        assert await settled([*busy, *futures]) == [float(is_running), 1.0, 1.0]
    assert backend.batches == ([[1]] if is_running else [[0], [1]])


async def test_it_is_dropped_when_nobody_waits_for_it_any_more() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        leaving = scheduler.submit([sequence(1)] * 3, value)
        for future in leaving:
            assert scheduler.pending_count == 1
            future.cancel()
            await asyncio.sleep(0)
        assert (scheduler.pending_count, scheduler.pending_tokens) == (0, 0)
        futures += scheduler.submit([sequence(2)], value)
        backend.open()
        await settled(futures)
    assert backend.batches == [[0], [2]]


async def test_a_deadline_is_only_for_whoever_set_it() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        futures += scheduler.submit([sequence(1)], value)
        late = scheduler.submit([sequence(1)], value, deadline=time.monotonic() + 0.01)
        assert [type(each) for each in await settled(late)] == [DeadlineExceeded]
        backend.open()
        assert await settled(futures) == [0.0, 1.0]


async def test_it_runs_at_the_highest_priority_and_age_of_those_who_wait() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, ONE_AT_A_TIME, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        futures += scheduler.submit([sequence(1), sequence(2), sequence(3)], value)
        futures += scheduler.submit([sequence(4)], value, priority=1)
        futures += scheduler.submit([sequence(3)], value, priority=1)
        backend.open()
        await settled(futures)
    # 3 was first asked for before 4 was, and is as important by now.
    assert backend.batches[:3] == [[0], [3], [4]]


async def test_an_earlier_place_of_another_makes_it_run_sooner() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, ONE_AT_A_TIME, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        futures += scheduler.submit([sequence(1), sequence(2)], value)
        futures += scheduler.submit([sequence(2)], value, since=time.monotonic() - 3600)
        backend.open()
        await settled(futures)
    assert backend.batches == [[0], [2], [1]]


async def test_an_earlier_deadline_of_another_makes_it_run_sooner() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, ONE_AT_A_TIME, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        soon = time.monotonic() + 3600
        for mark, deadline in ((1, soon + 1), (2, soon + 2), (2, None), (2, soon), (2, soon + 3)):
            futures += scheduler.submit([sequence(mark)], value, deadline=deadline)
        backend.open()
        await settled(futures)
    assert backend.batches == [[0], [2], [1]]


async def test_a_failure_is_told_to_all_who_share_it_and_to_nobody_else() -> None:
    backend = GatedBadSequence()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        good, bad, also_bad = scheduler.submit([sequence(n) for n in (1, BAD, BAD)], value)
        await backend.wait_until_busy()
        joined_bad, joined_good = scheduler.submit([sequence(BAD), sequence(1)], value)
        backend.open()
        assert await settled([good, joined_good]) == [1.0, 1.0]
        failures = await settled([bad, also_bad, joined_bad])
    assert all(isinstance(each, BackendFailed) for each in failures)
    assert backend.batches == [[1, BAD], [1], [BAD]]


async def test_a_failed_sequence_is_tried_anew_by_whoever_comes_later() -> None:
    backend = BadSequenceBackend(ValueError)
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        for _ in range(2):
            [failure] = await settled(scheduler.submit([sequence(BAD)], value))
            assert isinstance(failure, BackendFailed)
    assert backend.batches == [[BAD], [BAD]]


async def test_all_who_share_are_told_of_the_end() -> None:
    scheduler = Scheduler(FakeBackend(), LIMITS, workers=1)
    futures = scheduler.submit([sequence(1), sequence(1), sequence(2)], value)
    await scheduler.close()
    assert [type(each) for each in await settled(futures)] == [ShuttingDown] * 3


async def test_callers_on_different_event_loops_share() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        here = scheduler.submit([sequence(1)], value)
        await backend.wait_until_busy()

        async def elsewhere() -> list[float | BaseException]:
            futures = scheduler.submit([sequence(1)], value)
            backend.open()
            return await settled(futures)

        assert await asyncio.to_thread(asyncio.run, elsewhere()) == [1.0]
        assert await settled(here) == [1.0]
    assert backend.batches == [[1]]


async def test_ten_thousand_copies_come_and_go() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        futures = scheduler.submit([sequence(1)] * 10_000, value, deadline=time.monotonic() + 3600)
        for future in futures[:-1]:
            future.cancel()
        backend.open()
        assert await settled(futures[-1:]) == [1.0]
    assert backend.batches == [[0], [1]]


async def test_nothing_holds_on_to_what_was_answered() -> None:
    class Finish:
        def __call__(self, position: int, array: Array) -> float:
            return value(position, array)

    finish = Finish()
    seen = weakref.ref(finish)
    async with running(Scheduler(FakeBackend(), LIMITS, workers=1)) as scheduler:
        futures = scheduler.submit(
            [sequence(1), sequence(1)], finish, deadline=time.monotonic() + 3600
        )
        del finish
        await settled(futures)
        # By then the worker has let go of the first batch.
        await settled(scheduler.submit([sequence(2)], value))
        await asyncio.sleep(0)
        assert seen() is None
