"""Converting happens once per content, and what cannot be served is refused in a sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rerank_sidecar.errors import (
    InvalidSetting,
    MissingExtra,
    ModelNotServable,
    ModelUnavailable,
)
from rerank_sidecar.loading.families import family_name
from rerank_sidecar.loading.pull import pull_model
from rerank_sidecar.models.listing import ModelState, list_models
from rerank_sidecar.models.runtime import load_openvino
from rerank_sidecar.settings import Quantization, Settings, read_settings
from tests.models import remote_code
from tests.models.prepared import prepared_model
from tests.models.tiny_models import MAX_TOKENS, edit_json, save_onnx, save_tiny_model

TORCH = ("torch", "transformers", "sentence_transformers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "tiny", "bert")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def exact(folder: Path, cache: Path, *, trust_remote_code: bool = False) -> Settings:
    return read_settings(
        model=str(folder),
        cache_dir=cache,
        quantize=Quantization.NONE,
        trust_remote_code=trust_remote_code,
    )


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def test_facts_of_a_prepared_model(folder: Path, cache: Path) -> None:
    model = prepared_model(exact(folder, cache))
    assert model.source == str(folder)
    assert (model.max_tokens, model.activation, model.pad_token_id) == (MAX_TOKENS, "sigmoid", 0)
    assert len(model.version) == 12
    assert model.model_path is not None
    assert model.model_path.is_relative_to(cache)
    assert model.model_path.is_file()


def test_a_converted_model_needs_no_torch_any_more(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared_model(exact(folder, cache))
    hide(monkeypatch, *TORCH)
    again = prepared_model(exact(folder, cache))
    assert (again.version, again.model_path) == (first.version, first.model_path)


def test_the_version_follows_the_content(folder: Path, cache: Path, tmp_path: Path) -> None:
    first = prepared_model(exact(folder, cache)).version
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert prepared_model(exact(copy, cache)).version == first
    (copy / "README.md").write_text("# Another name", encoding="utf-8")
    assert prepared_model(exact(copy, cache)).version == first
    edit_json(copy / "tokenizer_config.json", model_max_length=30)
    assert prepared_model(exact(copy, cache)).version != first


def test_two_processes_may_convert_the_same_model(folder: Path, cache: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.models.prepared import prepared_model\n"
        "from rerank_sidecar.settings import read_settings\n"
        "model = prepared_model(read_settings(\n"
        "    model=sys.argv[1], cache_dir=Path(sys.argv[2]), quantize='none'))\n"
        "assert model.model_path.is_file()\n"
        "print(model.version)"
    )
    command = [sys.executable, "-c", program, str(folder), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    versions = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(versions) == 1
    assert [path.name[:12] for path in (cache / "models").iterdir()] == [versions.pop().strip()]


def test_a_failed_conversion_leaves_nothing_behind(folder: Path, cache: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelNotServable, match="cannot load"):
        prepared_model(exact(folder, cache))
    assert list((cache / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("file", "kept"),
    [("prepared.json", 0.5), ("model.bin", 0.5), ("model.xml", None), ("tokenizer.json", 0)],
)
def test_a_damaged_conversion_is_made_again(
    folder: Path, cache: Path, file: str, kept: float | None
) -> None:
    save_onnx(folder)
    settings = exact(folder, cache)
    model = prepared_model(settings)
    assert model.model_path is not None
    path = model.model_path.parent / file
    path.rename(path.with_suffix(".whole"))
    if kept is not None:
        whole = path.with_suffix(".whole").read_bytes()
        path.write_bytes(whole[: int(len(whole) * kept)])
    assert prepared_model(settings).version == model.version
    assert [each.name for each in path.parent.parent.iterdir()] == [path.parent.name]
    assert not path.with_suffix(".whole").exists()
    assert str(folder) in {each.id for each in list_models(settings, family_name)}
    load_openvino().Core().compile_model(model.model_path, "CPU")


def test_a_damaged_conversion_stays_until_the_new_one_is_there(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = prepared_model(exact(folder, cache))
    assert model.model_path is not None
    model.model_path.with_suffix(".bin").write_bytes(b"")
    hide(monkeypatch, *TORCH)
    with pytest.raises(MissingExtra):
        prepared_model(exact(folder, cache))
    assert model.model_path.is_file()


def test_what_a_killed_conversion_left_is_removed_after_a_day(folder: Path, cache: Path) -> None:
    ages_hours = {".unfinished-old": 25, ".unfinished-running": 1, "other": 25}
    for name, hours in ages_hours.items():
        (cache / "models" / name).mkdir(parents=True)
        then = time.time() - hours * 3600
        os.utime(cache / "models" / name, (then, then))
    model = prepared_model(exact(folder, cache))
    assert model.model_path is not None
    left = {path.name for path in (cache / "models").iterdir()}
    assert left == {".unfinished-running", "other", model.model_path.parent.name}


def test_an_unwritable_cache_is_said(folder: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(InvalidSetting, match="cache_dir"):
        prepared_model(exact(folder, blocked))


def test_without_torch_the_missing_extra_is_named(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, *TORCH)
    with pytest.raises(MissingExtra, match=r"rerank-sidecar\[convert\]") as caught:
        prepared_model(exact(folder, cache))
    assert caught.value.extra == "convert"


def test_without_nncf_the_missing_extra_and_the_way_round_are_named(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_onnx(folder)
    hide(monkeypatch, "nncf", *TORCH)
    settings = read_settings(model=str(folder), cache_dir=cache, quantize=Quantization.INT8)
    with pytest.raises(MissingExtra, match="--quantize none"):
        prepared_model(settings)


def test_two_labels_are_refused(tmp_path: Path, cache: Path) -> None:
    folder = save_tiny_model(tmp_path / "two", "bert", labels=2)
    with pytest.raises(ModelNotServable, match="has 2 labels"):
        prepared_model(exact(folder, cache))


def test_a_folder_without_weights_is_refused(folder: Path, cache: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="has no weights"):
        prepared_model(exact(folder, cache))


def test_weights_that_do_not_fit_are_refused(folder: Path, cache: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(ModelNotServable, match="no weights for"):
        prepared_model(exact(folder, cache))


def test_an_onnx_file_that_ignores_the_mask_is_refused(folder: Path, cache: Path) -> None:
    save_onnx(folder, with_mask=False)
    with pytest.raises(ModelNotServable, match="padded"):
        prepared_model(exact(folder, cache))


def test_onnx_weights_may_lie_beside_the_graph_and_behind_links(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    import onnx

    save_onnx(folder)
    graph, weights = folder / "onnx" / "model.onnx", folder / "onnx" / "model.onnx_data"
    onnx.save(onnx.load(graph), graph, save_as_external_data=True, location=weights.name)
    for path in (graph, weights):
        blob = path.rename(tmp_path / f"blob-{path.name}")
        path.symlink_to(blob)
    model = prepared_model(exact(folder, cache))
    assert model.model_path is not None
    assert sorted(path.name for path in model.model_path.parent.iterdir()) == [
        "model.bin",
        "model.xml",
        "prepared.json",
        "tokenizer.json",
    ]


def test_a_broken_onnx_file_is_refused(folder: Path, cache: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelNotServable, match="OpenVINO cannot read"):
        prepared_model(exact(folder, cache))


def test_a_slow_tokenizer_is_converted(folder: Path, cache: Path) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    model = prepared_model(exact(folder, cache))
    assert model.tokenizer_path is not None
    converted = json.loads(model.tokenizer_path.read_text("utf-8"))
    assert converted["model"]["vocab"] == vocabulary


@pytest.fixture
def folder_with_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that transformers knows only by the Python code that comes with it."""
    import torch
    from safetensors.torch import save_file

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    shutil.copyfile(remote_code.__file__, folder / "remote_code.py")
    size = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
    save_file(
        {"values.weight": torch.randn(size, 1)}, folder / "model.safetensors", {"format": "pt"}
    )
    edit_json(
        folder / "config.json",
        architectures=["BagForSequenceClassification"],
        model_type="bag-of-tokens",
        auto_map={
            "AutoConfig": "remote_code.BagConfig",
            "AutoModelForSequenceClassification": "remote_code.BagForSequenceClassification",
        },
    )
    return folder


