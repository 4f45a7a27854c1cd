"""What it takes to run a model with OpenVINO: its files and the facts that its reranker needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from rerank_sidecar.models.arithmetic import Arithmetic


class Activation(StrEnum):
    """What turns a cross-encoder's logit into its score."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, slots=True, eq=False)
class ServableModel:
    """A model whose files are on this machine, ready to be compiled.

    `version` is the first 12 hex digits of a hash over its files and how they were converted: it
    changes whenever scores may change. `source` is the hub id or the folder it came from, or
    "built in". `model_path` is an OpenVINO IR. `max_tokens` is what it reads at once, special
    tokens included; `overlap_tokens` is how much neighbouring windows of a long document share.
    `activation` belongs to cross-encoders, `manifest` (its model.json) to the embedded model.
    `arithmetic` is what it is to be run in and `arithmetic_reason` why; None: not chosen yet.
    """

    version: str
    source: str
    quantization: str
    model_path: Path
    tokenizer_path: Path
    max_tokens: int
    activation: Activation = Activation.IDENTITY
    pad_token_id: int = 0
    overlap_tokens: int = 64
    manifest: Mapping[str, Any] = field(default_factory=dict)
    arithmetic: Arithmetic | None = None
    arithmetic_reason: str = ""

    def version_on(self, precision: str) -> str:
        """Name the files and, where they do not tell it, the arithmetic: scores depend on it."""
        usual = "int8" if self.quantization == "int8" else "float32"
        return self.version if precision == usual else f"{self.version}-{precision}"
