"""A sidecar in a process of its own, for as long as it is measured."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException

from rerank_sidecar.errors import StartupError

_LOOK_AGAIN_S = 0.01
_STOP_S = 30.0
_NO_TOKENS = {
    "RERANK_SIDECAR_AUTH_TOKENS": "",
    "RERANK_SIDECAR_AUTH_TOKENS_FILE": "",
    "AUTHENTICATION_ALLOWED_TOKENS": "",
}
_FREE_PORTS = ("--host", "127.0.0.1", "--http-port", "0", "--grpc-port", "0")


@dataclass(frozen=True, slots=True)
class OwnServer:
    """Where a server of ours listens; `ready_s` is how long it took from nothing to ready."""

    http: str
    grpc: str
    process_id: int
    ready_s: float


@contextmanager
def own_server(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[OwnServer]:
    """Run `rerank-sidecar serve` on free ports until the end of the block; wait until it is ready.

    `environment` is put over that of this process, whose settings it therefore has, but for tokens:
    only this machine reaches it. What it logs goes to standard error.

    Raises:
        StartupError: it ended before it was ready; it has said why on standard error.
    """
    command = [sys.executable, "-m", "rerank_sidecar", "serve", *_FREE_PORTS, *arguments]
    settings = {**os.environ, **_NO_TOKENS, **(environment or {})}
    began = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, text=True, env=settings
    ) as process:
        try:
            http, grpc = (_address(process) for _ in range(2))
            _wait_until_ready(process, http)
            yield OwnServer(http, grpc, process.pid, time.perf_counter() - began)
        finally:
            _stop(process)


def _address(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise StartupError("the server did not start")
    return line.split()[-1]


def _wait_until_ready(process: subprocess.Popen[str], http: str) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{http}/.well-known/ready", timeout=5):  # noqa: S310
                return
        except (OSError, HTTPException):
            time.sleep(_LOOK_AGAIN_S)
    raise StartupError("the server ended before it was ready")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
