"""The form of the weights that takes the least work is chosen, and half a download is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerank_sidecar.errors import ModelNotServable, ModelUnavailable
from rerank_sidecar.models.weights import find_weights


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def test_onnx_is_preferred_and_comes_with_its_data(tmp_path: Path) -> None:
    touch(tmp_path, "onnx/model.onnx", "onnx/model.onnx_data", "model.safetensors")
    weights = find_weights(tmp_path)
    assert weights.is_onnx
    assert weights.main == tmp_path / "onnx/model.onnx"
    assert [path.name for path in weights.files] == ["model.onnx", "model.onnx_data"]


def test_safetensors_are_preferred_to_pickles(tmp_path: Path) -> None:
    touch(tmp_path, "pytorch_model.bin", "model.safetensors")
    assert find_weights(tmp_path).main == tmp_path / "model.safetensors"


def test_shards_are_all_of_the_weights(tmp_path: Path) -> None:
    touch(tmp_path, "one.safetensors", "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    names = [path.name for path in find_weights(tmp_path).files]
    assert names == ["model.safetensors.index.json", "one.safetensors", "two.safetensors"]
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"two\.safetensors"):
        find_weights(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="has no weights"):
        find_weights(tmp_path)


@pytest.mark.parametrize(
    "index", ["{", "[]", '{"weight_map": 5}', '{"weight_map": {"layer": 5}}'], ids=str
)
def test_a_broken_list_of_parts_is_told_by_its_name(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelNotServable, match=r"model\.safetensors\.index\.json"):
        find_weights(tmp_path)
