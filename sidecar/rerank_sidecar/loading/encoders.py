"""What models that encode query and document apart have in common: converting, fitting, reading."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import InvalidSetting, ModelNotServable
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.running import engine_name, fit_to_cpu, make_on_cpu
from rerank_sidecar.model_settings import ANY_DEVICE
from rerank_sidecar.models.encoder import EncoderFacts, EncoderKind
from rerank_sidecar.models.prepare_encoder import prepare_encoder
from rerank_sidecar.models.resolve import source_of
from rerank_sidecar.models.servable import ServableModel
from rerank_sidecar.models.torch_device import CPU, wanted_device
from rerank_sidecar.rerankers.base import RerankerInfo
from rerank_sidecar.rerankers.encoded_query import QueryExpansion
from rerank_sidecar.rerankers.late_interaction import LateInteractionConfig
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningEncoder:
    """An encoder at work, and how texts are read for it."""

    model: ServableModel
    facts: EncoderFacts
    backend: BackendInfo
    scheduler: Scheduler
    documents: TextTokenizer
    queries: TextTokenizer

    def config(self, settings: Settings) -> LateInteractionConfig:
        """Say how much is read and how vectors are compared.

        Raises:
            ModelNotServable: the prompt leaves no room for a query.
        """
        facts, given = self.facts, self.facts.expansion
        max_query_tokens = facts.max_query_tokens - self.queries.single.count
        if max_query_tokens < 1:
            raise ModelNotServable(
                f"a model that reads {facts.max_query_tokens} tokens of a query reads too few"
            )
        expansion = None
        if given is not None:
            expansion = QueryExpansion(given.token_id, given.length, attended=given.attended)
        return LateInteractionConfig(
            WindowLimits(
                facts.max_tokens,
                overlap_tokens=self.model.overlap_tokens,
                max_windows=settings.max_windows,
            ),
            max_query_tokens=max_query_tokens,
            expansion=expansion,
            skipped_token_ids=frozenset(facts.skipped_token_ids),
        )

    def info(self, loading: Loading, family: str, score_kind: ScoreKind) -> RerankerInfo:
        """Describe the reranker that it is made into; the library cuts long documents, too."""
        return RerankerInfo(
            name=loading.name,
            version=self.model.version_on(self.backend.precision),
            family=family,
            score_kind=score_kind,
            engine=engine_name(self.backend),
            source=self.model.source,
            max_tokens=self.facts.max_tokens,
            max_windows=loading.settings.max_windows,
            vector_dimension=self.facts.dimension,
        )


async def start_encoder(loading: Loading, kind: EncoderKind) -> RunningEncoder:
    """Convert an encoder if need be, and run it on the CPU.

    Raises:
        StartupError: its files cannot be had, or cannot be run.
        BackendFailed: it fails as it runs.
    """
    folder, settings = await loading.folder(), loading.settings
    _require_cpu(settings)
    source = source_of(settings)
    model, facts = await asyncio.to_thread(prepare_encoder, folder, source, settings, kind)

    def fit() -> tuple[Backend, MeasuredShape]:
        is_pooled = kind is EncoderKind.BI_ENCODER
        make, why = make_on_cpu(model, settings, "logits" if is_pooled else "hidden_states")
        backend, shape = fit_to_cpu(make, model.max_tokens, settings)
        _LOG.info("%s runs on %s: %s", loading.name, engine_name(backend.info), why)
        return backend, shape

    running = await loading.start(fit)
    documents, queries = await asyncio.gather(
        *(
            asyncio.to_thread(TextTokenizer.from_file, model.tokenizer_path, prompt)
            for prompt in (facts.document_prompt, facts.query_prompt)
        )
    )
    return RunningEncoder(model, facts, running.info, running.scheduler, documents, queries)


def _require_cpu(settings: Settings) -> None:
    if settings.engine.value.startswith("torch-"):
        raise InvalidSetting(f"engine: `{settings.engine.value}` does not run encoders")
    device = wanted_device(settings)
    if device not in {ANY_DEVICE, CPU}:
        raise InvalidSetting(f"device: encoders run on the CPU, not on `{device}`")
