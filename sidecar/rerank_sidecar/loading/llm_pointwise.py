"""Language models that answer yes or no: Qwen3-Reranker, bge-reranker-v2-gemma, mxbai-rerank-v2."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.batching.prompt_tokens import PromptTokenizer
from rerank_sidecar.errors import InvalidSetting, MissingExtra, ModelNotServable
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.on_torch import fit_torch_backend, version_on_torch
from rerank_sidecar.loading.running import engine_name, warm_up
from rerank_sidecar.model_settings import EngineChoice
from rerank_sidecar.models.checkpoint import is_causal
from rerank_sidecar.models.cpu import read_cpu
from rerank_sidecar.models.llm_prompt import KNOWN_PROMPTS, KnownPrompt, PairPrompt
from rerank_sidecar.models.resolve import source_of
from rerank_sidecar.models.torch_device import CPU, TorchDtype, TorchEngine, choose_torch_engine
from rerank_sidecar.rerankers.base import Reranker, RerankerInfo
from rerank_sidecar.rerankers.llm_pointwise import LlmPointwiseConfig, LlmPointwiseReranker
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings

if TYPE_CHECKING:
    from rerank_sidecar.models.torch_causal import CausalModel

_LOG = logging.getLogger(__name__)

_USUAL_MAX_TOKENS = 8192
_BATCHED_TOKENS = 512
"""Longer sequences need not fit into a batch with others: they run alone."""


class LlmPointwiseOptions(BaseModel):
    """How the model is asked, where its files or its kind do not tell or another way is wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    template: str | None = Field(
        None, description="The prompt, with `{query}`, `{document}` and perhaps `{instruction}`."
    )
    instruction: str | None = Field(None, description="What the model is told to look for.")
    true_token: str | None = Field(None, description="The token that means yes.")
    false_token: str | None = Field(
        None, description="The token that means no; empty: the logit of yes alone is the score."
    )
    probability: bool | None = Field(
        None, description="Score by the probability of yes, else by the logit."
    )
    max_tokens: int | None = Field(None, ge=16, description="What is read at most of a sequence.")

    @field_validator("template")
    @classmethod
    def _has_both(cls, template: str | None) -> str | None:
        if template is not None:
            try:
                PairPrompt.from_template(template, "")
            except ModelNotServable as error:
                raise ValueError(error.message) from error
        return template


class LlmPointwiseFamily:
    """A causal model that is asked about each document: `--model` with a folder or a hub id."""

    name = "llm_pointwise"

    def claims(self, source: str) -> bool:
        """It has no sources of its own."""
        return False

    def claims_folder(self, folder: Path) -> bool:
        """Tell whether the folder holds a causal language model."""
        return is_causal(folder)

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to convert."""

    async def load(self, loading: Loading) -> Reranker:
        """Load the model with torch and warm it up."""
        options = loading.options(LlmPointwiseOptions)
        folder, settings = await loading.folder(), loading.settings
        engine = await asyncio.to_thread(_engine, settings)
        asked = await asyncio.to_thread(_load, folder, settings, engine, options)

        def fit() -> tuple[Backend, MeasuredShape]:
            backend, shape = _fit(asked, engine, settings)
            _LOG.info("%s runs on %s: %s", loading.name, engine_name(backend.info), engine.reason)
            return backend, shape

        running = await loading.start(fit)
        version = await asyncio.to_thread(_version, folder, asked, engine)
        limits = WindowLimits(asked.max_tokens, max_windows=settings.max_windows)
        reranker = LlmPointwiseReranker(
            _info(loading, asked, running.info, version),
            asked.tokenizer,
            running.scheduler,
            LlmPointwiseConfig(limits, asked.is_probability),
            loading.executor,
        )
        await warm_up(reranker)
        return reranker


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A model, how it is asked and what its answer means; `token_ids` are of yes and perhaps no."""

    model: CausalModel
    prompt: PairPrompt
    tokenizer: PromptTokenizer
    token_ids: tuple[int, ...]
    is_probability: bool
    max_tokens: int


def _engine(settings: Settings) -> TorchEngine:
    engine = choose_torch_engine(settings)
    if engine is not None:
        return engine
    if settings.engine is not EngineChoice.AUTO:
        raise InvalidSetting(
            f"engine: `{settings.engine.value}` cannot run a language model; take `torch-float32` "
            "or `torch-bf16`"
        )
    if read_cpu().has_bfloat16:
        return TorchEngine((CPU,), TorchDtype.BF16, "this CPU multiplies bfloat16")
    return TorchEngine((CPU,), TorchDtype.FLOAT32, "this CPU does not multiply bfloat16")


