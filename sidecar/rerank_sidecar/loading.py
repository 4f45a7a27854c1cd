"""From a model's files to a reranker that has warmed up: backend, scheduler, family, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar, assert_never

from threadpoolctl import threadpool_limits

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.cores import available_cores
from rerank_sidecar.backends.fit import fit_backend, possible_splits
from rerank_sidecar.backends.measure import MeasuredShape, measure_shape
from rerank_sidecar.backends.openvino import OpenVinoBackend
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import ForwardPass, Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.engine.instance import LoadedModel
from rerank_sidecar.errors import ModelNotServable, RerankError
from rerank_sidecar.model_settings import ModelTable
from rerank_sidecar.models.arithmetic import builtin_arithmetic
from rerank_sidecar.models.cpu import read_cpu
from rerank_sidecar.models.resolve import resolve_model
from rerank_sidecar.models.servable import Activation, ModelFamily, ServableModel
from rerank_sidecar.rerankers.base import IndexedDocuments, Reranker, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.cross_encoder import CrossEncoderConfig, CrossEncoderReranker
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.rerankers.matrix_disk import DiskMatrices
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.types import Document, LongDocumentPolicy

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

_EMBEDDED_PATIENCE_S = 1.2
"""How long fitting the embedded model to the machine may take: it starts within two seconds."""

_PATIENCE_S = 10.0


@contextmanager
def model_loader(settings: Settings) -> Iterator[ModelLoader]:
    """Give what loads the models of a server, which have to be closed before the context is left.

    They share the threads that tokenise, the cache of encoded documents and the cores.
    """
    with ExitStack() as stack:
        # Numpy multiplies in threads of ours; its own would fight with them for the cores.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        # Texts being tokenised take many times their size, so no more at once than there are cores.
        executor = ThreadPoolExecutor(available_cores(), thread_name_prefix="tokenise")
        yield ModelLoader(settings, stack.enter_context(executor), stack)


class ModelLoader:
    """Makes models ready to answer, from their files to a reranker that has warmed up."""

    def __init__(self, settings: Settings, executor: Executor, stack: ExitStack) -> None:
        self._settings = settings
        self._executor = executor
        self._stack = stack
        self._measuring = asyncio.Lock()
        self._cache: TokenMatrixCache | None = None

    async def load(self, table: ModelTable, settings: Settings) -> LoadedModel:
        """Load a model under its table's name; `settings` are those that hold for it.

        Raises:
            StartupError: its files cannot be had, or cannot be run.
            ServerFault: it fails on the first texts that it is given.
        """
        model = replace(await asyncio.to_thread(resolve_model, settings), name=table.name)
        async with AsyncExitStack() as stack:
            if model.family is ModelFamily.LEXICAL:
                reranker: Reranker = LexicalReranker(model.name)
            else:
                reranker = await self._run(model, settings, stack)
            close = stack.pop_all().aclose
        return LoadedModel(reranker, close)

    async def _run(
        self, model: ServableModel, settings: Settings, stack: AsyncExitStack
    ) -> Reranker:
        async with self._measuring:  # two at once would find each other's half of the machine
            backend, shape = await asyncio.to_thread(_backend, model, settings)
        stack.callback(backend.close)
        scheduler = Scheduler(
            backend,
            _limits(settings, backend.info, shape),
            workers=backend.info.parallel_runs,
            tokens_per_s=shape.tokens_per_s,
            on_forward_pass=_count_forward_pass,
        )
        scheduler.start()
        stack.push_async_callback(scheduler.close)
        is_encoder = model.family is ModelFamily.LATE_INTERACTION
        cache = self._matrix_cache() if is_encoder else None
        parts = _Parts(model, backend.info, scheduler, self._executor, cache)
        reranker = await asyncio.to_thread(_reranker, parts, settings)
        await _warm_up(reranker)
        stack.callback(_watch(model.name, scheduler))
        return reranker

    def _matrix_cache(self) -> TokenMatrixCache | None:
        """Give the one cache of encoded documents, or None if there is nowhere to keep any.

        Keys name the model, so all of them share its bytes, and who is asked more gets more.
        """
        folder, max_bytes = (
            self._settings.token_matrix_cache_dir,
            self._settings.token_matrix_cache_bytes,
        )
        if self._cache is None and (max_bytes or folder):
            store = None
            if folder is not None:
                store = DiskMatrices(folder, self._settings.token_matrix_disk_bytes)
            self._cache = TokenMatrixCache(max_bytes, store)
            self._stack.callback(self._cache.close)
        return self._cache


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a reranker is put together from."""

    model: ServableModel
    backend: BackendInfo
    scheduler: Scheduler
    executor: Executor
    cache: TokenMatrixCache | None


def _watch(name: str, scheduler: Scheduler) -> Callable[[], None]:
    return metrics.watch_model(
        name,
        tokens_per_s=lambda: scheduler.tokens_per_s,
        pending_sequences=lambda: scheduler.pending_count,
        pending_tokens=lambda: scheduler.pending_tokens,
    )


