"""`rerank-sidecar eval`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rerank_sidecar.cli.options import takes_settings
from rerank_sidecar.cli.output import plain_table, print_json, progress_console, results_console
from rerank_sidecar.cli.own_engine import own_engine
from rerank_sidecar.evaluation.evaluate import Task, evaluate, read_task
from rerank_sidecar.evaluation.measures import MEASURES
from rerank_sidecar.evaluation.report import EvaluationReport
from rerank_sidecar.settings import Settings


@takes_settings("Model", "Long documents", "Computing")
def evaluate_run(  # noqa: PLR0913 - a parameter is a flag
    settings: Settings,
    *,
    dataset: Annotated[
        Path,
        typer.Option(
            help="Folder with corpus.jsonl[.gz], queries.jsonl and qrels.tsv, as in BEIR."
        ),
    ],
    run: Annotated[Path, typer.Option(help="First-stage run in TREC format, 6 columns.")],
    top_k: Annotated[int, typer.Option(min=1, help="Candidates of each query to rerank.")] = 100,
    min_grade: Annotated[
        int, typer.Option(min=1, help="Least grade that MRR, P and recall count as relevant.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure what reranking gains on a judged collection, and how fast it is.

    Reranks the first candidates of each judged query of the run, in this process, and prints
    nDCG@10, MRR@10, P@1 and recall@10 before and after, as trec_eval computes them, with
    milliseconds per query and pairs per second.
    """
    task = read_task(dataset, run, top_k)
    report = asyncio.run(_evaluate(settings, task, min_grade))
    if as_json:
        print_json(report.to_json())
    else:
        _print_table(report)


async def _evaluate(settings: Settings, task: Task, min_grade: int) -> EvaluationReport:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = progress_console()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("loading the model", total=len(task.candidates))
        async with own_engine(settings) as engine:
            progress.update(bar, description="reranking")
            return await evaluate(
                engine, task, min_grade=min_grade, advance=lambda: progress.advance(bar)
            )


def _print_table(report: EvaluationReport) -> None:
    table = plain_table("", "before", "after", "change")
    for name in MEASURES:
        before, after = report.before[name], report.after[name]
        table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
    console = results_console()
    console.print(table)
    for line in _remarks(report):
        console.print(line, style="dim", soft_wrap=True)


def _remarks(report: EvaluationReport) -> list[str]:
    counted, speed = report.coverage, report.speed
    models = ", ".join(f"{each.name} {each.version}" for each in report.models)
    lines = [
        "",
        f"{report.dataset}, {report.run}: top {report.top_k} of {counted.queries} queries, "
        f"reranked by {models}",
        f"{speed.ms_per_query:.1f} ms per query, {speed.pairs_per_second:.0f} pairs per second",
        f"relevant for MRR, P and recall: grade {report.min_grade} or more",
    ]
    notes = {
        "queries without judgements, not counted": counted.run_queries_without_judgements,
        "judged queries without candidates, not counted": counted.judged_queries_not_in_run,
        "documents that could not be scored, put last": counted.failed_documents,
    }
    return lines + [f"{note}: {count}" for note, count in notes.items() if count]
