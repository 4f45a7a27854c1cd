"""Callers on many event loops, the same few sequences, failures, deadlines and second thoughts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import Completion, Scheduler
from rerank_sidecar.errors import BackendFailed, DeadlineExceeded, ShuttingDown
from tests.unit.batching.fake_backends import (
    LIMITS,
    PATIENCE_S,
    Array,
    FakeBackend,
    GatedBackend,
    running,
    sequence,
    settled,
    value,
)

LOOPS = 6
DISTINCT = 12


class MoodyBackend(FakeBackend):
    """Takes a moment, or none, and fails now and then."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = random.Random(seed)  # noqa: S311 - not a secret

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        time.sleep(self._rng.choice([0, 0, 0.0002, 0.001]))
        if self._rng.random() < 0.1:
            raise RuntimeError
        return super().run(batch)


class Caller:
    """Submits a few sequences, leaves some of them, and checks what becomes of the others."""

    def __init__(self, scheduler: Scheduler, seed: int) -> None:
        self.scheduler = scheduler
        self.rng = random.Random(seed)  # noqa: S311 - not a secret
        self.answers = 0

    async def call(self, times: int) -> None:
        for _ in range(times):
            await self._call_once()
            await asyncio.sleep(self.rng.choice([0, 0, 0.0005]))

    async def _call_once(self) -> None:
        marks = [self.rng.randrange(DISTINCT) for _ in range(self.rng.randint(1, 8))]
        allowed_s = self.rng.choice([None, None, 3600.0, 0.002, 0.0])
        futures = self.scheduler.submit(
            [sequence(mark, 1 + 20 * (mark % 3)) for mark in marks],
            lambda position, array: (position, int(array[0])),
            priority=self.rng.randint(0, 2),
            deadline=None if allowed_s is None else time.monotonic() + allowed_s,
        )
        await asyncio.sleep(self.rng.choice([0, 0, 0.0005]))
        left = {n for n in range(len(marks)) if self.rng.random() < 0.2 and futures[n].cancel()}
        async with asyncio.timeout(PATIENCE_S):
            results = await asyncio.gather(*futures, return_exceptions=True)
        for position, result in enumerate(results):
            if position in left:
                assert isinstance(result, asyncio.CancelledError)
            elif isinstance(result, Completion):
                assert result.value == (position, marks[position])
            elif isinstance(result, DeadlineExceeded):
                assert allowed_s is not None
                assert allowed_s < 1
            else:
                assert isinstance(result, BackendFailed | ShuttingDown)
            self.answers += 1


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("seed", range(3))
async def test_every_sequence_is_answered_whatever_happens(seed: int, workers: int) -> None:
    limits = BatchLimits(64, 4, max_wait_s=0.001)
    scheduler = Scheduler(MoodyBackend(seed), limits, workers=workers)
    callers = [Caller(scheduler, 100 * seed + n) for n in range(LOOPS)]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(LOOPS) as threads:
        async with running(scheduler):
            await asyncio.gather(
                *(loop.run_in_executor(threads, asyncio.run, caller.call(40)) for caller in callers)
            )
            assert (scheduler.pending_count, scheduler.pending_tokens) == (0, 0)
    assert all(caller.answers >= 40 for caller in callers)


async def test_every_sequence_is_answered_when_the_end_comes_in_between() -> None:
    scheduler = Scheduler(MoodyBackend(7), BatchLimits(64, 4, 0.001), workers=2)
    callers = [Caller(scheduler, seed) for seed in range(LOOPS)]
    loop = asyncio.get_running_loop()

    async def call_until_the_end(caller: Caller) -> None:
        with pytest.raises(ShuttingDown):
            await caller.call(100_000)

    with ThreadPoolExecutor(LOOPS) as threads:
        async with running(scheduler):
            calling = [
                loop.run_in_executor(threads, asyncio.run, call_until_the_end(caller))
                for caller in callers
            ]
            await Caller(scheduler, LOOPS).call(40)
        await asyncio.gather(*calling)
    assert (scheduler.pending_count, scheduler.pending_tokens) == (0, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=60))
def test_what_nobody_waits_for_never_runs(asked: list[tuple[int, bool]]) -> None:
    async def run() -> list[list[int]]:
        backend = GatedBackend()
        async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
            futures = scheduler.submit([sequence(0)], value)
            await backend.wait_until_busy()
            for mark, leaves in asked:
                future = scheduler.submit([sequence(mark)], value)[0]
                if leaves:
                    future.cancel()
                else:
                    futures.append(future)
            backend.open()
            assert 0.0 in await settled(futures)
        return backend.batches

    ran = [mark for batch in asyncio.run(run()) for mark in batch]
    assert sorted(ran) == [0, *sorted({mark for mark, leaves in asked if not leaves})]
