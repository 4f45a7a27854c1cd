"""Compares the torch engine with sentence-transformers on a GPU: one model, one set of texts.

    python -m benchmarks.torch_gpu [--device cuda:0] [--output FILE]

Run it from the repository's root; `--quick --device cpu` only shows that it works.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from scipy.stats import spearmanr
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from benchmarks.in_turns import Contender, Score, Scores, engine_scores, timed
from benchmarks.machine import machine, progress, table, write
from benchmarks.minilm import save_cross_encoder, save_tokenizer
from rerank_sidecar.app import build_engine
from rerank_sidecar.settings import EngineChoice, LogLevel, Settings

MAX_TOKENS = 512
BATCH_SIZES = (32, 128, 512)
TYPICAL_WORDS, LONGEST_WORDS = 60, 380
SEED = 20240517

NOTES = """\
# Torch on a GPU: the engine beside sentence-transformers

Measured: scoring one query's documents in one call, tokenising included, each contender in this
process, taking turns; a figure is the median of the rounds. Weights are random (speed does not
depend on them) and in bfloat16 for both; the same files, SDPA attention for sentence-transformers
at the batch size that is fastest for it. Documents are words of the vocabulary at random, their
lengths log-normal with a median of {typical} words, cut at {longest}. Caches and admission of ours
are off.

The share of the peak is the matrix products that the model is defined by (every layer for every
token, padding not) per second, divided by the rate of one large bfloat16 product of torch here, in
the same run.
"""


@dataclass(frozen=True)
class Geometry:
    """A cross-encoder by its sizes."""

    name: str
    layers: int
    hidden: int
    heads: int
    intermediate: int

    def operations(self, lengths: Sequence[int]) -> int:
        """Count the operations of a request's matrix products; a multiply-add is two."""
        a_token = 2 * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        return sum(
            self.layers * (length * a_token + 4 * self.hidden * length**2) for length in lengths
        )


MINILM = Geometry("MiniLM-L6", 6, 384, 12, 1536)
BGE_M3 = Geometry("bge-reranker-v2-m3's size", 24, 1024, 16, 4096)
TINY = Geometry("tiny", 2, 64, 2, 128)


def main(
    device: Annotated[str, typer.Option(help="What runs both.")] = "cuda:0",
    documents: Annotated[int, typer.Option(help="Documents of a request.")] = 1000,
    rounds: Annotated[int, typer.Option(help="How often each contender is timed.")] = 5,
    output: Annotated[Path | None, typer.Option(help="File for the report.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tiny model and few pairs, to see that it works.")
    ] = False,
) -> None:
    """Print a table of speed for each model."""
    if device != "cpu" and not torch.cuda.is_available():
        typer.echo("There is no GPU here; --quick --device cpu shows that it works.", err=True)
        raise typer.Exit(2)
    if quick:
        documents, rounds = 40, 2
    lines = [NOTES.format(typical=TYPICAL_WORDS, longest=LONGEST_WORDS)]
    peak = matmul_rate(device)
    for geometry in (TINY,) if quick else (MINILM, BGE_M3):
        progress(f"{geometry.name}: {documents} documents, {rounds} rounds")
        with tempfile.TemporaryDirectory() as folder:
            model = save_model(Path(folder, "model"), geometry)
            lines += compare(model, geometry, device, documents, rounds, peak)
    lines += [f"- one bfloat16 product: {peak / 1e12:.2f} TFLOP/s on {device_name(device)}"]
    write([*lines, *machine(("torch", "transformers", "sentence-transformers"))], output)


def compare(  # noqa: PLR0913, PLR0917
    model: Path, geometry: Geometry, device: str, documents: int, rounds: int, peak: float
) -> Iterator[str]:
    """Time both and give a table."""
    query, texts = request(model, documents)
    lengths = pair_lengths(model, query, texts)
    both = asyncio.run(time_both(model, device, query, texts, rounds))
    rows = []
    for each in both:
        rate = geometry.operations(lengths) / each.typical_s
        agreement = spearmanr(each.scores[0], both[0].scores[0]).statistic
        rows.append(
            (
                each.name,
                f"{documents / each.typical_s:.0f}",
                f"{sum(lengths) / each.typical_s:.0f}",
                f"{each.times_as_fast_as(both[0]):.2f}",
                f"{100 * rate / peak:.0f} %",
                f"{agreement:.4f}",
            )
        )
    yield f"## {geometry.name}"
    yield f"\n{documents} pairs, {sum(lengths)} tokens, the longest pair {max(lengths)}."
    heads = ("contender", "pairs/s", "tokens/s", "times as fast", "of the peak", "Spearman")
    yield from table(heads, rows)


