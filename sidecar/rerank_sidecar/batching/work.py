"""One sequence that is to run, who waits for it, and how what became of it reaches them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.planner import PendingItem
from rerank_sidecar.errors import RerankError
from rerank_sidecar.telemetry.crashes import log_crash

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completion(Generic[T]):
    """What became of one sequence: the value that `finish` made, and where the time went.

    `queue_s` is the wait until its forward pass began; `infer_s` is its share of the time of that
    pass, by tokens. Of those who waited for the same sequence one is told the pass as its own and
    the others that they `shared` it; each is told an equal part of `infer_s`.
    """

    value: T
    queue_s: float
    infer_s: float
    shared: bool = False


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who waits for a sequence.

    `position` is its place among those submitted with it. It waits since `submitted_at` and stands
    in the queue as if since `enqueued_at`.
    """

    sequence: TokenSequence
    position: int
    finish: Callable[[int, npt.NDArray[np.float32]], Any]
    future: asyncio.Future[Completion[Any]]
    priority: int
    deadline: float | None
    submitted_at: float
    enqueued_at: float
    content: int = field(init=False)
    """A hash of the sequence: the same for the same tokens."""
    waits_for: Work | None = None
    """The work that waits with it; None once that has begun or nobody is waiting any more."""

    def __post_init__(self) -> None:
        sequence = self.sequence
        self.content = hash(
            (sequence.token_ids.tobytes(), sequence.type_ids.tobytes(), sequence.attended)
        )

    def is_late(self, now: float) -> bool:
        """Tell whether the deadline has passed."""
        return self.deadline is not None and self.deadline <= now


@dataclass(slots=True, eq=False)
class Work:
    """A sequence that waits or runs, once for all who wait for it.

    It is as urgent as the most urgent who ever joined it. `number` is its place in the backlog;
    None once it waits no longer. Guarded by the queue that holds it.
    """

    sequence: TokenSequence
    content: int
    priority: int
    deadline: float | None
    enqueued_at: float
    number: int | None = None
    waiters: dict[Waiter, None] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How many tokens it has."""
        return len(self.sequence)

    def as_item(self) -> PendingItem:
        """Tell the planner what it needs to know."""
        return PendingItem(self.length, self.priority, self.deadline, self.enqueued_at)

    def is_same(self, sequence: TokenSequence) -> bool:
        """Tell whether a sequence is this one, token by token."""
        own = self.sequence
        return own is sequence or (
            np.array_equal(own.token_ids, sequence.token_ids)
            and np.array_equal(own.type_ids, sequence.type_ids)
            and own.attended == sequence.attended
            and _are_equal(own.wanted, sequence.wanted)
        )

    def join(self, waiter: Waiter) -> bool:
        """Let somebody wait for it too; tell whether that made it more urgent."""
        self.waiters[waiter] = None
        before = self.as_item()
        self.priority = max(self.priority, waiter.priority)
        self.enqueued_at = min(self.enqueued_at, waiter.enqueued_at)
        if waiter.deadline is not None:
            own = waiter.deadline if self.deadline is None else self.deadline
            self.deadline = min(own, waiter.deadline)
        return self.as_item() != before


def _are_equal(one: npt.NDArray[np.int64] | None, other: npt.NDArray[np.int64] | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def work_for(waiter: Waiter) -> Work:
    """Make the work that somebody is the first to wait for."""
    priority, deadline, enqueued_at = waiter.priority, waiter.deadline, waiter.enqueued_at
    work = Work(waiter.sequence, waiter.content, priority, deadline, enqueued_at)
    work.waiters[waiter] = None
    return work


Answer = tuple[Waiter, Completion[Any] | RerankError]
"""Somebody who waits and what is handed to them."""


def count_tokens(works: Iterable[Work]) -> int:
    """Add up the lengths of sequences, without padding."""
    return sum(work.length for work in works)


def deliver(answers: Iterable[Answer]) -> None:
    """Hand answers to the event loops that wait for them, from any thread, waking each loop once.

    Never raises: a loop that was closed has nobody left who waits.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_loop[answer[0].future.get_loop()].append(answer)
    for loop, its_answers in by_loop.items():
        try:
            loop.call_soon_threadsafe(resolve, its_answers)
        except Exception as error:  # noqa: BLE001 - the other loops still wait for theirs
            if not loop.is_closed():
                log_crash(_LOG, "delivering results", error)


def resolve(answers: Iterable[Answer]) -> None:
    """Answer those who wait on the event loop that runs here, unless they have gone away."""
    for waiter, answer in answers:
        if waiter.future.done():
            continue
        if isinstance(answer, RerankError):
            waiter.future.set_exception(answer)
        else:
            waiter.future.set_result(answer)
