"""Runs the forward pass of a model on a KServe v2 server, such as Triton, that takes token ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.backends.measure import (
    SIZES,
    TYPICAL_TOKENS,
    MeasuredShape,
    PassTime,
    choose_shape,
)
from rerank_sidecar.errors import BackendFailed, ModelNotServable
from rerank_sidecar.third_party.kserve_tensors import Numbers

Tokens = npt.NDArray[np.int64]
T = TypeVar("T")

_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 2.0
_WARM_UP_TOKENS = 8
_ROUNDS = 2


class InferenceFailed(Exception):
    """The server did not run a batch; `is_transient` if it may run the next one.

    The message never quotes from what the server said.
    """

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


@dataclass(frozen=True, slots=True)
class ModelTensors:
    """What a model takes and gives: names of its inputs and outputs, and their types.

    `max_batch_size` is how many rows it takes at once, None where the server does not tell.
    """

    server: str
    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    max_batch_size: int | None = None


class InferenceClient(Protocol):
    """One model on one server, by either of its wires; safe to use from many threads at once."""

    def tensors(self) -> ModelTensors:
        """Ask what the model takes and gives.

        Raises:
            InferenceFailed: the server does not answer, or has no such model.
        """
        ...

    def infer(self, inputs: Mapping[str, Tokens], output: str) -> Numbers:
        """Run one batch of INT64 tensors [rows, tokens]; give an output's elements in order.

        Raises:
            InferenceFailed: the server refused or failed, or answered what cannot be understood.
        """
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class KserveBackend:
    """A classifier with one label on another server; `run` may be called from many threads at once.

    Batches are padded to their longest sequence, and sent again when the server failed in passing.

    Raises:
        InferenceFailed: the server does not tell what the model takes.
        ModelNotServable: it takes something else than token ids, or gives several outputs of which
            `output` names none.
    """

    def __init__(
        self,
        client: InferenceClient,
        *,
        output: str | None = None,
        parallel_runs: int,
        max_tries: int = 3,
        pad_token_id: int = 0,
    ) -> None:
        self._client = client
        self._max_tries = max_tries
        self._pad_token_id = pad_token_id
        tensors = self._tried(client.tensors)
        self._inputs = _checked_inputs(tensors)
        self._output = _checked_output(tensors, output)
        self.max_batch_size = tensors.max_batch_size
        self._info = BackendInfo(
            engine="kserve",
            engine_version=tensors.server,
            device="remote",
            precision="remote",
            parallel_runs=parallel_runs,
        )

    @property
    def info(self) -> BackendInfo:
        """Describe the backend; what the server computes in, it does not tell."""
        return self._info

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        """Run one batch and give logits, float32 [1], for each sequence in order.

        Raises:
            BackendFailed: the server cannot be reached, refused or failed.
        """
        if not batch:
            return []
        inputs = self._padded(batch)
        try:
            logits = self._tried(lambda: self._client.infer(inputs, self._output))
        except InferenceFailed as failure:
            raise BackendFailed(str(failure)) from failure
        if len(logits) != len(batch):
            raise BackendFailed("the server gave another number of logits than there are rows")
        return [np.array([logit], dtype=np.float32) for logit in logits]

    def warm_up(self) -> None:
        """Run a short batch once so that the first request does not pay for compilation.

        Raises:
            BackendFailed: the server cannot be reached, refused or failed.
        """
        self.run([_sequence(_WARM_UP_TOKENS)])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _tried(self, call: Callable[[], T]) -> T:
        from tenacity import (
            Retrying,
            retry_if_exception,
            stop_after_attempt,
            wait_random_exponential,
        )

        retrying = Retrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(self._max_tries),
            wait=wait_random_exponential(_FIRST_WAIT_S, _LONGEST_WAIT_S),
            reraise=True,
        )
        return retrying(call)

    def _padded(self, batch: Sequence[TokenSequence]) -> dict[str, Tokens]:
        shape = (len(batch), max(map(len, batch)))
        ids = np.full(shape, self._pad_token_id, dtype=np.int64)
        mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence)] = sequence.token_ids
            mask[row, : len(sequence)] = 1
            types[row, : len(sequence)] = sequence.type_ids
        tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: tensors[name] for name in self._inputs}


def measure_server(backend: KserveBackend, max_tokens: int) -> MeasuredShape:
    """Time batches of several sizes, as many at once as the server is given, and choose the best.

    Raises:
        BackendFailed: the server cannot be reached, refused or failed.
    """
    tokens, runs = min(TYPICAL_TOKENS, max_tokens), backend.info.parallel_runs
    largest = backend.max_batch_size or SIZES[-1]
    with ThreadPoolExecutor(runs, "measure") as threads:
        passes = {
            size: min(_pass_time(backend, threads, size, tokens) for _ in range(_ROUNDS))
            for size in SIZES
            if size <= max(1, largest)
        }
    walls = {size: PassTime(wall_s, wall_s) for size, wall_s in passes.items()}
    return choose_shape(walls, tokens, max_tokens, runs)


def _pass_time(
    backend: KserveBackend, threads: ThreadPoolExecutor, size: int, tokens: int
) -> float:
    batch = [_sequence(tokens)] * size

    def timed(_run: int) -> float:
        began = time.perf_counter()
        backend.run(batch)
        return time.perf_counter() - began

    walls = list(threads.map(timed, range(backend.info.parallel_runs)))
    return max(sum(walls) / len(walls), 1e-9)


def _sequence(tokens: int) -> TokenSequence:
    # Ids that every vocabulary has.
    ids = 5 + np.arange(tokens, dtype=np.int64) % 10
    return TokenSequence(ids, np.zeros_like(ids))


def _checked_inputs(tensors: ModelTensors) -> tuple[str, ...]:
    unknown = set(tensors.inputs) - _INPUTS
    if unknown or "input_ids" not in tensors.inputs:
        raise ModelNotServable(
            "the server's model must take input_ids and may take attention_mask and "
            f"token_type_ids; it takes {', '.join(sorted(tensors.inputs)) or 'nothing'}"
        )
    if set(tensors.inputs.values()) != {"INT64"}:
        raise ModelNotServable("the server's model must take its tokens as INT64")
    return tuple(tensors.inputs)


def _checked_output(tensors: ModelTensors, wanted: str | None) -> str:
    if wanted is None and len(tensors.outputs) == 1:
        return tensors.outputs[0]
    if wanted in tensors.outputs:
        return str(wanted)
    raise ModelNotServable(
        f"the server's model has the outputs {', '.join(tensors.outputs)}; the family option "
        "`score_tensor` names the one with the logits"
    )


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, InferenceFailed) and error.is_transient