def _load(
    folder: Path, settings: Settings, engine: TorchEngine, options: LlmPointwiseOptions
) -> _Asked:
    try:
        from rerank_sidecar.backends.torch_program import DTYPES
        from rerank_sidecar.models.torch_causal import load_causal_model
    except ImportError as error:
        raise MissingExtra("torch", f"running {folder} with torch") from error
    model = load_causal_model(
        folder,
        DTYPES[engine.dtype],
        options.instruction,
        trust_remote_code=settings.trust_remote_code,
    )
    if not model.tokenizer.is_fast:
        raise ModelNotServable(f"{folder} has a tokenizer that is Python code alone")
    known = KNOWN_PROMPTS.get(model.module.config.model_type)
    prompt = _prompt(model, options, known)
    _require_instruction(prompt, options)
    token_ids = _token_ids(model, options, known)
    return _Asked(
        model,
        prompt,
        PromptTokenizer(model.tokenizer.backend_tokenizer, prompt),
        token_ids,
        _is_probability(model, options, known, token_ids),
        _max_tokens(model, options, known),
    )


def _prompt(
    model: CausalModel, options: LlmPointwiseOptions, known: KnownPrompt | None
) -> PairPrompt:
    if options.template is not None:
        return PairPrompt.from_template(options.template, options.instruction or "")
    if model.prompt is not None:
        return model.prompt
    if known is None:
        raise ModelNotServable(
            f"it is not known how a {model.module.config.model_type} model is asked: set the "
            "family_options `template`, `true_token` and `false_token`"
        )
    return PairPrompt.from_template(known.template, options.instruction or known.instruction)


def _require_instruction(prompt: PairPrompt, options: LlmPointwiseOptions) -> None:
    given = (options.instruction or "").strip()
    if not any(given in text for text in (prompt.before, prompt.between, prompt.after)):
        raise InvalidSetting("family_options.instruction: the template has no place for it")


def _token_ids(
    model: CausalModel, options: LlmPointwiseOptions, known: KnownPrompt | None
) -> tuple[int, ...]:
    token_ids = list(_usual_token_ids(model, known))
    if options.true_token is not None:
        token_ids = [_token_id(model, "true_token", options.true_token)]
    if not token_ids:
        raise ModelNotServable("set the family_options `true_token` and `false_token`")
    if options.false_token is not None:
        del token_ids[1:]
    if options.false_token:
        token_ids.append(_token_id(model, "false_token", options.false_token))
    return tuple(token_ids)


def _usual_token_ids(model: CausalModel, known: KnownPrompt | None) -> tuple[int, ...]:
    """Give those that the files or the kind of the model tell; none if they do not."""
    if model.token_ids is not None or known is None:
        return model.token_ids or ()
    named = {"true_token": known.true_token, "false_token": known.false_token}
    return tuple(_token_id(model, name, text) for name, text in named.items() if text)


def _token_id(model: CausalModel, name: str, text: str) -> int:
    ids: list[int] = model.tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise InvalidSetting(f"family_options.{name}: {text!r} is {len(ids)} tokens, not one")
    return ids[0]


def _is_probability(
    model: CausalModel,
    options: LlmPointwiseOptions,
    known: KnownPrompt | None,
    token_ids: tuple[int, ...],
) -> bool:
    if options.probability is not None:
        return options.probability
    if model.is_probability is not None:
        return model.is_probability
    # Of two answers the sigmoid of the difference is the probability of yes; of one it is none.
    return len(token_ids) == 2 if known is None else known.is_probability


def _max_tokens(model: CausalModel, options: LlmPointwiseOptions, known: KnownPrompt | None) -> int:
    usual = known.max_tokens if known else _USUAL_MAX_TOKENS
    positions: int = getattr(model.module.config, "max_position_embeddings", None) or usual
    most: int = min(positions, model.tokenizer.model_max_length)
    return min(most, options.max_tokens or usual)


def _fit(asked: _Asked, engine: TorchEngine, settings: Settings) -> tuple[Backend, MeasuredShape]:
    from rerank_sidecar.backends.torch import TorchBackend
    from rerank_sidecar.backends.torch_causal import causal_programs

    programs = causal_programs(engine, asked.model, asked.token_ids, max_tokens=asked.max_tokens)

    def make(workers: int, threads: int) -> Backend:
        return TorchBackend(programs, engine.dtype, workers=workers, threads_per_worker=threads)

    return fit_torch_backend(make, engine, settings, min(asked.max_tokens, _BATCHED_TOKENS))


def _version(folder: Path, asked: _Asked, engine: TorchEngine) -> str:
    recipe = repr((asked.prompt, asked.token_ids, asked.is_probability, asked.max_tokens))
    return version_on_torch(folder, f"{recipe}, {engine.dtype.value}")


def _info(loading: Loading, asked: _Asked, backend: BackendInfo, version: str) -> RerankerInfo:
    return RerankerInfo(
        name=loading.name,
        version=version,
        family=LlmPointwiseFamily.name,
        score_kind=ScoreKind.PROBABILITY if asked.is_probability else ScoreKind.RAW_LOGIT,
        engine=engine_name(backend),
        source=source_of(loading.settings),
        max_tokens=asked.max_tokens,
        max_windows=loading.settings.max_windows,
    )
