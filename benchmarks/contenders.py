"""Who is compared, in which virtual environment, with which options, and what must be reached."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.minilm import Graphs
from benchmarks.peer_process import PeerProcess, install

OURS_INT8, OURS_FLOAT32 = "ours, int8", "ours, float32"
REFERENCE = "sentence-transformers, float32"

_BEST_REFERENCE = f"{REFERENCE}, best batch size"
_FLASHRANK = "FlashRank, int8"
_INFINITY_BETTER = "infinity_emb torch, BetterTransformer"
_INFINITY_PLAIN = "infinity_emb torch"

ENVIRONMENTS = {
    "sentence-transformers": ("sentence-transformers",),
    "flashrank": ("flashrank",),
    # infinity_emb imports optimum.bettertransformer, which newer releases of the two have dropped.
    "infinity": (
        *("infinity-emb[torch,optimum]==0.0.77", "optimum<1.25", "transformers<4.49"),
        "pyarrow<20",  # it holds numpy below 2, which newer ones refuse
    ),
    # Its converter reads a configuration that transformers 5 has dropped.
    "ctranslate2": ("ctranslate2", "transformers<5", "torch", "numpy"),
}


@dataclass(frozen=True)
class Target:
    """`ours` must be `factor` times as fast as the fastest of `peers`."""

    ours: str
    peers: tuple[str, ...]
    factor: float


TARGETS = (
    Target(OURS_INT8, (REFERENCE,), 6),
    Target(OURS_INT8, (_BEST_REFERENCE,), 6),
    Target(OURS_INT8, (_FLASHRANK,), 3.5),
    Target(OURS_INT8, (_INFINITY_PLAIN, _INFINITY_BETTER), 6),
    Target(OURS_FLOAT32, (REFERENCE,), 2),
    Target(OURS_FLOAT32, (_BEST_REFERENCE,), 2),
)


@dataclass(frozen=True)
class Contender:
    """A runner of `benchmarks.peers`; without an environment it runs in this one."""

    name: str
    runner: str
    model: Path
    environment: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def start(self, venvs: Path, constraints: Path | None, logs: Path) -> PeerProcess:
        """Install what is missing and load the model.

        Raises:
            PeerFailed: one of the two did not work.
        """
        python = Path(sys.executable)
        if self.environment is not None:
            packages = ENVIRONMENTS[self.environment]
            python = install(venvs, self.environment, packages, constraints)
        log = logs / f"{self.name.replace(' ', '-').replace(',', '')}.log"
        return PeerProcess(python, self.runner, self.model, self.options, log)


def contenders(model: Path, graphs: Graphs, scratch: Path) -> Iterator[Contender]:
    """List everyone, ours first."""
    yield from _ours(model, scratch)
    yield from _peers(model, graphs, scratch)
    yield from _runtimes(model, graphs, scratch)


def _ours(model: Path, scratch: Path) -> Iterator[Contender]:
    for name, quantize, engine in (
        (OURS_INT8, "int8", "auto"),
        (OURS_FLOAT32, "none", "auto"),
        ("ours on ONNX Runtime, int8", "int8", "onnxruntime-int8"),
        ("ours on ONNX Runtime, float32", "none", "onnxruntime-float32"),
    ):
        options = {"quantize": quantize, "engine": engine, "cache_dir": str(scratch / "ours")}
        yield Contender(name, "run_ours", model, None, options)


def _peers(model: Path, graphs: Graphs, scratch: Path) -> Iterator[Contender]:
    environment = "sentence-transformers"
    for name, sizes in ((REFERENCE, [32]), (_BEST_REFERENCE, [8, 16, 32, 64, 128])):
        options: dict[str, Any] = {"batch_sizes": sizes}
        yield Contender(name, "run_sentence_transformers", model, environment, options)
    options = {"onnx": str(graphs.plain_int8), "cache_dir": str(scratch / "flashrank")}
    yield Contender(_FLASHRANK, "run_flashrank", model, "flashrank", options)
    for name, better in ((_INFINITY_PLAIN, False), (_INFINITY_BETTER, True)):
        options = {"engine": "torch", "bettertransformer": better}
        yield Contender(name, "run_infinity", model, "infinity", options)
    for precision, graph, file in (
        ("float32", graphs.plain, "model.onnx"),
        ("int8", graphs.plain_int8, "model_quantized.onnx"),
    ):
        # A folder for each: it writes its optimised graph beside the one that it finds.
        folder = scratch / f"infinity-{precision}"
        shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        shutil.copyfile(graph, folder / file)
        options = {"engine": "optimum"}
        name = f"infinity_emb optimum, {precision}"
        yield Contender(name, "run_infinity", folder, "infinity", options)


def _runtimes(model: Path, graphs: Graphs, scratch: Path) -> Iterator[Contender]:
    for name, graph in (
        ("ONNX Runtime, fused float32", graphs.fused),
        ("ONNX Runtime, fused int8 per channel", graphs.fused_int8),
    ):
        yield Contender(name, "run_onnxruntime", model, "flashrank", {"onnx": str(graph)})
    options = {"quantization": "int8", "cache_dir": str(scratch / "ctranslate2")}
    yield Contender("CTranslate2, int8", "run_ctranslate2", model, "ctranslate2", options)


def default_venvs() -> Path:
    """Give the folder of the virtual environments, in the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "rerank-sidecar-benchmarks" / "venvs"
