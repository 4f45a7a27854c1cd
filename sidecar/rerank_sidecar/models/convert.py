"""Exports a PyTorch cross-encoder to OpenVINO; needs the `convert` extra."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import MissingExtra, ModelNotServable
from rerank_sidecar.models.checkpoint import Checkpoint
from rerank_sidecar.models.export_check import (
    CHECK_TOKENS,
    TOLERANCE,
    TokenBatch,
    compiled,
    padded_batch,
)
from rerank_sidecar.models.first_token import compute_first_token_only
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

Torch: TypeAlias = Any
Transformers: TypeAlias = Any
TorchModel: TypeAlias = Any
HubTokenizer: TypeAlias = Any

_LOG = logging.getLogger(__name__)

_TRACE_TOKENS = 24

_SAME = 1e-4
"""Rounding leaves less between two ways of computing the same logit."""


def convert_checkpoint(checkpoint: Checkpoint, *, trust_remote_code: bool) -> OpenVinoModel:
    """Export a cross-encoder to an OpenVINO model with logits [batch, 1] as its only output.

    Attention is traced in its eager form: with torch's fused attention a ModernBERT row that is
    mostly padding comes out as NaN. The result is compared with torch on a padded batch of another
    shape than the traced one, since a trace can freeze what should vary.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ModelNotServable: transformers cannot load the model, or the export is not faithful.
    """
    torch, transformers = _import_torch(checkpoint.folder)
    _LOG.info("exporting %s to OpenVINO", checkpoint.folder)
    with warnings.catch_warnings():
        # Tracing warns of every place that could go wrong; whether one did is checked below.
        warnings.simplefilter("ignore")
        model = _load(transformers, checkpoint, trust_remote_code=trust_remote_code)
        tokenizer = _load_tokenizer(transformers, checkpoint, trust_remote_code)
        names = _input_names(model, tokenizer)
        other = padded_batch(checkpoint, CHECK_TOKENS)
        module = _logits_module(torch, model, names)
        expected = _logits(torch, module, names, other)
        if compute_first_token_only(torch, model) and not np.allclose(
            _logits(torch, module, names, other), expected, rtol=_SAME, atol=_SAME
        ):
            _LOG.info("%s reads more than the first token", checkpoint.folder)
            model = _load(transformers, checkpoint, trust_remote_code=trust_remote_code)
            module = _logits_module(torch, model, names)
        converted = _trace(torch, module, names, padded_batch(checkpoint, _TRACE_TOKENS))
        if not np.allclose(compiled(converted)(other), expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise ModelNotServable("the exported model does not give the logits that torch gives")
    return converted


def convert_tokenizer(checkpoint: Checkpoint, path: Path, *, trust_remote_code: bool) -> None:
    """Write a tokenizer.json for a model that comes with an older kind of tokenizer.

    Raises:
        MissingExtra: transformers is not installed.
        ModelNotServable: the tokenizer has no equal in the tokenizers library.
    """
    _, transformers = _import_torch(checkpoint.folder)
    tokenizer = _load_tokenizer(transformers, checkpoint, trust_remote_code)
    if not tokenizer.is_fast:
        raise ModelNotServable(f"{checkpoint.folder} has a tokenizer that is Python code alone")
    path.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")


def _import_torch(folder: Path) -> tuple[Torch, Transformers]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra(
            "convert", f"converting {folder}, which has no onnx/model.onnx,"
        ) from error
    return torch, transformers


def _load(
    transformers: Transformers, checkpoint: Checkpoint, *, trust_remote_code: bool
) -> TorchModel:
    try:
        model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
            checkpoint.folder,
            trust_remote_code=trust_remote_code,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except Exception as error:
        raise _not_loadable(checkpoint, _first_line(error), trust_remote_code) from error
    if loading["missing_keys"]:
        lacking = ", ".join(sorted(loading["missing_keys"])[:3])
        raise _not_loadable(checkpoint, f"it has no weights for {lacking}", trust_remote_code)
    return model.float().eval()


def _load_tokenizer(
    transformers: Transformers, checkpoint: Checkpoint, trust_remote_code: bool
) -> HubTokenizer:
    try:
        return transformers.AutoTokenizer.from_pretrained(
            checkpoint.folder, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise _not_loadable(checkpoint, _first_line(error), trust_remote_code) from error


def _not_loadable(checkpoint: Checkpoint, reason: str, trust_remote_code: bool) -> ModelNotServable:
    if checkpoint.has_remote_code and not trust_remote_code:
        return ModelNotServable(
            f"{checkpoint.folder} is run by Python code of its own; if you have read that code and "
            "trust it, set `trust_remote_code`"
        )
    return ModelNotServable(f"transformers cannot load {checkpoint.folder}: {reason}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _input_names(model: TorchModel, tokenizer: HubTokenizer) -> list[str]:
    """Name the inputs that sentence-transformers would fill: token types only where they count."""
    names = ["input_ids", "attention_mask"]
    if (
        "token_type_ids" in inspect.signature(model.forward).parameters
        and "token_type_ids" in tokenizer.model_input_names
        and getattr(model.config, "type_vocab_size", 0) > 1
    ):
        names.append("token_type_ids")
    return names


def _logits_module(torch: Torch, model: TorchModel, names: list[str]) -> TorchModel:
    class Logits(torch.nn.Module):  # type: ignore[misc]
        """A model with positional inputs, whose only output is its logits: what a trace wants."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: object) -> object:
            return self.model(**dict(zip(names, tensors, strict=True))).logits

    return Logits().eval()


def _trace(torch: Torch, module: TorchModel, names: list[str], batch: TokenBatch) -> OpenVinoModel:
    example = tuple(torch.from_numpy(batch[name]) for name in names)
    with torch.no_grad():
        converted = load_openvino().convert_model(module, example_input=example)
    for port, name in zip(converted.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    converted.outputs[0].get_tensor().set_names({"logits"})
    return converted


def _logits(
    torch: Torch, module: TorchModel, names: list[str], batch: TokenBatch
) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = module(*(torch.from_numpy(batch[name]) for name in names))
    return np.asarray(logits)
