"""Clients on both sides of a fork, in processes of their own."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.unit.adapters.every_client import WAIT_S, Sidecar, listening_beside
from tests.unit.adapters.test_http_client import answering, right

PROGRAM = """
import asyncio, os, sys
from rerank_adapters import AsyncHttpRerankClient, HttpRerankClient, RerankClient
from rerank_sidecar.in_process import InProcessRerankClient
from rerank_sidecar.settings import Settings

kind, where, used = sys.argv[1:]
if kind == "in process":
    client = InProcessRerankClient(Settings(model="lexical"))
else:
    kinds = {"grpc": RerankClient, "http": HttpRerankClient, "http async": AsyncHttpRerankClient}
    client = kinds[kind](where)

def run(made):
    return asyncio.run(made) if kind == "http async" else made

if used == "used":
    for _ in range(5):
        run(client.rerank("red", ["red"]))
child = os.fork()
if child == 0:
    try:
        print("child", len(run(client.rerank("red", ["red"])).results), flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    run(client.close())
    os._exit(0)
os.waitpid(child, 0)
print("parent", len(run(client.rerank("red", ["red"])).results))
run(client.close())
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
    [
        ("grpc", "new"),
        ("http", "new"),
        ("http", "used"),
        ("http async", "used"),
        ("in process", "new"),
    ],
)
def test_a_child_asks_like_its_parent(shared: Sidecar, kind: str, used: str) -> None:
    assert forked(shared, kind, used) == ["child 1", "parent 1"]


def test_a_child_that_closes_leaves_its_parents_call_alone() -> None:
    program = """
import os, sys, threading
from rerank_adapters import HttpRerankClient

client = HttpRerankClient(sys.argv[1], max_attempts=1)
call = threading.Thread(target=lambda: print(len(client.rerank("q", ["a"]).results)))
call.start()
sys.stdin.readline()  # the server has been asked
child = os.fork()
if child == 0:
    client.close()
    os._exit(0)
os.waitpid(child, 0)
print("closed", flush=True)
call.join()
client.close()
"""
    asked, closed = threading.Event(), threading.Event()

    def late(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.set()
        assert closed.wait(WAIT_S)
        right(handler)

    with (
        answering(late) as stub,
        subprocess.Popen(
            [sys.executable, "-c", program, stub.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as ran,
    ):
        assert ran.stdin is not None
        assert ran.stdout is not None
        assert asked.wait(WAIT_S)
        ran.stdin.write("\n")
        ran.stdin.flush()
        assert ran.stdout.readline() == "closed\n"
        closed.set()
        assert ran.stdout.read() == "1\n"


def test_grpc_follows_if_it_is_told_to(shared: Sidecar) -> None:
    both = forked(shared, "grpc", "used", GRPC_ENABLE_FORK_SUPPORT="1")
    assert both == ["child 1", "parent 1"]


@pytest.mark.parametrize("kind", ["grpc", "in process"])
def test_what_does_not_survive_a_fork_says_so(shared: Sidecar, kind: str) -> None:
    child, parent = forked(shared, kind, "used")
    assert "before the process forked" in child
    assert parent == "parent 1"
