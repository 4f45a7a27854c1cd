"""Building the embedded model gives the shipped one: the same bytes with the same tools."""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.openvino import OpenVinoBackend
from rerank_sidecar.models.build_embedded import BUILT_FILES, build_embedded, shipped_hashes
from rerank_sidecar.models.builtin import EMBEDDED_FOLDER

TOKENS = np.array([101, 2417, 6207, 2003, 1037, 5909, 1012, 102], dtype=np.int64)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    build_embedded(folder)
    return folder


def same_tools() -> bool:
    shipped = json.loads((EMBEDDED_FOLDER / "model.json").read_text("utf-8"))["built_with"]
    return all(importlib.metadata.version(name) == wanted for name, wanted in shipped.items())


def hidden_states(folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    backend = OpenVinoBackend(folder / "model.xml", output="hidden_states", workers=1)
    [states] = backend.run([TokenSequence(TOKENS, np.zeros_like(TOKENS))])
    return states


def test_it_computes_what_the_shipped_one_computes(built: Path) -> None:
    states, shipped = hidden_states(built), hidden_states(EMBEDDED_FOLDER)
    assert states.shape == shipped.shape == (len(TOKENS), 384)
    np.testing.assert_allclose(states, shipped, atol=0.02)


def test_the_same_tools_give_the_same_bytes(built: Path) -> None:
    manifest = json.loads((built / "model.json").read_text("utf-8"))
    assert set(manifest["files"]) == set(BUILT_FILES)
    if same_tools():
        assert manifest["files"] == shipped_hashes()
    else:
        assert manifest["files"]["tokenizer.json"] == shipped_hashes()["tokenizer.json"]
