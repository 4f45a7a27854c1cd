"""What several requests want at the same time is made once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from rerank_sidecar.errors import DeadlineExceeded

T = TypeVar("T")


class Shared(Generic[T]):
    """Makes values for all who hold a lease on the same key, and forgets them with the last one.

    To be used from event loops alone; each loop has values of its own.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, _Made[T]] = {}

    def lease(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> Lease[T]:
        """Begin to make a value unless somebody has it, or has it made, already.

        The maker goes on when this lease is closed, as long as there is another.
        """
        key = (asyncio.get_running_loop(), key)
        made = self._made.get(key)
        if made is None or made.has_failed:
            made = self._made[key] = _Made(asyncio.create_task(make()))
        return Lease(self, key, made)

    def _drop(self, key: Hashable, made: _Made[T]) -> None:
        made.task.cancel()
        if self._made.get(key) is made:
            del self._made[key]


class Lease(Generic[T]):
    """The right of one request to a value that may be others' as well; to be closed."""

    def __init__(self, shared: Shared[T], key: Hashable, made: _Made[T]) -> None:
        self.is_first = made.leases == 0
        made.leases += 1
        self._shared = shared
        self._key = key
        self._made = made
        self._is_open = True

    async def value(self, deadline: float | None = None) -> T:
        """Wait for the value, until a deadline on the clock of `time.monotonic`.

        Raises:
            DeadlineExceeded: the deadline passed.
            Exception: whatever making the value raised.
        """
        task = self._made.task
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded("the deadline passed before the query was read")
        if not task.done():
            await asyncio.wait([task], timeout=left_s)
        if not task.done():
            raise DeadlineExceeded("the deadline passed before the query was read")
        return task.result()

    def close(self) -> None:
        """Give the value up; making it stops when nobody is left."""
        if not self._is_open:
            return
        self._is_open = False
        self._made.leases -= 1
        if self._made.leases == 0:
            self._shared._drop(self._key, self._made)


class _Made(Generic[T]):
    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.leases = 0
        task.add_done_callback(_note_error)

    @property
    def has_failed(self) -> bool:
        task = self.task
        return task.done() and (task.cancelled() or task.exception() is not None)


def _note_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # else asyncio reports an error that nobody was left to hear of
