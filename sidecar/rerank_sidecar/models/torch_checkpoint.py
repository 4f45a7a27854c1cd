"""Loads models for torch: what sentence-transformers loads, as it loads it; needs extra `torch`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from rerank_sidecar.errors import MissingExtra, ModelNotServable
from rerank_sidecar.models.packed import HubModel, position_offset
from rerank_sidecar.models.runtime import quieten_transformers
from rerank_sidecar.models.servable import Activation

HubTokenizer: TypeAlias = Any
"""A `transformers.PreTrainedTokenizerBase`."""

Inputs: TypeAlias = Mapping[str, torch.Tensor]

Output = Literal["logits", "hidden_states"]

_MAX_TOKENS_UNSAID = 512

_OF_THE_EXTRA = frozenset({"safetensors", "sentence_transformers", "torch", "transformers"})

_HEADS = ("classifier", "score")
"""What transformers calls the part that makes a classifier of a model."""


@dataclass(frozen=True, slots=True, eq=False)
class TorchModel:
    """A model in float32 on the CPU, and how it is run.

    `run(module, inputs)` gives logits [batch, labels] or hidden states [batch, tokens, dimension].
    `transformer(module)` is the transformers model in it where that may take packed rows, None
    where other modules come behind it. `max_tokens` counts special tokens; `activation` belongs to
    cross-encoders.
    """

    module: torch.nn.Module
    run: Callable[[Any, Inputs], torch.Tensor]
    transformer: Callable[[Any], HubModel | None]
    output: Output
    takes_types: bool
    tokenizer: HubTokenizer
    max_tokens: int
    activation: Activation = Activation.IDENTITY

    @property
    def pad_token_id(self) -> int:
        """Give the token that batches are padded with."""
        return self.tokenizer.pad_token_id or 0


def load_torch_model(folder: Path, *, trust_remote_code: bool = False) -> TorchModel:
    """Load a cross-encoder with one label; blocks.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        ModelNotServable: it cannot load the model, or the model has another number of labels.
    """
    with loading_with_library(folder, trust_remote_code=trust_remote_code):
        return _load_cross_encoder(folder, trust_remote_code)


@contextmanager
def loading_with_library(folder: Path, *, trust_remote_code: bool) -> Iterator[None]:
    """Have transformers and sentence-transformers load a folder quietly, and say why they cannot.

    Raises:
        MissingExtra: one of them is not installed.
        ModelNotServable: they cannot load the model.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of what it warns of is looked at here
            quieten_transformers()
            yield
    except (MissingExtra, ModelNotServable):
        raise
    except Exception as error:
        # Code that comes with a model may want packages that are none of ours.
        name = error.name if isinstance(error, ImportError) else None
        if name is not None and name.partition(".")[0] in _OF_THE_EXTRA:
            raise MissingExtra("torch", f"running {folder} with torch") from error
        raise ModelNotServable(why_not_loadable(folder, error, trust_remote_code)) from error


def cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Keep a module's weights in a dtype, but for the layer that gives one number, the score.

    Only weights: tables that models compute for themselves, such as those of rotary positions, need
    float32. A score that was rounded to bfloat16 would tie with a hundred others.
    """
    for part in module.modules():
        if type(part) is torch.nn.Linear and part.out_features == 1:
            part.register_forward_pre_hook(_as_float32)
            continue
        for parameter in part.parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)


def _as_float32(_module: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(each.float() for each in inputs)


def _load_cross_encoder(folder: Path, trust_remote_code: bool) -> TorchModel:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore

    encoder = CrossEncoder(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        model_kwargs={"dtype": torch.float32},
    )
    if isinstance(encoder[-1], LogitScore):
        raise ModelNotServable(
            f"{folder} holds a language model that answers yes or no: its `family` is llm_pointwise"
        )
    if encoder.num_labels != 1:
        raise ModelNotServable(
            f"{folder} has {encoder.num_labels} labels; only a cross-encoder with one can rank"
        )
    classifier = encoder[0].auto_model
    _require_weights(folder, classifier)
    if encoder.default_prompt_name is not None:
        raise ModelNotServable(f"{folder} sets `default_prompt_name`, which is not supported")
    encoder.eval()
    tokenizer = encoder.tokenizer
    is_plain = len(encoder) == 1
    return TorchModel(
        classifier if is_plain else encoder,
        _logits if is_plain else _scores,
        _itself if is_plain else _nothing,
        "logits",
        _takes_types(classifier, tokenizer),
        tokenizer,
        _max_tokens(tokenizer, classifier),
        known_activation(folder, encoder.activation_fn),
    )


def known_activation(folder: Path, function: object) -> Activation:
    """Tell which activation a module is.

    Raises:
        ModelNotServable: it is none that turns a logit into a score that we know the meaning of.
    """
    if isinstance(function, torch.nn.Sigmoid):
        return Activation.SIGMOID
    if isinstance(function, torch.nn.Identity):
        return Activation.IDENTITY
    raise ModelNotServable(
        f"{folder} wants the activation {type(function).__name__}; only Sigmoid and Identity are "
        "supported"
    )


def _max_tokens(tokenizer: HubTokenizer, model: HubModel) -> int:
    positions = getattr(model.config, "max_position_embeddings", None) or -1
    if positions > 0:
        positions -= position_offset(model)
    # A tokenizer without a limit of its own says 1e30; models without positions say -1.
    stated = [each for each in (tokenizer.model_max_length, positions) if 0 < each < 10**9]
    return min(stated, default=_MAX_TOKENS_UNSAID)


def _logits(model: Any, inputs: Inputs) -> torch.Tensor:  # noqa: ANN401
    logits: torch.Tensor = model(**inputs).logits
    return logits


def _scores(encoder: Any, inputs: Inputs) -> torch.Tensor:  # noqa: ANN401
    scores: torch.Tensor = encoder({**inputs, "modality": "text"})["scores"]
    return scores.view(len(scores), 1)


def _itself(model: HubModel) -> HubModel:
    return model


def _nothing(_encoder: object) -> None:
    return None


def _takes_types(model: HubModel, tokenizer: HubTokenizer) -> bool:
    """Tell whether sentence-transformers would give it token types, and they count."""
    return (
        "token_type_ids" in inspect.signature(model.forward).parameters
        and "token_type_ids" in tokenizer.model_input_names
        and getattr(model.config, "type_vocab_size", 0) > 1
    )


def _require_weights(folder: Path, model: HubModel) -> None:
    """Refuse a classifier whose head transformers made up, as it does for a model without one."""
    names = set(_stored_names(folder))
    head = {name for name, _ in model.named_parameters() if name.startswith(_HEADS)}
    if names and not head <= names:
        lacking = ", ".join(sorted(head - names)[:3])
        raise ModelNotServable(f"{folder} has no weights for {lacking}")


def _stored_names(folder: Path) -> Iterator[str]:
    from safetensors import safe_open

    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            yield from file.keys()
    for path in folder.glob("pytorch_model*.bin"):
        yield from torch.load(path, map_location="meta", weights_only=True)


def why_not_loadable(folder: Path, error: Exception, trust_remote_code: bool) -> str:
    """Tell in a sentence why the library could not load a model."""
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    if "trust_remote_code" in str(error) and not trust_remote_code:
        return (
            f"{folder} is run by Python code of its own; if you have read that code and trust it, "
            "set `trust_remote_code`"
        )
    return f"sentence-transformers cannot load {folder}: {first_line}"
