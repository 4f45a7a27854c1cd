"""sentence-transformers' CrossEncoder in float32; the stock Weaviate container calls the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import CrossEncoder

from benchmarks.peers.protocol import Runner, serve, versions


def load(model: str, options: dict[str, Any]) -> Runner:
    """Load in float32; of `options["batch_sizes"]` the first request finds the fastest."""
    encoder = CrossEncoder(model, device="cpu")
    sizes: list[int] = list(options["batch_sizes"])

    def predict(query: str, documents: Sequence[str], size: int) -> Sequence[float]:
        pairs = [(query, document) for document in documents]
        scores: Sequence[float] = encoder.predict(pairs, batch_size=size, show_progress_bar=False)
        return scores

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        if len(sizes) > 1:
            sizes[:] = [_fastest(sizes, lambda size: predict(query, documents, size))]
        return predict(query, documents, sizes[0])

    names = versions("sentence-transformers", "transformers", "torch")
    threads = torch.get_num_threads()
    return Runner(score, lambda: f"{names}, batch size {sizes[0]}, {threads} threads")


def _fastest(sizes: Sequence[int], run: Any) -> int:  # noqa: ANN401
    run(sizes[0])  # to warm up
    times_s = {}
    for size in sizes:
        started = time.perf_counter()
        run(size)
        times_s[size] = time.perf_counter() - started
    return min(times_s, key=times_s.__getitem__)


if __name__ == "__main__":
    serve(load)
