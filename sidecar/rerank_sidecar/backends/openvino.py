"""Runs a transformer on the CPU with OpenVINO: one stream of its own cores for each worker."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.backends.cores import visible_cores
from rerank_sidecar.errors import BackendFailed, ModelNotServable
from rerank_sidecar.models.arithmetic import Arithmetic
from rerank_sidecar.models.export_check import INPUTS
from rerank_sidecar.models.runtime import OpenVino, OpenVinoModel, load_openvino

CompiledModel: TypeAlias = Any
InferRequest: TypeAlias = Any

_EIGHT_BITS = frozenset({"i8", "u8"})

_WARM_UP_TOKENS = 8

_REGISTER_TOKENS = 16
"""The float32 numbers in the widest vector register (AVX-512)."""


class OpenVinoBackend:
    """A model compiled for this machine's CPU; `run` may be called from `workers` threads at once.

    `model_path` is an OpenVINO IR (`.xml` beside its `.bin`) or an ONNX file whose inputs are
    among input_ids, attention_mask and token_type_ids. Its first output is taken as logits
    [batch, labels] or hidden states [batch, tokens, dimension], as `output` says. Batches are not
    padded beyond `max_tokens`, which is what the model reads at once. A run uses
    `threads_per_worker` cores. Unless `arithmetic` says otherwise, what is not int8 in the file is
    computed in float32 even where the CPU has bfloat16, so that scores are the same on every
    machine to within rounding.

    Raises:
        ModelNotServable: OpenVINO cannot read the model, or it wants other inputs.
    """

    def __init__(  # noqa: PLR0913 - each is a fact of its own
        self,
        model_path: Path,
        *,
        output: Literal["logits", "hidden_states"],
        workers: int,
        threads_per_worker: int = 1,
        arithmetic: Arithmetic | None = None,
        max_tokens: int | None = None,
        pad_token_id: int = 0,
    ) -> None:
        openvino = load_openvino()
        self._output = output
        self._max_tokens = max_tokens
        self._pad_token_id = pad_token_id
        model = _read(openvino, model_path)
        arithmetic = arithmetic or (Arithmetic.INT8 if _is_quantized(model) else Arithmetic.FLOAT32)
        self._compiled = _compile(openvino, model, workers, threads_per_worker, arithmetic)
        self._input_names = _input_names(model)
        self._requests = threading.local()
        self._info = BackendInfo(
            engine="openvino",
            engine_version=openvino.get_version().partition("-")[0],
            device="cpu",
            precision=arithmetic.value,
            parallel_runs=workers,
            length_multiple=_REGISTER_TOKENS,
            threads_per_run=threads_per_worker,
        )

    @property
    def info(self) -> BackendInfo:
        """Describe the backend."""
        return self._info

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        """Run one batch and give an owned float32 array per sequence, in order, without padding.

        Arrays are [labels] or [tokens, dimension]. Sequences are padded to the longest of the
        batch and the padding is masked.

        Raises:
            BackendFailed: the runtime refused or failed, or the backend is closed.
        """
        if not batch:
            return []
        try:
            values = self._request().infer(self._pad(batch), share_inputs=True, share_outputs=True)
            return self._unpad(values[0], batch)
        except Exception as error:
            raise BackendFailed(f"the forward pass failed ({type(error).__name__})") from error

    def warm_up(self) -> None:
        """Run a short batch once so that the first request does not pay for compilation."""
        tokens = np.full(_WARM_UP_TOKENS, self._pad_token_id, dtype=np.int64)
        self.run([TokenSequence(tokens, np.zeros_like(tokens))])

    def close(self) -> None:
        """Free the model; runs that follow fail."""
        self._requests = threading.local()
        self._compiled = None

    def _request(self) -> InferRequest:
        request = getattr(self._requests, "request", None)
        if request is None:
            # An infer request holds one run's tensors, so each worker thread has its own.
            request = self._requests.request = self._compiled.create_infer_request()
        return request

    def _pad(self, batch: Sequence[TokenSequence]) -> dict[str, npt.NDArray[np.int64]]:
        shape = (len(batch), self._padded_length(max(len(sequence) for sequence in batch)))
        token_ids = np.full(shape, self._pad_token_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        type_ids = np.zeros(shape, dtype=np.int64)
        for row, sequence in enumerate(batch):
            token_ids[row, : len(sequence)] = sequence.token_ids
            attention_mask[row, : sequence.attended_tokens] = 1
            type_ids[row, : len(sequence)] = sequence.type_ids
        tensors = {
            "input_ids": token_ids,
            "attention_mask": attention_mask,
            "token_type_ids": type_ids,
        }
        return {name: tensors[name] for name in self._input_names}

    def _padded_length(self, longest: int) -> int:
        # In whole vector registers, sums over a row are made in an order that does not depend on
        # how far it was padded. Otherwise the last bits differ with the neighbours in the batch,
        # and where a quantised value is rounded that becomes visible: by 0.002 in a MaxSim score.
        whole = -(-longest // _REGISTER_TOKENS) * _REGISTER_TOKENS
        return whole if self._max_tokens is None else max(longest, min(whole, self._max_tokens))

    def _unpad(
        self, values: npt.NDArray[Any], batch: Sequence[TokenSequence]
    ) -> list[npt.NDArray[np.float32]]:
        # Copies, because the request's memory is written again by the next run.
        if self._output == "logits":
            return [np.array(row, dtype=np.float32) for row in values]
        return [
            np.array(sequence.states(row), dtype=np.float32)
            for row, sequence in zip(values, batch, strict=True)
        ]


def _read(openvino: OpenVino, model_path: Path) -> OpenVinoModel:
    try:
        return openvino.Core().read_model(model_path)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelNotServable(f"OpenVINO cannot read {model_path}: {reason}") from error


def _compile(
    openvino: OpenVino,
    model: OpenVinoModel,
    workers: int,
    threads_per_worker: int,
    arithmetic: Arithmetic,
) -> CompiledModel:
    threads = workers * threads_per_worker
    options = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(workers),
        "INFERENCE_NUM_THREADS": str(threads),
        **arithmetic.options,
        # Unpinned, two workers now and then share a core for many seconds and read at half the
        # rate. With cores to spare they are better free: two containers, each with a part of the
        # machine's time, would both pin to its first cores.
        "ENABLE_CPU_PINNING": "YES" if threads >= visible_cores() else "NO",
    }
    try:
        return openvino.Core().compile_model(model, "CPU", options)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelNotServable(f"OpenVINO cannot compile the model: {reason}") from error


def _input_names(model: OpenVinoModel) -> list[str]:
    names: list[str] = [port.get_any_name() for port in model.inputs]
    unknown = set(names) - INPUTS
    if unknown:
        raise ModelNotServable(f"the model has inputs we cannot fill: {', '.join(sorted(unknown))}")
    return names


def _is_quantized(model: OpenVinoModel) -> bool:
    return any(
        operation.get_type_name() == "FakeQuantize"
        or (
            operation.get_type_name() == "Constant"
            and operation.get_element_type().get_type_name() in _EIGHT_BITS
        )
        for operation in model.get_ops()
    )
