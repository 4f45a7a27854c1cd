"""Compares each local family with sentence-transformers: one model, one set of texts, in turns.

    python -m benchmarks.local_families --data DIR [--output FILE]

Run it from the repository's root; benchmarks/README.md tells what it needs.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy.stats import spearmanr

from benchmarks.family_models import save_colbert, save_llm
from benchmarks.in_turns import Contender, Score, Scores
from benchmarks.machine import machine, progress, table, write
from benchmarks.minilm import save_cross_encoder
from benchmarks.passages import DATA_VARIABLE, Request, has_collection, read_requests
from rerank_sidecar.app import build_engine
from rerank_sidecar.models.build_embedded import unpack_source
from rerank_sidecar.settings import Settings

PACKAGES = ("rerank-sidecar", "openvino", "onnxruntime", "torch", "sentence-transformers")
NOTES = """\
# Local families beside sentence-transformers, on the CPU

Measured: scoring all passages of a query in one call, tokenising included, calls one after the
other, all in one process. Contenders take turns within a round; a figure is the median of the
rounds, a ratio the median of the ratios within a round. Queries and passages are TREC DL19's, the
documents BM25's. The same files for all; weights are random but for the bi-encoder's, so that
Spearman's rank correlation tells how faithful the arithmetic is, and nothing of quality. Score
cache and admission of ours are off; documents' vectors are kept between calls only where a row
says so."""

Settle = dict[str, Any]
NOTHING_KEPT: Settle = {"token_matrix_cache_bytes": 0}


@dataclass(frozen=True)
class Case:
    """A family: its model, the library's way to score, and ours by settings."""

    name: str
    model: str
    save: Callable[[Path], Path]
    reference: Callable[[Path], Score]
    ours: dict[str, Settle]
    queries: int = 3
    documents: int = 100


def cross_encoder(folder: Path) -> Score:
    """Score with the library's CrossEncoder."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu")

    def score(query: str, texts: Sequence[str]) -> Scores:
        pairs = [(query, text) for text in texts]
        return np.asarray(model.predict(pairs, show_progress_bar=False), dtype=np.float64)

    return score


def bi_encoder(folder: Path) -> Score:
    """Score with the library's SentenceTransformer, by cosine."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")

    def score(query: str, texts: Sequence[str]) -> Scores:
        vectors = model.encode_query([query]), model.encode_document(list(texts))
        return np.asarray(model.similarity(*vectors)[0], dtype=np.float64)

    return score


def multi_vector(folder: Path) -> Score:
    """Score with the library's MultiVectorEncoder, by MaxSim."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.util.similarity import maxsim

    model = MultiVectorEncoder(str(folder), device="cpu")

    def score(query: str, texts: Sequence[str]) -> Scores:
        found = maxsim(model.encode_query([query]), model.encode_document(list(texts)))
        return np.asarray(found[0], dtype=np.float64)

    return score


def causal(folder: Path) -> Score:
    """Score with the library's CrossEncoder on a causal model, in the saved bfloat16."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.bfloat16})

    def score(query: str, texts: Sequence[str]) -> Scores:
        pairs = [(query, text) for text in texts]
        return np.asarray(
            model.predict(pairs, batch_size=8, show_progress_bar=False), dtype=np.float64
        )

    return score


def _saved_minilm(folder: Path) -> Path:
    unpack_source(folder)
    return folder


def _encoder_rows(*engines: str) -> dict[str, Settle]:
    rows = {f"ours, {engine}": {"engine": engine, **NOTHING_KEPT} for engine in engines}
    return rows | {f"ours, {engines[0]}, documents kept": {"engine": engines[0]}}


