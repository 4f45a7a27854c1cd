"""Watches over what was submitted together: who goes away, and when their time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from rerank_sidecar.batching.work import Completion, Waiter, resolve
from rerank_sidecar.batching.work_queue import WorkQueue, deadline_passed


class Submission:
    """What was submitted by one call, on the event loop that waits for it.

    A cancelled future is withdrawn at once, and those that still wait when their deadline passes
    fail then, whether or not a worker is free to look at them.
    """

    def __init__(self, queue: WorkQueue, waiters: Sequence[Waiter]) -> None:
        self._queue = queue
        self._waiters = waiters
        self._unanswered = len(waiters)
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, deadline: float | None) -> None:
        """Begin to watch; to be called before the event loop goes on."""
        for waiter in self._waiters:
            waiter.future.add_done_callback(partial(self._on_done, waiter))
        if deadline is not None and self._waiters:
            delay_s = max(0.0, deadline - time.monotonic())
            self._timer = loop.call_later(delay_s, self._on_deadline)

    def _on_done(self, waiter: Waiter, future: asyncio.Future[Completion[Any]]) -> None:
        if future.cancelled():
            self._queue.withdraw([waiter])
        self._unanswered -= 1
        if self._unanswered == 0 and self._timer is not None:
            self._timer.cancel()

    def _on_deadline(self) -> None:
        late = self._queue.withdraw(self._waiters)
        resolve((waiter, deadline_passed()) for waiter in late)
