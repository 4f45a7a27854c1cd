"""infinity_emb's engine in process, with its own batching."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

os.environ["INFINITY_ANONYMOUS_USAGE_STATS"] = "0"

from infinity_emb import AsyncEngineArray, EngineArgs

from benchmarks.peers.protocol import Runner, serve, versions


def load(model: str, options: dict[str, Any]) -> Runner:
    """Start the engine on the CPU; `options` are its own arguments, the rest is as by default."""
    loop = asyncio.new_event_loop()
    arguments = EngineArgs(model_name_or_path=model, device="cpu", model_warmup=False, **options)
    engine = AsyncEngineArray.from_args([arguments])[0]
    loop.run_until_complete(engine.astart())

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        call = engine.rerank(query=query, docs=list(documents))
        results, _ = loop.run_until_complete(call)
        scores = {each.index: each.relevance_score for each in results}
        return [scores[index] for index in range(len(documents))]

    names = versions("infinity-emb", "optimum", "transformers", "torch", "onnxruntime")
    what = f"{names}, batch size {arguments.batch_size}, {arguments.dtype.value}"
    return Runner(score, lambda: what, lambda: loop.run_until_complete(engine.astop()))


if __name__ == "__main__":
    serve(load)
