"""Reads what a Hugging Face folder says of its cross-encoder, without torch or transformers.

Activation and length follow sentence-transformers 6 (`CrossEncoder.get_default_activation_fn`,
`Transformer.__init__`), so that scores are those of its `CrossEncoder.predict`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rerank_sidecar.errors import ModelNotServable, StartupError
from rerank_sidecar.models.json_files import JsonObject, parse_json_file, read_json_object
from rerank_sidecar.models.servable import Activation

_ACTIVATIONS = {"Sigmoid": Activation.SIGMOID, "Identity": Activation.IDENTITY}

_OFFSET_POSITIONS = frozenset(
    {"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "roberta-prelayernorm"}
    | {"xlm-roberta", "xlm-roberta-xl"}
)
"""Model types that count positions from pad_token_id + 1, so that as many fewer are usable."""

_MAX_TOKENS_UNSAID = 512

_CLASSIFIER = "ForSequenceClassification"
_CAUSAL = ("ForCausalLM", "LMHeadModel")
"""How the names of transformers' classes end."""


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
            are computed in a way that is not supported, or a JSON file that is broken; the message
            says what was found.
    """
    if not (folder / "config.json").is_file():
        raise ModelNotServable(f"{folder} has no config.json, so it is no Hugging Face model")
    config = read_json_object(folder / "config.json")
    wrapper = _read_wrapper(folder)
    _require_one_label(folder, config)
    return Checkpoint(
        folder=folder,
        model_type=config.text("model_type") or "",
        activation=_activation(folder, config, wrapper),
        max_tokens=_max_tokens(folder, config, wrapper),
        pad_token_id=_pad_token_id(folder, config),
        has_remote_code="AutoModelForSequenceClassification" in config.nested("auto_map").values,
    )


def architectures(folder: Path) -> tuple[str, ...]:
    """Give the names of the classes that a folder's model is made for; none if it does not say."""
    try:
        return tuple(read_json_object(folder / "config.json").texts("architectures"))
    except StartupError:
        return ()


def is_cross_encoder(folder: Path) -> bool:
    """Tell whether a folder holds a classifier, or what else CrossEncoder saved; never raises.

    A language model behind a LogitScore, which CrossEncoder saves as well, is none.
    """
    if any(each.endswith(_CLASSIFIER) for each in architectures(folder)):
        return True
    try:
        whole = read_json_object(folder / "config_sentence_transformers.json")
        return whole.text("model_type") == "CrossEncoder" and not is_causal(folder)
    except StartupError:
        return False


def is_causal(folder: Path) -> bool:
    """Tell whether a folder holds a causal language model; never raises."""
    return any(each.endswith(_CAUSAL) for each in architectures(folder))


def label_count(folder: Path) -> int | None:
    """Count the labels of a folder's classifier, None if it holds none.

    Raises:
        ModelNotServable: its config.json is broken.
    """
    config = read_json_object(folder / "config.json")
    is_classifier = any(each.endswith(_CLASSIFIER) for each in architectures(folder))
    return _label_count(config) if is_classifier else None


def _require_one_label(folder: Path, config: JsonObject) -> None:
    names = config.texts("architectures")
    if not any(name.endswith(_CLASSIFIER) for name in names):
        found = ", ".join(names) or "none named"
        raise ModelNotServable(
            f"{folder} is no cross-encoder: an architecture *ForSequenceClassification is needed, "
            f"found {found}"
        )
    labels = _label_count(config)
    if labels != 1:
        raise ModelNotServable(
            f"{folder} has {labels} labels; only a cross-encoder with exactly one can rank"
        )


def _label_count(config: JsonObject) -> int:
    # transformers writes id2label, and num_labels only into old configs; it assumes two labels.
    if config.values.get("id2label") is not None:
        return len(config.nested("id2label").values)
    labels = config.whole_number("num_labels")
    return 2 if labels is None else labels


@dataclass(frozen=True, slots=True)
class _Wrapper:
    """What sentence-transformers 6 saves beside a model, None where it says nothing."""

    activation_fn: str | None = None
    max_seq_length: int | None = None


def _read_wrapper(folder: Path) -> _Wrapper:
    """Read what sentence-transformers saved, and refuse what changes the model's input."""
    if not (folder / "modules.json").is_file():
        return _Wrapper()
    _require_one_module(folder / "modules.json")
    transformer = read_json_object(folder / "sentence_bert_config.json")
    whole = read_json_object(folder / "config_sentence_transformers.json")
    for key in ("default_prompt_name", "do_lower_case", "processing_kwargs"):
        if transformer.values.get(key) or whole.values.get(key):
            raise ModelNotServable(f"{folder} sets `{key}`, which is not supported")
    return _Wrapper(whole.text("activation_fn"), transformer.whole_number("max_seq_length"))


def _require_one_module(path: Path) -> None:
    modules = parse_json_file(path)
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise ModelNotServable(f"{path} must hold a JSON list of objects")
    if len(modules) != 1 or JsonObject(path, modules[0], "[0].").text("path"):
        raise ModelNotServable(
            f"{path} must name one plain Transformer module and nothing else; torch runs others, "
            "with `engine` set to `torch-float32`"
        )


def _activation(folder: Path, config: JsonObject, wrapper: _Wrapper) -> Activation:
    saved = config.nested("sentence_transformers")
    name = wrapper.activation_fn or saved.text("activation_fn")
    if not name and "activation_fn" not in saved.values:
        name = config.text("sbert_ce_default_activation_function")
    name = name or "torch.nn.Sigmoid"
    activation = _ACTIVATIONS.get(name.rpartition(".")[2]) if name.startswith("torch.") else None
    if activation is None:
        raise ModelNotServable(
            f"{folder} wants the activation {name}; only Sigmoid and Identity are supported"
        )
    return activation


def _max_tokens(folder: Path, config: JsonObject, wrapper: _Wrapper) -> int:
    if wrapper.max_seq_length:
        return wrapper.max_seq_length
    limits = [
        read_json_object(folder / "tokenizer_config.json").whole_number("model_max_length"),
        _usable_positions(folder, config),
    ]
    # A tokenizer without a limit of its own says 1e30; models without positions say -1.
    stated = [limit for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(stated, default=_MAX_TOKENS_UNSAID)


def _usable_positions(folder: Path, config: JsonObject) -> int | None:
    positions = config.whole_number("max_position_embeddings")
    if positions is not None and config.text("model_type") in _OFFSET_POSITIONS:
        return positions - _pad_token_id(folder, config) - 1
    return positions


def _pad_token_id(folder: Path, config: JsonObject) -> int:
    pad_token_id = config.whole_number("pad_token_id")
    if pad_token_id is not None:
        return pad_token_id
    tokenizer_config = read_json_object(folder / "tokenizer_config.json")
    pad_token = _pad_token(tokenizer_config)
    added = tokenizer_config.nested("added_tokens_decoder")
    for token_id in added.values:
        if pad_token is not None and added.nested(token_id).text("content") == pad_token:
            if not token_id.isdecimal():
                raise added.wrong(token_id, "keyed by a whole number")
            return int(token_id)
    return 0


def _pad_token(tokenizer_config: JsonObject) -> str | None:
    if isinstance(tokenizer_config.values.get("pad_token"), dict):
        return tokenizer_config.nested("pad_token").text("content")
    return tokenizer_config.text("pad_token")
