"""Percentiles are measured values, goodput is what was in time, failures are told by reason."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.load.measurement import Measurement, Sample, percentile
from rerank_sidecar.load.report import summarise
from rerank_sidecar.load.schedule import ClosedLoop, OpenLoop
from rerank_sidecar.load.targets import ANSWERED, Answer

REFUSED = Answer("OVERLOADED", refused=True)


def _sample(latency_s: float, answer: Answer = ANSWERED, *, lag_s: float = 0.0) -> Sample:
    return Sample(10.0, 10.0 + lag_s, 10.0 + latency_s, 20, answer)


def _measurement(*samples: Sample) -> Measurement:
    return Measurement(OpenLoop(3.0), 2.0, 1.0, samples, 0.25)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_the_least_value_that_suffices(
    values: Sequence[float], percent: float
) -> None:
    found = percentile(np.asarray(values), percent)
    assert found in values
    needed = len(values) * percent / 100
    assert sum(value <= found for value in values) >= needed * (1 - 1e-9)
    assert sum(value < found for value in values) <= needed * (1 + 1e-9)


def test_percentiles_of_a_hundred() -> None:
    report = summarise(_measurement(*(_sample(n / 1000) for n in range(100, 0, -1))))
    wanted = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
    assert report.latency_ms == pytest.approx(wanted)


def test_rates_count_what_was_offered_answered_and_in_time() -> None:
    late, failed, refused = _sample(1.5), _sample(0.2, Answer("X")), _sample(0.01, REFUSED)
    report = summarise(_measurement(_sample(0.5), _sample(1.0), late, failed, refused))
    assert report.offered_per_s == 2.5
    assert report.answered_per_s == 1.5
    assert report.goodput_per_s == 1.0
    assert report.documents_per_s == 30.0
    assert report.latency_ms["max"] == pytest.approx(1500)


def test_failures_are_counted_by_reason_with_their_own_median() -> None:
    refusals = [_sample(latency, REFUSED) for latency in (0.003, 0.001, 0.002)]
    other = _sample(0.9, Answer("DEADLINE_EXCEEDED"))
    found = summarise(_measurement(other, *refusals, _sample(0.5))).failures
    assert [(each.reason, each.refused, each.count) for each in found] == [
        ("OVERLOADED", True, 3),
        ("DEADLINE_EXCEEDED", False, 1),
    ]
    assert [each.median_s for each in found] == pytest.approx([0.002, 0.9])


def test_latency_counts_from_when_a_request_was_due() -> None:
    measured = _measurement(_sample(0.5, lag_s=0.4))
    assert measured.latencies_s == pytest.approx([0.5])
    assert summarise(measured).send_lag_ms == pytest.approx(400)


def test_nothing_answered_has_no_latency() -> None:
    for samples in ((), (_sample(0.1, REFUSED),)):
        report = summarise(_measurement(*samples))
        assert report.latency_ms == {}
        assert report.goodput_per_s == 0


def test_the_load_is_named() -> None:
    closed = summarise(Measurement(ClosedLoop(4), 1.0, 1.0, (), 0.0))
    assert (closed.load, closed.callers, closed.rate_per_s) == ("4 callers", 4, None)
    opened = summarise(_measurement())
    assert (opened.load, opened.callers, opened.rate_per_s) == ("3/s", None, 3.0)
