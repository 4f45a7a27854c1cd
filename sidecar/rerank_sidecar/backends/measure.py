"""Measures, while a server warms up, which batches are fastest and what a pass costs at least."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Barrier

import numpy as np

from rerank_sidecar.backends.base import Backend, TokenSequence

SIZES = (1, 2, 4, 8, 16)
"""How many sequences the measured batches have."""

TYPICAL_TOKENS = 96
"""The length of the measured sequences: a query and a passage of MS MARCO, or the passage alone."""

BUDGET_S = 0.3
"""How long a measurement takes; a model whose shortest pass is long gets more, to a limit."""

_LONGEST_BUDGET_S = 3.0
_SHORTEST_PASSES = 12

_USUAL_SIZE = 8
_LEAST_SIZE = 4
"""Smaller batches are not chosen: what a pass costs outside the backend is not measured here."""

_WORTH_A_CHANGE = 1.03
_TIE = 0.98
_SLOWS_DOWN = 0.93

LEAST_PASS_COST_TOKENS = 16
_LARGEST_PASS_COST_TOKENS = 256
SHORT_SEQUENCES = 4
"""Short sequences fill a batch with up to this many times as many as typical ones."""


@dataclass(frozen=True, slots=True)
class MeasuredShape:
    """The batches that this machine reads fastest.

    `max_batch_tokens` counts padding and is at least the model's maximal length. `pass_cost_tokens`
    is the part of a forward pass's time that does not depend on its tokens, told as the number of
    tokens that take as long. `tokens_per_s` is what all workers read together. `reason` has the
    figures that it was chosen by.
    """

    max_batch_tokens: int
    max_batch_size: int
    pass_cost_tokens: int
    tokens_per_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class PassTime:
    """What the fastest pass of a size took, in seconds while all workers ran one.

    `busy_s` is processor time per core of a worker, which other programs hardly disturb, `wall_s`
    the time on the wall.
    """

    busy_s: float
    wall_s: float


def measure_shape(
    backend: Backend,
    budget_s: float = BUDGET_S,
    *,
    max_tokens: int,
    max_batch_tokens: int | None = None,
    max_batch_size: int | None = None,
) -> MeasuredShape:
    """Run batches of several sizes on all workers at once and choose the fastest.

    A limit that is given is kept as it is, and no larger batch is measured. Sizes are tried from
    one upwards, each with one pass per worker, again and again until the budget is spent; the best
    of each counts, since what else the machine does only ever makes a pass slower. The very first
    pass is dropped: it may compile.

    Raises:
        BackendFailed: the runtime refused or failed.
    """
    tokens = min(TYPICAL_TOKENS, max_tokens)
    fitting = SIZES[-1] if max_batch_tokens is None else max(1, max_batch_tokens // tokens)
    largest = min(fitting, max_batch_size or fitting)
    passes = _measure(backend, [size for size in SIZES if size <= largest], tokens, budget_s)
    shape = choose_shape(passes, tokens, max_tokens, backend.info.parallel_runs)
    return replace(
        shape,
        max_batch_tokens=max_batch_tokens or shape.max_batch_tokens,
        max_batch_size=max_batch_size or shape.max_batch_size,
    )


def free_padding(shape: MeasuredShape, backend: Backend) -> MeasuredShape:
    """Let sequences of any lengths run together where none is padded."""
    if backend.info.is_padded:
        return shape
    return replace(shape, pass_cost_tokens=shape.max_batch_tokens)


def choose_shape(
    passes: Mapping[int, PassTime], tokens: int, max_tokens: int, workers: int
) -> MeasuredShape:
    """Choose from the passes by number of sequences, each of `tokens` tokens.

    Eight sequences unless another size from four upwards is 3 % faster; then the smallest within
    2 % of the fastest, because short passes let urgent work in sooner. What was not measured, for
    want of time or because smaller batches already slowed down, is not chosen.
    """
    size = _fastest_size({each: each / time.busy_s for each, time in passes.items()})
    rates = {each: workers * each * tokens / time.wall_s for each, time in passes.items()}
    busy = {each: workers * each * tokens / time.busy_s for each, time in passes.items()}
    figures = ", ".join(f"{each} x {tokens}: {rate:.0f}" for each, rate in sorted(busy.items()))
    return MeasuredShape(
        max_batch_tokens=max(max(size, _LEAST_SIZE) * tokens, max_tokens),
        max_batch_size=max(size, _LEAST_SIZE) * SHORT_SEQUENCES,
        pass_cost_tokens=_pass_cost_tokens(passes, tokens, size),
        tokens_per_s=rates[size],
        reason=f"tokens per busy second by batch: {figures}",
    )


def _fastest_size(rates: Mapping[int, float]) -> int:
    eligible = [size for size in rates if size >= _LEAST_SIZE] or [max(rates)]
    usual = max((size for size in eligible if size <= _USUAL_SIZE), default=min(eligible))
    best = max(rates[size] for size in eligible)
    if best <= rates[usual] * _WORTH_A_CHANGE:
        return usual
    return min(size for size in eligible if rates[size] >= best * _TIE)


def _pass_cost_tokens(passes: Mapping[int, PassTime], tokens: int, size: int) -> int:
    """Draw a line through the passes up to the chosen size: where it begins is the fixed cost."""
    sizes = [each for each in sorted(passes) if each <= size]
    if len(sizes) < 2:
        return LEAST_PASS_COST_TOKENS
    lengths = [each * tokens for each in sizes]
    per_token, fixed = np.polyfit(lengths, [passes[each].busy_s for each in sizes], 1)
    if per_token <= 0:
        return LEAST_PASS_COST_TOKENS
    return int(np.clip(fixed / per_token, LEAST_PASS_COST_TOKENS, _LARGEST_PASS_COST_TOKENS))


def _measure(
    backend: Backend, sizes: Sequence[int], tokens: int, budget_s: float
) -> dict[int, PassTime]:
    with ThreadPoolExecutor(backend.info.parallel_runs, "measure") as threads:
        together = Together(backend, threads, tokens)
        together.run(1)
        passes = {1: together.run(1)}
        shortest_s = passes[1].wall_s
        end = time.perf_counter() + min(
            _LONGEST_BUDGET_S, max(budget_s, _SHORTEST_PASSES * shortest_s)
        )
        while time.perf_counter() + shortest_s < end:
            for size in sizes:
                left_s = end - time.perf_counter()
                if size * shortest_s > left_s or _is_wasted(size, passes):
                    break
                passes[size] = _better(passes.get(size), together.run(size))
    return passes


def _better(before: PassTime | None, now: PassTime) -> PassTime:
    if before is None:
        return now
    return PassTime(min(before.busy_s, now.busy_s), min(before.wall_s, now.wall_s))


def _is_wasted(size: int, passes: Mapping[int, PassTime]) -> bool:
    """Tell whether smaller batches slow down already, so that a larger one is not worth a try."""
    rates = {each: each / time.busy_s for each, time in passes.items() if each < size}
    return size > _USUAL_SIZE and rates[max(rates)] < max(rates.values()) * _SLOWS_DOWN


class Together:
    """Runs a batch on every worker at the same moment, as a busy server does."""

    def __init__(self, backend: Backend, threads: ThreadPoolExecutor, tokens: int) -> None:
        self._backend = backend
        self._threads = threads
        self._tokens = tokens

    def run(self, size: int) -> PassTime:
        """Run one pass on each worker; the wall's time is the mean over workers."""
        info = self._backend.info
        batch = [_sequence(self._tokens, number) for number in range(size)]
        start = Barrier(info.parallel_runs)

        def timed_pass(_worker: int) -> float:
            start.wait()
            begin = time.perf_counter()
            self._backend.run(batch)
            return time.perf_counter() - begin

        busy_from = time.process_time()
        walls = list(self._threads.map(timed_pass, range(info.parallel_runs)))
        busy_s = time.process_time() - busy_from
        cores = info.parallel_runs * info.threads_per_run
        # A clock that stood still would make a batch infinitely fast.
        return PassTime(max(busy_s / cores, 1e-9), max(sum(walls) / len(walls), 1e-9))


def _sequence(tokens: int, number: int) -> TokenSequence:
    # Ids that every vocabulary has.
    ids = 5 + (np.arange(tokens, dtype=np.int64) + number) % 10
    return TokenSequence(ids, np.zeros_like(ids))
