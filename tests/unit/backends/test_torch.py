"""The torch backend shares programs out, survives a full memory and hides nothing that fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
import torch

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.torch import TorchBackend
from rerank_sidecar.backends.torch_batches import Staging, TorchBatch, padded_width
from rerank_sidecar.errors import BackendFailed
from rerank_sidecar.models.torch_device import TorchDtype

CPU = torch.device("cpu")
PAD = 7


@dataclass
class SumOfIds:
    """Gives the sum of each sequence's ids, if a batch has no more tokens than fit."""

    is_packed: bool
    fits: int = 10**6
    device: torch.device = CPU
    tried: list[int] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def cost_tokens(self, lengths: Sequence[int]) -> int:
        return sum(lengths) if self.is_packed else len(lengths) * padded_width(max(lengths), None)

    def run(self, batch: Sequence[TokenSequence], staging: Staging) -> torch.Tensor:
        laid = self._lay_out(batch, staging)
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.tried.append(laid.token_ids.numel())
        try:
            if laid.token_ids.numel() > self.fits:
                raise torch.OutOfMemoryError("too much")
            return self._sums(laid)
        finally:
            with self.lock:
                self.running -= 1

    def _lay_out(self, batch: Sequence[TokenSequence], staging: Staging) -> TorchBatch:
        if self.is_packed:
            return staging.pack(batch, position_offset=2)
        return staging.pad(batch, PAD, padded_width(max(map(len, batch)), None))

    def _sums(self, batch: TorchBatch) -> torch.Tensor:
        if batch.packed is not None:
            bounds = batch.packed.bounds
            row = batch.token_ids[0]
            sums = [row[a:b].sum() for a, b in pairwise(bounds)]
            return torch.stack(sums)[:, None]
        mask = torch.ones_like(batch.token_ids) if batch.mask is None else batch.mask
        return (batch.token_ids * mask).sum(dim=1, keepdim=True)


def sequences(*lengths: int) -> list[TokenSequence]:
    ids = [np.arange(length, dtype=np.int64) + 1 for length in lengths]
    return [TokenSequence(each, np.zeros_like(each)) for each in ids]


def expected(*lengths: int) -> list[float]:
    return [length * (length + 1) / 2 for length in lengths]


def values(backend: TorchBackend, *lengths: int) -> list[float]:
    return [float(row[0]) for row in backend.run(sequences(*lengths))]


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "padded"])
class TestMemory:
    def test_a_batch_that_does_not_fit_is_halved(self, is_packed: bool) -> None:
        program = SumOfIds(is_packed, fits=40)
        backend = TorchBackend([program], TorchDtype.BF16)
        lengths = (8, 16, 8, 16, 24, 8, 8)
        assert values(backend, *lengths) == expected(*lengths)

    def test_no_batch_as_large_is_tried_again(self, is_packed: bool) -> None:
        program = SumOfIds(is_packed, fits=40)
        backend = TorchBackend([program], TorchDtype.BF16)
        lengths = (8,) * 8
        values(backend, *lengths)
        program.tried.clear()
        assert values(backend, *lengths) == expected(*lengths)
        assert max(program.tried) <= 40

    def test_a_small_batch_still_runs_at_once(self, is_packed: bool) -> None:
        program = SumOfIds(is_packed, fits=40)
        backend = TorchBackend([program], TorchDtype.BF16)
        values(backend, *(8,) * 8)
        program.tried.clear()
        assert values(backend, 8, 8, 8) == expected(8, 8, 8)
        assert program.tried == [24]

    def test_a_sequence_that_fits_nowhere_fails_alone(self, is_packed: bool) -> None:
        backend = TorchBackend([SumOfIds(is_packed, fits=40)], TorchDtype.BF16)
        with pytest.raises(BackendFailed, match="out of memory: a sequence of 64 tokens"):
            backend.run(sequences(64))
        assert values(backend, 32) == expected(32)


