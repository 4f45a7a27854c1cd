"""`serve` with tokens and certificates: three listeners of one process, each with its own rules."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest
import trustme

from rerank_adapters import RerankCallError, RerankClient
from tests.unit.api.certificates import PemFiles, grpc_trusting, server_certificate, trusting

TOKEN = "a-token-of-the-test"  # noqa: S105
SERVE = [sys.executable, "-m", "rerank_sidecar", "serve", "--model", "lexical"]
FREE_PORTS = ["--http-port", "0", "--grpc-port", "0", "--weaviate-port", "0"]


@contextmanager
def serving(log: Path, files: PemFiles) -> Iterator[list[str]]:
    """Run the server until the end of the block; gives the addresses that it prints."""
    tls = ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [*SERVE, *FREE_PORTS, *tls, "--log-level", "debug"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"AUTHENTICATION_ALLOWED_TOKENS": f"other,{TOKEN}"},
        ) as server,
    ):
        assert server.stdout is not None
        try:
            yield [server.stdout.readline().strip() for _ in range(3)]
        finally:
            server.send_signal(signal.SIGTERM)


def rerank(url: str, context: ssl.SSLContext | None, token: str | None = None) -> int:
    """Wait until the server is ready and ask it."""
    body = json.dumps({"query": "red", "documents": ["red", "blue"]}).encode()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    while True:
        request = urllib.request.Request(f"{url}/rerank", body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, context=context) as answer:  # noqa: S310
                return int(answer.status)
        except HTTPError as error:
            with error:
                if error.code != 503:
                    return error.code


def test_each_listener_has_its_own_rules(tmp_path: Path) -> None:
    authority, files, log = trustme.CA(), PemFiles(tmp_path), tmp_path / "log"
    files.write(server_certificate(authority))
    with serving(log, files) as lines:
        shapes = (
            r"HTTP +(https://127\.0\.0\.1:[1-9]\d+)",
            r"gRPC +(127\.0\.0\.1:[1-9]\d+)",
            r"Weaviate +(http://127\.0\.0\.1:[1-9]\d+)",
        )
        found = [re.fullmatch(*pair) for pair in zip(shapes, lines, strict=True)]
        public, grpc_target, weaviate = (each[1] for each in found if each)
        assert rerank(weaviate, None) == 200
        assert rerank(public, trusting(authority), TOKEN) == 200
        assert rerank(public, trusting(authority)) == 401
        with RerankClient(grpc_target, token=TOKEN, tls=grpc_trusting(authority)) as client:
            assert client.rerank("red", ["red"]).model == "lexical"
        with (
            RerankClient(grpc_target, tls=grpc_trusting(authority)) as client,
            pytest.raises(RerankCallError, match="UNAUTHENTICATED"),
        ):
            client.models()
    said = log.read_text("utf-8")
    assert "asked of callers: tokens" in said
    assert TOKEN not in said


def test_help_does_not_show_a_token() -> None:
    shown = subprocess.run(
        [*SERVE, "--help"],
        env=os.environ | {"RERANK_SIDECAR_AUTH_TOKENS": TOKEN},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "auth-tokens-file" in shown.stdout
    assert TOKEN not in shown.stdout + shown.stderr
    assert "--auth-tokens " not in shown.stdout  # other users of the machine see command lines


@pytest.mark.parametrize("flag", ["--auth-tokens-file", "--tls-certificate", "--tls-key"])
def test_a_missing_file_is_one_clear_line(flag: str) -> None:
    ran = subprocess.run(
        [*SERVE, *FREE_PORTS, flag, "no-such-file", "--log-level", "error"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    (line,) = ran.stderr.splitlines()
    assert ran.returncode == 2
    assert flag.removeprefix("--").replace("-", "_") in line
