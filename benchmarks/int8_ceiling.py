"""Sets the engine's int8 operations per second beside this machine's best int8 matrix products.

    python -m benchmarks.int8_ceiling --data DIR [--output FILE]

Run it from the repository's root; benchmarks/README.md tells what it needs.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.int8_gemm import SHAPES, Candidate, candidates
from benchmarks.int8_profile import profile
from benchmarks.machine import machine, progress, table, write
from benchmarks.minilm import (
    HIDDEN,
    INTERMEDIATE,
    LAYERS,
    count_operations,
    save_cross_encoder,
)
from benchmarks.passages import DATA_VARIABLE, Request, has_collection, read_requests
from rerank_sidecar.app import build_engine
from rerank_sidecar.backends.cores import available_cores
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.models.prepare import prepare_cross_encoder
from rerank_sidecar.settings import LogLevel, Settings
from rerank_sidecar.types import Document, RerankRequest

TARGET = 0.6
PAUSE_S = 0.3
GIGA = 1e9

PACKAGES = ("rerank-sidecar", "openvino", "nncf", "torch", "onnxruntime", "numpy")

NOTES = f"""\
# Int8 operations per second, and the ceiling

Measured: products [m, k] x [k, n] of 8-bit activations and constant 8-bit weights on all cores, by
one stream with all threads and by a stream for each core; and the engine (in process, caches and
admission off) on real pairs, int8, MiniLM-L6 geometry, random weights. All take turns in one
process by one wall clock; a figure is the median of the rounds. The ceiling is the best median.

Operations of a pair of n tokens (a multiply-add is two; padding, softmax, normalisation, GELU,
embeddings, tokenising: none): {LAYERS - 1} x (2 n (4 h^2 + 2 h f) + 4 n^2 h) for the layers but the
last; 4 n h^2 + 2 (2 h^2 + 2 h f) + 4 n h for the last one, which the engine computes for the first
token alone; 2 h^2 + 2 h for the pooler and the classifier; h = {HIDDEN} and f = {INTERMEDIATE}. So
what the engine leaves out is not counted as done.

Not measured: other shapes of products; what a library could do without Python between calls.
"""


@dataclass
class EngineRun:
    """The engine on all requests, `at_once` of them at a time, and what each round took."""

    name: str
    at_once: int
    walls_s: list[float] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        """Give the seconds of a round, the median."""
        return statistics.median(self.walls_s)


def main(  # noqa: PLR0913, PLR0917
    data: Annotated[
        Path | None, typer.Option(envvar=DATA_VARIABLE, help="Folder that holds trec-dl19/.")
    ] = None,
    queries: Annotated[int, typer.Option(help="Queries of a round.")] = 8,
    documents: Annotated[int, typer.Option(help="Documents of a query.")] = 100,
    rounds: Annotated[int, typer.Option(help="How often everything is timed.")] = 7,
    seconds: Annotated[float, typer.Option(help="How long a product is repeated.")] = 1.0,
    output: Annotated[Path | None, typer.Option(help="File for the report.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few pairs, to see that it works.")
    ] = False,
) -> None:
    """Print the ceiling, the engine's share of it and a profile."""
    if data is None or not has_collection(data):
        typer.echo(
            f"Name the folder that holds trec-dl19/ with --data or {DATA_VARIABLE}.", err=True
        )
        raise typer.Exit(2)
    if quick:
        queries, documents, rounds, seconds = 2, 20, 2, 0.2
    requests = read_requests(data, queries, documents)
    warnings.filterwarnings("ignore", "torch.quantize_per_tensor")  # it is old and says so
    with tempfile.TemporaryDirectory() as temporary:
        progress("making the model and converting it to int8")
        folder = save_cross_encoder(Path(temporary, "minilm-random"))
        settings = _settings(folder, Path(temporary))
        lines = asyncio.run(_measure(settings, requests, rounds, seconds))
        lines += profile(prepare_cross_encoder(folder, str(folder), settings), requests, rounds)
    lines += ["## Where", "", *machine(PACKAGES)]
    write([NOTES, *lines], output)


def _settings(model: Path, scratch: Path) -> Settings:
    return Settings(
        model=str(model),
        cache_dir=scratch / "cache",
        score_cache_bytes=0,
        token_matrix_cache_bytes=0,
        admission=False,
        request_timeout_s=3600,
        offline=True,
        log_level=LogLevel.WARNING,
    )


async def _measure(
    settings: Settings, requests: Sequence[Request], rounds: int, seconds: float
) -> list[str]:
    products = list(candidates(available_cores()))
    runs = [
        EngineRun("one request at a time", 1),
        EngineRun("all requests at once", len(requests)),
    ]
    async with build_engine(settings) as engine:
        await _run_engine(engine, requests, 1)  # to warm up
        for turn in range(rounds):
            progress(f"round {turn + 1} of {rounds}")
            for product in products:
                time.sleep(PAUSE_S)  # noqa: ASYNC251 - nothing else may run
                product.measure(seconds)
            for run in runs:
                time.sleep(PAUSE_S)  # noqa: ASYNC251
                run.walls_s.append(await _run_engine(engine, requests, run.at_once))
        what = engine.models()[0].engine
    ceiling = max(product.rate for product in products)
    return [*_ceiling(products), *_shares(runs, requests, ceiling, what)]


async def _run_engine(engine: Engine, requests: Sequence[Request], at_once: int) -> float:
    started = time.perf_counter()
    for start in range(0, len(requests), at_once):
        await asyncio.gather(
            *(
                engine.rerank(RerankRequest(each.query, tuple(map(Document, each.documents))))
                for each in requests[start : start + at_once]
            )
        )
    return time.perf_counter() - started


def _ceiling(products: Sequence[Candidate]) -> Iterator[str]:
    yield "## The ceiling"
    heads = ("library", "kernel", "streams", *(f"{shape}, GOP/s" for shape in SHAPES))
    grouped: dict[tuple[str, str, int], dict[str, float]] = {}
    for each in products:
        cells = grouped.setdefault((each.library, each.kernel, each.streams), {})
        cells[str(each.shape)] = each.rate
    yield from table(
        heads,
        (
            [library, kernel, str(streams), *(_giga(rates.get(str(shape))) for shape in SHAPES)]
            for (library, kernel, streams), rates in grouped.items()
        ),
    )
    best = max(products, key=lambda each: each.rate)
    yield f"The best: {best.library} {best.kernel}, {best.shape}, {_giga(best.rate)} GOP/s."
    yield ""


def _shares(
    runs: Sequence[EngineRun], requests: Sequence[Request], ceiling: float, what: str
) -> Iterator[str]:
    lengths = [length for request in requests for length in request.lengths]
    operations = sum(map(count_operations, lengths))
    yield "## The engine"
    yield ""
    yield (
        f"{what}; {len(requests)} queries, {len(lengths)} pairs, {sum(lengths)} tokens, "
        f"{_giga(operations)} GOP a round."
    )
    rows = []
    for run in runs:
        rate = operations / run.wall_s
        share = rate / ceiling
        cells = [run.name, f"{len(lengths) / run.wall_s:.0f}", f"{sum(lengths) / run.wall_s:.0f}"]
        verdict = "met" if share >= TARGET else "MISSED"
        rows.append([*cells, _giga(rate), f"{share:.2f}", f"{TARGET}: {verdict}"])
    heads = ("the engine on", "pairs/s", "tokens/s", "GOP/s", "share of the ceiling", "must reach")
    yield from table(heads, rows)


def _giga(value: float | None) -> str:
    return "" if value is None else f"{value / GIGA:.0f}"


if __name__ == "__main__":
    typer.run(main)
