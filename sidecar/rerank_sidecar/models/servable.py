"""What it takes to serve a model: its files and the facts that its reranker needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rerank_sidecar.models.arithmetic import Arithmetic

EMBEDDED = "embedded"
LEXICAL = "lexical"


class ModelFamily(StrEnum):
    """The kind of reranker that a model is run by."""

    LATE_INTERACTION = "late_interaction"
    CROSS_ENCODER = "cross_encoder"
    LEXICAL = "lexical"


class Activation(StrEnum):
    """What turns a cross-encoder's logit into its score."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, slots=True, eq=False)
class ServableModel:
    """A model whose files are on this machine, ready to be compiled.

    `name` is what requests call it and `version` the first 12 hex digits of a hash over its files
    and how they were converted: it changes whenever scores may change. `source` is the hub id or
    the folder it came from, or "built in". `model_path` is an OpenVINO IR, None for `lexical`.
    `max_tokens` is what it reads at once, special tokens included, None without a limit;
    `overlap_tokens` is how much neighbouring windows of a long document share.
    `activation` belongs to cross-encoders, `manifest` (its model.json) to the embedded model.
    `arithmetic` is what it is to be run in and `arithmetic_reason` why; None: not chosen yet.
    """

    name: str
    version: str
    family: ModelFamily
    source: str
    quantization: str
    model_path: Path | None = None
    tokenizer_path: Path | None = None
    max_tokens: int | None = None
    activation: Activation | None = None
    pad_token_id: int = 0
    overlap_tokens: int = 64
    manifest: Mapping[str, Any] | None = None
    arithmetic: Arithmetic | None = None
    arithmetic_reason: str = ""
