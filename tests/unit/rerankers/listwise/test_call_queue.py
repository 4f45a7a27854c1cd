"""Calls take turns, and whoever cannot be done in time is told before anything is asked."""

from __future__ import annotations

import pytest

from rerank_sidecar.errors import Overloaded
from rerank_sidecar.rerankers.listwise.call_queue import CallQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def call(queue: CallQueue, clock: Clock, seconds: float, deadline: float | None) -> None:
    with queue.admitted(1, deadline) as calls:
        async with calls.turn():
            clock.now += seconds
        assert calls.called_s == pytest.approx(seconds)


async def test_nothing_is_refused_before_a_call_was_timed() -> None:
    clock = Clock()
    await call(CallQueue(1, clock), clock, seconds=5.0, deadline=100.1)


async def test_calls_that_cannot_be_done_in_time_are_refused() -> None:
    clock = Clock()
    queue = CallQueue(2, clock)
    await call(queue, clock, seconds=1.0, deadline=None)
    with (
        queue.admitted(3, clock.now + 3.5),  # so that three are ahead, and two go at a time
        pytest.raises(Overloaded) as refused,
        queue.admitted(3, clock.now + 2.9),
    ):
        pass
    assert refused.value.retry_after_s >= 1
    with queue.admitted(3, clock.now + 3.5):
        pass


async def test_what_was_promised_and_not_called_makes_room_again() -> None:
    clock = Clock()
    queue = CallQueue(1, clock)
    await call(queue, clock, seconds=1.0, deadline=None)
    with pytest.raises(ZeroDivisionError), queue.admitted(50, None):
        raise ZeroDivisionError
    await call(queue, clock, seconds=1.0, deadline=clock.now + 1.5)


async def test_an_idle_queue_tries_again_after_a_while() -> None:
    clock = Clock()
    queue = CallQueue(1, clock)
    await call(queue, clock, seconds=60.0, deadline=None)
    with pytest.raises(Overloaded):
        await call(queue, clock, seconds=0.1, deadline=clock.now + 5)
    clock.now += 11
    await call(queue, clock, seconds=0.1, deadline=clock.now + 5)