def _backend(model: ServableModel, settings: Settings) -> tuple[Backend, MeasuredShape]:
    output: Literal["logits", "hidden_states"] = (
        "logits" if model.family is ModelFamily.CROSS_ENCODER else "hidden_states"
    )
    path, max_tokens = _present(model.model_path, "weights"), _present(model.max_tokens, "length")
    arithmetic, why = model.arithmetic, model.arithmetic_reason
    if arithmetic is None:
        arithmetic, why = builtin_arithmetic(settings.engine, read_cpu())

    def make(workers: int, threads_per_worker: int) -> OpenVinoBackend:
        return OpenVinoBackend(
            path,
            output=output,
            workers=workers,
            threads_per_worker=threads_per_worker,
            arithmetic=arithmetic,
            max_tokens=max_tokens,
            pad_token_id=model.pad_token_id,
        )

    measure = partial(
        measure_shape,
        max_tokens=max_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        max_batch_size=settings.max_batch_size,
    )
    backend, shape = fit_backend(
        make,
        possible_splits(available_cores(), settings.workers, settings.threads_per_worker),
        measure,
        patience_s=_EMBEDDED_PATIENCE_S if model.arithmetic is None else _PATIENCE_S,
    )
    _LOG.info("%s runs on %s: %s", model.name, _engine(backend.info), why)
    return backend, shape


def _limits(settings: Settings, backend: BackendInfo, shape: MeasuredShape) -> BatchLimits:
    return BatchLimits(
        max_batch_tokens=shape.max_batch_tokens,
        max_batch_size=shape.max_batch_size,
        max_wait_s=settings.max_batch_wait_ms / 1000,
        pass_cost_tokens=shape.pass_cost_tokens,
        length_multiple=backend.length_multiple,
        workers=backend.parallel_runs,
    )


def _engine(backend: BackendInfo) -> str:
    return f"{backend.engine} {backend.engine_version} {backend.precision}"


def _version(model: ServableModel, backend: BackendInfo) -> str:
    """Name the files and, where the file does not tell it, the arithmetic: scores depend on it."""
    usual = "int8" if model.quantization == "int8" else "float32"
    is_usual = backend.precision == usual
    return model.version if is_usual else f"{model.version}-{backend.precision}"


def _reranker(parts: _Parts, settings: Settings) -> Reranker:
    model, scheduler, executor = parts.model, parts.scheduler, parts.executor
    tokenizer = TextTokenizer.from_file(_present(model.tokenizer_path, "tokenizer"))
    limits = WindowLimits(
        _present(model.max_tokens, "length"),
        overlap_tokens=model.overlap_tokens,
        max_windows=settings.max_windows,
    )
    info = _info(model, parts.backend, settings)
    match model.family:
        case ModelFamily.LATE_INTERACTION:
            late_interaction = _late_interaction(limits, _present(model.manifest, "manifest"))
            return LateInteractionReranker(
                info, tokenizer, scheduler, late_interaction, executor, cache=parts.cache
            )
        case ModelFamily.CROSS_ENCODER:
            activation = _present(model.activation, "activation")
            cross_encoder = CrossEncoderConfig(limits, activation.value)
            return CrossEncoderReranker(info, tokenizer, scheduler, cross_encoder, executor)
        case ModelFamily.LEXICAL:
            raise ValueError("the lexical model has no backend")
        case _:
            assert_never(model.family)


def _late_interaction(limits: WindowLimits, manifest: Mapping[str, Any]) -> LateInteractionConfig:
    return LateInteractionConfig(
        limits,
        keep_query_special_tokens=manifest["query_special_tokens"] == "keep",
        keep_document_special_tokens=manifest["document_special_tokens"] == "keep",
        cosine_weight=manifest["cosine_weight"],
    )


def _present(value: T | None, what: str) -> T:
    if value is None:
        raise ModelNotServable(f"the model has no {what}")
    return value


def _info(model: ServableModel, backend: BackendInfo, settings: Settings) -> RerankerInfo:
    is_cross_encoder = model.family is ModelFamily.CROSS_ENCODER
    return RerankerInfo(
        name=model.name,
        version=_version(model, backend),
        family=model.family,
        score_kind=_score_kind(model),
        engine=_engine(backend),
        source=model.source,
        max_tokens=model.max_tokens,
        default_long_document_policy=(
            LongDocumentPolicy.TRUNCATE if is_cross_encoder else LongDocumentPolicy.CHUNK
        ),
        scripts=None if is_cross_encoder else frozenset({"Latin"}),
        max_windows=settings.max_windows,
    )


def _score_kind(model: ServableModel) -> ScoreKind:
    if model.family is ModelFamily.LATE_INTERACTION:
        return ScoreKind.MAXSIM
    if model.activation is Activation.SIGMOID:
        return ScoreKind.PROBABILITY
    return ScoreKind.RAW_LOGIT


async def _warm_up(reranker: Reranker) -> None:
    """Score a short and a long text, so that no caller pays for what is made on first use."""
    texts = ["warm", "warm " * 400]
    async for _, outcome in reranker.score("warm up", _arriving(texts), ScoreOptions()):
        if isinstance(outcome, RerankError):
            raise outcome


async def _arriving(texts: list[str]) -> AsyncIterator[IndexedDocuments]:
    yield list(enumerate(map(Document, texts)))


def _count_forward_pass(forward_pass: ForwardPass) -> None:
    metrics.BATCH_SIZE.observe(forward_pass.size)
    metrics.BATCH_SECONDS.observe(forward_pass.infer_s)
    metrics.FORWARD_TOKENS.inc(forward_pass.tokens)
    metrics.PADDED_TOKENS.inc(forward_pass.padded_tokens)
