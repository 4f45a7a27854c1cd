"""Measures which batches are fastest on a GPU, where a pass has to be large to be worth its start.

On a CPU backends/measure.py does, by processor time and in smaller steps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np

from rerank_sidecar.backends.base import Backend
from rerank_sidecar.backends.measure import (
    LEAST_PASS_COST_TOKENS,
    SHORT_SEQUENCES,
    TYPICAL_TOKENS,
    MeasuredShape,
    Together,
    free_padding,
)

BUDGET_S = 3.0
"""How long a measurement takes at most."""

_SMALLEST, _LARGEST = 4, 2048
_PASSES = 5

_WORTH_DOUBLING = 1.05
"""A batch twice as large has to read tokens this much faster."""

_LONGEST_PASS_S = 0.1
"""Larger batches are not tried: urgent work waits for as long."""


def measure_gpu_shape(
    backend: Backend,
    budget_s: float = BUDGET_S,
    *,
    max_tokens: int,
    max_batch_tokens: int | None = None,
    max_batch_size: int | None = None,
) -> MeasuredShape:
    """Double the batch on all workers at once for as long as that makes the machine faster.

    A limit that is given is kept as it is, and no larger batch is measured. Of each size the best
    of a few passes on the wall counts; the first is dropped, for it allocates memory.

    Raises:
        BackendFailed: the runtime refused or failed.
    """
    tokens = min(TYPICAL_TOKENS, max_tokens)
    fitting = _LARGEST if max_batch_tokens is None else max(1, max_batch_tokens // tokens)
    largest = min(fitting, max_batch_size or fitting)
    passes_s = _measure(backend, tokens, largest, budget_s)
    shape = choose_gpu_shape(passes_s, tokens, max_tokens, backend.info.parallel_runs)
    shape = replace(
        shape,
        max_batch_tokens=max_batch_tokens or shape.max_batch_tokens,
        max_batch_size=max_batch_size or shape.max_batch_size,
    )
    return free_padding(shape, backend)


def choose_gpu_shape(
    passes_s: Mapping[int, float], tokens: int, max_tokens: int, workers: int
) -> MeasuredShape:
    """Choose from seconds by number of sequences, each of `tokens` tokens.

    It is the smallest that the next one measured is not a twentieth faster than.
    """
    rates = {each: workers * each * tokens / took_s for each, took_s in sorted(passes_s.items())}
    size = _last_worth_it(rates)
    figures = ", ".join(f"{each} x {tokens}: {rate:.0f}" for each, rate in rates.items())
    return MeasuredShape(
        max_batch_tokens=max(size * tokens, max_tokens),
        max_batch_size=size * SHORT_SEQUENCES,
        pass_cost_tokens=_pass_cost_tokens(passes_s, tokens, size),
        tokens_per_s=rates[size],
        reason=f"tokens per second by batch: {figures}",
    )


def _last_worth_it(rates: Mapping[int, float]) -> int:
    sizes = list(rates)
    for size, larger in pairwise(sizes):
        if rates[larger] < rates[size] * _WORTH_DOUBLING:
            return size
    return sizes[-1]


def _pass_cost_tokens(passes_s: Mapping[int, float], tokens: int, size: int) -> int:
    """Draw a line through the passes up to the chosen size: where it begins is the fixed cost."""
    sizes = [each for each in sorted(passes_s) if each <= size]
    if len(sizes) < 2:
        return LEAST_PASS_COST_TOKENS
    lengths = [each * tokens for each in sizes]
    per_token, fixed = np.polyfit(lengths, [passes_s[each] for each in sizes], 1)
    if per_token <= 0:
        return size * tokens
    return int(np.clip(fixed / per_token, LEAST_PASS_COST_TOKENS, size * tokens))


def _measure(backend: Backend, tokens: int, largest: int, budget_s: float) -> dict[int, float]:
    end = time.perf_counter() + budget_s
    passes_s: dict[int, float] = {}
    size = min(_SMALLEST, largest)
    with ThreadPoolExecutor(backend.info.parallel_runs, "measure") as threads:
        together = Together(backend, threads, tokens)
        while size <= largest:
            together.run(size)
            passes_s[size] = min(together.run(size).wall_s for _ in range(_PASSES))
            is_long = 2 * passes_s[size] > _LONGEST_PASS_S
            if is_long or time.perf_counter() > end or _is_flat(passes_s):
                break
            size *= 2
    return passes_s


def _is_flat(passes_s: Mapping[int, float]) -> bool:
    """Tell whether the last doubling was worth nothing, so that the next is not tried."""
    *_, before, last = [0.0, *(size / took_s for size, took_s in passes_s.items())]
    return last < before * _WORTH_DOUBLING