def test_a_lane_is_given_back_after_a_failure() -> None:
    class Broken(SumOfIds):
        def run(self, batch: Sequence[TokenSequence], staging: Staging) -> torch.Tensor:
            raise RuntimeError("the text of a document")

    backend = TorchBackend([Broken(is_packed=True)], TorchDtype.FLOAT32)
    for _ in range(3):
        with pytest.raises(BackendFailed) as caught:
            backend.run(sequences(3))
        assert caught.value.message == "the forward pass failed (RuntimeError)"


def test_runs_are_shared_out_among_devices() -> None:
    programs = [SumOfIds(is_packed=True) for _ in range(3)]
    backend = TorchBackend(programs, TorchDtype.FP16)
    assert backend.info.parallel_runs == 3
    with ThreadPoolExecutor(8) as threads:
        batches = [tuple(range(1, 2 + number % 5)) for number in range(90)]
        results = threads.map(lambda lengths: values(backend, *lengths), batches)
        assert list(results) == [expected(*lengths) for lengths in batches]
    assert all(program.tried for program in programs)
    assert all(program.most_running == 1 for program in programs)


def test_more_workers_than_devices_take_turns_on_them() -> None:
    programs = [SumOfIds(is_packed=True) for _ in range(2)]
    backend = TorchBackend(programs, TorchDtype.FP16, workers=4)
    backend.warm_up()
    assert [len(program.tried) for program in programs] == [2, 2]
    assert backend.info.parallel_runs == 4


def test_info_tells_whether_padding_costs() -> None:
    packed = TorchBackend([SumOfIds(is_packed=True)], TorchDtype.BF16).info
    padded = TorchBackend([SumOfIds(is_packed=False)], TorchDtype.FLOAT32, threads_per_worker=2)
    assert (packed.engine, packed.precision, packed.device) == ("torch", "bf16", "cpu")
    assert (packed.is_padded, packed.length_multiple) == (False, 1)
    assert (padded.info.is_padded, padded.info.length_multiple) == (True, 8)
    assert padded.info.threads_per_run == 2


def test_an_empty_batch_gives_nothing_and_a_closed_backend_fails() -> None:
    backend = TorchBackend([SumOfIds(is_packed=True)], TorchDtype.FLOAT32)
    assert backend.run([]) == []
    backend.close()
    with pytest.raises(BackendFailed, match="closed"):
        backend.run(sequences(1))


def test_results_own_their_memory() -> None:
    backend = TorchBackend([SumOfIds(is_packed=True)], TorchDtype.FLOAT32)
    [first] = backend.run(sequences(4))
    assert first.base is None
    backend.run(sequences(9))
    assert first.tolist() == [10.0]


def test_packed_rows_know_their_places() -> None:
    batch = Staging(CPU).pack(sequences(3, 1, 2), position_offset=2)
    assert batch.packed is not None
    assert batch.positions is not None
    assert batch.token_ids.tolist() == [[1, 2, 3, 1, 1, 2]]
    assert batch.positions.tolist() == [[2, 3, 4, 2, 2, 3]]
    assert batch.packed.bounds == (0, 3, 4, 6)
    assert batch.packed.offsets.tolist() == [0, 3, 4, 6]
    assert batch.packed.offsets.dtype == torch.int32
    assert batch.packed.longest == 3


def test_many_short_sequences_have_more_bounds_than_tokens() -> None:
    batch = Staging(CPU).pack(sequences(1, 0, 0, 1), position_offset=0)
    assert batch.packed is not None
    assert batch.packed.offsets.tolist() == [0, 1, 1, 1, 2]
    assert batch.token_ids.tolist() == [[1, 1]]


def test_a_batch_without_padding_has_no_mask() -> None:
    staging = Staging(CPU)
    assert staging.pad(sequences(8, 8), PAD, 8).mask is None
    padded = staging.pad(sequences(2, 3), PAD, 4)
    assert padded.mask is not None
    assert padded.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert padded.token_ids.tolist() == [[1, 2, PAD, PAD], [1, 2, 3, PAD]]


def test_padding_does_not_go_beyond_what_the_model_reads() -> None:
    assert [padded_width(each, 12) for each in (1, 8, 9, 12)] == [8, 8, 12, 12]
    assert padded_width(9, None) == 16