async def time_both(
    model: Path, device: str, query: str, texts: Sequence[str], rounds: int
) -> tuple[Contender, Contender]:
    """Time sentence-transformers at its best batch size, and ours, round by round in turns."""
    reference, name = fastest_reference(model, device, query, texts)
    async with build_engine(engine_settings(model, device)) as engine:
        running = engine.models()[0].engine
        if not running.startswith("torch "):
            raise typer.BadParameter(f"the engine would run on {running}")
        theirs, ours = Contender(name), Contender(f"ours, {running}")
        await engine_scores(engine, query, texts)
        for _ in range(rounds):
            theirs.turn(reference, [(query, texts)])
            await ours.turn_of(engine, [(query, texts)])
    return theirs, ours


def engine_settings(model: Path, device: str) -> Settings:
    """Give the settings with which ours does the same work as the reference."""
    return Settings(
        model=str(model),
        device=device,
        engine=EngineChoice.TORCH_BF16,
        score_cache_bytes=0,
        admission=False,
        request_timeout_s=3600,
        log_level=LogLevel.WARNING,
        offline=True,
    )


def fastest_reference(
    model: Path, device: str, query: str, texts: Sequence[str]
) -> tuple[Score, str]:
    """Load sentence-transformers and find the batch size at which it is fastest."""
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(model), device=device, model_kwargs={"dtype": torch.bfloat16})

    def scorer(size: int) -> Score:
        def score(query: str, texts: Sequence[str]) -> Scores:
            pairs = [(query, text) for text in texts]
            return np.asarray(
                encoder.predict(pairs, batch_size=size, show_progress_bar=False), dtype=np.float64
            )

        return score

    took = {}
    for size in BATCH_SIZES:
        scorer(size)(query, texts)
        took[size], _ = timed(scorer(size), query, texts)
    best = min(took, key=took.__getitem__)
    return scorer(best), f"sentence-transformers, batches of {best}"


def matmul_rate(device: str) -> float:
    """Measure operations per second of one large bfloat16 product, the best of several."""
    side = 8192 if device != "cpu" else 1024
    left, right = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    best_s = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # waits until it is done
        best_s = min(best_s, time.perf_counter() - start)
    return 2 * side**3 / best_s


def device_name(device: str) -> str:
    """Name the GPU."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def request(model: Path, documents: int) -> tuple[str, list[str]]:
    """Make a query and documents of mixed lengths, always the same ones."""
    vocabulary = (model / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [word for word in vocabulary if word.isascii() and word.isalpha()]
    random = np.random.default_rng(SEED)
    counts = random.lognormal(np.log(TYPICAL_WORDS), 0.8, documents).astype(int)
    texts = [" ".join(random.choice(words, count)) for count in counts.clip(3, LONGEST_WORDS)]
    return "what is the height of the highest mountain", texts


def pair_lengths(model: Path, query: str, texts: Sequence[str]) -> list[int]:
    """Count the tokens of each pair as both read it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    encodings = tokenizer.encode_batch([(query, text) for text in texts])
    return [len(encoding.ids) for encoding in encodings]


def save_model(folder: Path, geometry: Geometry) -> Path:
    """Save a cross-encoder of random weights: BERT for MiniLM, else XLM-RoBERTa."""
    if geometry == MINILM:
        return save_cross_encoder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(folder)
    config = XLMRobertaConfig(
        vocab_size=250_002 if geometry == BGE_M3 else 31_000,
        hidden_size=geometry.hidden,
        num_hidden_layers=geometry.layers,
        num_attention_heads=geometry.heads,
        intermediate_size=geometry.intermediate,
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=2,  # the tokenizer is BERT's
        num_labels=1,
        pad_token_id=0,
    )
    torch.manual_seed(SEED)
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    typer.run(main)
