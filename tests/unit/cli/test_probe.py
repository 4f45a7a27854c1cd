"""`probe` finds the server of the same settings and tells by its exit code whether it is ready."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from socket import socket

import pytest
import trustme

from tests.contract.running import RunningSidecar, running_sidecar
from tests.unit.api.certificates import PemFiles, server_certificate


def _probe(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rerank_sidecar", "probe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningSidecar]:
    with running_sidecar("--model", "lexical", "--host", "0.0.0.0") as running:
        yield running


def test_a_ready_server(server: RunningSidecar) -> None:
    ran = _probe("--host", "0.0.0.0", "--http-port", str(server.http_port))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ready\n", "")


def test_nobody_there() -> None:
    with socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = str(deaf.getsockname()[1])
        ran = _probe("--http-port", port)
    assert ran.returncode == 1
    assert port in ran.stderr


@pytest.mark.parametrize("mutual", [False, True])
def test_a_server_with_certificates(tmp_path: Path, mutual: bool) -> None:
    authority = trustme.CA()
    files = PemFiles(tmp_path)
    files.write(server_certificate(authority))
    files.write_client_ca(authority)
    flags = [
        part
        for name, path in files.settings(mutual=mutual).items()
        for part in (f"--{name.replace('_', '-')}", str(path))
    ]
    free = ["--model", "lexical", "--http-port", "0", "--grpc-port", "0"]
    command = [sys.executable, "-m", "rerank_sidecar", "serve", *free, *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip().rpartition(":")[2]
            while (ran := _probe("--http-port", port, *flags)).returncode:
                assert server.poll() is None
                assert "not ready" in ran.stderr
            assert ran.stdout == "ready\n"
            assert _probe("--http-port", port).returncode == 1
        finally:
            server.terminate()
