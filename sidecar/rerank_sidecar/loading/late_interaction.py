"""Late interaction: the embedded model, and models with a vector for each token such as ColBERT."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.loading.encoders import EncoderOptions, prepare, start_encoder
from rerank_sidecar.loading.family import Loading, NoOptions
from rerank_sidecar.loading.running import (
    BUILT_IN_PATIENCE_S,
    engine_name,
    fit_to_cpu,
    make_on_cpu,
    warm_up,
)
from rerank_sidecar.models.builtin import EMBEDDED, embedded_model
from rerank_sidecar.models.encoder import EncoderKind, encoder_kind
from rerank_sidecar.models.servable import ServableModel
from rerank_sidecar.rerankers.base import Reranker, RerankerInfo
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import LongDocumentPolicy

_LOG = logging.getLogger(__name__)


class LateInteractionFamily:
    """Token vectors that meet at the end: `--model embedded`, a folder or a hub id."""

    name = "late_interaction"

    def claims(self, source: str) -> bool:
        """Tell whether the embedded model is meant."""
        return source == EMBEDDED

    def claims_folder(self, folder: Path) -> bool:
        """Tell whether sentence-transformers, PyLate or Stanford's ColBERT saved the folder."""
        return encoder_kind(folder) is EncoderKind.MULTI_VECTOR

    def prepare(self, folder: Path, settings: Settings) -> None:
        """Convert and quantise the model, unless that has been done or torch runs it as it is.

        Raises:
            StartupError: it is no such model that can be run, or a part is not installed.
        """
        prepare(folder, settings, EncoderKind.MULTI_VECTOR)

    async def load(self, loading: Loading) -> Reranker:
        """Convert the model if need be, run it and warm it up."""
        make = _embedded if self.claims(loading.settings.model) else _converted
        reranker = await make(loading)
        await warm_up(reranker)
        return reranker


async def _converted(loading: Loading) -> Reranker:
    options = loading.options(EncoderOptions)
    encoder = await start_encoder(loading, EncoderKind.MULTI_VECTOR, options)
    return LateInteractionReranker(
        encoder.info(loading, LateInteractionFamily.name, ScoreKind.MAXSIM),
        encoder.documents,
        encoder.scheduler,
        encoder.config(loading.settings),
        loading.executor,
        cache=loading.matrix_cache(),
        query_tokenizer=encoder.queries,
    )


async def _embedded(loading: Loading) -> Reranker:
    loading.options(NoOptions)
    model, settings = await asyncio.to_thread(embedded_model), loading.settings

    def fit() -> tuple[Backend, MeasuredShape]:
        make, why = make_on_cpu(model, settings, "hidden_states")
        backend, shape = fit_to_cpu(make, model.max_tokens, settings, BUILT_IN_PATIENCE_S)
        _LOG.info("%s runs on %s: %s", loading.name, engine_name(backend.info), why)
        return backend, shape

    running = await loading.start(fit)
    tokenizer = await asyncio.to_thread(TextTokenizer.from_file, model.tokenizer_path)
    return LateInteractionReranker(
        _info(loading, model, running.info),
        tokenizer,
        running.scheduler,
        _config(model, settings),
        loading.executor,
        cache=loading.matrix_cache(),
    )


def _config(model: ServableModel, settings: Settings) -> LateInteractionConfig:
    limits = WindowLimits(
        model.max_tokens, overlap_tokens=model.overlap_tokens, max_windows=settings.max_windows
    )
    return LateInteractionConfig(
        limits,
        keep_query_special_tokens=model.manifest["query_special_tokens"] == "keep",
        keep_document_special_tokens=model.manifest["document_special_tokens"] == "keep",
        cosine_weight=model.manifest["cosine_weight"],
    )


def _info(loading: Loading, model: ServableModel, backend: BackendInfo) -> RerankerInfo:
    # Vectors that a caller sends lack the mean that its score blends in, so it reads none.
    return RerankerInfo(
        name=loading.name,
        version=model.version_on(backend.precision),
        family=LateInteractionFamily.name,
        score_kind=ScoreKind.MAXSIM,
        engine=engine_name(backend),
        source=model.source,
        max_tokens=model.max_tokens,
        default_long_document_policy=LongDocumentPolicy.CHUNK,
        scripts=frozenset({"Latin"}),
        max_windows=loading.settings.max_windows,
    )
