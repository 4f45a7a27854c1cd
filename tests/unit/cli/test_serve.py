"""`serve` prints the addresses in use, answers, stops when told; what keeps it off is one line."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVE = [sys.executable, "-m", "rerank_sidecar", "serve", "--model", "lexical"]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_free_ports_are_printed_and_answer() -> None:
    ports = {"RERANK_SIDECAR_HTTP_PORT": "0"}
    with subprocess.Popen(
        [*SERVE, "--grpc-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | ports,
    ) as server:
        assert server.stdout is not None
        try:
            http, grpc = server.stdout.readline(), server.stdout.readline()
            assert re.fullmatch(r"gRPC +127\.0\.0\.1:[1-9]\d+\n", grpc)
            found = re.fullmatch(r"HTTP +(http://127\.0\.0\.1:[1-9]\d+)\n", http)
            assert found
            with urllib.request.urlopen(f"{found[1]}/.well-known/live") as answer:  # noqa: S310
                assert answer.status in {200, 204}
        finally:
            server.send_signal(signal.SIGTERM)
    assert server.returncode in {0, 128 + signal.SIGTERM}


def _complaint(*arguments: str) -> tuple[int, str]:
    free = ["--http-port", "0", "--grpc-port", "0", "--log-level", "error"]
    ran = subprocess.run(
        [*SERVE, *free, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    (line,) = ran.stderr.splitlines()
    assert line.startswith("rerank-sidecar: ")
    return ran.returncode, line


def test_a_taken_port_is_one_clear_line(taken_port: int) -> None:
    code, line = _complaint("--http-port", str(taken_port))
    assert code == 2
    assert f"port {taken_port}" in line


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--http-port", "70000"], 2, "http_port: "),
        (
            ["--max-batch-tokens", "1", "--max-batch-size", "2"],
            2,
            "max_batch_tokens must be at least max_batch_size",
        ),
        (["--model", "./no-such-folder"], 1, "no-such-folder does not exist"),
        (["--config", "no-such-file.toml"], 2, "config file no-such-file.toml does not exist"),
    ],
)
def test_what_keeps_it_from_starting_is_one_clear_line(
    arguments: list[str], code: int, complaint: str
) -> None:
    found, line = _complaint(*arguments)
    assert found == code
    assert complaint in line


def test_an_unreadable_config_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text("http_port = [")
    code, line = _complaint("--config", str(config))
    assert code == 2
    assert "cannot be read" in line
