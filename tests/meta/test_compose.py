"""The compose file is one that compose accepts."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="needs the Debian package docker-compose"
)
def test_compose_file_renders() -> None:
    rendered = subprocess.run(
        ["docker-compose", "config", "--services"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert rendered.returncode == 0, rendered.stderr
    assert set(rendered.stdout.split()) == {"rerank-sidecar", "weaviate"}
