"""The Dockerfile is one that hadolint has nothing against, and its install steps work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


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
    found = re.search(r"^RUN (python -m venv (?:.|\\\n)+?)\n\n", DOCKERFILE, re.MULTILINE)
    assert found
    steps = found[1].replace("/opt/rerank-sidecar", str(image)).replace("${EXTRAS}", _extras())
    subprocess.run(["sh", "-euc", steps], cwd=source, check=True, capture_output=True)
    asked = subprocess.run(
        [image / "bin" / "rerank-sidecar", "--version"], capture_output=True, text=True, check=True
    )
    assert asked.stdout.startswith("rerank-sidecar ")


def _extras() -> str:
    found = re.search(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.MULTILINE)
    assert found
    return found[1]


@pytest.mark.parametrize("line", ["USER 10001", 'CMD ["serve"]'])
def test_it_serves_as_nobody_special(line: str) -> None:
    assert line in DOCKERFILE.splitlines()
