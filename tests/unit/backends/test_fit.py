"""Cores are shared out in the way that measures fastest; the usual one wins a draw."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.backends.base import Backend, BackendInfo, TokenSequence
from rerank_sidecar.backends.fit import fit_backend, possible_splits
from rerank_sidecar.backends.measure import MeasuredShape


class Idle:
    """A backend that only knows how it was made and whether it still lives."""

    def __init__(self, workers: int, threads: int) -> None:
        self.split = (workers, threads)
        self.info = BackendInfo("toy", "1", "cpu", "float32", workers, threads_per_run=threads)
        self.is_closed = False

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        return [np.ones(1, dtype=np.float32) for _ in batch]

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Machine:
    """Measures a split at the next of the rates that are given for it, again and again."""

    def __init__(self, rates: dict[tuple[int, int], list[float]]) -> None:
        self.rates = rates
        self.made: list[Idle] = []

    def make(self, workers: int, threads: int) -> Backend:
        self.made.append(Idle(workers, threads))
        return self.made[-1]

    def measure(self, backend: Backend, _budget_s: float) -> MeasuredShape:
        rates = self.rates[backend.info.parallel_runs, backend.info.threads_per_run]
        rate = rates.pop(0) if len(rates) > 1 else rates[0]
        return MeasuredShape(768, 32, 16, rate, "as told")

    def fit(self, patience_s: float = 1000.0) -> tuple[tuple[int, int], MeasuredShape]:
        backend, shape = fit_backend(
            self.make, list(self.rates), self.measure, patience_s=patience_s
        )
        alive = [each.split for each in self.made if not each.is_closed]
        assert alive == [(backend.info.parallel_runs, backend.info.threads_per_run)]
        return alive[0], shape


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1,), [(1, 1)]),
        ((2,), [(2, 1), (1, 2)]),
        ((6,), [(6, 1), (3, 2)]),
        ((16,), [(16, 1), (8, 2), (4, 4), (2, 8)]),
        ((8, 3), [(3, 1), (3, 2)]),
        ((4, 8), [(8, 1)]),
        ((8, None, 4), [(2, 4)]),
        ((2, None, 4), [(1, 4)]),
        ((8, 3, 2), [(3, 2)]),
    ],
)
def test_splits(arguments: tuple[int, ...], expected: list[tuple[int, int]]) -> None:
    assert possible_splits(*arguments) == expected


def test_the_faster_split_wins() -> None:
    split, shape = Machine({(4, 1): [1000], (2, 2): [1500], (1, 4): [900]}).fit()
    assert split == (2, 2)
    assert shape.tokens_per_s == 1500


def test_a_small_gain_is_none() -> None:
    assert Machine({(2, 1): [1000], (1, 2): [1050]}).fit()[0] == (2, 1)


def test_a_usual_split_that_was_only_disturbed_is_kept() -> None:
    assert Machine({(2, 1): [500, 1000], (1, 2): [1000]}).fit()[0] == (2, 1)


def test_without_time_only_the_usual_split_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine({(2, 1): [1000], (1, 2): [5000]})
    with caplog.at_level(logging.INFO):
        assert machine.fit(patience_s=0)[0] == (2, 1)
    assert len(machine.made) == 1
    assert "1 x 2 not tried" in caplog.text


def test_one_line_says_what_was_chosen_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Machine({(2, 1): [1000], (1, 2): [1500]}).fit()
    [record] = caplog.records
    assert record.message.startswith("1 workers x 2 threads, batches of up to 768 tokens and 32")
    assert "2 x 1 reads 1000 tokens/s, 1 x 2 reads 1500 tokens/s" in record.message
