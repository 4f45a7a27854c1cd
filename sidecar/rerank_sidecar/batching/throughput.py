"""How fast the workers read tokens, all together, and how much they have left to read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

_PASSES = 32
"""How many of the latest batches the rate follows."""

_PRIOR_PASSES = 5
"""As how many batches the rate that is told at the start counts, each of `_PRIOR_S`."""

_PRIOR_S = 0.01

_ODD = 3.0
"""A batch whose rate is this many times the median, or a part of it as small, does not count."""

_ALL_BUSY_PART = 0.5
"""The part of a batch's time that all workers must be busy in for it to count."""


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A batch that a worker runs: its tokens and when it began."""

    tokens: int
    begun: float
    all_busy_s: float
    """For how long all workers had been busy when it began."""


@dataclass(frozen=True, slots=True)
class _Sample:
    tokens: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Throughput:
    """Measures tokens per second over the time in which all workers are busy.

    Only that time tells what the machine can do: a worker that runs alone has the caches, the
    memory and the clock rate for itself, and an idle one says nothing. A batch that ran while all
    were busy is a sample of the rate; the estimate is the sum of tokens over the sum of time of the
    latest samples, without those that are far off their median. Times are in seconds on one clock.
    Thread-safe.
    """

    def __init__(self, workers: int, tokens_per_s: float) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._running: set[Running] = set()
        self._all_busy_s = 0.0
        self._told_at = 0.0
        prior = _Sample(tokens_per_s * _PRIOR_S, _PRIOR_S)
        self._samples = deque([prior] * _PRIOR_PASSES, maxlen=_PASSES)
        self._tokens_per_s = tokens_per_s

    @property
    def tokens_per_s(self) -> float:
        """The rate at which all workers together read tokens when all are busy."""
        return self._tokens_per_s

    def begin(self, tokens: int, now: float) -> Running:
        """Say that a worker begins to run a batch."""
        with self._lock:
            self._pass_time(now)
            running = Running(tokens, now, self._all_busy_s)
            self._running.add(running)
            return running

    def end(self, running: Running, now: float, *, failed: bool = False) -> None:
        """Say that it ended; one that failed, or had no token, is no sample."""
        with self._lock:
            self._pass_time(now)
            self._running.discard(running)
            duration_s = now - running.begun
            all_busy_s = self._all_busy_s - running.all_busy_s
            if failed or not running.tokens:
                return
            if all_busy_s <= 0 or all_busy_s < _ALL_BUSY_PART * duration_s:
                return
            self._samples.append(
                _Sample(running.tokens * all_busy_s / duration_s, all_busy_s / self._workers)
            )
            self._tokens_per_s = _typical_rate(self._samples)

    def tokens_left(self, now: float) -> float:
        """Estimate how many tokens of the running batches are still to be read."""
        with self._lock:
            own_rate = self._tokens_per_s / self._workers
            return sum(
                max(0.0, running.tokens - own_rate * (now - running.begun))
                for running in self._running
            )

    def _pass_time(self, now: float) -> None:
        elapsed_s = max(0.0, now - self._told_at)  # threads may tell their times out of order
        if len(self._running) == self._workers:
            self._all_busy_s += elapsed_s
        self._told_at += elapsed_s


def _typical_rate(samples: Iterable[_Sample]) -> float:
    samples = list(samples)
    middle = median(sample.rate for sample in samples)
    usual = [sample for sample in samples if middle / _ODD <= sample.rate <= middle * _ODD]
    return sum(sample.tokens for sample in usual) / sum(sample.seconds for sample in usual)
