"""Loads a causal language model that answers yes or no; needs the extra `torch`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.llm_prompt import PairPrompt
from rerank_sidecar.models.packed import HubModel
from rerank_sidecar.models.servable import Activation
from rerank_sidecar.models.torch_checkpoint import (
    HubTokenizer,
    known_activation,
    loading_with_library,
)

_MARKS = ("\ue0f1query\ue0f1", "\ue0f2document\ue0f2")
"""Texts that no template has, to find where it puts the two."""


@dataclass(frozen=True, slots=True, eq=False)
class CausalModel:
    """A causal model on the CPU, and what its folder says of how it is asked, None if nothing.

    `token_ids` are those of yes and, unless its logit alone is the score, no.
    """

    module: HubModel
    tokenizer: HubTokenizer
    prompt: PairPrompt | None = None
    token_ids: tuple[int, ...] | None = None
    is_probability: bool | None = None


def load_causal_model(
    folder: Path, dtype: torch.dtype, instruction: str | None, *, trust_remote_code: bool = False
) -> CausalModel:
    """Load what sentence-transformers saved with a LogitScore, or a plain causal model; blocks.

    `instruction` takes the place of the prompt that a saved one has.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        ModelNotServable: it cannot load the model, or its chat template has no place for a query
            or a document.
    """
    load = _load_saved if (folder / "modules.json").is_file() else _load_plain
    with loading_with_library(folder, trust_remote_code=trust_remote_code):
        return load(folder, dtype, instruction, trust_remote_code)


def answer_with(model: HubModel, token_ids: Sequence[int]) -> None:
    """Make a causal model give logits [batch, 1, answers] for a few tokens at the end of each row.

    Where rows end is told by `reading_at`. The products are made in float32: in bfloat16 logits of
    usual size are an eighth apart, and half of the documents would tie.
    """
    vocabulary = model.get_output_embeddings()
    rows = list(token_ids)
    has_bias = getattr(vocabulary, "bias", None) is not None
    weight = vocabulary.weight.detach()[rows].float()
    answers = torch.nn.Linear(weight.shape[1], len(rows), bias=has_bias)
    answers.weight.data = weight
    if has_bias:
        answers.bias.data = vocabulary.bias.detach()[rows].float()
    answers.register_forward_pre_hook(_take_ends)
    model.set_output_embeddings(answers)


class _Current(threading.local):
    ends: torch.Tensor


_current = _Current()


@contextmanager
def reading_at(ends: torch.Tensor) -> Iterator[None]:
    """Let the models that this thread runs answer at these positions, int64 [batch]."""
    _current.ends = ends
    try:
        yield
    finally:
        del _current.ends


def _take_ends(_layer: object, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    hidden, ends = inputs[0], _current.ends
    rows = torch.arange(len(ends), device=ends.device)
    return hidden[rows, ends].unsqueeze(1).float()


def _load_plain(
    folder: Path, dtype: torch.dtype, _instruction: str | None, trust_remote_code: bool
) -> CausalModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shared = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    model, loading = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=dtype, output_loading_info=True, **shared
    )
    if loading["missing_keys"]:
        lacking = ", ".join(sorted(loading["missing_keys"])[:3])
        raise ModelNotServable(f"{folder} has no weights for {lacking}")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **shared)
    return CausalModel(model.eval(), tokenizer)


def _load_saved(
    folder: Path, dtype: torch.dtype, instruction: str | None, trust_remote_code: bool
) -> CausalModel:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore

    encoder = CrossEncoder(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        model_kwargs={"dtype": dtype},
    )
    score = encoder[-1]
    if len(encoder) != 2 or not isinstance(score, LogitScore):
        raise ModelNotServable(f"{folder} has other modules than a transformer and a LogitScore")
    ids = (score.true_token_id, score.false_token_id)
    saved = encoder.prompts.get(encoder.default_prompt_name) if encoder.prompts else None
    return CausalModel(
        encoder[0].auto_model.eval(),
        encoder.tokenizer,
        _chat_prompt(folder, encoder[0], instruction or saved),
        tuple(each for each in ids if each is not None),
        known_activation(folder, encoder.activation_fn) is Activation.SIGMOID,
    )


def _chat_prompt(folder: Path, transformer: Any, instruction: str | None) -> PairPrompt:  # noqa: ANN401
    formatter = transformer.input_formatter
    messages = [formatter.pair_to_messages(_MARKS)]
    if instruction:
        messages = formatter.prepend_prompt_to_messages(messages, instruction)
    chosen = dict((transformer.processing_kwargs or {}).get("chat_template", {}))
    chosen.pop("restore_suffix", None)
    text = transformer.tokenizer.apply_chat_template(messages[0], tokenize=False, **chosen)
    query, document = (text.count(mark) for mark in _MARKS)
    before, _, rest = text.partition(_MARKS[0])
    between, _, after = rest.partition(_MARKS[1])
    if (query, document) != (1, 1) or _MARKS[1] in before:
        raise ModelNotServable(
            f"the chat template of {folder} does not put a query and then a document into the text "
            f"(it has the query {query} times, the document {document} times)"
        )
    return PairPrompt(before, between, after)
