"""What models that encode query and document apart have in common: loading, fitting, reading."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from rerank_sidecar.backends.base import Backend, BackendInfo, TokenSequence
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import MissingExtra, ModelNotServable
from rerank_sidecar.loading.family import Fit, Loading
from rerank_sidecar.loading.on_torch import fit_to_torch
from rerank_sidecar.loading.running import engine_name, fit_to_cpu, make_on_cpu
from rerank_sidecar.models.encoder import EncoderFacts, EncoderKind
from rerank_sidecar.models.fingerprint import short
from rerank_sidecar.models.load_encoder import load_encoder
from rerank_sidecar.models.prepare_encoder import encoder_digest, prepare_encoder, require_kind
from rerank_sidecar.models.resolve import source_of
from rerank_sidecar.models.torch_device import TorchEngine, choose_torch_engine
from rerank_sidecar.rerankers.base import RerankerInfo
from rerank_sidecar.rerankers.encoded_query import expanded
from rerank_sidecar.rerankers.late_interaction import LateInteractionConfig
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningEncoder:
    """An encoder at work, and how texts are read for it."""

    facts: EncoderFacts
    version: str
    backend: BackendInfo
    scheduler: Scheduler
    documents: TextTokenizer
    queries: TextTokenizer

    def config(self, settings: Settings) -> LateInteractionConfig:
        """Say how much is read and how vectors are compared.

        Raises:
            ModelNotServable: the prompt leaves no room for a query.
        """
        facts = self.facts
        max_query_tokens = facts.max_query_tokens - self.queries.single.count
        if max_query_tokens < 1:
            raise ModelNotServable(
                f"a model that reads {facts.max_query_tokens} tokens of a query reads too few"
            )
        return LateInteractionConfig(
            WindowLimits(facts.max_tokens, max_windows=settings.max_windows),
            max_query_tokens=max_query_tokens,
            expansion=facts.expansion,
            skipped_token_ids=frozenset(facts.skipped_token_ids),
        )

    def info(self, loading: Loading, family: str, score_kind: ScoreKind) -> RerankerInfo:
        """Describe the reranker that it is made into; the library cuts long documents, too."""
        return RerankerInfo(
            name=loading.name,
            version=self.version,
            family=family,
            score_kind=score_kind,
            engine=engine_name(self.backend),
            source=source_of(loading.settings),
            max_tokens=self.facts.max_tokens,
            max_windows=loading.settings.max_windows,
            vector_dimension=self.facts.dimension,
        )


def prepare(folder: Path, settings: Settings, kind: EncoderKind) -> None:
    """Convert and quantise an encoder, unless that has been done or torch runs it as it is.

    Raises:
        StartupError: it is none that can be run, or a part is not installed.
    """
    if choose_torch_engine(settings) is None:
        prepare_encoder(folder, source_of(settings), settings, kind)


class EncoderOptions(BaseModel):
    """What stands before every query and every document, where the model's files do not tell."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    query_prompt: str | None = None
    document_prompt: str | None = None


async def start_encoder(
    loading: Loading, kind: EncoderKind, options: EncoderOptions
) -> RunningEncoder:
    """Convert an encoder if need be, and run it.

    Raises:
        StartupError: its files cannot be had, or cannot be run.
        BackendFailed: it fails as it runs.
    """
    folder, settings = await loading.folder(), loading.settings
    engine = await asyncio.to_thread(choose_torch_engine, settings)
    if engine is None:
        encoder = await asyncio.to_thread(_converted, folder, settings, kind)
    else:
        encoder = await asyncio.to_thread(_on_torch, folder, settings, kind, engine)

    def fit() -> tuple[Backend, MeasuredShape]:
        backend, shape = encoder.fit()
        _LOG.info("%s runs on %s: %s", loading.name, engine_name(backend.info), encoder.reason)
        return backend, shape

    running = await loading.start(fit)
    given = options.model_dump(exclude_none=True)
    facts = replace(encoder.facts, **given)
    documents, queries = await asyncio.gather(
        asyncio.to_thread(encoder.tokenizer, facts.document_prompt),
        asyncio.to_thread(encoder.tokenizer, facts.query_prompt),
    )
    if not given:
        _check_reading(facts, documents, queries)
    version = encoder.version_on(running.info.precision)
    if given:
        version += f"-{short(sha256(repr(sorted(given.items())).encode()).hexdigest())}"
    return RunningEncoder(facts, version, running.info, running.scheduler, documents, queries)


def _check_reading(facts: EncoderFacts, documents: TextTokenizer, queries: TextTokenizer) -> None:
    """Make sure that texts are read here as the library reads them."""
    for sample in facts.samples:
        query = _first_tokens(queries, sample.text, facts.max_query_tokens)
        if facts.expansion is not None:
            query = expanded(query, facts.expansion)
        document = _first_tokens(documents, sample.text, facts.max_tokens)
        read = tuple(query.token_ids.tolist()), tuple(document.token_ids.tolist())
        if read != (sample.query_ids, sample.document_ids):
            raise ModelNotServable(
                "the model's tokenizer reads texts otherwise here than in sentence-transformers"
            )


def _first_tokens(tokenizer: TextTokenizer, text: str, most: int) -> TokenSequence:
    [encoded] = tokenizer.encode([text])
    return tokenizer.single.wrap(encoded.token_ids[: max(0, most - tokenizer.single.count)])


@dataclass(frozen=True, slots=True, eq=False)
class _Encoder:
    """What is needed of an encoder, whatever runs it, and why that runs it."""

    facts: EncoderFacts
    tokenizer: Callable[[str], TextTokenizer]
    version_on: Callable[[str], str]
    fit: Fit
    reason: str


def _converted(folder: Path, settings: Settings, kind: EncoderKind) -> _Encoder:
    model, facts = prepare_encoder(folder, source_of(settings), settings, kind)
    output: Literal["logits", "hidden_states"] = (
        "logits" if kind is EncoderKind.BI_ENCODER else "hidden_states"
    )
    make, reason = make_on_cpu(model, settings, output)
    return _Encoder(
        facts,
        lambda prompt: TextTokenizer.from_file(model.tokenizer_path, prompt),
        model.version_on,
        lambda: fit_to_cpu(make, model.max_tokens, settings),
        reason,
    )


def _on_torch(folder: Path, settings: Settings, kind: EncoderKind, engine: TorchEngine) -> _Encoder:
    require_kind(folder, kind)
    trust = settings.trust_remote_code
    loaded = load_encoder(folder, kind, trust_remote_code=trust, extra="torch")
    try:
        from rerank_sidecar.models.torch_encoder import torch_encoder
    except ImportError as error:
        raise MissingExtra("torch", f"running {folder} with torch") from error
    return _Encoder(
        loaded.facts,
        lambda prompt: TextTokenizer(Tokenizer.from_str(loaded.tokenizer_json), prompt),
        lambda precision: short(encoder_digest(folder, f"{kind.value}, torch, {precision}")),
        lambda: fit_to_torch(torch_encoder(loaded), engine, settings),
        engine.reason,
    )
