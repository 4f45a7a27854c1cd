"""What models with a forward pass here have in common: fitting, limits, warming up, metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Literal

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.cores import available_cores
from rerank_sidecar.backends.fit import fit_backend, possible_splits
from rerank_sidecar.backends.measure import MeasuredShape, free_padding, measure_shape
from rerank_sidecar.backends.onnxruntime import onnxruntime_backend
from rerank_sidecar.backends.openvino import OpenVinoBackend
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import ForwardPass, Scheduler
from rerank_sidecar.errors import RerankError
from rerank_sidecar.models.arithmetic import builtin_arithmetic
from rerank_sidecar.models.cpu import read_cpu
from rerank_sidecar.models.servable import ServableModel
from rerank_sidecar.rerankers.base import IndexedDocuments, Reranker, ScoreOptions
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.types import Document

BUILT_IN_PATIENCE_S = 1.2
"""How long fitting the embedded model to the machine may take: it starts within two seconds."""

PATIENCE_S = 10.0

Make = Callable[[int, int], Backend]
"""Makes a backend for a number of workers and of threads for each."""


def make_on_cpu(
    model: ServableModel, settings: Settings, output: Literal["logits", "hidden_states"]
) -> tuple[Make, str]:
    """Give what makes a converted model's backend, and why it is computed in the way it is.

    Raises:
        InvalidSetting: `engine` cannot run the model.
    """
    arithmetic, why = model.arithmetic, model.arithmetic_reason
    if arithmetic is None:
        arithmetic, why = builtin_arithmetic(settings.engine, read_cpu())
    if settings.engine.is_onnxruntime:
        return onnxruntime_backend(model.model_path, arithmetic=arithmetic), why

    def make(workers: int, threads_per_worker: int) -> Backend:
        return OpenVinoBackend(
            model.model_path,
            output=output,
            workers=workers,
            threads_per_worker=threads_per_worker,
            arithmetic=arithmetic,
            max_tokens=model.max_tokens,
            pad_token_id=model.pad_token_id,
        )

    return make, why


def fit_to_cpu(
    make: Make, max_tokens: int, settings: Settings, patience_s: float = PATIENCE_S
) -> tuple[Backend, MeasuredShape]:
    """Make the backend that is fastest on this machine's cores; blocks while it is measured.

    Raises:
        ModelNotServable: the runtime cannot compile the model.
        BackendFailed: it fails as it runs.
    """
    measure = partial(
        measure_shape,
        max_tokens=max_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        max_batch_size=settings.max_batch_size,
    )
    splits = possible_splits(available_cores(), settings.workers, settings.threads_per_worker)
    backend, shape = fit_backend(make, splits, measure, patience_s=patience_s)
    return backend, free_padding(shape, backend)


def limits(settings: Settings, backend: BackendInfo, shape: MeasuredShape) -> BatchLimits:
    """Give the limits of batches: as measured, but for what the settings say."""
    return BatchLimits(
        max_batch_tokens=shape.max_batch_tokens,
        max_batch_size=shape.max_batch_size,
        max_wait_s=settings.max_batch_wait_ms / 1000,
        pass_cost_tokens=shape.pass_cost_tokens,
        length_multiple=backend.length_multiple,
        workers=backend.parallel_runs,
    )


def engine_name(backend: BackendInfo) -> str:
    """Name the runtime, its version and its arithmetic."""
    return f"{backend.engine} {backend.engine_version} {backend.precision}"


async def warm_up(reranker: Reranker) -> None:
    """Score a short and a long text, so that no caller pays for what is made on first use.

    Raises:
        ServerFault: the model fails on them.
    """
    texts = ["warm", "warm " * 400]
    async for _, outcome in reranker.score("warm up", _arriving(texts), ScoreOptions()):
        if isinstance(outcome, RerankError):
            raise outcome


def count_forward_pass(forward_pass: ForwardPass) -> None:
    """Tell the metrics of a forward pass."""
    metrics.BATCH_SIZE.observe(forward_pass.size)
    metrics.BATCH_SECONDS.observe(forward_pass.infer_s)
    metrics.FORWARD_TOKENS.inc(forward_pass.tokens)
    metrics.PADDED_TOKENS.inc(forward_pass.padded_tokens)


def watch(name: str, scheduler: Scheduler) -> Callable[[], None]:
    """Show a scheduler in the metrics, until what is given back is called."""
    return metrics.watch_model(
        name,
        tokens_per_s=lambda: scheduler.tokens_per_s,
        pending_sequences=lambda: scheduler.pending_count,
        pending_tokens=lambda: scheduler.pending_tokens,
    )


async def _arriving(texts: list[str]) -> AsyncIterator[IndexedDocuments]:
    yield list(enumerate(map(Document, texts)))
