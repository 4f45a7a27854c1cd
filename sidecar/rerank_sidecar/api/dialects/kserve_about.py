"""What the Open Inference Protocol (KServe v2) tells about a server and its models.

The same over HTTP and gRPC, as JSON with the field names of both. Model configuration and
statistics are extensions of Triton's; of statistics only those are told that are known.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY

from rerank_sidecar import __version__
from rerank_sidecar.api.dialects.kserve_inference import INPUTS, OUTPUTS
from rerank_sidecar.api.tensors import BYTES
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import ModelDescription

Json = dict[str, Any]

_NAME = "rerank_sidecar"

_EXTENSIONS = [
    "binary_tensor_data",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
]

_CONFIG_TYPES = {BYTES: "TYPE_STRING", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32"}

_STAGES = {
    "success": "total",
    "queue": "queue",
    "compute_input": "tokenise",
    "compute_infer": "infer",
}
"""Triton's stages of an inference, and ours."""


def server_metadata() -> Json:
    """Name the server, its version and what it can do besides the protocol."""
    return {"name": _NAME, "version": __version__, "extensions": list(_EXTENSIONS)}


def model_metadata(model: ModelDescription) -> Json:
    """Describe a model's tensors; the first dimension is the rows."""
    return {
        "name": model.model.name,
        "versions": [model.model.version],
        "platform": _NAME,
        "inputs": [_tensor(name, BYTES) for name in INPUTS],
        "outputs": [_tensor(name, datatype) for name, datatype in OUTPUTS.items()],
    }


def model_config(model: ModelDescription, settings: Settings) -> Json:
    """Describe a model as Triton's configuration does: dimensions are those of one row."""
    return {
        "name": model.model.name,
        "platform": _NAME,
        "backend": _NAME,
        "max_batch_size": settings.max_documents,
        "input": [
            {"name": name, "data_type": _CONFIG_TYPES[BYTES], "dims": [1]} for name in INPUTS
        ],
        "output": [_config(name, datatype) for name, datatype in OUTPUTS.items()],
    }


def model_statistics(model: ModelDescription) -> Json:
    """Tell how many documents and requests a model has answered and where their time went."""
    name = model.model.name
    scored = REGISTRY.get_sample_value("rerank_sidecar_documents_total", {"model": name})
    one = {
        "name": name,
        "version": model.model.version,
        "inference_count": int(scored or 0),
        "inference_stats": {theirs: _spent(name, ours) for theirs, ours in _STAGES.items()},
    }
    return {"model_stats": [one]}


def _tensor(name: str, datatype: str) -> Json:
    shape = [-1] if name == "token_count" else [-1, 1]
    return {"name": name, "datatype": datatype, "shape": shape}


def _config(name: str, datatype: str) -> Json:
    output: Json = {"name": name, "data_type": _CONFIG_TYPES[datatype], "dims": [1]}
    return {**output, "reshape": {"shape": []}} if name == "token_count" else output


def _spent(model: str, stage: str) -> Json:
    labels = {"stage": stage, "model": model}
    count, seconds = (
        REGISTRY.get_sample_value(f"rerank_sidecar_stage_seconds_{what}", labels) or 0
        for what in ("count", "sum")
    )
    return {"count": int(count), "ns": round(seconds * 1_000_000_000)}
