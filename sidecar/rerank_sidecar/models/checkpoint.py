"""Reads what a Hugging Face folder says of its cross-encoder, without torch or transformers.

Activation and length follow sentence-transformers 6 (`CrossEncoder.get_default_activation_fn`,
`Transformer.__init__`), so that scores are those of its `CrossEncoder.predict`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.servable import Activation

_ACTIVATIONS = {"Sigmoid": Activation.SIGMOID, "Identity": Activation.IDENTITY}

_OFFSET_POSITIONS = frozenset(
    {"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "roberta-prelayernorm"}
    | {"xlm-roberta", "xlm-roberta-xl"}
)
"""Model types that count positions from pad_token_id + 1, so that as many fewer are usable."""

_MAX_TOKENS_UNSAID = 512


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a one-label sequence classifier, and what its own files say of it.

    `max_tokens` counts special tokens. `has_remote_code` is true when the model comes with Python
    code of its own, which may or may not be needed to load it.
    """

    folder: Path
    model_type: str
    activation: Activation
    max_tokens: int
    pad_token_id: int
    has_remote_code: bool


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a cross-encoder's folder.

    Raises:
        ModelNotServable: the folder holds no cross-encoder with one label, or one whose scores
            are computed in a way that is not supported; the message says what was found.
    """
    config = _read_json(folder / "config.json")
    if not config:
        raise ModelNotServable(f"{folder} has no config.json, so it is no Hugging Face model")
    _require_one_label(folder, config)
    wrapper = _read_wrapper(folder)
    return Checkpoint(
        folder=folder,
        model_type=str(config.get("model_type", "")),
        activation=_activation(folder, config, wrapper),
        max_tokens=_max_tokens(folder, config, wrapper),
        pad_token_id=_pad_token_id(folder, config),
        has_remote_code="AutoModelForSequenceClassification" in config.get("auto_map", {}),
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotServable(f"{path} is not valid JSON") from error
    return value if isinstance(value, dict) else {}


def _require_one_label(folder: Path, config: Mapping[str, Any]) -> None:
    architectures = [str(name) for name in config.get("architectures") or []]
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        found = ", ".join(architectures) or "none named"
        raise ModelNotServable(
            f"{folder} is no cross-encoder: an architecture *ForSequenceClassification is needed, "
            f"found {found}"
        )
    labels = _label_count(config)
    if labels != 1:
        raise ModelNotServable(
            f"{folder} has {labels} labels; only a cross-encoder with exactly one can rank"
        )


def _label_count(config: Mapping[str, Any]) -> int:
    # transformers writes id2label, and num_labels only into old configs; it assumes two labels.
    if "id2label" in config:
        return len(config["id2label"] or {})
    return int(config.get("num_labels", 2))


def _read_wrapper(folder: Path) -> Mapping[str, Any]:
    """Read what sentence-transformers 6 saves beside a model, and refuse what changes its input."""
    modules_path = folder / "modules.json"
    if not modules_path.is_file():
        return {}
    modules = json.loads(modules_path.read_text(encoding="utf-8"))
    if len(modules) != 1 or modules[0].get("path"):
        raise ModelNotServable(f"{modules_path} names more than one plain Transformer module")
    wrapper = _read_json(folder / "sentence_bert_config.json")
    wrapper |= _read_json(folder / "config_sentence_transformers.json")
    refused = ("default_prompt_name", "do_lower_case", "processing_kwargs")
    for key in refused:
        if wrapper.get(key):
            raise ModelNotServable(f"{folder} sets `{key}`, which is not supported")
    return wrapper


def _activation(folder: Path, config: Mapping[str, Any], wrapper: Mapping[str, Any]) -> Activation:
    saved = config.get("sentence_transformers") or {}
    name = (
        wrapper.get("activation_fn")
        or saved.get("activation_fn")
        or ("activation_fn" not in saved and config.get("sbert_ce_default_activation_function"))
        or "torch.nn.Sigmoid"
    )
    activation = _ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.") else None
    if activation is None:
        raise ModelNotServable(
            f"{folder} wants the activation {name}; only Sigmoid and Identity are supported"
        )
    return activation


def _max_tokens(folder: Path, config: Mapping[str, Any], wrapper: Mapping[str, Any]) -> int:
    if wrapper.get("max_seq_length"):
        return int(wrapper["max_seq_length"])
    limits = [
        _read_json(folder / "tokenizer_config.json").get("model_max_length"),
        _usable_positions(folder, config),
    ]
    # A tokenizer without a limit of its own says 1e30; models without positions say -1.
    stated = [int(limit) for limit in limits if limit is not None and limit > 0]
    return min([limit for limit in stated if limit < 10**9], default=_MAX_TOKENS_UNSAID)


def _usable_positions(folder: Path, config: Mapping[str, Any]) -> int | None:
    positions = config.get("max_position_embeddings")
    if positions is not None and config.get("model_type") in _OFFSET_POSITIONS:
        return int(positions) - _pad_token_id(folder, config) - 1
    return positions


def _pad_token_id(folder: Path, config: Mapping[str, Any]) -> int:
    pad_token_id = config.get("pad_token_id")
    if pad_token_id is not None:
        return int(pad_token_id)
    tokenizer_config = _read_json(folder / "tokenizer_config.json")
    pad_token = tokenizer_config.get("pad_token")
    content = pad_token.get("content") if isinstance(pad_token, dict) else pad_token
    for token_id, token in tokenizer_config.get("added_tokens_decoder", {}).items():
        if token.get("content") == content:
            return int(token_id)
    return 0
