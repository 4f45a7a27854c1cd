"""What one load found, as a value that is printed as a table or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rerank_sidecar.load.measurement import PERCENTILES, Failure, Measurement, percentile
from rerank_sidecar.load.schedule import ClosedLoop


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What one load found.

    Rates are requests per second, on Weaviate's door whole searches. `offered` counts all,
    `answered` those that got every score, `goodput` those that got them within the deadline.
    `latency_ms` maps p50, p90, p95, p99 and max to milliseconds of the answered ones and is empty
    when none was. `send_lag_ms` is how late the generator itself was, at the 99th percentile, and
    `generator_share` its processor time as a share of one core.
    """

    load: str
    callers: int | None
    rate_per_s: float | None
    offered_per_s: float
    answered_per_s: float
    documents_per_s: float
    goodput_per_s: float
    latency_ms: Mapping[str, float]
    failures: tuple[Failure, ...]
    send_lag_ms: float
    generator_share: float


def summarise(measured: Measurement) -> LoadReport:
    """Sum a measurement up."""
    load = measured.load
    return LoadReport(
        load=str(load),
        callers=load.callers if isinstance(load, ClosedLoop) else None,
        rate_per_s=None if isinstance(load, ClosedLoop) else load.rate_per_s,
        offered_per_s=measured.offered_per_s,
        answered_per_s=measured.answered_per_s,
        documents_per_s=measured.documents_per_s,
        goodput_per_s=measured.goodput_per_s,
        latency_ms=_latency_ms(measured),
        failures=tuple(measured.failures()),
        send_lag_ms=measured.send_lag_s * 1000,
        generator_share=measured.generator_share,
    )


def _latency_ms(measured: Measurement) -> dict[str, float]:
    sorted_ms = measured.latencies_s * 1000
    if not sorted_ms.size:
        return {}
    named = {f"p{percent:g}": percentile(sorted_ms, percent) for percent in PERCENTILES}
    return {**named, "max": float(sorted_ms[-1])}
