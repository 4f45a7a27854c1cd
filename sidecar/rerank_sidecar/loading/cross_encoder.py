"""Cross-encoders: any Hugging Face sequence classifier with one label."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.loading.family import Fit, Loading, NoOptions
from rerank_sidecar.loading.on_torch import (
    fit_to_torch,
    load_for_torch,
    tokenizer_of,
    version_on_torch,
)
from rerank_sidecar.loading.running import engine_name, fit_to_cpu, make_on_cpu, warm_up
from rerank_sidecar.models.checkpoint import is_cross_encoder
from rerank_sidecar.models.prepare import prepare_cross_encoder
from rerank_sidecar.models.resolve import source_of
from rerank_sidecar.models.servable import Activation
from rerank_sidecar.models.torch_device import TorchEngine, choose_torch_engine
from rerank_sidecar.rerankers.base import Reranker, RerankerInfo
from rerank_sidecar.rerankers.cross_encoder import CrossEncoderConfig, CrossEncoderReranker
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings

_LOG = logging.getLogger(__name__)


class CrossEncoderFamily:
    """Query and document read together by a classifier: `--model` with a folder or a hub id."""

    name = "cross_encoder"

    def claims(self, source: str) -> bool:
        """It has no sources of its own."""
        return False

    def claims_folder(self, folder: Path) -> bool:
        """Tell whether the folder holds a classifier; only one with one label can be run."""
        return is_cross_encoder(folder)

    def prepare(self, folder: Path, settings: Settings) -> None:
        """Convert and quantise the model, unless that has been done or torch runs it as it is.

        Raises:
            StartupError: it is no cross-encoder that can be run, or a part is not installed.
        """
        if choose_torch_engine(settings) is None:
            prepare_cross_encoder(folder, source_of(settings), settings)

    async def load(self, loading: Loading) -> Reranker:
        """Convert the model if need be, run it and warm it up."""
        loading.options(NoOptions)
        folder, settings = await loading.folder(), loading.settings
        engine = await asyncio.to_thread(choose_torch_engine, settings)
        if engine is None:
            model = await asyncio.to_thread(_converted, folder, settings)
        else:
            model = await asyncio.to_thread(_on_torch, folder, settings, engine)

        def fit() -> tuple[Backend, MeasuredShape]:
            backend, shape = model.fit()
            _LOG.info("%s runs on %s: %s", loading.name, engine_name(backend.info), model.reason)
            return backend, shape

        running = await loading.start(fit)
        limits = WindowLimits(model.max_tokens, max_windows=settings.max_windows)
        reranker = CrossEncoderReranker(
            _info(loading, model, running.info),
            model.tokenizer,
            running.scheduler,
            CrossEncoderConfig(limits, model.activation.value),
            loading.executor,
        )
        await warm_up(reranker)
        return reranker


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """What the reranker needs of a model, whatever runs it, and why that runs it."""

    tokenizer: TextTokenizer
    max_tokens: int
    activation: Activation
    version_on: Callable[[str], str]
    fit: Fit
    reason: str


def _converted(folder: Path, settings: Settings) -> _Model:
    model = prepare_cross_encoder(folder, source_of(settings), settings)
    make, reason = make_on_cpu(model, settings, "logits")
    return _Model(
        TextTokenizer.from_file(model.tokenizer_path),
        model.max_tokens,
        model.activation,
        model.version_on,
        lambda: fit_to_cpu(make, model.max_tokens, settings),
        reason,
    )


def _on_torch(folder: Path, settings: Settings, engine: TorchEngine) -> _Model:
    model = load_for_torch(folder, settings)
    return _Model(
        tokenizer_of(model, folder),
        model.max_tokens,
        model.activation,
        lambda precision: version_on_torch(folder, precision),
        lambda: fit_to_torch(model, engine, settings),
        engine.reason,
    )


def _info(loading: Loading, model: _Model, backend: BackendInfo) -> RerankerInfo:
    is_probability = model.activation is Activation.SIGMOID
    return RerankerInfo(
        name=loading.name,
        version=model.version_on(backend.precision),
        family=CrossEncoderFamily.name,
        score_kind=ScoreKind.PROBABILITY if is_probability else ScoreKind.RAW_LOGIT,
        engine=engine_name(backend),
        source=source_of(loading.settings),
        max_tokens=model.max_tokens,
        max_windows=loading.settings.max_windows,
    )
