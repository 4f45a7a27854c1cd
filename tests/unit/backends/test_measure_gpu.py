"""Batches of a GPU are doubled for as long as that makes it faster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.backends.measure import free_padding
from rerank_sidecar.backends.measure_gpu import choose_gpu_shape, measure_gpu_shape


def passes_s(fixed_s: float, per_token_s: float, *sizes: int) -> dict[int, float]:
    return {size: fixed_s + per_token_s * size * 100 for size in sizes}


def test_the_batch_is_the_one_that_doubling_does_not_pay_for() -> None:
    # Doubling from 64 gains a quarter, from 512 a twentieth and no more.
    shape = choose_gpu_shape(passes_s(3e-3, 1e-6, *(2**n for n in range(2, 12))), 100, 512, 1)
    assert shape.max_batch_tokens == 51_200
    assert shape.max_batch_size == 4 * 512


def test_what_a_pass_costs_is_told_in_tokens() -> None:
    shape = choose_gpu_shape(passes_s(3e-3, 1e-6, 4, 8, 16, 32, 64, 128), 100, 512, 1)
    assert shape.pass_cost_tokens == pytest.approx(3000, rel=0.01)


def test_a_gpu_that_is_busy_with_one_sequence_gets_no_large_batches() -> None:
    shape = choose_gpu_shape(passes_s(1e-5, 1e-3, 4, 8), 100, 512, 1)
    assert shape.max_batch_tokens == 512
    assert shape.max_batch_size == 16


def test_all_workers_together_read_so_many_tokens() -> None:
    shape = choose_gpu_shape({4: 0.1}, 100, 512, 3)
    assert shape.tokens_per_s == pytest.approx(3 * 4 * 100 / 0.1)


class Counting:
    """A backend that notes how large batches are."""

    def __init__(self, *, is_padded: bool) -> None:
        self.info = BackendInfo("fake", "1", "cuda:0", "bf16", 2, is_padded=is_padded)
        self.sizes: set[int] = set()

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        self.sizes.add(len(batch))
        return [np.zeros(1, np.float32) for _ in batch]

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_padding_that_costs_nothing_lets_all_lengths_run_together() -> None:
    shape = choose_gpu_shape(passes_s(1e-5, 1e-3, 4, 8), 100, 512, 1)
    assert free_padding(shape, Counting(is_padded=True)) == shape
    assert free_padding(shape, Counting(is_padded=False)).pass_cost_tokens == 512


def test_limits_that_are_given_are_kept_and_nothing_larger_is_measured() -> None:
    backend = Counting(is_padded=True)
    shape = measure_gpu_shape(backend, max_tokens=512, max_batch_tokens=1000, max_batch_size=9)
    assert (shape.max_batch_tokens, shape.max_batch_size) == (1000, 9)
    assert max(backend.sizes) <= 9
