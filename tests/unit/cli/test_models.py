"""`models` lists what can be served; `models pull` says in one line why it cannot fetch."""

import json
import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from rerank_sidecar.cli.commands import commands


def _models(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    places = {"HF_HOME": str(home / "hub"), "RERANK_SIDECAR_CACHE_DIR": str(home / "converted")}
    return subprocess.run(
        [sys.executable, "-m", "rerank_sidecar", "models", *arguments],
        env=os.environ | places,
        capture_output=True,
        text=True,
        check=False,
    )


def test_built_in_models_come_first_and_say_where_they_are(tmp_path: Path) -> None:
    found = json.loads(_models(tmp_path, "--json").stdout)
    assert [each["id"] for each in found[:2]] == ["embedded", "lexical"]
    assert {each["state"] for each in found[:2]} == {"built in"}
    assert all(each["place"] for each in found)


def test_table_names_every_model_and_its_place(tmp_path: Path) -> None:
    ran = _models(tmp_path)
    assert ran.returncode == 0, ran.stderr
    for each in json.loads(_models(tmp_path, "--json").stdout):
        assert each["id"] in ran.stdout
        assert each["place"] in "".join(ran.stdout.split())


def test_pulling_without_the_hub_is_one_clear_line(tmp_path: Path) -> None:
    ran = _models(tmp_path, "pull", "--offline", "owner/no-such-model")
    assert ran.returncode == 1
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("rerank-sidecar: model 'owner/no-such-model' is not on disk")
    assert "rerank-sidecar models pull" in line


def test_options_before_pull_are_refused_rather_than_ignored() -> None:
    ran = CliRunner().invoke(commands, ["models", "--cache-dir", "elsewhere", "pull", "owner/name"])
    assert ran.exit_code == 2
    assert "options belong after" in ran.output


def test_a_table_is_pulled_by_its_name(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text('[[models]]\nname = "mine"\nsource = "owner/no-such-model"\n')
    ran = _models(tmp_path, "pull", "--offline", "--config", str(config), "mine")
    assert ran.returncode == 1
    assert "model 'owner/no-such-model' is not on disk" in ran.stderr
