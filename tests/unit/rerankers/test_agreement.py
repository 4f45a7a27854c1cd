"""Kendall's tau against its definition over all pairs."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.rerankers.agreement import kendall_tau, overlap


def by_all_pairs(one: list[float], other: list[float]) -> float | None:
    """Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945."""

    def sign(value: float) -> int:
        return (value > 0) - (value < 0)

    pairs = list(combinations(range(len(one)), 2))
    signs = [(sign(one[a] - one[b]), sign(other[a] - other[b])) for a, b in pairs]
    scale = math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    return sum(x * y for x, y in signs) / scale if scale else None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_tau_is_that_of_all_pairs(values: list[tuple[float, float]]) -> None:
    one, other = [a for a, _ in values], [b for _, b in values]
    assert kendall_tau(one, other) == pytest.approx(by_all_pairs(one, other))


def test_same_and_opposite_orders() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1


def test_the_share_of_the_best_in_common() -> None:
    assert overlap([1, 2, 3, 4], [1, 2, 3, 4], depth=2) == 1
    assert overlap([1, 2, 3, 4], [2, 4, 1, 3], depth=2) == 0.5
    assert overlap([1, 2], [2, 1]) == 1
