"""Whoever's time is up is told so at once, even if no worker is free to look."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.errors import DeadlineExceeded
from tests.unit.batching.fake_backends import (
    LIMITS,
    FakeBackend,
    GatedBackend,
    running,
    sequence,
    settled,
    value,
)


async def test_a_deadline_is_kept_while_all_workers_are_busy() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        deadline = time.monotonic() + 0.5
        busy = scheduler.submit([sequence(0)], value, deadline=deadline)
        await backend.wait_until_busy()
        stays = scheduler.submit([sequence(1)], value, deadline=time.monotonic() + 3600)
        late = scheduler.submit([sequence(2)] * 2, value, deadline=deadline)
        # The worker is let go only after this, so nothing but the deadline itself can have told.
        assert [type(each) for each in await settled(late)] == [DeadlineExceeded] * 2
        assert scheduler.pending_count == 1
        backend.open()
        # What had begun by its deadline is answered all the same.
        assert await settled([*busy, *stays]) == [0.0, 1.0]
    assert backend.batches == [[0], [1]]


async def test_a_deadline_is_kept_before_the_workers_start() -> None:
    scheduler = Scheduler(FakeBackend(), LIMITS, workers=1)
    late = scheduler.submit([sequence(1)], value, deadline=time.monotonic() - 1)
    assert [type(each) for each in await settled(late)] == [DeadlineExceeded]
    assert (scheduler.pending_count, scheduler.pending_tokens) == (0, 0)


async def test_whoever_was_answered_is_not_failed_by_the_deadline_of_the_others() -> None:
    backend = GatedBackend()
    async with running(Scheduler(backend, LIMITS, workers=1)) as scheduler:
        deadline = time.monotonic() + 0.5
        # So unlike in length that they cannot run together; the longer runs first.
        first, second = scheduler.submit(
            [sequence(1, 900), sequence(2, 1)], value, deadline=deadline
        )
        await backend.wait_until_busy()
        backend.may_go_on.release()
        await backend.wait_until_busy()
        third = scheduler.submit([sequence(3, 1)], value, deadline=deadline)
        assert [type(each) for each in await settled(third)] == [DeadlineExceeded]
        backend.open()
        assert await settled([first, second]) == [1.0, 2.0]


async def test_no_timer_is_left_when_all_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []
    call_later = loop.call_later

    def keep(*args: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*args))
        return timers[-1]

    async with running(Scheduler(FakeBackend(), LIMITS, workers=1)) as scheduler:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_later", keep)
            futures = scheduler.submit(
                [sequence(n) for n in range(30)], value, deadline=time.monotonic() + 3600
            )
        futures[7].cancel()
        await asyncio.gather(*futures, return_exceptions=True)
        await asyncio.sleep(0)
    assert len(timers) == 1
    assert timers[0].cancelled()
