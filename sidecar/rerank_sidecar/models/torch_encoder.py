"""Puts encoders that sentence-transformers loaded into the form in which torch runs models here."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from rerank_sidecar.models.encoder import EncoderKind
from rerank_sidecar.models.load_encoder import LoadedEncoder, run_modules
from rerank_sidecar.models.torch_checkpoint import Inputs, TorchModel


def torch_encoder(loaded: LoadedEncoder) -> TorchModel:
    """Give a model whose output is vectors: [batch, dimension], or of each token."""
    facts = loaded.facts
    return TorchModel(
        module=loaded.as_module([]),
        run=partial(_vectors, loaded.output),
        transformer=_nothing,
        output="logits" if facts.kind is EncoderKind.BI_ENCODER else "hidden_states",
        takes_types=loaded.takes_types,
        tokenizer=loaded.model.tokenizer,
        max_tokens=max(facts.max_tokens, facts.max_query_tokens),
    )


def _vectors(output: str, module: Any, inputs: Inputs) -> torch.Tensor:  # noqa: ANN401
    vectors: torch.Tensor = run_modules(module.parts, dict(inputs))[output]
    return vectors


def _nothing(_module: object) -> None:
    """Packed rows would be pooled as one text."""
