"""docs/frameworks.md and the frameworks' examples tell the truth: their code is run."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest

from tests.contract.running import RunningSidecar, running_sidecar

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "frameworks.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def sidecar() -> Iterator[RunningSidecar]:
    with running_sidecar() as running:
        yield running


def run(*arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks(block: str, sidecar: RunningSidecar) -> None:
    target = f"localhost:{sidecar.grpc_port}"
    first, *_ = run("-c", block.replace("localhost:50051", target)).splitlines()
    assert first.startswith("an apple ") or first == target


@pytest.mark.parametrize("name", ["langchain", "llama_index", "haystack"])
def test_examples(name: str) -> None:
    printed = run("-m", f"examples.{name}")
    before, after = (float(value) for value in re.findall(r"P@1 (\d\.\d+)", printed))
    assert after > before + 0.3


def test_every_option_is_in_the_table() -> None:
    from rerank_adapters.haystack import SidecarRanker
    from rerank_adapters.langchain import Options as LangChainOptions
    from rerank_adapters.llama_index import Options as LlamaIndexOptions

    table = PAGE.split("## Options")[1].split("## When")[0]
    listed = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))))
    own = {"store_score_key", "metadata_mode", "callback_manager"}  # told of where they belong
    options = {*signature(SidecarRanker.__init__).parameters} - {"self"}
    for each in (LangChainOptions, LlamaIndexOptions):
        options |= each.__required_keys__ | each.__optional_keys__
    assert listed == options - own
