"""Compares the engine with other rerankers: one cross-encoder, one set of texts, one run.

    python -m benchmarks.cross_encoder --data DIR [--output FILE]

Run it from the repository's root; benchmarks/README.md tells what it needs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import kendalltau, spearmanr

from benchmarks.contenders import (
    OURS_FLOAT32,
    OURS_INT8,
    REFERENCE,
    TARGETS,
    Contender,
    Target,
    contenders,
    default_venvs,
)
from benchmarks.machine import machine, progress, table, write
from benchmarks.minilm import export_graphs, save_cross_encoder
from benchmarks.passages import (
    DATA_VARIABLE,
    Request,
    has_collection,
    read_long_requests,
    read_requests,
)
from benchmarks.peer_process import Answer, PeerFailed, PeerProcess

PAUSE_S = 0.3
"""Between two contenders' turns: threads that spin for work have gone to sleep by then."""

EXACT = 1e-4

NOTES = f"""\
# Cross-encoder: the engine beside others

Measured: scoring all pairs of a query in one call, calls one after the other, tokenising included,
by each contender's own clock inside its process, without any server around it. One random-weights
BERT cross-encoder of MiniLM-L6 geometry (6 layers, hidden 384, 12 heads, 1536; seed fixed), the
same files for all. Contenders take turns within a round and in the opposite order in the next; a
figure is the median of the rounds, a ratio the median of the ratios within a round. Tokens are real
ones (WordPiece, special tokens counted, padding not, pairs cut at 512). Caches and admission of
ours are off. Contenders choose their own numbers of threads, unless the list below tells otherwise.

Not measured: servers and networks, concurrent callers, a GPU, ranking quality (the weights are
random, so agreement of int8 with float32 tells how faithful the arithmetic is, and no more).

`{REFERENCE}` is what the stock Weaviate container (reranker-transformers)
calls for every request, one at a time under a lock: its rate at any number of callers is at most
that row's. ONNX Runtime and CTranslate2 are runtimes, not rerankers: those rows are driven by a few
lines of this benchmark (benchmarks/peers/batches.py). infinity_emb's optimum engine leaves out
the token types that BERT tells query and document apart by: it is as fast, but scores otherwise.
"""


@dataclass
class Running:
    """A contender that answers, with what it took for each round."""

    name: str
    process: PeerProcess
    rounds: list[list[Answer]] = field(default_factory=list)

    def walls_s(self) -> list[float]:
        """Give the seconds that each round took."""
        return [sum(answer.wall_s for answer in answers) for answers in self.rounds]

    def cpu_s(self) -> float:
        """Give the processor seconds of a round, the median."""
        return statistics.median(sum(answer.cpu_s for answer in each) for each in self.rounds)


