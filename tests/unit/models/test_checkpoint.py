"""A Hugging Face folder is read as sentence-transformers reads it, or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.checkpoint import read_checkpoint
from rerank_sidecar.models.servable import Activation

CONFIG: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "id2label": {"0": "LABEL_0"},
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
TRANSFORMER = {
    "idx": 0,
    "name": "0",
    "path": "",
    "type": "sentence_transformers.base.modules.transformer.Transformer",
}


def folder_with(folder: Path, config: dict[str, Any], **files: Any) -> Path:
    """Write config.json and other JSON files, named without their ending."""
    for name, content in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def without(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != key}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, Activation.SIGMOID),
        ({"sbert_ce_default_activation_function": None}, Activation.SIGMOID),
        (
            {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
            Activation.IDENTITY,
        ),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            Activation.IDENTITY,
        ),
        (
            {
                "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
            },
            Activation.SIGMOID,
        ),
    ],
)
def test_activation(tmp_path: Path, extra: dict[str, Any], expected: Activation) -> None:
    assert read_checkpoint(folder_with(tmp_path, CONFIG | extra)).activation is expected


def test_activation_saved_by_sentence_transformers_6_wins(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        CONFIG | {"sbert_ce_default_activation_function": "torch.nn.Sigmoid"},
        modules=[TRANSFORMER],
        config_sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
    )
    assert read_checkpoint(folder).activation is Activation.IDENTITY


@pytest.mark.parametrize("name", ["torch.nn.Tanh", "my_package.Sigmoid"])
def test_other_activations_are_refused(tmp_path: Path, name: str) -> None:
    config = CONFIG | {"sentence_transformers": {"activation_fn": name}}
    with pytest.raises(ModelNotServable, match=name):
        read_checkpoint(folder_with(tmp_path, config))


@pytest.mark.parametrize(
    ("config", "model_max_length", "expected"),
    [
        (CONFIG, 512, 512),
        (CONFIG, 256, 256),
        (CONFIG, 8192, 512),
        (CONFIG, int(1e30), 512),
        (CONFIG, None, 512),
        (without(CONFIG, "max_position_embeddings"), 128, 128),
        (without(CONFIG, "max_position_embeddings"), int(1e30), 512),
        (CONFIG | {"max_position_embeddings": -1}, 300, 300),
        (
            CONFIG
            | {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            None,
            512,
        ),
    ],
)
def test_max_tokens(
    tmp_path: Path, config: dict[str, Any], model_max_length: int | None, expected: int
) -> None:
    tokenizer = {} if model_max_length is None else {"model_max_length": model_max_length}
    folder = folder_with(tmp_path, config, tokenizer_config=tokenizer)
    assert read_checkpoint(folder).max_tokens == expected


def test_max_tokens_saved_by_sentence_transformers_wins(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path, CONFIG, modules=[TRANSFORMER], sentence_bert_config={"max_seq_length": 200}
    )
    assert read_checkpoint(folder).max_tokens == 200


def test_pad_token_is_found_in_the_tokenizer_when_the_config_does_not_say(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        without(CONFIG, "pad_token_id"),
        tokenizer_config={
            "pad_token": "<pad>",
            "added_tokens_decoder": {"0": {"content": "<s>"}, "5": {"content": "<pad>"}},
        },
    )
    assert read_checkpoint(folder).pad_token_id == 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"architectures": ["BertModel"]}, "found BertModel"),
        ({"architectures": None}, "found none named"),
        ({"id2label": {"0": "no", "1": "yes"}}, "has 2 labels"),
    ],
)
def test_what_is_no_cross_encoder_is_refused(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelNotServable, match=sentence):
        read_checkpoint(folder_with(tmp_path, CONFIG | change))


def test_two_labels_are_assumed_where_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotServable, match="has 2 labels"):
        read_checkpoint(folder_with(tmp_path, without(CONFIG, "id2label")))


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotServable, match=r"no config\.json"):
        read_checkpoint(tmp_path)


READ_FILES = (
    *("config", "modules", "sentence_bert_config"),
    *("config_sentence_transformers", "tokenizer_config"),
)


@pytest.mark.parametrize("name", READ_FILES)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_broken_json_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = folder_with(tmp_path, CONFIG, modules=[TRANSFORMER]) / f"{name}.json"
    path.write_bytes(content)
    with pytest.raises(ModelNotServable) as caught:
        read_checkpoint(tmp_path)
    assert str(caught.value) == f"{path} is not valid JSON"


@pytest.mark.parametrize("name", READ_FILES)
@pytest.mark.parametrize("content", [5, None, "text", [1]])
def test_json_of_another_shape_is_refused(tmp_path: Path, name: str, content: object) -> None:
    folder = folder_with(tmp_path, CONFIG, modules=[TRANSFORMER])
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelNotServable, match=rf"/{name}\.json must hold a JSON (object|list)"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "key", "content"),
    [
        ("config", "architectures", {"architectures": "BertForSequenceClassification"}),
        ("config", "architectures", {"architectures": [5]}),
        ("config", "model_type", {"model_type": ["bert"]}),
        ("config", "id2label", {"id2label": ["LABEL_0"]}),
        ("config", "num_labels", {"id2label": None, "num_labels": "one"}),
        ("config", "auto_map", {"auto_map": "modeling.Model"}),
        ("config", "sentence_transformers", {"sentence_transformers": "torch.nn.Sigmoid"}),
        (
            "config",
            "sentence_transformers.activation_fn",
            {"sentence_transformers": {"activation_fn": 5}},
        ),
        (
            "config",
            "sbert_ce_default_activation_function",
            {"sbert_ce_default_activation_function": {}},
        ),
        ("config", "max_position_embeddings", {"max_position_embeddings": "512"}),
        ("config", "max_position_embeddings", {"max_position_embeddings": 0.5}),
        ("config", "pad_token_id", {"pad_token_id": [0]}),
        ("config", "pad_token_id", {"pad_token_id": True}),
        ("modules", "[0].path", [{"path": 5}]),
        ("sentence_bert_config", "max_seq_length", {"max_seq_length": "long"}),
        ("sentence_bert_config", "max_seq_length", {"max_seq_length": []}),
        ("config_sentence_transformers", "activation_fn", {"activation_fn": 5}),
        ("tokenizer_config", "model_max_length", {"model_max_length": float("inf")}),
        ("tokenizer_config", "pad_token", {"pad_token": 5}),
        ("tokenizer_config", "pad_token.content", {"pad_token": {"content": 5}}),
        ("tokenizer_config", "added_tokens_decoder", {"added_tokens_decoder": ["[PAD]"]}),
        ("tokenizer_config", "added_tokens_decoder.0", {"added_tokens_decoder": {"0": "[PAD]"}}),
        (
            "tokenizer_config",
            "added_tokens_decoder.first",
            {"added_tokens_decoder": {"first": {"content": "[PAD]"}}},
        ),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_file_and_key(
    tmp_path: Path, name: str, key: str, content: Any
) -> None:
    config = without(CONFIG, "pad_token_id")
    files: dict[str, Any] = {
        "modules": [TRANSFORMER],
        "tokenizer_config": {"pad_token": "[PAD]"},
    }
    if name == "config":
        config |= content
    elif isinstance(content, dict):
        files[name] = files.get(name, {}) | content
    else:
        files[name] = content
    folder = folder_with(tmp_path, config, **files)
    with pytest.raises(ModelNotServable) as caught:
        read_checkpoint(folder)
    assert str(caught.value).startswith(f"{folder / name}.json: `{key}` must be ")


def test_no_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotServable, match="one plain Transformer module"):
        read_checkpoint(folder_with(tmp_path, CONFIG, modules=[]))


def test_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path,
        CONFIG | {"max_position_embeddings": 300.0},
        tokenizer_config={"model_max_length": 1e30},
    )
    assert read_checkpoint(folder).max_tokens == 300


def test_null_counts_as_absent(tmp_path: Path) -> None:
    nulls = {"auto_map": None, "sentence_transformers": None, "id2label": None, "num_labels": 1}
    tokenizer = {"model_max_length": None, "pad_token": None, "added_tokens_decoder": None}
    checkpoint = read_checkpoint(
        folder_with(tmp_path, CONFIG | nulls | {"pad_token_id": None}, tokenizer_config=tokenizer)
    )
    assert (checkpoint.max_tokens, checkpoint.pad_token_id) == (512, 0)
    assert checkpoint.activation is Activation.SIGMOID


@pytest.mark.parametrize("key", ["default_prompt_name", "do_lower_case", "processing_kwargs"])
def test_what_would_change_the_input_is_refused(tmp_path: Path, key: str) -> None:
    folder = folder_with(
        tmp_path, CONFIG, modules=[TRANSFORMER], config_sentence_transformers={key: "x"}
    )
    with pytest.raises(ModelNotServable, match=key):
        read_checkpoint(folder)


def test_more_than_one_module_is_refused(tmp_path: Path) -> None:
    dense = TRANSFORMER | {"idx": 1, "path": "1_Dense"}
    with pytest.raises(ModelNotServable, match="one plain Transformer module"):
        read_checkpoint(folder_with(tmp_path, CONFIG, modules=[TRANSFORMER, dense]))


def test_remote_code_is_noticed(tmp_path: Path) -> None:
    auto_map = {"auto_map": {"AutoModelForSequenceClassification": "modeling.Model"}}
    assert not read_checkpoint(folder_with(tmp_path, CONFIG)).has_remote_code
    assert read_checkpoint(folder_with(tmp_path, CONFIG | auto_map)).has_remote_code
