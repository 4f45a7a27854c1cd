"""What the scheduler promises when all goes well: order, sharing, counting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import ForwardPass, Scheduler
from tests.unit.batching.fake_backends import (
    DOCUMENT_TEXT,
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


async def test_a_place_in_the_queue_may_be_kept_from_before() -> None:
    one_at_a_time = BatchLimits(max_batch_tokens=1024, max_batch_size=1, max_wait_s=60.0)
    backend = GatedBackend()
    async with running(Scheduler(backend, one_at_a_time, workers=1)) as scheduler:
        futures = scheduler.submit([sequence(0)], value)
        await backend.wait_until_busy()
        now = time.monotonic()
        futures += scheduler.submit([sequence(1)], value)
        futures += scheduler.submit([sequence(2)], value, since=now + 3600)
        futures += scheduler.submit([sequence(3)], value, since=now - 3600)
        backend.open()
        *_, kept = await asyncio.gather(*futures)
    assert backend.batches == [[0], [3], [1], [2]]
    assert kept.queue_s < 3600  # it has not waited since then


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