def main(  # noqa: PLR0913, PLR0917
    data: Annotated[
        Path | None, typer.Option(envvar=DATA_VARIABLE, help="Folder that holds trec-dl19/.")
    ] = None,
    venvs: Annotated[
        Path, typer.Option(help="Where the peers' virtual environments are kept.")
    ] = default_venvs(),  # noqa: B008
    constraints: Annotated[
        Path | None, typer.Option(help="Constraints for pip, for instance to hold torch.")
    ] = None,
    queries: Annotated[int, typer.Option(help="Queries of a round.")] = 5,
    documents: Annotated[int, typer.Option(help="Documents of a query.")] = 100,
    rounds: Annotated[int, typer.Option(help="How often each contender is timed.")] = 5,
    only: Annotated[
        list[str] | None, typer.Option(help="Only contenders with this in their names.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File for the report.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few pairs, to see that it works.")
    ] = False,
) -> None:
    """Print tables of speed and of agreement."""
    if data is None or not has_collection(data):
        typer.echo(
            f"Name the folder that holds trec-dl19/ with --data or {DATA_VARIABLE}.", err=True
        )
        raise typer.Exit(2)
    if quick:
        queries, documents, rounds = 2, 20, 2
    passages = read_requests(data, queries, documents)
    long_mix = read_long_requests(data, max(1, queries // 2), documents)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        chosen = _chosen(Path(temporary), only or [""])
        running, failed = _start_all(
            chosen, venvs, constraints, Path(temporary), passages[0], stack
        )
        lines = [NOTES, "## Passages", *_race(running, passages, rounds)]
        lines += [*_targets(running), "## Agreement", *_agreement(running, passages)]
        lines += [
            "## Long documents among passages",
            *_race(running, long_mix, max(2, rounds // 2)),
        ]
        lines += ["## What ran", "", *(f"- {each.name}: {each.process.what}" for each in running)]
    lines += [f"- {name}: did not run: {why}" for name, why in failed.items()]
    lines += ["", "## Where", "", *machine(("rerank-sidecar", "openvino", "nncf", "numpy"))]
    lines += [f"- took {(time.monotonic() - began) / 60:.0f} minutes"]
    write(lines, output)


def _chosen(scratch: Path, only: Sequence[str]) -> list[Contender]:
    progress("making the model and its ONNX graphs")
    model = save_cross_encoder(scratch / "minilm-random")
    graphs = export_graphs(model, scratch / "onnx")
    everyone = contenders(model, graphs, scratch)
    return [each for each in everyone if any(part in each.name for part in only)]


def _start_all(  # noqa: PLR0913, PLR0917
    chosen: Sequence[Contender],
    venvs: Path,
    constraints: Path | None,
    logs: Path,
    first: Request,
    stack: ExitStack,
) -> tuple[list[Running], dict[str, str]]:
    """Load everyone and have them answer a request; give who did, and why the others did not."""
    running, failed = [], {}
    for each in chosen:
        progress(f"loading {each.name}")
        try:
            process = stack.enter_context(each.start(venvs, constraints, logs))
            process.answer(first)
            running.append(Running(each.name, process))
        except PeerFailed as error:
            progress(f"  failed: {error}")
            failed[each.name] = str(error)
    return running, failed


def _race(running: Sequence[Running], requests: Sequence[Request], rounds: int) -> Iterator[str]:
    for each in running:
        each.rounds.clear()
        each.process.answer(requests[0])  # to warm up
    for turn in range(rounds):
        for each in running if turn % 2 == 0 else reversed(running):
            time.sleep(PAUSE_S)
            each.rounds.append([each.process.answer(request) for request in requests])
            progress(f"round {turn + 1} of {rounds}: {each.name} {each.walls_s()[-1]:.2f} s")
    yield from _speeds(running, requests, rounds)


def _speeds(running: Sequence[Running], requests: Sequence[Request], rounds: int) -> Iterator[str]:
    pairs = sum(len(request.documents) for request in requests)
    tokens = sum(request.tokens for request in requests)
    lengths = [length for request in requests for length in request.lengths]
    yield ""
    yield (
        f"{len(requests)} queries, {pairs} pairs, {tokens} tokens (a pair: median "
        f"{statistics.median(lengths):.0f}, longest {max(lengths)}); {rounds} rounds."
    )
    heads = ["contender", "pairs/s", "tokens/s", "slowest to fastest round, pairs/s"]
    heads += ["wall s per 100 pairs", "CPU s per 100 pairs", "ours int8 is faster by"]
    ours = _named(running, OURS_INT8)
    rows = []
    for each in running:
        walls_s = each.walls_s()
        wall_s = statistics.median(walls_s)
        cells = [each.name, f"{pairs / wall_s:.0f}", f"{tokens / wall_s:.0f}"]
        cells += [f"{pairs / max(walls_s):.0f} to {pairs / min(walls_s):.0f}"]
        cells += [f"{100 * seconds / pairs:.3f}" for seconds in (wall_s, each.cpu_s())]
        rows.append([*cells, f"{_faster(ours, each):.2f}" if ours else ""])
    yield from table(heads, rows)


def _named(running: Iterable[Running], name: str) -> Running | None:
    return next((each for each in running if each.name == name), None)


def _faster(one: Running, other: Running) -> float:
    """Tell how many times as fast one is as the other, by the median of the rounds."""
    pairs = zip(one.walls_s(), other.walls_s(), strict=True)
    return statistics.median(theirs / ours for ours, theirs in pairs)


def _targets(running: Sequence[Running]) -> Iterator[str]:
    rows = (_target(running, target) for target in TARGETS)
    heads = ("measure", "against", "must reach", "measured", "")
    yield from table(heads, rows)


def _target(running: Sequence[Running], target: Target) -> list[str]:
    ours = _named(running, target.ours)
    peers = [each for each in running if each.name in target.peers]
    cells = [f"pairs per second, {target.ours}", " / ".join(target.peers), f"{target.factor} times"]
    if ours is None or not peers:
        return [*cells, "not measured", "OPEN"]
    factor = min(_faster(ours, peer) for peer in peers)
    return [*cells, f"{factor:.2f} times", "met" if factor >= target.factor else "MISSED"]


def _agreement(running: Sequence[Running], requests: Sequence[Request]) -> Iterator[str]:
    """Compare scores with the reference's, query by query, and average the rank correlations."""
    reference = _named(running, REFERENCE)
    ours = _named(running, OURS_FLOAT32)
    against = reference or ours
    if against is None:
        return
    heads = (f"scores against {against.name}", "largest difference", "Spearman", "Kendall")
    yield from table(heads, (_agree(each, against) for each in running))
    yield f"Means over {len(requests)} queries; scores are probabilities."
    if reference and ours:
        largest = _largest_difference(ours, reference)
        verdict = "met" if largest <= EXACT else "MISSED"
        yield f"{ours.name} equals {reference.name} within {EXACT:g}: {largest:.1e}, {verdict}."
    yield ""


def _agree(one: Running, other: Running) -> list[str]:
    pairs = list(zip(one.rounds[-1], other.rounds[-1], strict=True))
    spearman = np.mean([spearmanr(a.scores, b.scores).statistic for a, b in pairs])
    kendall = np.mean([kendalltau(a.scores, b.scores).statistic for a, b in pairs])
    return [one.name, f"{_largest_difference(one, other):.1e}", f"{spearman:.4f}", f"{kendall:.4f}"]


def _largest_difference(one: Running, other: Running) -> float:
    return max(
        float(np.abs(np.subtract(a.scores, b.scores)).max())
        for a, b in zip(one.rounds[-1], other.rounds[-1], strict=True)
    )


if __name__ == "__main__":
    typer.run(main)
