"""One waiting sequence, what can become of it, and how that reaches whoever waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.planner import PendingItem
from rerank_sidecar.errors import DeadlineExceeded, RerankError
from rerank_sidecar.telemetry.crashes import log_crash

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completion(Generic[T]):
    """What became of one sequence: the value that `finish` made, and where the time went.

    `queue_s` is the wait until its forward pass began; `infer_s` is its share of the time of that
    pass, by tokens.
    """

    value: T
    queue_s: float
    infer_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Work(PendingItem):
    """A sequence that waits, its position among those submitted with it, and who waits for it."""

    sequence: TokenSequence
    position: int
    finish: Callable[[int, npt.NDArray[np.float32]], Any]
    future: asyncio.Future[Completion[Any]]


Outcome = tuple[Work, Completion[Any] | RerankError]
"""A sequence and what became of it."""


def count_tokens(works: Iterable[Work]) -> int:
    """Add up the lengths of sequences, without padding."""
    return sum(work.length for work in works)


def sift(works: Iterable[Work], now: float) -> tuple[list[Work], list[Outcome]]:
    """Separate what is still worth running from what is too late, and drop what was cancelled."""
    wanted: list[Work] = []
    late: list[Outcome] = []
    for work in works:
        if work.future.done():
            continue
        if work.deadline is None or work.deadline > now:
            wanted.append(work)
        else:
            late.append((work, DeadlineExceeded("the deadline passed before the model could run")))
    return wanted, late


def deliver(outcomes: Iterable[Outcome]) -> None:
    """Hand outcomes to the event loops that wait for them, from any thread, waking each loop once.

    Never raises: a loop that was closed has nobody left who waits.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_loop[outcome[0].future.get_loop()].append(outcome)
    for loop, its_outcomes in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, its_outcomes)
        except Exception as error:  # noqa: BLE001 - the other loops still wait for theirs
            if not loop.is_closed():
                log_crash(_LOG, "delivering results", error)


def _resolve(outcomes: list[Outcome]) -> None:
    for work, outcome in outcomes:
        if work.future.done():
            continue
        if isinstance(outcome, RerankError):
            work.future.set_exception(outcome)
        else:
            work.future.set_result(outcome)
