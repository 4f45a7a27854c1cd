"""Which of several waiting sequences is the most urgent, as time goes by."""

from __future__ import annotations

import heapq
from typing import NamedTuple


class Urgency(NamedTuple):
    """How urgent a sequence is; the least comes first."""

    is_in_time: bool
    """False for whoever has waited too long already."""
    first_key: float
    second_key: float
    negative_length: int
    number: int


class MostUrgentFirst:
    """Sequences in order: those that waited `max_wait_s` by age, then the others by deadline.

    Both orders are kept as binary heaps. What is removed is only struck off the list; its entries
    are passed over when they come up, or swept out when they are more than those that wait.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._waiting: set[int] = set()
        self._by_age: list[Urgency] = []
        self._by_deadline: list[Urgency] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, number: int, deadline: float, enqueued_at: float, length: int) -> None:
        """Let a sequence wait; `number` is not used again."""
        self._waiting.add(number)
        heapq.heappush(self._by_age, Urgency(False, enqueued_at, deadline, -length, number))
        heapq.heappush(self._by_deadline, Urgency(True, deadline, enqueued_at, -length, number))

    def remove(self, number: int) -> None:
        """Strike a sequence off.

        Raises:
            KeyError: it does not wait here.
        """
        self._waiting.remove(number)
        self._sweep(self._by_age)
        self._sweep(self._by_deadline)

    def first(self, now: float) -> Urgency:
        """Find the most urgent sequence.

        Raises:
            IndexError: nothing waits here.
        """
        oldest = self._top(self._by_age)
        if now - oldest.first_key >= self._max_wait_s:
            return oldest
        return self._top(self._by_deadline)

    def _top(self, heap: list[Urgency]) -> Urgency:
        while heap[0].number not in self._waiting:
            heapq.heappop(heap)
        return heap[0]

    def _sweep(self, heap: list[Urgency]) -> None:
        if len(heap) > 2 * len(self._waiting):
            heap[:] = [urgency for urgency in heap if urgency.number in self._waiting]
            heapq.heapify(heap)
