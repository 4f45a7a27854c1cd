"""Loads a cross-encoder into PyTorch to export it, and exports it to OpenVINO; needs `convert`."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino, quieten_transformers

Torch: TypeAlias = Any
Transformers: TypeAlias = Any
TorchModel: TypeAlias = Any
HubTokenizer: TypeAlias = Any
Tensor: TypeAlias = Any

_LOG = logging.getLogger(__name__)

_TRACE_TOKENS = 24

_SAME = 1e-4
"""Rounding leaves less between two ways of computing the same logit."""


@dataclass(frozen=True, slots=True)
class Exportable:
    """A cross-encoder in torch, as a trace wants it: positional inputs, logits as only output.

    `example` is a batch to trace it with.
    """

    torch: Torch
    module: TorchModel
    input_names: list[str]
    example: TokenBatch
    _checked: TokenBatch
    _expected: npt.NDArray[np.float32]

    def tensors(self) -> tuple[Tensor, ...]:
        """Give the example as positional arguments."""
        return tuple(self.torch.from_numpy(self.example[name]) for name in self.input_names)

    def require_faithful(self, run: Callable[[TokenBatch], npt.NDArray[np.float32]]) -> None:
        """Compare what was exported with torch on a padded batch of another shape.

        Raises:
            ModelNotServable: `run` does not give the logits that torch gives; a trace can freeze
                what should vary.
        """
        if not np.allclose(run(self._checked), self._expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise ModelNotServable("the exported model does not give the logits that torch gives")


def convert_checkpoint(checkpoint: Checkpoint, *, trust_remote_code: bool) -> OpenVinoModel:
    """Export a cross-encoder to an OpenVINO model with logits [batch, 1] as its only output.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ModelNotServable: transformers cannot load the model, or the export is not faithful.
    """
    _LOG.info("exporting %s to OpenVINO", checkpoint.folder)
    exportable = load_exportable(checkpoint, trust_remote_code=trust_remote_code)
    converted = _trace(exportable)
    exportable.require_faithful(compiled(converted))
    return converted


def load_exportable(checkpoint: Checkpoint, *, trust_remote_code: bool) -> Exportable:
    """Load a cross-encoder into torch in the form in which it is exported.

    Attention is in its eager form: with torch's fused attention a ModernBERT row that is mostly
    padding comes out as NaN. The last layer is computed for the first token alone where that makes
    no difference.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ModelNotServable: transformers cannot load the model.
    """
    torch, transformers = _import_torch(checkpoint.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what is checked below
        quieten_transformers()
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
    example = padded_batch(checkpoint, _TRACE_TOKENS)
    return Exportable(torch, module, names, example, other, expected)


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


def _trace(exportable: Exportable) -> OpenVinoModel:
    with warnings.catch_warnings(), exportable.torch.no_grad():
        # Tracing warns of every place that could go wrong; whether one did is checked afterwards.
        warnings.simplefilter("ignore")
        try:
            converted = load_openvino().convert_model(
                exportable.module, example_input=exportable.tensors()
            )
        except Exception as error:
            raise ModelNotServable(
                f"OpenVINO cannot convert the model ({type(error).__name__}); torch runs it as it "
                "is, with `engine` set to `torch-float32`"
            ) from error
    for port, name in zip(converted.inputs, exportable.input_names, strict=True):
        port.get_tensor().set_names({name})
    converted.outputs[0].get_tensor().set_names({"logits"})
    return converted


def _logits(
    torch: Torch, module: TorchModel, names: list[str], batch: TokenBatch
) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = module(*(torch.from_numpy(batch[name]) for name in names))
    return np.asarray(logits)
