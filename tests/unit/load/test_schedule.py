"""Arrivals are those of a Poisson process: in order, in time, as many as the rate says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.load.schedule import ClosedLoop, OpenLoop, poisson_arrivals

rates = st.floats(0.01, 500)
durations = st.floats(0.01, 20)
seeds = st.integers(0, 2**32)


@given(rates, durations, seeds)
def test_arrivals_are_in_order_and_within_the_time(rate: float, duration: float, seed: int) -> None:
    arrivals = poisson_arrivals(rate, duration, np.random.default_rng(seed))
    assert (np.diff(arrivals) >= 0).all()
    assert ((arrivals >= 0) & (arrivals < duration)).all()


@given(rates, durations, seeds)
def test_as_many_as_the_rate_says(rate: float, duration: float, seed: int) -> None:
    count = len(poisson_arrivals(rate, duration, np.random.default_rng(seed)))
    mean = rate * duration
    # Poisson's tails are thinner than exp(-x²/2(mean+x)); 12 deviations and 60 never come.
    assert abs(count - mean) <= 12 * np.sqrt(mean) + 60


@given(rates, durations, seeds)
def test_the_same_seed_draws_the_same(rate: float, duration: float, seed: int) -> None:
    first, second = (
        poisson_arrivals(rate, duration, np.random.default_rng(seed)) for _ in range(2)
    )
    assert np.array_equal(first, second)


def test_gaps_are_exponential() -> None:
    gaps = np.diff(poisson_arrivals(200, 500, np.random.default_rng(0)))
    np.testing.assert_allclose(np.mean(gaps), 1 / 200, rtol=0.02)
    np.testing.assert_allclose(np.std(gaps), 1 / 200, rtol=0.02)
    np.testing.assert_allclose(np.median(gaps), np.log(2) / 200, rtol=0.03)


def test_loads_in_words() -> None:
    loads = (ClosedLoop(1), ClosedLoop(16), OpenLoop(2.5), OpenLoop(40.0))
    assert [str(load) for load in loads] == ["1 caller", "16 callers", "2.5/s", "40/s"]
