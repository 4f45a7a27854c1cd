"""Measures the server as its callers see it, in servers of its own, and prints markdown tables.

    python -m benchmarks.serving --data DIR [--model DIR] [--only ROW] [--output FILE]

DIR holds trec-dl19/ with corpus.jsonl.gz and queries.jsonl. Run it from the repository's root on a
machine that does nothing else. Needs `rerank-sidecar[server,bench]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from benchmarks import serving_load, serving_speed
from benchmarks.machine import machine, write
from benchmarks.serving_setup import Setup

COLLECTION = "trec-dl19"
PACKAGES = ("rerank-sidecar", "openvino", "grpcio", "aiohttp", "uvicorn", "numpy")


class Row(StrEnum):
    """What can be measured alone."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    SEARCH = "search"
    WARM = "warm"
    OVERLOAD = "overload"
    MEMORY = "memory"
    START = "start"


ROWS: Mapping[Row, Callable[[Setup], Iterator[str]]] = MappingProxyType(
    {
        Row.LATENCY: serving_speed.latency,
        Row.THROUGHPUT: serving_speed.throughput,
        Row.SEARCH: serving_speed.search,
        Row.WARM: serving_speed.warm,
        Row.OVERLOAD: serving_load.overload,
        Row.MEMORY: serving_load.memory,
        Row.START: serving_speed.start,
    }
)

EMBEDDED_ONLY = {Row.WARM, Row.MEMORY}
"""Rows about what only the embedded, late-interaction model has or promises."""

NOTES = """\
# Serving: the whole server, as its callers see it

Measured: a server in a process of its own, started by its command with default settings but for
the caches, which are off unless a table says otherwise; the load generator of `rerank-sidecar
bench` beside it, on the same machine and so on the same cores. Documents are the passages of TREC
DL19 in a random order, and in the long mix every tenth is joined of several to 1,000 to 3,000
words; queries are drawn from the words of the collection's, so that none comes twice. Contenders
take turns; figures are medians of the rounds, ratios medians of the ratios within a round,
percentiles those of all requests of all rounds.

Not measured: a network, TLS, a GPU, several servers, ranking quality.
"""


def main(  # noqa: PLR0913, PLR0917
    data: Annotated[
        Path | None,
        typer.Option(envvar="RERANK_SIDECAR_DATA", help=f"Folder that holds {COLLECTION}/."),
    ] = None,
    model: Annotated[str, typer.Option(help="What to serve; a folder for others.")] = "embedded",
    only: Annotated[list[Row] | None, typer.Option(help="Measure this row; repeatable.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="See that it works: seconds, one round, no figures.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="How often each contender takes its turn.")] = 5,
    deadline: Annotated[
        float, typer.Option(help="Seconds that a request past capacity may take.")
    ] = 2.0,
    output: Annotated[Path | None, typer.Option(help="Keep the tables in this file, too.")] = None,
) -> None:
    """Measure the rows and print a table of each."""
    folder = data / COLLECTION if data else None
    if folder is None or not folder.is_dir():
        typer.echo(f"Name the folder that holds {COLLECTION}/ with --data.", err=True)
        raise typer.Exit(2)
    setup = Setup(model, folder, quick, deadline, 1 if quick else rounds)
    wanted = only or [row for row in Row if model == "embedded" or row not in EMBEDDED_ONLY]
    tables = [line for row in Row if row in wanted for line in ROWS[row](setup)]
    name = model if model == "embedded" else Path(model).name
    about = [f"- model: {name}; rounds: {setup.rounds}", *machine(PACKAGES)]
    if quick:
        about.append("- measured with --quick: it shows that the rows work, the figures are noise")
    write([NOTES, *about, "", *tables], output)


if __name__ == "__main__":
    typer.run(main)
