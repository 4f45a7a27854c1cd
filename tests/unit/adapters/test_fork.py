"""Clients on both sides of a fork, in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.unit.adapters.every_client import WAIT_S, Sidecar, listening_beside

PROGRAM = """
import os, sys
from rerank_adapters import HttpRerankClient, RerankClient
from rerank_sidecar.in_process import InProcessRerankClient
from rerank_sidecar.settings import Settings

kind, where, used = sys.argv[1:]
if kind == "in process":
    client = InProcessRerankClient(Settings(model="lexical"))
else:
    client = {"grpc": RerankClient, "http": HttpRerankClient}[kind](where)
if used == "used":
    client.rerank("red", ["red"])
child = os.fork()
if child == 0:
    try:
        print("child", len(client.rerank("red", ["red"]).results), flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", len(client.rerank("red", ["red"]).results))
client.close()
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Sidecar]:
    with listening_beside() as sidecar:
        yield sidecar


def forked(sidecar: Sidecar, kind: str, used: str, **environment: str) -> list[str]:
    where = sidecar.target if kind == "grpc" else sidecar.url
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, where, used],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
        env={**os.environ, **environment},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("kind", "used"),
    [("grpc", "new"), ("http", "new"), ("http", "used"), ("in process", "new")],
)
def test_a_child_asks_like_its_parent(shared: Sidecar, kind: str, used: str) -> None:
    assert forked(shared, kind, used) == ["child 1", "parent 1"]


def test_grpc_follows_if_it_is_told_to(shared: Sidecar) -> None:
    both = forked(shared, "grpc", "used", GRPC_ENABLE_FORK_SUPPORT="1")
    assert both == ["child 1", "parent 1"]


@pytest.mark.parametrize("kind", ["grpc", "in process"])
def test_what_does_not_survive_a_fork_says_so(shared: Sidecar, kind: str) -> None:
    child, parent = forked(shared, kind, "used")
    assert "before the process forked" in child
    assert parent == "parent 1"
