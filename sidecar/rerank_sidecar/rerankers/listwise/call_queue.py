"""Turns at a server that answers some calls at once: who would wait too long is told at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf

from rerank_sidecar.errors import Overloaded

_LEARNING_RATE = 0.3

# What a call takes is learned from those that are made. So that one slow call cannot refuse
# everything for ever, an idle queue that has tried nothing for a while tries again.
_STALE_S = 10.0


class CallQueue:
    """Lets `at_once` calls go out at a time; belongs to one event loop.

    A request says beforehand how many calls it makes, one after the other.
    """

    def __init__(self, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._clock = clock
        self._free = asyncio.Semaphore(at_once)
        self._promised = 0
        self._call_s: float | None = None
        self._called_at = -inf

    @contextmanager
    def admitted(self, calls: int, deadline: float | None) -> Iterator[Calls]:
        """Keep room for the calls of a request; deadlines are on the queue's clock, in seconds.

        Raises:
            Overloaded: the last of them could not be answered by the deadline.
        """
        self._check(calls, deadline)
        request = Calls(self, calls)
        self._promised += calls
        try:
            yield request
        finally:
            self._promised -= request.left

    def _check(self, calls: int, deadline: float | None) -> None:
        if deadline is None or self._call_s is None:
            return
        needs_s = max(calls, (self._promised + calls) / self._at_once) * self._call_s
        late_s = needs_s - (deadline - self._clock())
        is_trial = not self._promised and self._clock() - self._called_at > _STALE_S
        if late_s > 0 and not is_trial:
            raise Overloaded(
                f"the remote model would need about {needs_s:.1f} s, with what waits for it",
                retry_after_s=max(1.0, late_s),
            )

    def _done(self, call_s: float) -> None:
        self._promised -= 1
        self._called_at = self._clock()
        before = call_s if self._call_s is None else self._call_s
        self._call_s = before + _LEARNING_RATE * (call_s - before)


class Calls:
    """The calls of one request, of which `left` have not been made."""

    def __init__(self, queue: CallQueue, left: int) -> None:
        self._queue = queue
        self.left = left
        self.waited_s = 0.0
        self.called_s = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and measure how long the call takes."""
        queue, asked_at = self._queue, self._queue._clock()
        async with queue._free:
            began_at = queue._clock()
            self.waited_s += began_at - asked_at
            try:
                yield
            finally:
                call_s = queue._clock() - began_at
                self.called_s += call_s
                self.left -= 1
                queue._done(call_s)
