"""What runs on GPUs alone, seen on the CPU: CUDA's streams are played, and copies come late."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.backends.torch import TorchBackend
from rerank_sidecar.backends.torch_batches import Staging
from rerank_sidecar.backends.torch_program import programs_on
from rerank_sidecar.errors import BackendFailed, ModelNotServable
from rerank_sidecar.loading.on_torch import fit_torch_backend
from rerank_sidecar.models.torch_checkpoint import TorchModel
from rerank_sidecar.models.torch_device import TorchDtype, TorchEngine
from rerank_sidecar.settings import read_settings
from tests.unit.backends.test_torch import expected, sequences, values

FIRST = torch.device("cuda:0")


@dataclass
class PlayedCuda:
    """What happened, in order; copies that do not block are made when a stream is waited for."""

    events: list[str] = field(default_factory=list)
    copies: list[Callable[[], object]] = field(default_factory=list)
    current: str = "default"
    is_broken: bool = False

    def synchronize(self, device: torch.device) -> None:
        self.events.append(f"wait {device}")
        if self.is_broken:
            raise RuntimeError(
                "CUDA error: device-side assert triggered\nCompile with this and that"
            )
        for copy in self.copies:
            copy()
        self.copies.clear()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> PlayedCuda:
    played = PlayedCuda()
    real_empty, real_copy = torch.empty, torch.Tensor.copy_

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def synchronize(self) -> None:
            played.synchronize(self.device)

    @contextmanager
    def stream(own: Stream) -> Iterator[None]:
        before, played.current = played.current, str(own.device)
        yield
        played.current = before

    def empty(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return real_empty(*shape, **options)

    def copy(
        own: torch.Tensor, source: torch.Tensor, *, non_blocking: bool = False
    ) -> torch.Tensor:
        if not non_blocking:
            return real_copy(own, source)
        own.zero_()
        played.copies.append(lambda: real_copy(own, source))
        return own

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: played.events.append("empty"))
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    return played


@dataclass
class OnGpu:
    """Gives the sum of each sequence's ids, if a batch has no more tokens than fit."""

    cuda: PlayedCuda
    device: torch.device = FIRST
    fits: int = 10**6
    is_packed: bool = True
    error: Exception | None = None

    def cost_tokens(self, lengths: Sequence[int]) -> int:
        return sum(lengths)

    def run(self, batch: Sequence[TokenSequence], _staging: Staging) -> torch.Tensor:
        assert self.cuda.current == str(self.device)
        tokens = sum(map(len, batch))
        self.cuda.events.append(f"run {tokens}")
        if self.error is not None:
            raise self.error
        if tokens > self.fits:
            raise torch.OutOfMemoryError("too much")
        return torch.tensor([[float(each.token_ids.sum())] for each in batch])


def test_results_are_read_when_they_have_arrived(cuda: PlayedCuda) -> None:
    backend = TorchBackend([OnGpu(cuda)], TorchDtype.BF16)
    assert values(backend, 3, 5, 8) == expected(3, 5, 8)
    assert cuda.events == ["run 16", "wait cuda:0"]


def test_each_device_is_run_on_a_stream_of_its_own(cuda: PlayedCuda) -> None:
    devices = [FIRST, torch.device("cuda:1")]
    backend = TorchBackend([OnGpu(cuda, device) for device in devices], TorchDtype.BF16)
    backend.warm_up()
    assert {each for each in cuda.events if each.startswith("wait")} == {
        "wait cuda:0",
        "wait cuda:1",
    }
    assert cuda.current == "default"


def test_after_a_full_memory_the_rest_is_waited_for_and_what_lies_unused_given_back(
    cuda: PlayedCuda,
) -> None:
    backend = TorchBackend([OnGpu(cuda, fits=20)], TorchDtype.BF16)
    assert values(backend, 8, 8, 8, 8) == expected(8, 8, 8, 8)
    assert cuda.events[:3] == ["run 32", "wait cuda:0", "empty"]
    assert cuda.events[3:] == ["run 16", "wait cuda:0"] * 2


def test_a_gpu_that_has_failed_for_good_is_told_of_once(
    cuda: PlayedCuda, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("CUDA error: device-side assert triggered")
    backend = TorchBackend([OnGpu(cuda, error=error)], TorchDtype.BF16)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            with pytest.raises(BackendFailed, match="the forward pass failed"):
                backend.run(sequences(3))
        assert not caplog.records, "one batch failed, and the GPU goes on"
        cuda.is_broken = True
        for _ in range(2):
            with pytest.raises(BackendFailed, match="the forward pass failed"):
                backend.run(sequences(3))
    [record] = caplog.records
    assert record.getMessage() == (
        "cuda:0 has failed for good (CUDA error: device-side assert triggered): the server has to "
        "be started again"
    )


def test_a_closed_backend_lets_go_of_its_model(cuda: PlayedCuda) -> None:
    program = OnGpu(cuda)
    program.knows_itself = program  # type: ignore[attr-defined]
    reference = weakref.ref(program)
    backend = TorchBackend([program], TorchDtype.BF16)
    del program
    gc.disable()
    try:
        backend.close()
        assert reference() is None
    finally:
        gc.enable()
    assert cuda.events == ["empty"]


def tiny_model() -> TorchModel:
    return TorchModel(
        torch.nn.Linear(2, 2),
        lambda module, inputs: module(inputs["input_ids"].float()),
        lambda _module: None,
        "logits",
        takes_types=False,
        tokenizer=None,
        max_tokens=8,
    )


def test_a_model_that_a_gpu_has_no_room_for_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_module: torch.nn.Module, device: torch.device) -> None:
        raise torch.OutOfMemoryError(f"CUDA out of memory on {device}")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    engine = TorchEngine(("cuda:1",), TorchDtype.BF16, "the test")
    with pytest.raises(ModelNotServable, match="the memory of cuda:1 has no room for the model"):
        programs_on(engine, tiny_model())


class Measured:
    """A backend on a GPU that notes what is run."""

    def __init__(self, cuda: PlayedCuda) -> None:
        self.info = BackendInfo("torch", "1", "cuda:0", "bf16", 1, is_padded=False)
        self._cuda = cuda

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        self._cuda.events.append(f"run {len(batch)}")
        return [np.zeros(1, np.float32) for _ in batch]

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_memory_that_was_taken_to_measure_is_given_back(cuda: PlayedCuda) -> None:
    engine = TorchEngine(("cuda:0",), TorchDtype.BF16, "the test")
    backend, _ = fit_torch_backend(
        lambda _workers, _threads: Measured(cuda), engine, read_settings(max_batch_size=8), 512
    )
    assert isinstance(backend, Measured)
    assert "run 8" in cuda.events
    assert cuda.events[-1] == "empty"
