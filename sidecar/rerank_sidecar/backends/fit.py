"""Fits a backend to this machine: how many workers with how many cores each, and which batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from rerank_sidecar.backends.base import Backend
from rerank_sidecar.backends.measure import BUDGET_S, MeasuredShape

_LOG = logging.getLogger(__name__)

Make = Callable[[int, int], Backend]
"""Makes the backend for a number of workers and of threads for each."""

Measure = Callable[[Backend, float], MeasuredShape]
"""Measures a backend's batches for about so many seconds."""

_THREADS = (2, 4, 8)
_WORTH_A_CHANGE = 1.1
_COMPARED_S = 0.15


def possible_splits(
    cores: int, workers: int | None = None, threads: int | None = None
) -> list[tuple[int, int]]:
    """List the ways to share cores out as (workers, threads of each), the usual one first.

    Usual is one core per worker. What the settings say is kept.
    """
    if threads is not None:
        return [(workers or max(1, cores // threads), threads)]
    if workers is not None:
        return sorted({(workers, 1), (workers, max(1, cores // workers))})
    return [(cores, 1), *((cores // each, each) for each in _THREADS if cores % each == 0)]


def fit_backend(
    make: Make, splits: Sequence[tuple[int, int]], measure: Measure, *, patience_s: float
) -> tuple[Backend, MeasuredShape]:
    """Make the backend, warmed up, in the split that is fastest, and measure its batches.

    Another than the first split has to be a tenth faster, also when the first is measured once
    more: what else the machine did may have slowed it. It is not tried if that would not be done
    within `patience_s`. One line in the log tells what was chosen and why.

    Raises:
        ModelNotServable: the runtime cannot compile the model.
        BackendFailed: it fails as it runs.
    """
    started = time.monotonic()
    backend = make(*splits[0])
    backend.warm_up()
    made_s = time.monotonic() - started
    shape = measure(backend, BUDGET_S)
    tried = [_told(splits[0], shape)]
    for split in splits[1:]:
        if time.monotonic() - started + made_s + _COMPARED_S > patience_s:
            tried.append(f"{split[0]} x {split[1]} not tried for want of time")
            continue
        other = make(*split)
        other.warm_up()
        other_shape = measure(other, _COMPARED_S)
        tried.append(_told(split, other_shape))
        # Once more, since what else the machine did may have slowed the first.
        if _is_faster(other_shape, shape) and _is_faster(
            other_shape, measure(backend, _COMPARED_S)
        ):
            backend, other, shape = other, backend, other_shape
        other.close()
    _log(backend, shape, tried, time.monotonic() - started)
    return backend, shape


def _is_faster(other: MeasuredShape, usual: MeasuredShape) -> bool:
    return other.tokens_per_s > usual.tokens_per_s * _WORTH_A_CHANGE


def _told(split: tuple[int, int], shape: MeasuredShape) -> str:
    workers, threads = split
    return f"{workers} x {threads} reads {shape.tokens_per_s:.0f} tokens/s"


def _log(backend: Backend, shape: MeasuredShape, tried: Sequence[str], took_s: float) -> None:
    info = backend.info
    _LOG.info(
        "%d workers x %d threads, batches of up to %d tokens and %d sequences, a pass costs as "
        "much as %d tokens more; measured in %.1f s: %s; %s",
        info.parallel_runs,
        info.threads_per_run,
        shape.max_batch_tokens,
        shape.max_batch_size,
        shape.pass_cost_tokens,
        took_s,
        ", ".join(tried),
        shape.reason,
    )
