"""`bench` measures a real server through each door, draws, and says clearly what it cannot do."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rerank_sidecar.cli.commands import commands
from rerank_sidecar.load.own_server import OwnServer, own_server

SHORT = ("--duration", "1", "--warm-up", "0.2", "--documents", "2", "--words", "10")
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own_server("--log-level", "error") as running:
        yield running


def _bench(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["bench", *SHORT, *arguments])


@pytest.mark.parametrize("door", ["grpc", "http", "weaviate"])
def test_every_door_of_a_running_server(server: OwnServer, door: str, tmp_path: Path) -> None:
    target = server.grpc if door == "grpc" else server.http
    picture = tmp_path / "bench.png"
    loads = ["--concurrency", "1,3", "--plot", str(picture), "--json"]
    ran = _bench("--target", target, "--door", door, *loads)
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert (report["door"], report["documents"], report["target"]) == (door, 2, target)
    assert [load["callers"] for load in report["loads"]] == [1, 3]
    for load in report["loads"]:
        assert load["goodput_per_s"] > 0
        assert load["documents_per_s"] == 2 * load["answered_per_s"]
        assert 0 < load["latency_ms"]["p50"] <= load["latency_ms"]["max"]
        assert load["failures"] == []
    assert picture.read_bytes().startswith(PNG)


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """Answer once as Weaviate's container does, and refuse from then on."""
    calls = count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            documents = json.loads(self.rfile.read(int(self.headers["Content-Length"])))[
                "documents"
            ]
            scores = [{"document": text, "score": 0.0} for text in documents]
            first = next(calls) == 1
            body = json.dumps({"scores": scores} if first else {"error": "busy"}).encode()
            self.send_response(200 if first else 429)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_nothing_but_refusals_is_no_success(refusing_server: str) -> None:
    ran = _bench("--target", refusing_server, "--door", "weaviate", "--rate", "40")
    assert ran.exit_code == 1
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert rows[0][:5] == ["load", "offered/s", "answered/s", "goodput/s", "documents/s"]
    assert rows[1][0] == "40/s"
    assert rows[1][2:] == ["0.0", "0.0", "0", "-", "-", "-", "-", "-"]
    assert rows[4][:3] == ["40/s", "HTTP", "429"]
    assert rows[4][-1] == "refused"
    assert "no request was answered" in ran.stderr


def test_texts_of_a_file(server: OwnServer, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "an apple is red"}\n{"text": "the sky is blue"}\n')
    ran = _bench("--target", server.grpc, "--concurrency", "1", "--texts", str(file))
    assert ran.exit_code == 0, ran.output
    assert "2 texts of texts.jsonl" in ran.stdout


def test_its_own_server_is_gone_in_the_end() -> None:
    arguments = [*SHORT, "--model", "lexical", "--door", "weaviate", "--rate", "30", "--json"]
    command = [sys.executable, "-m", "rerank_sidecar", "bench", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(ran.stdout)
    assert report["loads"][0]["rate_per_s"] == 30
    assert report["loads"][0]["goodput_per_s"] > 0
    gone = _bench("--target", report["target"], "--door", "weaviate")
    assert gone.exit_code == 1
    assert "did not answer: NOT_REACHED" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--concurrency", "1,x"), "whole numbers above 0"),
        (("--concurrency", "0"), "whole numbers above 0"),
        (("--rate", "-1"), "numbers above 0"),
        (("--rate", "nan"), "numbers above 0"),
        (("--rate", "1e9"), "at most 100000"),
        (("--timeout", "inf"), "--timeout"),
        (("--rate", "1", "--concurrency", "1"), "not together"),
        (("--target", "http://localhost:1"), "--door http"),
        (("--target", "localhost", "--door", "weaviate", "--model", "m"), "names no model"),
        (("--texts", "/no/such/file"), "cannot read"),
        (("--duration", "0"), "--duration"),
        (("--door", "rest"), "--door"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], complaint: str) -> None:
    ran = _bench(*arguments)
    assert ran.exit_code == 2
    assert complaint in " ".join(ran.stderr.replace("│", " ").split())


def test_a_server_that_does_not_start() -> None:
    command = [sys.executable, "-m", "rerank_sidecar", "bench", *SHORT, "--model", "/no/such"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "the server ended before it was ready" in ran.stderr


def test_a_picture_that_cannot_be_written(server: OwnServer, tmp_path: Path) -> None:
    for name in ("none/bench.png", "bench.unknown"):
        file = str(tmp_path / name)
        ran = _bench("--target", server.grpc, "--concurrency", "1", "--plot", file)
        assert ran.exit_code == 2
        assert "cannot write" in ran.stderr


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("aiohttp", ("--door", "http")), ("matplotlib.figure", ("--plot", "bench.png"))],
)
def test_what_is_not_installed_is_named(
    module: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    ran = _bench("--target", "127.0.0.1:1", *arguments)
    assert ran.exit_code == 1
    assert "pip install 'rerank-sidecar[bench]'" in ran.stderr