CASES = {
    "cross-encoder": Case(
        "Cross-encoder",
        "MiniLM-L6 geometry: 6 layers, hidden 384",
        save_cross_encoder,
        cross_encoder,
        {
            f"ours, {engine}": {"engine": engine}
            for engine in (
                "openvino-int8",
                "openvino-float32",
                "onnxruntime-int8",
                "onnxruntime-float32",
                "torch-bf16",
                "torch-float32",
            )
        },
    ),
    "bi-encoder": Case(
        "Bi-encoder",
        "all-MiniLM-L6-v2, its real weights",
        _saved_minilm,
        bi_encoder,
        _encoder_rows("openvino-int8", "openvino-float32", "torch-float32"),
    ),
    "late-interaction": Case(
        "Late interaction",
        "answerai-colbert-small's size: 12 layers, hidden 384, vectors of 96",
        save_colbert,
        multi_vector,
        _encoder_rows("openvino-int8", "openvino-float32", "torch-float32"),
    ),
    "llm-pointwise": Case(
        "LLM pointwise",
        "Qwen3-Reranker-0.6B's size: 28 layers, hidden 1024, vocabulary 151,936; bfloat16",
        save_llm,
        causal,
        {"ours, torch-bf16": {"engine": "torch-bf16"}},
        queries=1,
        documents=16,
    ),
}


def main(
    data: Annotated[
        Path | None, typer.Option(envvar=DATA_VARIABLE, help="Folder of the collections.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each contender is timed.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Families, of {', '.join(CASES)}.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few pairs, to see that it works.")
    ] = False,
) -> None:
    """Print one table for each family."""
    if not data or not has_collection(data):
        typer.echo("Name the folder that holds trec-dl19/ with --data.", err=True)
        raise typer.Exit(2)
    chosen = [CASES[name] for name in only or CASES]
    lines = [NOTES]
    for case in chosen:
        shrunk = min(case.documents, 4) if quick else case.documents
        requests = read_requests(data, 1 if quick else case.queries, shrunk)
        lines += compare(case, requests, 1 if quick else rounds)
    write([*lines, "## Where", "", *machine(PACKAGES)], output)


def compare(case: Case, requests: Sequence[Request], rounds: int) -> Iterator[str]:
    """Time one family and give its table."""
    progress(f"{case.name}: {case.model}")
    with tempfile.TemporaryDirectory() as folder:
        model = case.save(Path(folder, "model"))
        found = asyncio.run(_in_turns(case, model, Path(folder, "cache"), requests, rounds))
    gc.collect()
    documents = sum(len(request.documents) for request in requests)
    words = sum(len(text.split()) for request in requests for text in request.documents)
    yield f"\n## {case.name}\n\n{case.model}. {len(requests)} queries, {documents} documents of"
    yield f"{words / documents:.0f} words on average; {rounds} rounds."
    heads = ("contender", "documents/s", "ms a query", "times as fast", "Spearman")
    yield from table(heads, (_row(each, found[0], len(requests), documents) for each in found))


def _row(each: Contender, reference: Contender, queries: int, documents: int) -> list[str]:
    agreement = np.mean(
        [
            spearmanr(ours, theirs).statistic
            for ours, theirs in zip(each.scores, reference.scores, strict=True)
        ]
    )
    return [
        each.name,
        f"{documents / each.typical_s:.1f}",
        f"{1000 * each.typical_s / queries:.0f}",
        f"{each.times_as_fast_as(reference):.2f}",
        f"{agreement:.3f}",
    ]


async def _in_turns(
    case: Case, model: Path, cache: Path, requests: Sequence[Request], rounds: int
) -> list[Contender]:
    asked = [(request.query, request.documents) for request in requests]
    reference, library = Contender("sentence-transformers"), case.reference(model)
    ours = [Contender(name) for name in case.ours]
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(build_engine(_settings(model, cache, each)))
            for each in case.ours.values()
        ]
        for turn in range(rounds + 1):  # the first one warms up
            reference.turn(library, asked)
            for contender, engine in zip(ours, engines, strict=True):
                await contender.turn_of(engine, asked)
            progress(f"  {turn} of {rounds} rounds")
    for contender in (reference, *ours):
        del contender.seconds[0]
    return [reference, *ours]


def _settings(model: Path, cache: Path, own: Settle) -> Settings:
    return Settings(
        **{
            "model": str(model),
            "cache_dir": cache,
            "offline": True,
            "score_cache_bytes": 0,
            "admission": False,
            "request_timeout_s": 3600,
            "log_level": "warning",
            **({"quantize": "none"} if "float32" in own["engine"] else {}),
            **own,
        }
    )


if __name__ == "__main__":
    typer.run(main)
