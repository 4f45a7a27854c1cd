"""Models come from the hub, only the files that are needed, or one sentence says what to do."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from rerank_sidecar.errors import InvalidSetting, ModelUnavailable
from rerank_sidecar.loading.pull import pull_model
from rerank_sidecar.settings import read_settings
from tests.unit.models.fake_hub import FakeHub, Repositories, running

MODEL = "maker/reranker"
DESCRIPTION = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "README.md": b"# A model",
    "model.py": b"raise SystemExit",
    "training_args.bin": b"never",
}


@pytest.fixture(autouse=True)
def hub_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the hub's client a cache of its own and nobody to talk to."""
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    reach(monkeypatch, _dead_endpoint())


def reach(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def _dead_endpoint() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def pull(**settings: Any) -> Path:
    return pull_model(read_settings(**({"model": MODEL} | settings)), prepare=False)


def downloads(monkeypatch: pytest.MonkeyPatch, weights: list[str], **settings: Any) -> set[str]:
    files = DESCRIPTION | dict.fromkeys(weights, b"weights")
    with running(FakeHub({MODEL: files})) as hub:
        reach(monkeypatch, hub.endpoint)
        folder = pull(**settings)
        found = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    return found - {"config.json", "tokenizer.json", "tokenizer_config.json", "README.md"}


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [
        (
            ["onnx/model.onnx", "onnx/model_int8.onnx", "model.safetensors", "pytorch_model.bin"],
            {"onnx/model.onnx"},
        ),
        (
            ["model.safetensors", "pytorch_model.bin", "openvino/model.bin"],
            {"model.safetensors"},
        ),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "tf_model.h5",
            ],
            {
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            },
        ),
        (["pytorch_model.bin", "rust_model.ot"], {"pytorch_model.bin"}),
        (
            ["onnx/model.onnx", "model.safetensors", "1_Pooling/config.json", "2_Dense/model.bin"],
            {"model.safetensors", "1_Pooling/config.json", "2_Dense/model.bin"},
        ),
        (
            ["onnx/model.onnx", "model.safetensors", "artifact.metadata"],
            {"model.safetensors", "artifact.metadata"},
        ),
    ],
    ids=["onnx", "safetensors", "shards", "pickle", "sentence encoder", "Stanford's ColBERT"],
)
def test_one_form_of_the_weights_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, weights: list[str], chosen: set[str]
) -> None:
    assert downloads(monkeypatch, weights) == chosen


@pytest.mark.parametrize("architecture", ["Qwen3ForCausalLM", "GPT2LMHeadModel"])
def test_a_language_models_onnx_is_left(monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    config = json.dumps({"architectures": [architecture]}).encode()
    monkeypatch.setitem(DESCRIPTION, "config.json", config)
    weights = ["onnx/model.onnx", "model.safetensors", "chat_template.jinja", "vocab.json"]
    assert downloads(monkeypatch, weights) == set(weights) - {"onnx/model.onnx"}


@pytest.mark.parametrize(
    ("engine", "chosen"),
    [
        ("torch-float32", "model.safetensors"),
        ("openvino-int8", "onnx/model.onnx"),
        ("onnxruntime-int8", "onnx/model.onnx"),
    ],
)
def test_the_engine_decides_which_weights(
    monkeypatch: pytest.MonkeyPatch, engine: str, chosen: str
) -> None:
    weights = ["onnx/model.onnx", "model.safetensors"]
    assert downloads(monkeypatch, weights, engine=engine) == {chosen}


def test_a_language_model_behind_a_logit_score_comes_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = ["onnx/model.onnx", "model.safetensors", "chat_template.jinja", "modules.json"]
    files += ["1_LogitScore/config.json", "config_sentence_transformers.json"]
    files += ["sentence_bert_config.json"]
    assert downloads(monkeypatch, files) == set(files) - {"onnx/model.onnx"}


def test_a_wrong_engine_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match=r"^engine: `torch-fp16` is for a GPU"):
        downloads(monkeypatch, ["model.safetensors"], engine="torch-fp16", device="cpu")


def test_code_is_downloaded_only_where_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = ["model.safetensors"]
    found = downloads(monkeypatch, weights, trust_remote_code=True)
    assert found == {"model.safetensors", "model.py"}


@pytest.mark.parametrize("offline", [False, True], ids=["unreachable", "offline"])
def test_what_was_pulled_is_used_without_the_hub(
    monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    repositories: Repositories = {MODEL: DESCRIPTION | {"model.safetensors": b"weights"}}
    with running(FakeHub(repositories)) as hub:
        reach(monkeypatch, hub.endpoint)
        pulled = pull()
    reach(monkeypatch, _dead_endpoint())
    assert pull(offline=offline) == pulled


@pytest.mark.parametrize("offline", [False, True], ids=["unreachable", "offline"])
def test_without_hub_and_files_one_sentence_says_what_to_do(offline: bool) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        pull(offline=offline)
    message = caught.value.message
    assert MODEL in message
    assert f"rerank-sidecar models pull {MODEL}" in message
    assert "--model PATH" in message
    assert "\n" not in message
    assert ("`offline` is on" if offline else "cannot be reached") in message


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        ("RepoNotFound", "is not on the hub"),
        ("GatedRepo", "is gated"),
        ("RevisionNotFound", "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_said(
    monkeypatch: pytest.MonkeyPatch, refusal: str, sentence: str
) -> None:
    with running(FakeHub({}, refusal)) as hub:
        reach(monkeypatch, hub.endpoint)
        with pytest.raises(ModelUnavailable, match=sentence):
            pull(revision="v9")


@pytest.mark.parametrize("model", ["two words", "a/b/c", "./no-such-folder", "/no/such/folder"])
def test_what_cannot_be_a_model_is_refused(model: str) -> None:
    with pytest.raises(ModelUnavailable, match="folder"):
        pull(model=model)


@pytest.mark.parametrize("model", ["embedded", "lexical"])
def test_built_in_models_are_not_pulled(model: str) -> None:
    with pytest.raises(InvalidSetting, match="has no files to pull"):
        pull(model=model)
