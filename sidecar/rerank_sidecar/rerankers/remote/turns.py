"""How many calls a server gets at once, and who is told at once that its turn comes too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rerank_sidecar.errors import DeadlineExceeded, Overloaded

_WEIGHT = 0.2
"""Of the latest call in what a call usually takes."""


class Turns:
    """At most `limit` calls at once, the others in the order in which they came.

    Belongs to one event loop. `clock` is that of the deadlines.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._slots = asyncio.Semaphore(limit)
        self._ahead = 0
        self._usual_s: float | None = None

    def check(self, calls: int, deadline: float) -> None:
        """Refuse calls that would have to wait for others beyond their deadline.

        Nobody is refused while a slot is free, so that one slow answer cannot refuse everything
        for ever.

        Raises:
            Overloaded: they would.
        """
        if self._ahead < self._limit or self._usual_s is None:
            return
        rounds = -(-(self._ahead + calls) // self._limit)
        late_s = self._clock() + rounds * self._usual_s - deadline
        if late_s > 0:
            raise Overloaded("too many calls to the remote are waiting", max(0.1, late_s))

    @asynccontextmanager
    async def turn(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a slot and hold it.

        Raises:
            DeadlineExceeded: there was none in time.
        """
        self._ahead += 1
        try:
            try:
                async with asyncio.timeout(deadline - self._clock()):
                    await self._slots.acquire()
            except TimeoutError:
                raise DeadlineExceeded("the deadline passed before the remote was asked") from None
            began = self._clock()
            try:
                yield
                self._learn(self._clock() - began)
            finally:
                self._slots.release()
        finally:
            self._ahead -= 1

    def _learn(self, took_s: float) -> None:
        usual_s = took_s if self._usual_s is None else self._usual_s
        self._usual_s = usual_s + _WEIGHT * (took_s - usual_s)