def test_code_that_comes_with_a_model_is_not_run(folder_with_code: Path, cache: Path) -> None:
    with pytest.raises(ModelNotServable, match="`trust_remote_code`"):
        prepared_model(exact(folder_with_code, cache))


def test_code_that_comes_with_a_model_is_run_if_trusted(
    folder_with_code: Path, cache: Path
) -> None:
    model = prepared_model(exact(folder_with_code, cache, trust_remote_code=True))
    assert model.model_path is not None
    assert model.model_path.is_file()


def test_converted_models_are_listed_with_licence_and_languages(folder: Path, cache: Path) -> None:
    card = "---\nlicense: apache-2.0\nlanguage:\n- en\n- ko\n---\n# Tiny\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    settings = exact(folder, cache)
    assert pull_model(settings) == folder
    listed = {each.id: each for each in list_models(settings, family_name)}
    assert [*listed][:2] == ["embedded", "lexical"]
    tiny = listed[str(folder)]
    assert (tiny.state, tiny.licence, tiny.languages) == (
        ModelState.CONVERTED,
        "apache-2.0",
        ("en", "ko"),
    )
    assert tiny.size_bytes is not None
    assert tiny.size_bytes > 1000
    assert listed["BAAI/bge-reranker-v2-m3"].state is ModelState.HUB
