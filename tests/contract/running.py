"""A sidecar in a process of its own, started by its command as users start it."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

COMMAND = Path(os.environ.get("SIDECAR_COMMAND", Path(sys.executable).parent / "rerank-sidecar"))
"""The sidecar of this environment; tests of clients that have one of their own name another's."""


@dataclass(frozen=True)
class RunningSidecar:
    """Where a running sidecar listens, and its process."""

    http_port: int
    grpc_port: int
    process: "subprocess.Popen[str]"


@contextmanager
def running_sidecar(*arguments: str, **settings: str) -> Iterator[RunningSidecar]:
    """Start `rerank-sidecar serve` on free ports, wait until it is ready, and stop it.

    `settings` go into its environment.
    """
    command = [str(COMMAND), "serve", "--http-port", "0", "--grpc-port", "0", *arguments]
    given = {f"RERANK_SIDECAR_{name.upper()}": value for name, value in settings.items()}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **given}
    ) as process:
        try:
            http_port, grpc_port = (_port(process) for _ in range(2))
            _wait_until_ready(process, http_port)
            yield RunningSidecar(http_port, grpc_port, process)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _port(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r":(\d+)$", line.strip())
    assert found, f"no address in {line!r}"
    return int(found[1])


def _wait_until_ready(process: "subprocess.Popen[str]", port: int) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/.well-known/ready", timeout=5):
                return
        except URLError:
            time.sleep(0.02)
    raise AssertionError(f"the sidecar ended with {process.returncode}")
