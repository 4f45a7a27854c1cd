"""FlashRank's own Ranker class, with our ONNX file placed where it looks for its models."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashrank import Ranker, RerankRequest
from flashrank.Config import model_file_map

from benchmarks.peers.protocol import Runner, serve, versions

NAME = "ms-marco-MiniLM-L-12-v2"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def load(model: str, options: dict[str, Any]) -> Runner:
    """Take `options["onnx"]` for one of FlashRank's own models: a name, a folder and a file."""
    cache = Path(options["cache_dir"])
    folder = cache / NAME
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(Path(model, name), folder / name)
    shutil.copyfile(options["onnx"], folder / model_file_map[NAME])
    ranker = Ranker(model_name=NAME, cache_dir=str(cache), max_length=512, log_level="WARNING")

    def score(query: str, documents: Sequence[str]) -> Sequence[float]:
        passages = [{"id": index, "text": text} for index, text in enumerate(documents)]
        found = ranker.rerank(RerankRequest(query=query, passages=passages))
        scores = {each["id"]: float(each["score"]) for each in found}
        return [scores[index] for index in range(len(documents))]

    names = versions("flashrank", "onnxruntime")
    return Runner(score, lambda: f"{names}, all documents of a call in one batch")


if __name__ == "__main__":
    serve(load)
