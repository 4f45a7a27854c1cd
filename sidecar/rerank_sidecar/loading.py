"""From a model's files to a reranker that has warmed up: backend, scheduler, family, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar, assert_never

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.cores import available_cores
from rerank_sidecar.backends.openvino import OpenVinoBackend
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import ForwardPass, Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.errors import ModelNotServable, RerankError
from rerank_sidecar.models.servable import Activation, ModelFamily, ServableModel
from rerank_sidecar.rerankers.base import IndexedDocuments, Reranker, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.cross_encoder import CrossEncoderConfig, CrossEncoderReranker
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.types import Document, LongDocumentPolicy

T = TypeVar("T")


@asynccontextmanager
async def load_rerankers(model: ServableModel, settings: Settings) -> AsyncIterator[Registry]:
    """Give the rerankers of a server, warmed up: the model's own and the lexical one beside it.

    Leaving the context ends the worker threads and frees the model.

    Raises:
        ModelNotServable: the runtime cannot compile the model.
    """
    lexical = LexicalReranker()
    if model.family is ModelFamily.LEXICAL:
        yield Registry([lexical], any_script=lexical)
        return
    workers = settings.workers or available_cores()
    backend = await asyncio.to_thread(_backend, model, workers)
    scheduler = Scheduler(
        backend, _limits(settings), workers=workers, on_forward_pass=_count_forward_pass
    )
    metrics.PENDING_SEQUENCES.set_function(lambda: scheduler.pending_count)
    scheduler.start()
    try:
        # Texts being tokenised take many times their size, so no more at once than there are cores.
        with ThreadPoolExecutor(available_cores(), thread_name_prefix="tokenise") as executor:
            reranker = await asyncio.to_thread(
                _reranker, model, backend.info, scheduler, settings, executor
            )
            await _warm_up(reranker)
            yield Registry([reranker, lexical], any_script=lexical)
    finally:
        await scheduler.close()
        backend.close()


def _backend(model: ServableModel, workers: int) -> Backend:
    output: Literal["logits", "hidden_states"] = (
        "logits" if model.family is ModelFamily.CROSS_ENCODER else "hidden_states"
    )
    backend = OpenVinoBackend(
        _present(model.model_path, "weights"),
        output=output,
        workers=workers,
        max_tokens=_present(model.max_tokens, "length"),
        pad_token_id=model.pad_token_id,
    )
    backend.warm_up()
    return backend


def _limits(settings: Settings) -> BatchLimits:
    return BatchLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_batch_size=settings.max_batch_size,
        max_wait_s=settings.max_batch_wait_ms / 1000,
    )


def _reranker(
    model: ServableModel,
    backend: BackendInfo,
    scheduler: Scheduler,
    settings: Settings,
    executor: Executor,
) -> Reranker:
    tokenizer = TextTokenizer.from_file(_present(model.tokenizer_path, "tokenizer"))
    limits = WindowLimits(
        _present(model.max_tokens, "length"),
        overlap_tokens=model.overlap_tokens,
        max_windows=settings.max_windows,
    )
    info = _info(model, backend)
    match model.family:
        case ModelFamily.LATE_INTERACTION:
            late_interaction = _late_interaction(limits, _present(model.manifest, "manifest"))
            return LateInteractionReranker(info, tokenizer, scheduler, late_interaction, executor)
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


def _info(model: ServableModel, backend: BackendInfo) -> RerankerInfo:
    is_cross_encoder = model.family is ModelFamily.CROSS_ENCODER
    return RerankerInfo(
        name=model.name,
        version=model.version,
        family=model.family,
        score_kind=_score_kind(model),
        engine=f"{backend.engine} {backend.engine_version} {backend.precision}",
        source=model.source,
        max_tokens=model.max_tokens,
        default_long_document_policy=(
            LongDocumentPolicy.TRUNCATE if is_cross_encoder else LongDocumentPolicy.CHUNK
        ),
        scripts=None if is_cross_encoder else frozenset({"Latin"}),
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
    metrics.PADDED_TOKENS.inc(forward_pass.padded_tokens)
