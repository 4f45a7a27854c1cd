"""How near the plans come to the least time that any plan could take, by simulation.

Lengths are drawn as passages of MS MARCO with a query are long: about 80 tokens, a few of 200. A
forward pass costs its padded tokens and the fixed cost; workers do not slow each other down.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from statistics import fmean

import pytest

from rerank_sidecar.batching.planner import Backlog, BatchLimits, PendingItem

SEEDS = range(20)


def passages(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)  # noqa: S311 - not a secret
    return [min(300, max(25, round(rng.lognormvariate(4.35, 0.38)))) for _ in range(count)]


def limits_for(workers: int) -> BatchLimits:
    return BatchLimits(2048, 8, 0.5, pass_cost_tokens=64, length_multiple=8, workers=workers)


def makespan(lengths: list[int], limits: BatchLimits) -> float:
    """Let every worker take its next batch as soon as it is free; one token takes a second."""
    backlog = Backlog(limits)
    by_number = {backlog.add(PendingItem(length, 0, None, 0.0)): length for length in lengths}
    free_at = [0.0] * limits.workers
    while len(backlog):
        now = heapq.heappop(free_at)
        batch = backlog.take_batch(now, sum(end - now for end in free_at))
        longest = limits.padded(max(by_number[number] for number in batch))
        heapq.heappush(free_at, now + limits.pass_cost_tokens + longest * len(batch))
    return max(free_at)


def least_work(lengths: list[int], limits: BatchLimits) -> float:
    """The least cost of all passes together: the best cuts of the sorted lengths."""
    padded = sorted(map(limits.padded, lengths))
    best = [0]
    for end in range(1, len(padded) + 1):
        starts = range(max(0, end - limits.max_batch_size), end)
        costs = (best[start] + (end - start) * padded[end - 1] for start in starts)
        best.append(min(costs) + limits.pass_cost_tokens)
    return best[-1]


def least_makespan(lengths: list[int], limits: BatchLimits) -> float:
    """A bound from below: all workers share the least work evenly, or run one pass each."""
    one_pass = sum(map(limits.padded, lengths)) / limits.workers + limits.pass_cost_tokens
    return max(one_pass, least_work(lengths, limits) / limits.workers)


def makespan_of_one_pass_each(lengths: list[int], limits: BatchLimits) -> float:
    """The least makespan with neighbours in length together and one pass for each worker."""
    padded = sorted(map(limits.padded, lengths), reverse=True)
    makespan = limits.pass_cost_tokens + padded[0]
    while _passes_within(makespan, padded, limits) > limits.workers:
        makespan += 1
    return makespan


def _passes_within(makespan: int, padded: list[int], limits: BatchLimits) -> int:
    passes = start = 0
    while start < len(padded):
        start += (makespan - limits.pass_cost_tokens) // padded[start]
        passes += 1
    return passes


@pytest.mark.parametrize(
    ("count", "workers", "bound", "at_most"),
    [
        (20, 2, least_makespan, 1.07),
        (100, 2, least_makespan, 1.03),
        (100, 8, least_makespan, 1.08),
        # Two or three sequences for each worker cannot be shared evenly by any plan.
        (20, 8, makespan_of_one_pass_each, 1.07),
    ],
)
def test_workers_end_nearly_as_soon_as_can_be(
    count: int, workers: int, bound: Callable[[list[int], BatchLimits], float], at_most: float
) -> None:
    limits = limits_for(workers)
    batches = [passages(count, seed) for seed in SEEDS]
    ratios = [makespan(lengths, limits) / bound(lengths, limits) for lengths in batches]
    assert fmean(ratios) <= at_most


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_nothing_is_lost_when_much_waits(workers: int) -> None:
    limits = limits_for(workers)
    lengths = passages(4000, seed=0)
    assert makespan(lengths, limits) * workers <= 1.01 * least_work(lengths, limits)
