"""Which waiting sequences run together next: values and arithmetic, with no clock and no thread.

A padded forward pass costs as much as its longest sequence times their number, plus a fixed part
that does not depend on them. The planner therefore starts from the most urgent sequence, the
anchor, and adds those nearest to it in length for as long as all the padding together costs less
than one more pass would. With many sequences waiting this is where the cost per sequence is least:
fixed cost c per pass and n²/2d tokens of padding for n of them at a density of d per token of
length balance where the padding equals c, as in the economic order quantity (Harris 1913).

With few sequences waiting, a full batch would leave other workers idle. A batch therefore stops at
its fair part of all that is left to read, waiting and running, so that all workers end together:
guided self-scheduling (Polychronopoulos and Kuck 1987), with what the others still run counted in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import inf

from rerank_sidecar.batching.urgency import MostUrgentFirst


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one forward pass may hold and how long a sequence may be passed over.

    A sequence costs its padded length: its length rounded up to a multiple of `length_multiple`.
    `max_batch_tokens` bounds the longest padded length times the number of sequences; a sequence
    that is longer than that runs alone. A sequence that has waited `max_wait_s` seconds goes before
    all others of its priority. `pass_cost_tokens` is the fixed cost of a forward pass, told as the
    number of tokens that take as long; no batch carries more padding between its sequences than
    that. `workers` is how many forward passes run at once.
    """

    max_batch_tokens: int
    max_batch_size: int
    max_wait_s: float
    pass_cost_tokens: int = 64
    length_multiple: int = 1
    workers: int = 1

    def padded(self, length: int) -> int:
        """Round a length up to what it costs; even an empty sequence takes a place."""
        return max(1, -(-length // self.length_multiple)) * self.length_multiple


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


class Backlog:
    """All that waits, kept by priority and padded length so that the next batch is found quickly.

    Adding, removing and taking cost the logarithm of what waits; finding the anchor costs the
    number of distinct padded lengths. For one thread at a time.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._numbers = count()
        self._places: dict[int, tuple[int, int]] = {}
        self._levels: dict[int, _Level] = defaultdict(dict)
        self._padded_tokens = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, item: PendingItem) -> int:
        """Let an item wait and give the number by which it is known here."""
        number = next(self._numbers)
        place = item.priority, self._limits.padded(item.length)
        self._places[number] = place
        level = self._levels[item.priority]
        if place[1] not in level:
            level[place[1]] = MostUrgentFirst(self._limits.max_wait_s)
        deadline = inf if item.deadline is None else item.deadline
        level[place[1]].add(number, deadline, item.enqueued_at, item.length)
        self._padded_tokens += place[1]
        return number

    def remove(self, number: int) -> None:
        """Let an item wait no longer.

        Raises:
            KeyError: nothing waits under this number.
        """
        priority, padded = self._places.pop(number)
        self._padded_tokens -= padded
        level = self._levels[priority]
        level[padded].remove(number)
        if not level[padded]:
            del level[padded]
        if not level:
            del self._levels[priority]

    def take_batch(self, now: float, running_tokens: float = 0.0) -> list[int]:
        """Remove the sequences that run together next and return their numbers.

        The anchor always runs and comes first: the highest priority; within it whoever has waited
        `max_wait_s`, oldest first; then the earliest deadline; then the oldest; then the longest,
        which leaves short work for the end and so evens out the workers (Graham 1969). Its
        neighbours in length fill the batch, those of its own priority before those of lower ones,
        until it has its fair part of what waits and of `running_tokens`, the tokens that other
        workers are still reading.

        Hence a bounded wait: once a sequence has waited `max_wait_s`, every batch whose anchor has
        its priority holds it or one that is no younger, so that it runs within as many of these
        batches as there are such sequences. A higher priority may keep a lower one waiting without
        end. Apart from numbers, the choice does not depend on the order in which items were added.
        Empty only if nothing waits.
        """
        if not self._places:
            return []
        share = self._share(running_tokens)
        priorities = sorted(self._levels, reverse=True)
        number, padded = self._anchor(self._levels[priorities[0]], now)
        batch = _Batch(self._limits, share, [number], padded)
        self.remove(number)
        for priority in priorities:
            if batch.room(batch.longest) <= 0:
                break
            self._fill(batch, priority, now)
        return batch.numbers

    def _share(self, running_tokens: float) -> float:
        workers = self._limits.workers
        return inf if workers == 1 else (self._padded_tokens + running_tokens) / workers

    def _anchor(self, level: _Level, now: float) -> tuple[int, int]:
        urgency, padded = min((waiting.first(now), padded) for padded, waiting in level.items())
        return urgency.number, padded

    def _fill(self, batch: _Batch, priority: int, now: float) -> None:
        """Add sequences of one priority, the cheapest in padding first, until none fits."""
        lengths = sorted(self._levels.get(priority, ()))
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
            batch.add(self._take(priority, length, room, now), length)

    def _take(self, priority: int, padded: int, at_most: int, now: float) -> list[int]:
        waiting = self._levels[priority][padded]
        taken: list[int] = []
        for _ in range(min(at_most, len(waiting))):
            taken.append(waiting.first(now).number)
            self.remove(taken[-1])
        return taken


_Level = dict[int, MostUrgentFirst]
"""The sequences of one priority by padded length."""


@dataclass(slots=True)
class _Batch:
    """A batch that grows: numbers, the longest padded length, and the padding it costs so far."""

    limits: BatchLimits
    share: float
    numbers: list[int]
    longest: int
    padding: int = 0

    def added_padding(self, length: int) -> int:
        """Price one more sequence: its own padding, or what it adds to all that are here."""
        if length > self.longest:
            return len(self.numbers) * (length - self.longest)
        return self.longest - length

    def room(self, length: int) -> int:
        """Count how many more sequences of this length may join; 0 or less if none."""
        spare = self.limits.pass_cost_tokens - self.padding
        if self.added_padding(length) > spare:
            return 0
        longest = max(self.longest, length)
        size = min(self.limits.max_batch_size, self.limits.max_batch_tokens // longest)
        # To the nearest: a rest that is left behind would cost a pass of its own.
        room = round(min(size, self.share / longest)) - len(self.numbers)
        if length < self.longest:
            room = min(room, spare // (self.longest - length))
        return room

    def add(self, numbers: Sequence[int], length: int) -> None:
        self.padding += len(self.numbers) * max(0, length - self.longest)
        self.longest = max(self.longest, length)
        self.padding += len(numbers) * (self.longest - length)
        self.numbers.extend(numbers)
