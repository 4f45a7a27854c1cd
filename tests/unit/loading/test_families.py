"""Whose a model is: what it is called, what its files say, or the setting `family`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rerank_sidecar.errors import InvalidSetting, ModelNotServable, ModelUnavailable
from rerank_sidecar.loading.families import (
    COMBINATIONS,
    FAMILIES,
    OF_SOURCES,
    check_members,
    family_name,
    find_family,
    owner_of,
)
from rerank_sidecar.loading.family import Family
from rerank_sidecar.settings import read_settings


def save(folder: Path, architecture: str | None = None, **saved_by_library: Any) -> Path:
    """Save what a folder's JSON files would tell of a model, without the model."""
    folder.mkdir()
    config = {} if architecture is None else {"architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if saved_by_library:
        modules = [{"type": each} for each in saved_by_library.pop("modules")]
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        whole = folder / "config_sentence_transformers.json"
        whole.write_text(json.dumps(saved_by_library), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("embedded", "late_interaction"),
        ("lexical", "lexical"),
        ("cascade", "cascade"),
        ("ensemble", "ensemble"),
        ("fallback", "fallback"),
        ("shadow", "shadow"),
        ("listwise:gpt-4.1-mini", "llm_listwise"),
        ("tei:http://tei:8080", "remote"),
        ("cohere:rerank-v3.5", "remote"),
        ("triton:http://triton:8000#reranker", "triton"),
    ],
)
def test_a_source_of_its_own_tells_the_family(source: str, family: str) -> None:
    found = find_family(read_settings(model=source))
    assert (found.family.name, found.folder) == (family, None)


@pytest.mark.parametrize("source", ["BAAI/bge-reranker-v2-m3", "./folder", "lexical-2", "embed"])
def test_other_sources_are_nobodys(source: str) -> None:
    assert owner_of(source) is None


TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"


@pytest.mark.parametrize(
    ("files", "family"),
    [
        ({"architecture": "BertForSequenceClassification"}, "cross_encoder"),
        ({"architecture": "Qwen2ForSequenceClassification"}, "cross_encoder"),
        (
            {
                "architecture": "BertModel",
                "model_type": "CrossEncoder",
                "modules": [TRANSFORMER, POOLING, "Dense"],
            },
            "cross_encoder",
        ),
        ({"architecture": "Qwen3ForCausalLM"}, "llm_pointwise"),
        ({"architecture": "GPT2LMHeadModel"}, "llm_pointwise"),
        (
            {
                "architecture": "Qwen3ForCausalLM",
                "model_type": "CrossEncoder",
                "modules": [TRANSFORMER, LOGIT_SCORE],
            },
            "llm_pointwise",
        ),
        (
            {
                "architecture": "BertModel",
                "model_type": "SentenceTransformer",
                "modules": [TRANSFORMER, POOLING],
            },
            "bi_encoder",
        ),
        (
            {
                "architecture": "Qwen3ForCausalLM",
                "model_type": "SentenceTransformer",
                "modules": [TRANSFORMER, POOLING],
            },
            "bi_encoder",
        ),
        (
            {
                "architecture": "BertModel",
                "model_type": "ColBERT",
                "modules": [TRANSFORMER, "pylate.models.Dense.Dense"],
            },
            "late_interaction",
        ),
        ({"architecture": "HF_ColBERT"}, "late_interaction"),
    ],
)
def test_files_tell_the_family(tmp_path: Path, files: dict[str, Any], family: str) -> None:
    folder = save(tmp_path / "model", **files)
    found = find_family(read_settings(model=str(folder)))
    assert (found.family.name, found.folder) == (family, folder)
    assert family_name(folder) == family


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"architectures": 5}', "\x00"])
def test_strange_files_are_nobodys_and_nothing_breaks(tmp_path: Path, content: str) -> None:
    for name in ("config.json", "modules.json", "config_sentence_transformers.json"):
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert family_name(tmp_path) is None
    with pytest.raises(ModelNotServable, match="of no family"):
        find_family(read_settings(model=str(tmp_path)))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotServable, match="has no config"):
        find_family(read_settings(model=str(tmp_path)))


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "BertModel")
    with pytest.raises(ModelNotServable, match="found BertModel"):
        find_family(read_settings(model=str(folder)))


def test_the_setting_goes_before_the_files_which_are_not_looked_at(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "BertModel")
    found = find_family(read_settings(model=str(folder), family="cross_encoder"))
    assert (found.family.name, found.folder) == ("cross_encoder", None)


def test_an_unknown_family_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(InvalidSetting, match="family: there is no 'crossencoder'") as caught:
        find_family(read_settings(family="crossencoder"))
    assert all(family.name in caught.value.message for family in FAMILIES)


@pytest.mark.parametrize("source", ["lexical", "embedded", "tei:http://tei:8080", "cascade"])
def test_a_source_of_another_family_is_refused(source: str) -> None:
    owner = owner_of(source)
    assert owner is not None
    with pytest.raises(InvalidSetting, match=f"is of the family {owner.name}, not cross_encoder"):
        find_family(read_settings(model=source, family="cross_encoder"))
    assert find_family(read_settings(model=source, family=owner.name)).family is owner


@pytest.mark.parametrize("family", OF_SOURCES, ids=lambda family: family.name)
def test_a_folder_or_hub_id_is_no_model_of_a_family_that_reads_none(family: Family) -> None:
    with pytest.raises(InvalidSetting, match=f"'some/model' is no model of .* {family.name};"):
        find_family(read_settings(model="some/model", family=family.name))


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="does not exist"):
        find_family(read_settings(model="./no/such/folder"))


def test_names_are_all_different() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)


def test_only_combinations_have_members() -> None:
    for family in FAMILIES:
        if family in COMBINATIONS:
            check_members(family, ("lexical", "other"))
        else:
            check_members(family, ())
            with pytest.raises(InvalidSetting, match=f"members: .* not the family {family.name}"):
                check_members(family, ("lexical",))
