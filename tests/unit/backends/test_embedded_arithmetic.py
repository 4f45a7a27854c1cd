"""The embedded model in every arithmetic: a sequence never depends on its neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.openvino import OpenVinoBackend
from rerank_sidecar.models.arithmetic import Arithmetic
from rerank_sidecar.models.builtin import EMBEDDED_FOLDER


def backend_for(arithmetic: Arithmetic, workers: int = 1, threads: int = 1) -> OpenVinoBackend:
    return OpenVinoBackend(
        EMBEDDED_FOLDER / "model.xml",
        output="hidden_states",
        workers=workers,
        threads_per_worker=threads,
        arithmetic=arithmetic,
        max_tokens=256,
    )


def sequences() -> list[TokenSequence]:
    random = np.random.default_rng(3)
    lengths = (3, 16, 17, 40, 90, 131, 256)
    ids = [random.integers(1000, 20_000, length, dtype=np.int64) for length in lengths]
    return [TokenSequence(each, np.zeros_like(each)) for each in ids]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("arithmetic", list(Arithmetic))
def test_a_row_is_the_same_to_the_bit_in_every_batch(arithmetic: Arithmetic, threads: int) -> None:
    backend = backend_for(arithmetic, threads=threads)
    batch = sequences()
    alone = [backend.run([each])[0] for each in batch]
    for first, second in ((0, 7), (2, 5), (3, 7)):
        together = backend.run(batch[first:second])
        for one, other in zip(alone[first:second], together, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("arithmetic", list(Arithmetic))
def test_every_arithmetic_means_nearly_the_same(arithmetic: Arithmetic) -> None:
    exact, other = backend_for(Arithmetic.FLOAT32), backend_for(arithmetic)
    for one, two in zip(exact.run(sequences()), other.run(sequences()), strict=True):
        cosine = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        assert cosine.mean() > 0.99


def test_info_tells_how_it_runs() -> None:
    info = backend_for(Arithmetic.INT8_BF16, workers=1, threads=2).info
    assert (info.precision, info.parallel_runs, info.threads_per_run) == ("int8+bf16", 1, 2)
    assert info.length_multiple == 16


def test_without_a_choice_the_file_decides() -> None:
    backend = OpenVinoBackend(EMBEDDED_FOLDER / "model.xml", output="hidden_states", workers=1)
    assert backend.info.precision == "int8"
