"""The Dockerfile is one that hadolint has nothing against, and its install steps work."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_hadolint_is_content() -> None:
    linted = subprocess.run(
        [Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_what_is_copied_is_enough_to_install(tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "image"
    source.mkdir()
    for copied in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        *names, to = copied.split()
        target = source / to
        for name in names:
            subprocess.run(["cp", "-r", ROOT / name, target], check=True)
    built = build(source, image)
    assert built.returncode == 0, built.stderr
    asked = subprocess.run(
        [image / "bin" / "rerank-sidecar", "--version"], capture_output=True, text=True, check=True
    )
    assert asked.stdout.startswith("rerank-sidecar ")


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        ({}, {"server", "disk-cache", "remote"}),
        ({"ACCELERATOR": "cpu"}, {"server", "disk-cache", "remote"}),
        ({"ACCELERATOR": "cuda"}, {"server", "disk-cache", "remote", "torch"}),
        ({"ACCELERATOR": "cuda", "EXTRAS": "server"}, {"server", "torch"}),
        ({"EXTRAS": "server,convert"}, {"server", "convert"}),
    ],
)
def test_build_arguments_choose_the_extras(
    tmp_path: Path, arguments: dict[str, str], extras: set[str]
) -> None:
    built = build(tmp_path, told(tmp_path), **arguments)
    assert built.returncode == 0, built.stderr
    python, pip = built.stdout.splitlines()
    assert python == f"-m venv {tmp_path}"
    asked = re.fullmatch(r"install --no-cache-dir \.\[(.+)\]", pip)
    assert asked
    assert set(asked[1].split(",")) == extras
    assert extras <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("accelerator", ["rocm", "CUDA", ""])
def test_another_accelerator_is_refused_in_one_sentence(tmp_path: Path, accelerator: str) -> None:
    built = build(tmp_path, told(tmp_path), ACCELERATOR=accelerator)
    assert built.returncode == 1
    assert built.stdout == ""
    assert built.stderr == f"ACCELERATOR must be cpu or cuda, not '{accelerator}'.\n"


def build(source: Path, image: Path, **arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the first RUN line of the Dockerfile as a build does, with `image` for its folder.

    `arguments` are build arguments. Programs that are in `image` come before all others. Unlike a
    build, it makes no bytecode: most of what is installed is never imported here.
    """
    first = re.search(r"^RUN ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    assert first
    defaults = dict(re.findall(r"^ARG (\w+)=(.+)$", DOCKERFILE, re.MULTILINE))
    assert arguments.keys() <= defaults.keys()
    path = f"{image / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", first[1].replace("/opt/rerank-sidecar", str(image))],
        cwd=source,
        env={**os.environ, **defaults, **arguments, "PATH": path, "PIP_COMPILE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def told(image: Path) -> Path:
    """A folder whose python and pip print what they are told to do."""
    (image / "bin").mkdir()
    for name in ("python", "pip"):
        program = image / "bin" / name
        program.write_text('#!/bin/sh\necho "$@"\n')
        program.chmod(0o755)
    return image


@pytest.mark.parametrize("line", ["USER 10001", 'CMD ["serve"]'])
def test_it_serves_as_nobody_special(line: str) -> None:
    assert line in DOCKERFILE.splitlines()
