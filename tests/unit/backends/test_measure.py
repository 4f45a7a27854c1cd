"""The fastest batches are chosen from measured passes, and limits that are given are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.backends.measure import PassTime, choose_shape, measure_shape


class Recorder:
    """A backend that computes next to nothing and notes the batches that it was given."""

    def __init__(self, workers: int = 2) -> None:
        self.info = BackendInfo("toy", "1", "cpu", "float32", workers)
        self.shapes: set[tuple[int, int]] = set()

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        self.shapes.add((len(batch), len(batch[0])))
        return [np.ones(len(sequence), dtype=np.float32) for sequence in batch]

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


def passes(**rates: float) -> dict[int, PassTime]:
    """Make passes of 96 tokens a sequence from tokens per second by size: b1=..., b8=..."""
    times = {int(name[1:]): int(name[1:]) * 96 / rate for name, rate in rates.items()}
    return {size: PassTime(seconds, seconds) for size, seconds in times.items()}


@pytest.mark.parametrize(
    ("measured", "size"),
    [
        (passes(b1=900, b2=950, b4=990, b8=1000, b16=1010), 8),
        (passes(b1=900, b2=950, b4=1060, b8=1000, b16=990), 4),
        (passes(b1=900, b2=950, b4=980, b8=1000, b16=1200), 16),
        (passes(b1=900, b2=950, b4=1190, b8=1000, b16=1200), 4),
        (passes(b1=2000, b2=2000, b4=1000, b8=1000), 8),
        (passes(b1=900, b2=950, b4=1000), 4),
    ],
)
def test_the_usual_size_unless_another_is_clearly_faster(
    measured: dict[int, PassTime], size: int
) -> None:
    shape = choose_shape(measured, 96, 256, workers=2)
    assert shape.max_batch_tokens == max(size * 96, 256)
    assert shape.max_batch_size == size * 4
    assert shape.tokens_per_s == pytest.approx(2 * size * 96 / measured[size].wall_s)


def test_a_sequence_of_the_models_length_fits_into_a_batch() -> None:
    shape = choose_shape(passes(b1=900, b4=1000, b8=1000), 96, 8192, workers=1)
    assert shape.max_batch_tokens == 8192


def test_a_model_too_slow_for_more_than_one_sequence_still_gets_small_batches() -> None:
    shape = choose_shape(passes(b1=900), 96, 128, workers=1)
    assert (shape.max_batch_tokens, shape.max_batch_size) == (384, 16)


def test_the_fixed_cost_is_what_a_pass_takes_beyond_its_tokens() -> None:
    seconds = {size: (48 + size * 96) / 10_000 for size in (1, 2, 4, 8)}
    measured = {size: PassTime(each, each) for size, each in seconds.items()}
    assert choose_shape(measured, 96, 256, workers=1).pass_cost_tokens in {47, 48}


def test_a_measured_cost_below_nothing_counts_as_little() -> None:
    shape = choose_shape(passes(b1=1000, b2=900, b4=800, b8=700), 96, 256, workers=1)
    assert shape.pass_cost_tokens == 16


def test_processor_time_decides_because_others_disturb_the_wall_clock() -> None:
    quiet = passes(b4=1100, b8=1000)
    disturbed = {4: PassTime(quiet[4].busy_s, 10 * quiet[4].busy_s), 8: quiet[8]}
    assert choose_shape(disturbed, 96, 256, workers=1).max_batch_size == 16


def test_measuring_tries_sizes_and_gives_a_rate() -> None:
    backend = Recorder()
    shape = measure_shape(backend, 0.05, max_tokens=40)
    assert {(1, 40), (2, 40), (4, 40), (8, 40)} <= backend.shapes
    assert shape.tokens_per_s > 0
    assert shape.max_batch_tokens >= 40


def test_limits_that_are_given_are_kept_and_no_larger_batch_is_tried() -> None:
    backend = Recorder()
    shape = measure_shape(backend, 0.05, max_tokens=512, max_batch_tokens=400, max_batch_size=3)
    assert (shape.max_batch_tokens, shape.max_batch_size) == (400, 3)
    assert backend.shapes == {(1, 96), (2, 96)}


def test_a_limit_below_one_sequence_measures_one() -> None:
    backend = Recorder(workers=1)
    measure_shape(backend, 0.02, max_tokens=512, max_batch_tokens=10)
    assert backend.shapes == {(1, 96)}
