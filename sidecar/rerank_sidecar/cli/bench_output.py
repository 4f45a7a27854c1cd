"""What `bench` shows: how far it is, and in the end what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rerank_sidecar.cli.output import plain_table, progress_console, results_console
from rerank_sidecar.load.bench import BenchReport, Watch
from rerank_sidecar.load.driver import Plan
from rerank_sidecar.load.measurement import Sample
from rerank_sidecar.load.report import LoadReport
from rerank_sidecar.load.schedule import Load

_LATENCIES = ("p50", "p90", "p95", "p99", "max")
_BUSY = 0.5
_LATE_MS = 10.0
_REFRESH_S = 0.5


@contextmanager
def watched_loads(plan: Plan) -> Iterator[Watch]:
    """Show a bar for each load on standard error, updated seldom: it takes processor time, too."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = progress_console()
    with Progress(*columns, console=console, refresh_per_second=2, transient=True) as progress:
        yield lambda load: _watched(progress, load, plan)


def _watched(progress: Progress, load: Load, plan: Plan) -> Callable[[Sample], None]:
    bar = progress.add_task(str(load), total=plan.end_s)
    shown_s = done = 0.0

    def on_sample(sample: Sample) -> None:
        nonlocal shown_s, done
        done += 1
        if sample.done_s - shown_s > _REFRESH_S:
            shown_s = sample.done_s
            progress.update(bar, completed=shown_s, description=f"{load}: {done:.0f} requests")

    return on_sample


def print_report(report: BenchReport) -> None:
    """Print a row for each load, what was not answered and why, and what was sent."""
    console = results_console()
    console.print(_loads_table(report))
    if any(load.failures for load in report.loads):
        console.print()
        console.print(_failures_table(report))
    console.print()
    for line in _remarks(report):
        console.print(line, style="dim", soft_wrap=True)


def _loads_table(report: BenchReport) -> Table:
    rates = ("offered/s", "answered/s", "goodput/s", "documents/s")
    table = plain_table("load", *rates, *(f"{name} ms" for name in _LATENCIES))
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for load in report.loads:
        values = (load.offered_per_s, load.answered_per_s, load.goodput_per_s)
        latencies = (load.latency_ms.get(name) for name in _LATENCIES)
        table.add_row(
            load.load,
            *(f"{value:.1f}" for value in values),
            f"{load.documents_per_s:.0f}",
            *("-" if ms is None else f"{ms:.1f}" for ms in latencies),
        )
    return table


def _failures_table(report: BenchReport) -> Table:
    table = plain_table("load", "not answered", "requests", "known after, median", "")
    for load in report.loads:
        for failure in load.failures:
            what = "refused" if failure.refused else ""
            median = f"{failure.median_s * 1000:.1f} ms"
            table.add_row(load.load, failure.reason, str(failure.count), median, what)
    return table


def _remarks(report: BenchReport) -> list[str]:
    unit = "searches" if report.door == "weaviate" else "requests"
    return [
        f"{report.target}, {report.door}: {unit} of {report.documents} documents, {report.texts}; "
        f"repeated: {report.repeat}",
        f"each load {report.duration_s:g} s; goodput: answered within {report.timeout_s:g} s",
        *(line for load in report.loads for line in _doubts(load)),
    ]


def _doubts(load: LoadReport) -> Iterator[str]:
    if load.generator_share > _BUSY:
        share = f"{load.generator_share:.0%} of a core"
        yield f"{load.load}: the generator itself took {share}; the server may do better without"
    if load.send_lag_ms > _LATE_MS:
        yield f"{load.load}: 1 in 100 was sent {load.send_lag_ms:.0f} ms late or more; counted in"
