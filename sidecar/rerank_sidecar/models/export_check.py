"""Makes sure that an exported cross-encoder gives one sound logit per row, padding or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.checkpoint import Checkpoint
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

TokenBatch: TypeAlias = dict[str, npt.NDArray[np.int64]]
"""The inputs of a forward pass by name, each int64 of shape [batch, tokens]."""

INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
"""The inputs that we can fill."""

CHECK_TOKENS = 40
TOLERANCE = 1e-3


def require_independent_rows(model: OpenVinoModel, checkpoint: Checkpoint) -> None:
    """Refuse a model whose logit for a row changes when the row is padded beside longer ones.

    Exports exist that do so, or that give NaN: for example ModernBERT with torch's fused attention,
    where a padded position has nothing in its window to attend to.

    Raises:
        ModelNotServable: rows are not independent, or there is not one finite logit for each.
    """
    run = compiled(model)
    batch = padded_batch(checkpoint, CHECK_TOKENS)
    together = run(batch)
    if together.shape != (len(batch["input_ids"]), 1) or not np.isfinite(together).all():
        raise ModelNotServable(f"{checkpoint.folder} does not give one finite logit for each pair")
    for row, length in enumerate(batch["attention_mask"].sum(axis=1)):
        alone = run({name: rows[row : row + 1, :length] for name, rows in batch.items()})
        if not np.allclose(alone[0], together[row], rtol=TOLERANCE, atol=TOLERANCE):
            raise ModelNotServable(f"{checkpoint.folder} scores a pair otherwise when it is padded")


def compiled(model: OpenVinoModel) -> Callable[[TokenBatch], npt.NDArray[np.float32]]:
    """Compile a model in float32; the result takes a batch and gives the model's first output.

    Raises:
        ModelNotServable: the model wants an input that a batch does not have.
    """
    names = [port.get_any_name() for port in model.inputs]
    if unknown := set(names) - INPUTS:
        raise ModelNotServable(
            f"the model has inputs of no known use: {', '.join(sorted(unknown))}"
        )
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled_model = load_openvino().Core().compile_model(model, "CPU", options)
    return lambda batch: compiled_model({name: batch[name] for name in names})[0]


def padded_batch(checkpoint: Checkpoint, tokens: int) -> TokenBatch:
    """Make a batch of three rows, two of them padded, of token ids that every vocabulary has."""
    width = min(tokens, checkpoint.max_tokens)
    lengths = np.array([[width], [width * 2 // 3], [width // 4 + 1]])
    attention_mask = (np.arange(width) < lengths).astype(np.int64)
    token_ids = 5 + (np.arange(width) * 3 + np.arange(3)[:, None]) % 10
    return {
        "input_ids": np.where(attention_mask == 1, token_ids, checkpoint.pad_token_id),
        "attention_mask": attention_mask,
        "token_type_ids": np.zeros_like(attention_mask),
    }
