"""Makes the ONNX file that ONNX Runtime runs: found or exported, fused, and quantised if asked."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import MissingExtra, ModelNotServable
from rerank_sidecar.models.checkpoint import Checkpoint
from rerank_sidecar.models.convert import load_exportable
from rerank_sidecar.models.cpu import read_cpu
from rerank_sidecar.models.export_check import (
    CHECK_TOKENS,
    INPUTS,
    TOLERANCE,
    TokenBatch,
    padded_batch,
)
from rerank_sidecar.models.json_files import read_json_object
from rerank_sidecar.models.prepared import GRAPH_FILE
from rerank_sidecar.models.runtime import load_onnxruntime
from rerank_sidecar.models.weights import Weights, copy_files

Onnx: TypeAlias = Any
OnnxModel: TypeAlias = Any
Session: TypeAlias = Any
SessionOptions: TypeAlias = Any

_LOG = logging.getLogger(__name__)

_RECIPE_VERSION = 1
"""Counts up whenever the same files would become a graph with other scores."""

_OPSET = 17

_FUSED_AS_BERT = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
"""Model types whose attention ONNX Runtime's own tool for transformers recognises."""


@dataclass(frozen=True, slots=True)
class OnnxSource:
    """What a graph is made from."""

    checkpoint: Checkpoint
    weights: Weights
    trust_remote_code: bool


def onnx_recipe(quantization: str) -> str:
    """Tell in a few words how a graph is made on this machine; other words mean other scores."""
    reduced = ", weights of 7 bits" if _reduces_range() and quantization == "int8" else ""
    return f"onnxruntime {_RECIPE_VERSION}, quantize {quantization}{reduced}"


def write_onnx_graph(source: OnnxSource, folder: Path, scratch: Path, *, is_int8: bool) -> None:
    """Write a cross-encoder into a folder as an ONNX file with its weights beside it.

    The graph is the checkpoint's own, else exported from torch. Its attention, normalisation and
    activations are fused by ONNX Runtime's tool for transformers where that knows the model type.
    Int8 weights are symmetric, with a scale for each output channel; activations are quantised at
    run time, with one scale for a whole tensor.

    Raises:
        MissingExtra: onnx or ONNX Runtime is not installed, or torch and it is needed.
        ModelNotServable: the graph cannot be made or run, or does not give a finite logit per pair.
    """
    onnx = _import_onnx()
    plain = _found(source, scratch) if source.weights.is_onnx else _exported(source, scratch)
    graph = _fused(onnx, plain, source.checkpoint, scratch)
    if is_int8:
        _quantize(onnx, graph, folder / GRAPH_FILE)
    else:
        _save(onnx, onnx.load(graph), folder / GRAPH_FILE)


def open_session(path: Path, options: SessionOptions = None) -> Session:
    """Open an ONNX file for the CPU and check that its inputs are those that we can fill.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ModelNotServable: it cannot read the file, or the model wants other inputs.
    """
    onnxruntime = load_onnxruntime()
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ModelNotServable(f"ONNX Runtime cannot read {path}: {_one_line(error)}") from error
    unknown = {each.name for each in session.get_inputs()} - INPUTS
    if unknown:
        raise ModelNotServable(f"the model has inputs we cannot fill: {', '.join(sorted(unknown))}")
    return session


def _import_onnx() -> Onnx:
    load_onnxruntime()
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("onnxruntime", "preparing a model for ONNX Runtime") from error
    return onnx


def _found(source: OnnxSource, scratch: Path) -> Path:
    # The library refuses weights behind a link, and the hub client's cache is made of links.
    path = copy_files(source.weights, scratch)
    try:
        _runner(path)
    except ModelNotServable as error:
        raise ModelNotServable(
            error.message.replace(str(path), str(source.weights.main))
        ) from error
    return path


