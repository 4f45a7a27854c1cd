"""Which waiting sequences run together next: a pure function with no clock, thread or queue.

A padded forward pass costs as much as its longest sequence times their number, plus a fixed part
that does not depend on them. The planner therefore starts from the most urgent sequence, the
anchor, and adds those nearest to it in length for as long as all the padding together costs less
than one more pass would. With many sequences waiting this is where the cost per sequence is least:
fixed cost c per pass and n²/2d tokens of padding for n of them at a density of d per token of
length balance where the padding equals c, as in the economic order quantity (Harris 1913).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one forward pass may hold and how long a sequence may be passed over.

    `max_batch_tokens` bounds the longest sequence times their number; a sequence that is longer
    than that runs alone. A sequence that has waited `max_wait_s` seconds goes before all others of
    its priority. `pass_cost_tokens` is the fixed cost of a forward pass, told as the number of
    tokens that take as long; no batch carries more padding than that.
    """

    max_batch_tokens: int
    max_batch_size: int
    max_wait_s: float
    pass_cost_tokens: int = 64


@dataclass(frozen=True, slots=True)
class PendingItem:
    """What the planner knows of a waiting sequence.

    `length` is in tokens; a higher `priority` runs sooner; `deadline` and `enqueued_at` are in
    seconds on one clock.
    """

    length: int
    priority: int
    deadline: float | None
    enqueued_at: float


def plan_batch(pending: Sequence[PendingItem], limits: BatchLimits, now: float) -> list[int]:
    """Choose the sequences that run together next and return their positions in `pending`.

    The anchor always runs and comes first: the highest priority; within it whoever has waited
    `max_wait_s`, oldest first; then the earliest deadline; then the oldest; then the longest, which
    leaves short work for the end and so evens out the workers (Graham 1969). Its neighbours in
    length fill the batch, those of its own priority before those of lower ones.

    Hence a bounded wait: once a sequence has waited `max_wait_s`, every batch whose anchor has its
    priority holds it or one that is no younger, so that it runs within as many of these batches as
    there are such sequences. A higher priority may keep a lower one waiting without end. The
    choice does not depend on the order of `pending`. Empty only if `pending` is. The cost is linear
    in `pending`, besides sorting the distinct lengths and priorities.
    """
    if not pending:
        return []
    levels = _group(range(len(pending)), lambda position: pending[position].priority)
    priorities = sorted(levels, reverse=True)
    urgency = _urgency(pending, limits.max_wait_s, now)
    anchor = min(levels[priorities[0]], key=urgency)
    levels[priorities[0]].remove(anchor)
    batch = _Batch(limits, [anchor], pending[anchor].length)
    for priority in priorities:
        if batch.room(batch.longest) <= 0:
            break
        _fill(batch, _group(levels[priority], lambda position: pending[position].length), urgency)
    return batch.positions


_Urgency = Callable[[int], tuple[bool, float, float, int]]


def _urgency(pending: Sequence[PendingItem], max_wait_s: float, now: float) -> _Urgency:
    """Order positions of one priority, the most urgent first."""

    def key(position: int) -> tuple[bool, float, float, int]:
        item = pending[position]
        deadline = inf if item.deadline is None else item.deadline
        if now - item.enqueued_at >= max_wait_s:
            return False, item.enqueued_at, deadline, -item.length
        return True, deadline, item.enqueued_at, -item.length

    return key


def _group(positions: Iterable[int], key: Callable[[int], int]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for position in positions:
        groups[key(position)].append(position)
    return groups


@dataclass(slots=True)
class _Batch:
    """A batch that grows: positions, the longest length, and the padding they cost so far."""

    limits: BatchLimits
    positions: list[int]
    longest: int
    padding: int = 0

    def added_padding(self, length: int) -> int:
        """Price one more sequence: its own padding, or what it adds to all that are here."""
        if length > self.longest:
            return len(self.positions) * (length - self.longest)
        return self.longest - length

    def room(self, length: int) -> int:
        """Count how many more sequences of this length may join; 0 or less if none."""
        spare = self.limits.pass_cost_tokens - self.padding
        if self.added_padding(length) > spare:
            return 0
        longest = max(self.longest, length, 1)  # even an empty sequence takes a place
        size = min(self.limits.max_batch_size, self.limits.max_batch_tokens // longest)
        room = size - len(self.positions)
        if length < self.longest:
            room = min(room, spare // (self.longest - length))
        return room

    def add(self, positions: Sequence[int], length: int) -> None:
        self.padding += len(self.positions) * max(0, length - self.longest)
        self.longest = max(self.longest, length)
        self.padding += len(positions) * (self.longest - length)
        self.positions.extend(positions)


def _fill(batch: _Batch, by_length: Mapping[int, list[int]], urgency: _Urgency) -> None:
    """Add sequences of one priority, the cheapest in padding first, until none fits."""
    lengths = sorted(by_length)
    split = bisect_right(lengths, batch.longest)
    shorter, longer = lengths[:split], lengths[split:][::-1]
    while shorter or longer:
        nearest = min(filter(None, (shorter, longer)), key=lambda s: batch.added_padding(s[-1]))
        length = nearest.pop()
        room = batch.room(length)
        if room <= 0:
            # Whatever lies further out on this side costs still more, now and later.
            nearest.clear()
            continue
        batch.add(heapq.nsmallest(room, by_length[length], key=urgency), length)
