"""`probe` finds the server of the same settings and tells by its exit code whether it is ready."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from socket import create_server

import pytest
import trustme

from tests.contract.running import RunningSidecar, running_sidecar
from tests.unit.api.certificates import PemFiles, server_certificate

SERVE = [sys.executable, "-m", "rerank_sidecar", "serve", "--model", "lexical"]


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


def _free_port() -> str:
    with create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])


def test_nobody_there() -> None:
    port = _free_port()
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
    port = _free_port()
    command = [*SERVE, "--http-port", port, "--grpc-port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            while (ran := _probe("--http-port", port, *flags)).returncode:
                assert server.poll() is None
                assert "not ready" in ran.stderr or "nothing answers" in ran.stderr
            assert ran.stdout == "ready\n"
            assert _probe("--http-port", port).returncode == 1
        finally:
            server.terminate()