def _exported(source: OnnxSource, scratch: Path) -> Path:
    _LOG.info("exporting %s to ONNX", source.checkpoint.folder)
    exportable = load_exportable(source.checkpoint, trust_remote_code=source.trust_remote_code)
    path, torch, names = scratch / "exported.onnx", exportable.torch, exportable.input_names
    axes = {name: {0: "batch", 1: "tokens"} for name in names} | {"logits": {0: "batch"}}
    refusing = _refusing(f"torch cannot export {source.checkpoint.folder} to ONNX")
    with refusing, warnings.catch_warnings(), torch.no_grad():
        # The exporter is old and says so; whether it did well is checked below.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            exportable.module,
            exportable.tensors(),
            str(path),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
    exportable.require_faithful(_runner(path))
    return path


def _fused(onnx: Onnx, plain: Path, checkpoint: Checkpoint, scratch: Path) -> Path:
    """Fuse a graph and give its file; the plain one's where that would change the logits."""
    batch = padded_batch(checkpoint, CHECK_TOKENS)
    logits = _runner(plain)(batch)
    if logits.shape != (len(batch["input_ids"]), 1) or not np.isfinite(logits).all():
        raise ModelNotServable(f"{checkpoint.folder} does not give one finite logit for each pair")
    if checkpoint.model_type not in _FUSED_AS_BERT:
        return plain
    path = scratch / "fused.onnx"
    with _refusing(f"ONNX Runtime cannot fuse {checkpoint.folder}"):
        _save(onnx, _fuse(_tidied(plain, scratch), checkpoint), path)
    if np.allclose(_runner(path)(batch), logits, rtol=TOLERANCE, atol=TOLERANCE):
        return path
    _LOG.info("%s is not fused, since that would change its logits", checkpoint.folder)
    return plain


def _tidied(plain: Path, scratch: Path) -> Path:
    """Fold constants and the like; the tool that fuses would, but only where torch is installed."""
    onnxruntime = load_onnxruntime()
    path = scratch / "tidied.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    key = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(key, f"{path.name}.data")
    open_session(plain, options)
    return path


def _fuse(path: Path, checkpoint: Checkpoint) -> OnnxModel:
    from onnxruntime.transformers.optimizer import optimize_model

    config = read_json_object(checkpoint.folder / "config.json")
    fused = optimize_model(
        str(path),
        model_type="bert",
        # 0: it finds them out.
        num_heads=config.whole_number("num_attention_heads") or 0,
        hidden_size=config.whole_number("hidden_size") or 0,
        opt_level=0,
    )
    return fused.model


def _quantize(onnx: Onnx, graph: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quant_utils, quantize_dynamic

    model = onnx.load(graph)
    quant_utils.add_pre_process_metadata(model)  # or it warns that nothing was fused
    ready = graph.with_name("ready.onnx")
    _save(onnx, model, ready)
    with _refusing("ONNX Runtime cannot quantise the model"):
        quantize_dynamic(
            ready,
            target,
            per_channel=True,
            reduce_range=_reduces_range(),
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            # Fused operations have no inferred types.
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def _reduces_range() -> bool:
    """Tell whether weights need a bit less, because sums of products overflow 16 bits here."""
    return not read_cpu().adds_int8_products_exactly


def _save(onnx: Onnx, model: OnnxModel, path: Path) -> None:
    # Weights lie in a file of their own because a graph may not be longer than 2 GB.
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
    )


def _runner(path: Path) -> Callable[[TokenBatch], npt.NDArray[np.float32]]:
    """Open a graph; the result gives the logits of a batch, each row run alone and unpadded."""
    session = open_session(path)
    names = [each.name for each in session.get_inputs()]

    def run(batch: TokenBatch) -> npt.NDArray[np.float32]:
        lengths = batch["attention_mask"].sum(axis=1)
        rows = [
            session.run(None, {name: batch[name][row : row + 1, :length] for name in names})[0]
            for row, length in enumerate(lengths)
        ]
        return np.concatenate(rows)

    return run


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ModelNotServable(f"{what}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
