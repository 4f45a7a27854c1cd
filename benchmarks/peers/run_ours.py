"""Ours: the engine in process, as the doors call it, without caches and admission."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Runner, serve
from rerank_sidecar.app import build_engine
from rerank_sidecar.settings import EngineChoice, LogLevel, Quantization, Settings
from rerank_sidecar.types import Document, RerankRequest


def load(model: str, options: dict[str, Any]) -> Runner:
    """Convert the model into `options["cache_dir"]` as the two settings in the options say."""
    settings = Settings(
        model=model,
        quantize=Quantization(options["quantize"]),
        engine=EngineChoice(options["engine"]),
        cache_dir=Path(options["cache_dir"]),
        score_cache_bytes=0,
        token_matrix_cache_bytes=0,
        admission=False,
        request_timeout_s=3600,
        log_level=LogLevel.WARNING,
        offline=True,
    )
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    engine = loop.run_until_complete(stack.enter_async_context(build_engine(settings)))

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        request = RerankRequest(query, tuple(map(Document, documents)))
        result = loop.run_until_complete(engine.rerank(request))
        scores = {each.index: each.score.value for each in result.results if each.score}
        return [scores[index] for index in range(len(documents))]

    what = engine.models()[0].engine
    return Runner(score, lambda: what, lambda: loop.run_until_complete(stack.aclose()))


if __name__ == "__main__":
    serve(load)
