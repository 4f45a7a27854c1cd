"""Runs transformers with torch: on GPUs in half precision, on the CPU where OpenVINO cannot."""

from __future__ import annotations

import gc
import logging
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.backends.torch_batches import LENGTH_MULTIPLE, Staging
from rerank_sidecar.backends.torch_program import programs_on, split
from rerank_sidecar.errors import BackendFailed
from rerank_sidecar.models.torch_checkpoint import TorchModel
from rerank_sidecar.models.torch_device import TorchDtype, TorchEngine

_LOG = logging.getLogger(__name__)

_WARM_UP_TOKENS = 16


class Program(Protocol):
    """A model on one device, which may be run from several threads at once."""

    @property
    def device(self) -> torch.device:
        """Give the device that the model is on."""
        ...

    @property
    def is_packed(self) -> bool:
        """Tell whether batches are laid out without padding."""
        ...

    def cost_tokens(self, lengths: Sequence[int]) -> int:
        """Count the tokens of a batch as it is laid out."""
        ...

    def run(self, batch: Sequence[TokenSequence], staging: Staging) -> torch.Tensor:
        """Give logits [batch, labels] or hidden states [batch or 1, tokens, dimension].

        They are on the device, and may still have to be computed there. `staging` belongs to this
        run until they are.
        """
        ...


def torch_backend(
    model: TorchModel,
    engine: TorchEngine,
    *,
    workers: int | None = None,
    threads_per_worker: int = 1,
) -> TorchBackend:
    """Make the backend that runs a model on an engine's devices; `model` is used up."""
    programs = programs_on(engine, model)
    return TorchBackend(
        programs, engine.dtype, workers=workers, threads_per_worker=threads_per_worker
    )


class TorchBackend:
    """Programs at work, one for each device; `run` may be called from `workers` threads at once.

    `workers` runs are shared out evenly among the devices; None is one for each. On a CPU each uses
    `threads_per_worker` cores. A batch that does not fit into a GPU's memory is halved until it
    does, and no batch as large is tried again. Several backends may share programs.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        dtype: TorchDtype,
        *,
        workers: int | None = None,
        threads_per_worker: int = 1,
    ) -> None:
        workers = workers or len(programs)
        self._lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        for number in range(workers):
            self._lanes.put(_Lane(programs[number % len(programs)], threads_per_worker))
        self._is_closed = False
        is_packed = all(program.is_packed for program in programs)
        self._info = BackendInfo(
            engine="torch",
            engine_version=torch.__version__.partition("+")[0],
            device=",".join(str(program.device) for program in programs),
            precision=dtype.value,
            parallel_runs=workers,
            length_multiple=1 if is_packed else LENGTH_MULTIPLE,
            threads_per_run=threads_per_worker,
            is_padded=not is_packed,
        )

    @property
    def info(self) -> BackendInfo:
        """Describe the backend."""
        return self._info

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        """Run one batch and give an owned float32 array per sequence, in order, without padding.

        Arrays are [labels] or [tokens, dimension].

        Raises:
            BackendFailed: torch failed, a sequence alone does not fit into memory, or the backend
                is closed.
        """
        if not batch:
            return []
        if self._is_closed:
            raise BackendFailed("the forward pass failed: the backend is closed")
        lane = self._lanes.get()
        try:
            return lane.run(batch)
        except BackendFailed:
            raise
        except Exception as error:
            raise BackendFailed(f"the forward pass failed ({type(error).__name__})") from error
        finally:
            self._lanes.put(lane)

    def warm_up(self) -> None:
        """Run a short batch on every device so that the first request does not pay for it."""
        tokens = np.ones(_WARM_UP_TOKENS, dtype=np.int64)
        batch = [TokenSequence(tokens, np.zeros_like(tokens))] * 2
        for _ in range(self._info.parallel_runs):
            self.run(batch)

    def close(self) -> None:
        """Free the model, once no other backend shares it; runs that follow fail."""
        self._is_closed = True
        with suppress(queue.Empty):
            while True:
                self._lanes.get_nowait()
        gc.collect()  # the modules of a model know each other, so that nothing else would free it
        torch.cuda.empty_cache()  # does nothing where no GPU has been used


class _Threads(threading.local):
    count = 0


_threads = _Threads()


class _Lane:
    """One run at a time: a program, the memory and, on a GPU, the stream that it is run with."""

    def __init__(self, program: Program, threads: int) -> None:
        self._program = program
        self._threads = threads
        self._staging = Staging(program.device)
        self._most_tokens: int | None = None
        self._is_lost = False
        is_cuda = program.device.type == "cuda"
        self._stream = torch.cuda.Stream(program.device) if is_cuda else None  # type: ignore[no-untyped-call]

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        """Run a batch, in parts if it is known not to fit or turns out not to."""
        cost = self._program.cost_tokens([len(sequence) for sequence in batch])
        is_too_large = self._most_tokens is not None and cost > self._most_tokens
        if len(batch) == 1 or not is_too_large:
            with suppress(torch.OutOfMemoryError):
                return self._run_on_device(batch)
            # Out here, for the error holds on to the tensors of the pass that failed.
            self._note_too_large(batch, cost)
        middle = len(batch) // 2
        return [*self.run(batch[:middle]), *self.run(batch[middle:])]

    def _note_too_large(self, batch: Sequence[TokenSequence], cost: int) -> None:
        if self._stream is not None:
            torch.cuda.empty_cache()
        if len(batch) == 1:
            raise BackendFailed(f"out of memory: a sequence of {cost} tokens does not fit")
        self._most_tokens = cost // 2
        _LOG.warning(
            "%s ran out of memory at a batch of %d tokens; from now on at most %d",
            *(self._program.device, cost, self._most_tokens),
        )

    def _run_on_device(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        lengths = [len(sequence) for sequence in batch]
        if self._stream is None:
            self._use_threads()
            output = self._program.run(batch, self._staging).float()
        else:
            output = self._run_on_gpu(batch, self._stream)
        # Copies, for a row would keep the whole batch in memory.
        rows = [row.numpy() for row in split(output, lengths)]
        return [
            np.array(sequence.states(row) if row.ndim == 2 else row)
            for sequence, row in zip(batch, rows, strict=True)
        ]

    def _run_on_gpu(
        self, batch: Sequence[TokenSequence], stream: torch.cuda.Stream
    ) -> torch.Tensor:
        try:
            with torch.cuda.stream(stream):
                output = self._program.run(batch, self._staging).float()
                # Pinned, so that the copy queues behind the pass and the lock is free meanwhile.
                arrived = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
                arrived.copy_(output, non_blocking=True)
            stream.synchronize()
        except BaseException:
            self._settle(stream)
            raise
        return arrived

    def _settle(self, stream: torch.cuda.Stream) -> None:
        """Wait for copies on their way, since the memory they read is written by the next batch."""
        try:
            stream.synchronize()
        except RuntimeError as error:
            # What fails even here is an error after which CUDA does nothing more in this process.
            if not self._is_lost:
                first_line = str(error).partition("\n")[0]
                _LOG.error(
                    "%s has failed for good (%s): the server has to be started again",
                    *(self._program.device, first_line),
                )
            self._is_lost = True

    def _use_threads(self) -> None:
        # OpenMP's number of threads belongs to the thread that starts them.
        if _threads.count != self._threads:
            torch.set_num_threads(self._threads)
            _threads.count = self._threads
