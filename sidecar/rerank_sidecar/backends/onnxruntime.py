"""Runs a transformer on the CPU with ONNX Runtime: the alternative to OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.backends.fit import Make
from rerank_sidecar.errors import BackendFailed
from rerank_sidecar.models.arithmetic import Arithmetic
from rerank_sidecar.models.onnx_graph import Session, SessionOptions, open_session
from rerank_sidecar.models.runtime import OnnxRuntime, load_onnxruntime

_WARM_UP_TOKENS = 8

_FATAL = 4
"""ONNX Runtime's level of logging that leaves out errors: some of them quote token ids."""


class OnnxRuntimeBackend:
    """A model opened for this machine's CPU; `run` may be called from `workers` threads at once.

    `model_path` is an ONNX file whose inputs are among input_ids, attention_mask and
    token_type_ids. Its first output is logits [batch, labels] or hidden states [batch, tokens,
    dimension]. A run uses `threads_per_worker` cores. `arithmetic` is what the file was made for;
    BF16 has an effect on Arm alone.

    Sequences of a batch are run one after the other. Dynamic int8 takes one scale for a whole
    tensor, so that in one run with others a sequence's scores would depend on them and on padding.
    On a CPU this costs nothing: one pair keeps a core as busy as eight.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ModelNotServable: it cannot read the model, or the model wants other inputs.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        arithmetic: Arithmetic,
        workers: int,
        threads_per_worker: int = 1,
    ) -> None:
        onnxruntime = load_onnxruntime()
        # In one thread a session runs in whichever thread calls it, so one does for all workers;
        # with threads of its own, it would share these out among the workers.
        sessions = workers if threads_per_worker > 1 else 1
        options = _options(onnxruntime, threads_per_worker, arithmetic)
        opened = [open_session(model_path, options) for _ in range(sessions)]
        self._input_names = [each.name for each in opened[0].get_inputs()]
        self._output_name = opened[0].get_outputs()[0].name
        self._idle: SimpleQueue[Session] | None = SimpleQueue()
        for worker in range(workers):
            self._idle.put(opened[worker % sessions])
        self._info = BackendInfo(
            engine="onnxruntime",
            engine_version=onnxruntime.__version__,
            device="cpu",
            precision=arithmetic.value,
            parallel_runs=workers,
            threads_per_run=threads_per_worker,
            is_padded=False,
        )

    @property
    def info(self) -> BackendInfo:
        """Describe the backend."""
        return self._info

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        """Run one batch and give an owned float32 array per sequence, in order.

        Arrays are [labels] or [tokens, dimension], to the bit the same whatever else is in the
        batch.

        Raises:
            BackendFailed: the runtime refused or failed, or the backend is closed.
        """
        idle = self._idle
        if idle is None:
            raise BackendFailed("the backend is closed")
        session = idle.get()
        try:
            return [self._run(session, sequence) for sequence in batch]
        except Exception as error:
            raise BackendFailed(f"the forward pass failed ({type(error).__name__})") from error
        finally:
            idle.put(session)

    def warm_up(self) -> None:
        """Run a short sequence once so that the first request does not pay for what is set up."""
        tokens = np.zeros(_WARM_UP_TOKENS, dtype=np.int64)
        self.run([TokenSequence(tokens, tokens)])

    def close(self) -> None:
        """Free the model; runs that follow fail."""
        self._idle = None

    def _run(self, session: Session, sequence: TokenSequence) -> npt.NDArray[np.float32]:
        attention_mask = np.zeros((1, len(sequence)), dtype=np.int64)
        attention_mask[0, : sequence.attended_tokens] = 1
        tensors = {
            "input_ids": sequence.token_ids[None],
            "attention_mask": attention_mask,
            "token_type_ids": sequence.type_ids[None],
        }
        feeds = {name: tensors[name] for name in self._input_names}
        values = session.run([self._output_name], feeds)[0][0]
        return np.array(sequence.states(values) if values.ndim == 2 else values, dtype=np.float32)


def onnxruntime_backend(model_path: Path, *, arithmetic: Arithmetic) -> Make:
    """Give what makes the backend of a model for a number of workers and of threads for each."""

    def make(workers: int, threads_per_worker: int) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(
            model_path,
            arithmetic=arithmetic,
            workers=workers,
            threads_per_worker=threads_per_worker,
        )

    return make


def _options(onnxruntime: OnnxRuntime, threads: int, arithmetic: Arithmetic) -> SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    # Both keep memory for the lengths that were seen, for good; the arena would save 2 % of time.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Threads that spin for work take the cores from tokenising.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if arithmetic is Arithmetic.BF16:
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    return options
