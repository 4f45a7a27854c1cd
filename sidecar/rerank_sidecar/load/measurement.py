"""What a load brought back, request by request, and the figures that sum it up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerank_sidecar.load.schedule import Load
from rerank_sidecar.load.targets import Answer

PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: when it was due, sent and done, in seconds from the start of the load."""

    due_s: float
    sent_s: float
    done_s: float
    documents: int
    answer: Answer

    @property
    def latency_s(self) -> float:
        """Give the time from when the request was due.

        Not from when it was sent: a generator that falls behind would leave out the very waits
        that its users have. Gil Tene, "How NOT to Measure Latency", calls it coordinated omission.
        """
        return self.done_s - self.due_s


@dataclass(frozen=True, slots=True)
class Failure:
    """How often requests were not answered for one reason, and how soon that was known."""

    reason: str
    refused: bool
    count: int
    median_s: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """All counted requests of one load, which lasted `duration_s` after its warm-up.

    `generator_share` is the processor time that the generator took, as a share of one core.
    """

    load: Load
    duration_s: float
    timeout_s: float
    samples: Sequence[Sample]
    generator_share: float

    @property
    def offered_per_s(self) -> float:
        """Requests per second, whatever became of them."""
        return len(self.samples) / self.duration_s

    @property
    def answered(self) -> list[Sample]:
        """The requests that got all of their scores, however late."""
        return [sample for sample in self.samples if sample.answer.reason is None]

    @property
    def answered_per_s(self) -> float:
        """Requests per second that got all of their scores."""
        return len(self.answered) / self.duration_s

    @property
    def documents_per_s(self) -> float:
        """Documents per second of the requests that got all of their scores."""
        return sum(sample.documents for sample in self.answered) / self.duration_s

    @property
    def goodput_per_s(self) -> float:
        """Requests per second that got all of their scores within the deadline."""
        in_time = sum(sample.latency_s <= self.timeout_s for sample in self.answered)
        return in_time / self.duration_s

    @property
    def latencies_s(self) -> NDArray[np.float64]:
        """Latencies of the answered requests, ascending."""
        return np.sort([sample.latency_s for sample in self.answered])

    @property
    def send_lag_s(self) -> float:
        """How late the generator itself sent its requests, at the 99th percentile."""
        lags = [sample.sent_s - sample.due_s for sample in self.samples]
        return percentile(np.asarray(lags), 99) if lags else 0.0

    def failures(self) -> list[Failure]:
        """Count the requests that were not answered by reason, the most frequent first."""
        by_answer: dict[Answer, list[float]] = defaultdict(list)
        for sample in self.samples:
            if sample.answer.reason is not None:
                by_answer[sample.answer].append(sample.latency_s)
        found = (
            Failure(str(answer.reason), answer.refused, len(times), float(np.median(times)))
            for answer, times in by_answer.items()
        )
        return sorted(found, key=lambda each: (-each.count, each.reason))


def percentile(values: NDArray[np.float64], percent: float) -> float:
    """Give the least of the values that are not exceeded by so many per cent of them.

    It is one that was measured, never one in between: definition 1 of Hyndman and Fan, "Sample
    Quantiles in Statistical Packages", 1996.
    """
    return float(np.percentile(values, percent, method="inverted_cdf"))
