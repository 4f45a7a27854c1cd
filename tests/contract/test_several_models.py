"""A server of several models in its own process: names over HTTP, and SIGHUP."""

import json
import os
import signal
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.contract.running import RunningSidecar, running_sidecar

WAIT_S = 60.0

TWO = """
[[models]]
name = "words"
source = "lexical"
aliases = ["rerank-*"]

[[models]]
name = "small"
source = "embedded"
load = "lazy"
"""


def ask(running: RunningSidecar, path: str, **fields: object) -> dict[str, object]:
    body = {"query": "red fruit", "documents": ["the sky", "an apple"], **fields}
    return send(running, path, json.dumps(body).encode())


def send(running: RunningSidecar, path: str, body: bytes | None = None) -> dict[str, object]:
    url = f"http://127.0.0.1:{running.http_port}{path}"
    try:
        with urllib.request.urlopen(url, body, timeout=WAIT_S) as answer:
            told: dict[str, object] = json.load(answer)
    except HTTPError as error:
        told = {"status": error.code, **json.load(error)}
    return told


def name_of(answer: dict[str, object]) -> object:
    summary = answer["summary"]
    assert isinstance(summary, dict)
    return summary["model"]["name"]


def served(running: RunningSidecar) -> dict[str, bool]:
    models = send(running, "/api/v1/models")["models"]
    assert isinstance(models, list)
    return {each["model"]["name"]: each["is_loaded"] for each in models}


def happens(running: RunningSidecar, names: set[str]) -> dict[str, bool]:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        found = served(running)
        if found.keys() == names:
            return found
        time.sleep(0.05)
    raise AssertionError(f"still served are {found}")


def save_model_that_hangs(folder: Path) -> None:
    """Save what looks like a cross-encoder until its files are hashed, which never ends."""
    folder.mkdir()
    config = {
        "architectures": ["BertForSequenceClassification"],
        "num_labels": 1,
        "max_position_embeddings": 64,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    os.mkfifo(folder / "vocab.txt")  # whoever reads it waits for a writer


def test_a_load_that_hangs_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    save_model_that_hangs(tmp_path / "model")
    config = tmp_path / "sidecar.toml"
    config.write_text(
        TWO + f'[[models]]\nname = "stuck"\nsource = "{tmp_path / "model"}"\nload = "lazy"\n'
    )
    with running_sidecar("--config", str(config), shutdown_grace_s="0") as running:
        body = json.dumps({"query": "q", "documents": ["a"]}).encode()
        url = f"http://127.0.0.1:{running.http_port}/models/stuck/api/v1/rerank"
        asked = urllib.request.Request(url, body, {"X-Request-Timeout-Ms": "100"})
        with pytest.raises(HTTPError) as late:
            urllib.request.urlopen(asked, timeout=WAIT_S)  # noqa: S310
        assert late.value.code == 504
        assert "stuck was being loaded" in late.value.read().decode()
        assert name_of(ask(running, "/api/v1/rerank")) == "words"
    assert running.process.returncode == 0


def logged(capfd: pytest.CaptureFixture[str], text: str) -> list[str]:
    """Wait for a line of the log, which is the last that is given."""
    end, log = time.monotonic() + WAIT_S, ""
    while time.monotonic() < end:
        log += capfd.readouterr().err
        found = log.find(text)
        if found >= 0 and "\n" in log[found:]:
            return log[: log.index("\n", found)].splitlines()
        time.sleep(0.05)
    raise AssertionError(f"no {text!r} in {log}")


def test_names_aliases_and_a_file_that_changes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text(TWO)
    with running_sidecar("--config", str(config)) as running:
        assert served(running) == {"words": True, "small": False, "lexical": True}
        path = "/api/v1/rerank"
        for model, name in ((None, "words"), ("default", "words"), ("rerank-v3.5", "words")):
            assert name_of(ask(running, path, options={"model": model})) == name
        assert name_of(ask(running, "/models/small" + path)) == "small"
        assert served(running)["small"]
        unknown = ask(running, "/models/BAAI/bge" + path)
        assert unknown["status"] == 404
        assert "served are words (also rerank-*), small, lexical" in json.dumps(unknown)

        config.write_text(TWO + '[[models]]\nname = "more"\nsource = "lexical"\n')
        running.process.send_signal(signal.SIGHUP)
        assert happens(running, {"words", "small", "more", "lexical"})["small"]
        config.write_text("[[models]]\n")
        running.process.send_signal(signal.SIGHUP)
        lines = logged(capfd, "SIGHUP changed nothing: ")
        assert lines[-1].endswith("models.0.name: Field required; models.0.source: Field required")
        assert [line for line in lines if line.endswith("read the settings again: added: more")]
        assert served(running).keys() == {"words", "small", "more", "lexical"}
        config.write_text(TWO.replace("words", "other"))
        running.process.send_signal(signal.SIGHUP)
        happens(running, {"other", "small", "lexical"})
        assert name_of(ask(running, path)) == "other"
