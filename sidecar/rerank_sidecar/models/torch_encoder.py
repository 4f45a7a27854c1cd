"""Puts encoders that sentence-transformers loaded into the form in which torch runs models here."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from rerank_sidecar.models.encoder import EncoderKind
from rerank_sidecar.models.encoder_check import Vectors, require_vectors, samples
from rerank_sidecar.models.export_check import TokenBatch
from rerank_sidecar.models.load_encoder import LoadedEncoder, vectors_of
from rerank_sidecar.models.torch_checkpoint import Inputs, TorchModel


def torch_encoder(loaded: LoadedEncoder) -> TorchModel:
    """Give a model whose output is vectors: [batch, dimension], or of each token.

    Raises:
        ModelNotServable: a text's vectors depend on what else is in its batch.
    """
    facts = loaded.facts
    model = TorchModel(
        module=loaded.as_module([]),
        run=partial(_vectors, loaded.output, facts.dimension),
        transformer=_nothing,
        output="logits" if facts.kind is EncoderKind.BI_ENCODER else "hidden_states",
        takes_types=loaded.takes_types,
        tokenizer=loaded.model.tokenizer,
        max_tokens=max(facts.max_tokens, facts.max_query_tokens),
    )
    require_vectors(samples(loaded), partial(_run, model), facts, "the model beside longer texts")
    return model


def _run(model: TorchModel, batch: TokenBatch) -> Vectors:
    wanted = batch if model.takes_types else {**batch, "token_type_ids": None}
    inputs = {name: torch.from_numpy(rows) for name, rows in wanted.items() if rows is not None}
    with torch.inference_mode():
        vectors: Vectors = model.run(model.module, inputs).numpy()
    return vectors


def _vectors(output: str, dimension: int, module: Any, inputs: Inputs) -> torch.Tensor:  # noqa: ANN401
    vectors: torch.Tensor = vectors_of(module.parts, dict(inputs), output, dimension)
    return vectors


def _nothing(_module: object) -> None:
    """Packed rows would be pooled as one text."""
