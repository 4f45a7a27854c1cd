"""Sidecars that real client libraries talk to, each a process of its own on the embedded model."""

from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec

import pytest

from tests.clients.running_door import KEY, RunningDoor
from tests.contract.running import running_sidecar

# Those clients that cannot be installed beside the sidecar are in an environment without it:
# `make test-clients` builds it and runs their tests.
collect_ignore = ["apart"] if find_spec("rerank_sidecar") else []


@pytest.fixture(scope="session")
def sidecar() -> Iterator[RunningDoor]:
    """Everybody may ask."""
    with running_sidecar() as running:
        yield RunningDoor.ask(running.http_port, running.grpc_port)


@pytest.fixture(scope="session")
def guarded() -> Iterator[RunningDoor]:
    """Only those with KEY may ask, or with one that nobody uses."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AUTHENTICATION_ALLOWED_TOKENS", f"{KEY}, nobody-uses-it")
            running = stack.enter_context(running_sidecar())
        yield RunningDoor.ask(running.http_port, running.grpc_port)
