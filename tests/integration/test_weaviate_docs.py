"""What people copy: the page's Python, block after block, and the example."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import Running as Sidecar
from tests.integration.weaviate_servers import running
from tests.integration.weaviate_stand_in import Running

__all__ = ["running"]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "weaviate.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def python(*arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_page(running: Running, sidecar: Sidecar) -> None:
    """One after the other: the later ones search what the first one inserts."""
    here = {
        "port=8090, grpc_port=50061": (
            f"port={running.http_port}, grpc_port={running.grpc_port}, skip_init_checks=True"
        ),
        "http://rerank-sidecar:8080": f"http://127.0.0.1:{sidecar.http_port}",
        "http://localhost:8080": f"http://127.0.0.1:{sidecar.http_port}",
        "localhost:50051": f"127.0.0.1:{sidecar.grpc_port}",
    }
    printed = []
    for block in BLOCKS:
        for there, where in here.items():
            block = block.replace(there, where)  # noqa: PLW2901
        printed.append(python("-c", block))
    first, doors, oversampled, by_sidecar = printed
    assert "Cherries" in first.splitlines()[0]
    assert len(first.splitlines()) == 3
    assert doors == ""
    assert oversampled.splitlines()[0].endswith("Cherry")
    assert by_sidecar.startswith("Cherry embedded\n[")


def test_the_example() -> None:
    question, before, rough, after, better = python("-m", "examples.weaviate").splitlines()
    assert question.startswith("how do I stop my bread")
    assert "phone" in before
    assert "Bread" in after
    assert float(rough.removeprefix("before: P@1 ")) < 0.5
    assert float(better.removeprefix("after: P@1 ")) > 0.8


@pytest.mark.parametrize("door", ["transformers", "cohere", "nvidia"])
def test_the_page_has_every_door(door: str) -> None:
    assert f"| `{door}` |" in PAGE
