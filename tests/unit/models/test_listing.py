"""`models` lists what is built in, what is on disk and a few of the hub's, asking nobody."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rerank_sidecar.loading.families import family_name
from rerank_sidecar.models.listing import ModelState, list_models
from rerank_sidecar.settings import Settings, read_settings

CLASSIFIER = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return read_settings(cache_dir=tmp_path / "cache")


def put_in_hub_cache(hub: Path, model_id: str, config: object, *files: str) -> None:
    commit = "0" * 40
    repository = hub / f"models--{model_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    (snapshot / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for file in files:
        (snapshot / file).write_text("x" * 100, encoding="utf-8")


def test_a_fresh_machine_has_the_built_in_models(settings: Settings) -> None:
    listed = list_models(settings, family_name)
    assert [(each.id, each.family, each.state) for each in listed[:2]] == [
        ("embedded", "late_interaction", "built in"),
        ("lexical", "lexical", "built in"),
    ]
    assert listed[0].size_bytes is not None
    assert listed[0].size_bytes > 1_000_000
    assert {each.state for each in listed[2:]} == {ModelState.HUB}
    assert all(each.licence for each in listed)


def test_cross_encoders_of_the_hub_cache_are_listed(settings: Settings, tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    put_in_hub_cache(hub, "BAAI/bge-reranker-v2-m3", CLASSIFIER, "model.safetensors")
    put_in_hub_cache(hub, "maker/half", CLASSIFIER)
    put_in_hub_cache(hub, "maker/encoder", {"architectures": ["BertModel"]}, "model.safetensors")
    listed = list_models(settings, family_name)
    downloaded = [each for each in listed if each.state is ModelState.DOWNLOADED]
    assert [each.id for each in downloaded] == ["BAAI/bge-reranker-v2-m3"]
    assert downloaded[0].size_bytes is not None
    assert downloaded[0].size_bytes > 100
    assert len({each.id for each in listed}) == len(listed)


def test_encoders_of_the_hub_cache_are_listed_with_their_family(
    settings: Settings, tmp_path: Path
) -> None:
    for model_id, modules in (
        ("maker/sentences", ["Transformer", "Pooling"]),
        ("maker/colbert", ["Transformer", "pylate.models.Dense.Dense"]),
    ):
        put_in_hub_cache(tmp_path / "hub", model_id, {}, "model.safetensors")
        [snapshot] = (tmp_path / "hub").glob(f"models--{model_id.replace('/', '--')}/snapshots/*")
        (snapshot / "modules.json").write_text(
            json.dumps([{"type": each} for each in modules]), encoding="utf-8"
        )
    listed = list_models(settings, family_name)
    downloaded = [each for each in listed if each.state is ModelState.DOWNLOADED]
    assert {each.id: each.family for each in downloaded} == {
        "maker/sentences": "bi_encoder",
        "maker/colbert": "late_interaction",
    }


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, "llm_pointwise"),
        ({"architectures": ["HF_ColBERT"]}, "late_interaction"),
        (CLASSIFIER | {"id2label": {"0": "no", "1": "yes"}}, None),
        ({"architectures": ["BertForMaskedLM"]}, None),
    ],
)
def test_other_families_of_the_hub_cache_are_named(
    settings: Settings, tmp_path: Path, config: object, family: str | None
) -> None:
    put_in_hub_cache(tmp_path / "hub", "maker/model", config, "model.safetensors")
    families = {each.id: each.family for each in list_models(settings, family_name)}
    assert families.get("maker/model") == family


def put_in_cache(settings: Settings, name: str, source: str) -> Path:
    folder = settings.cache_dir / "models" / name
    folder.mkdir(parents=True)
    sizes_bytes = {"model.xml": 10, "model.bin": 200, "tokenizer.json": 30}
    for file, size in sizes_bytes.items():
        (folder / file).write_bytes(b"x" * size)
    facts = {"version": name, "source": source, "quantization": "none", "sizes_bytes": sizes_bytes}
    (folder / "prepared.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("prepared.json", ""),
        ("prepared.json", '{"version": "0'),
        ("prepared.json", "[]"),
        ("prepared.json", "{}"),
        ("prepared.json", '{"sizes_bytes": 5}'),
        ("model.bin", "cut short"),
        ("tokenizer.json", ""),
    ],
)
def test_a_damaged_conversion_is_left_out_with_a_warning(
    settings: Settings, caplog: pytest.LogCaptureFixture, file: str, content: str
) -> None:
    damaged = put_in_cache(settings, "a", "maker/damaged")
    put_in_cache(settings, "b", "maker/whole")
    (damaged / file).write_text(content, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        listed = list_models(settings, family_name)
    converted = [each.id for each in listed if each.state is ModelState.CONVERTED]
    assert converted == ["maker/whole"]
    (warning,) = [each for each in caplog.records if each.name.startswith("rerank_sidecar")]
    assert warning.levelno == logging.WARNING
    assert str(damaged) in warning.getMessage()
