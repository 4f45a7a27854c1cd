"""What docs/client.md shows runs as it stands, and what it says of the defaults is so."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rerank_adapters
from rerank_adapters.transport.channel import Reach
from rerank_adapters.transport.policy import Policy
from rerank_sidecar.settings import Settings
from tests.contract.running import RunningSidecar, running_sidecar
from tests.unit.adapters.every_client import Sidecar, listening_beside
from tests.unit.adapters.toy_vectors import ToyMaxSim

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

PRINTED = (
    "1 a\n",
    "1\n0\n",
    "2\ncherry\n",
    "not reranked: UNAVAILABLE\n[0, 1] 1\n",
    "1\n",
    "0 True\n1 True\n2 True\n1\n",
    "1\n",
    "1\n",
)


@pytest.fixture(scope="module")
def sidecar() -> Iterator[RunningSidecar]:
    with running_sidecar(model="lexical") as running:
        yield running


@pytest.fixture(scope="module")
def reads_vectors() -> Iterator[Sidecar]:
    with listening_beside(reranker=ToyMaxSim()) as running:
        yield running


@pytest.mark.parametrize(("block", "printed"), [*zip(BLOCKS, PRINTED, strict=True)])
def test_python_blocks(
    block: str, printed: str, sidecar: RunningSidecar, reads_vectors: Sidecar
) -> None:
    here = block.replace(":50051", f":{sidecar.grpc_port}").replace(
        ":8080", f":{sidecar.http_port}"
    )
    here = here.replace("localhost:50052", reads_vectors.target)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", here],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert sorted(ran.stdout.splitlines()) == sorted(printed.splitlines())


def test_names_and_defaults_are_those_of_the_code() -> None:
    names = set(
        re.findall(r"`((?:Async)?(?:Http)?RerankClient|[A-Z]\w+(?:Error|Fault|Ended))`", PAGE)
    )
    assert names <= set(rerank_adapters.__all__)
    policy, options = (
        Policy(),
        dict(
            Reach.of(
                "a:1", token=None, tls=None, server_name=None, max_attempts=4, channel_options=()
            ).options
        ),
    )
    assert f"`timeout_s` of the\nclient ({policy.timeout_s:g} s)".replace(
        "\n", " "
    ) in PAGE.replace("\n", " ")
    assert f"`max_attempts` ({policy.max_attempts})" in PAGE
    assert f"documents ({policy.max_documents_per_call:,}, the server's own" in PAGE
    assert policy.max_documents_per_call == Settings.model_fields["max_documents"].default
    assert f"pinged every {int(options['grpc.keepalive_time_ms']) // 1000} s" in PAGE
    assert options["grpc.max_reconnect_backoff_ms"] == 1000
    assert "looked for every second" in PAGE
