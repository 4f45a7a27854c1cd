"""The README tells the truth: its code blocks are run, its table of extras is the package's.

The first two commands install and start, and install and test: `.ci/run` runs those.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.running import RunningSidecar, running_sidecar

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def sidecar() -> Iterator[RunningSidecar]:
    with running_sidecar() as running:
        yield running


def here(block: str, sidecar: RunningSidecar) -> str:
    """The block as it must read where ports and virtualenv are others."""
    block = block.replace("127.0.0.1:8080", f"127.0.0.1:{sidecar.http_port}")
    block = block.replace("localhost:50051", f"127.0.0.1:{sidecar.grpc_port}")
    return block.replace(".venv/bin/", f"{Path(sys.executable).parent}/")


def run(*command: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_first_two_commands_set_everything_up() -> None:
    start, tests = blocks("sh")[:2]
    assert start.startswith("python3 -m venv .venv && ")
    assert start.endswith("'.[server]' && .venv/bin/rerank-sidecar serve\n")
    assert "-c tests/constraints.txt" in tests
    assert "/pytest -n 2 " in tests
    assert start.count("\n") == tests.count("\n") == 1


@pytest.mark.parametrize("block", blocks("sh")[2:])
def test_shell_blocks(block: str, sidecar: RunningSidecar) -> None:
    assert "apple" in run("bash", "-euo", "pipefail", "-c", here(block, sidecar))


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks(block: str, sidecar: RunningSidecar) -> None:
    printed = run(sys.executable, "-W", "error", "-c", here(block, sidecar))
    assert printed.startswith("1 ")


def test_the_weaviate_snippet_says_what_the_compose_file_says() -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    [snippet] = blocks("yaml")
    told = [line.strip() for line in snippet.splitlines() if ": " in line]
    assert len(told) == 4
    assert all(line in compose for line in told)


def test_every_extra_is_in_the_table() -> None:
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", README.split("| extra |")[1], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert named == set(PROJECT["optional-dependencies"])


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (page, target)
