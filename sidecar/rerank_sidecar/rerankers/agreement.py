"""How alike two orders of the same documents are."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Sequence


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Give Kendall's tau-b of two lists of scores: 1 for the same order, -1 for the opposite.

    None if either calls all documents equal, where it is not defined. Takes O(n log n) comparisons,
    as in Knight, "A Computer Method for Calculating Kendall's Tau with Ungrouped Data", Journal of
    the American Statistical Association 61, 1966.
    """
    pairs = sorted(zip(one, other, strict=True))
    total = _pairs(len(pairs))
    tied_in_one, tied_in_other = _ties(one), _ties(other)
    discordant = 0
    before: list[float] = []
    for _, value in pairs:  # those equal in `one` come in the order of `other`: none is discordant
        discordant += len(before) - bisect_right(before, value)
        insort(before, value)
    comparable = total - tied_in_one - tied_in_other + _ties(pairs)
    scale = math.sqrt((total - tied_in_one) * (total - tied_in_other))
    return (comparable - 2 * discordant) / scale if scale else None


def overlap(one: Sequence[int], other: Sequence[int], depth: int = 10) -> float:
    """Give the share of the `depth` best that two orders of the same indexes have in common."""
    best = min(depth, len(one))
    return len(set(one[:best]) & set(other[:best])) / best


def _ties(values: Iterable[object]) -> int:
    return sum(map(_pairs, Counter(values).values()))


def _pairs(count: int) -> int:
    return count * (count - 1) // 2
