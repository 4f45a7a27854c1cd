"""What only the clients over HTTP have: connections that are kept, proxies, paths, forms."""

import asyncio
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from rerank_adapters import (
    AsyncHttpRerankClient,
    BodyTooLarge,
    Cancelled,
    DeadlineExceeded,
    HttpRerankClient,
    Overloaded,
    RerankCallError,
    RerankOptions,
    ServerFault,
    Unreachable,
)
from rerank_adapters.transport.json_wire import read_models, write_request
from rerank_adapters.transport.wire import parse_models
from rerank_sidecar.api.dialects.native import render_models
from rerank_sidecar.api.grpc_messages import write_models
from rerank_sidecar.api.http_answer import json_response
from rerank_sidecar.types import ModelDescription, ModelReference
from tests.unit.adapters.every_client import WAIT_S, failure, in_thread, listening

ANSWER = {
    "results": [{"index": 0, "score": {"value": 1.0, "truncated": False, "window_count": 1}}],
    "summary": {
        "model": {"name": "m", "version": "1"},
        "score_kind": "MAXSIM",
        "normalization": "none",
        "query_truncated": False,
        "usage": {"tokens": 1, "pairs": 1, "cache_hits": 0, "and": "more"},
        "timing": {"queue_us": 0, "tokenise_us": 0, "infer_us": 0, "total_us": 0},
    },
}


@dataclass
class Stub:
    """An HTTP server that answers as it is told, and what it was asked over how many sockets."""

    answer: Callable[[http.server.BaseHTTPRequestHandler], None]
    connections: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[Stub]:
    stub = Stub(answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            stub.connections += 1

        def do_POST(self) -> None:
            stub.headers.append(dict(self.headers))
            stub.paths.append(self.path)
            stub.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()


def read(handler: http.server.BaseHTTPRequestHandler) -> bytes:
    return handler.rfile.read(int(handler.headers["Content-Length"]))


def say(
    handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str
) -> None:
    read(handler)
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def right(handler: http.server.BaseHTTPRequestHandler) -> None:
    say(handler, json.dumps(ANSWER).encode())


def test_connections_are_kept() -> None:
    with answering(right) as stub, HttpRerankClient(stub.url) as client:
        for _ in range(5):
            assert client.rerank("q", ["a"]).results[0].score == 1.0
    assert (len(stub.paths), stub.connections) == (5, 1)


def test_threads_share_a_client() -> None:
    with answering(right) as stub, HttpRerankClient(stub.url) as client:
        calls = [threading.Thread(target=client.rerank, args=("q", ["a"])) for _ in range(20)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    assert len(stub.paths) == 20


def test_a_connection_that_the_server_has_closed_is_replaced() -> None:
    def once(handler: http.server.BaseHTTPRequestHandler) -> None:
        right(handler)
        handler.close_connection = True  # without a word in the headers

    with answering(once) as stub, HttpRerankClient(stub.url, max_attempts=1) as client:
        for _ in range(5):
            assert client.rerank("q", ["a"]).results
    assert stub.connections == 5


def test_a_servers_wish_to_close_is_heard() -> None:
    def closing(handler: http.server.BaseHTTPRequestHandler) -> None:
        say(handler, json.dumps(ANSWER).encode(), Connection="close")

    with answering(closing) as stub, HttpRerankClient(stub.url, max_attempts=1) as client:
        for _ in range(3):
            assert client.rerank("q", ["a"]).results
    assert stub.connections == 3


def test_an_answer_may_come_in_chunks() -> None:
    def chunked(handler: http.server.BaseHTTPRequestHandler) -> None:
        read(handler)
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        body = json.dumps(ANSWER).encode()
        for piece in (body[:7], body[7:]):
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    with answering(chunked) as stub, HttpRerankClient(stub.url) as client:
        for _ in range(2):
            assert client.rerank("q", ["a"]).results
    assert stub.connections == 1


def test_what_goes_with_a_call() -> None:
    with (
        answering(right) as stub,
        HttpRerankClient(f"{stub.url}/behind/", 5.0, token="t") as client,  # noqa: S106
    ):
        client.rerank("q", ["a"])
    assert stub.paths == ["/behind/api/v1/rerank"]
    (headers,) = stub.headers
    assert headers["authorization"] == "Bearer t"
    assert headers["content-type"] == "application/json"
    assert 0 < int(headers["x-request-timeout-ms"]) <= 5000


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"<html>login</html>", 200, ServerFault),
        (b"{}", 200, ServerFault),
        (b'{"results": [{}], "summary": {}}', 200, ServerFault),
        (json.dumps({**ANSWER, "results": [1]}).encode(), 200, ServerFault),
        (b"null", 200, ServerFault),
        (b"<html>", 413, BodyTooLarge),
        (b"<html>", 502, Unreachable),
    ],
)
def test_what_is_no_answer_is_an_error(
    body: bytes, status: int, kind: type[RerankCallError]
) -> None:
    with (
        answering(lambda handler: say(handler, body, status)) as stub,
        HttpRerankClient(stub.url, max_attempts=1) as client,
        pytest.raises(kind),
    ):
        client.rerank("q", ["a"])


def test_a_proxys_hint_is_heard() -> None:
    with (
        answering(lambda handler: say(handler, b"slow down", 429, Retry_After="60")) as stub,
        HttpRerankClient(stub.url) as client,
        pytest.raises(Overloaded) as caught,
    ):
        client.rerank("q", ["a"])
    assert caught.value.retry_after_s == 60.0
    assert len(stub.paths) == 1


def test_an_answer_that_stops_short_is_an_error() -> None:
    def short(handler: http.server.BaseHTTPRequestHandler) -> None:
        read(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"{")
        handler.close_connection = True

    with (
        answering(short) as stub,
        HttpRerankClient(stub.url, max_attempts=2) as client,
        pytest.raises(Unreachable),
    ):
        client.rerank("q", ["a"])
    assert len(stub.paths) == 2


async def test_a_call_that_waits_for_a_thread_ends_at_its_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncHttpRerankClient(url, WAIT_S) as client:
            calls = [asyncio.create_task(client.rerank("q", ["a"])) for _ in range(64)]
            await asyncio.sleep(0)
            with pytest.raises(DeadlineExceeded):
                await client.rerank("q", ["a"], timeout_s=0.2)
            assert not any(call.done() for call in calls)
        assert {type(await failure(call)) for call in calls} == {Cancelled}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_call_that_gets_no_answer_ends_when_the_client_is_closed(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = HttpRerankClient(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", WAIT_S)
        ended: list[RerankCallError] = []

        def call() -> None:
            with pytest.raises(Cancelled) as caught:
                client.rerank("q", ["a"])
            ended.append(caught.value)

        thread = threading.Thread(target=call)
        thread.start()
        with silent.accept()[0] as connection:
            assert connection.recv(1)  # it has asked, or greeted as TLS does
            client.close()
            thread.join(WAIT_S / 2)
    assert ended


def test_a_time_that_no_clock_can_carry_is_cut() -> None:
    with answering(right) as stub, HttpRerankClient(stub.url, 1e300) as client:
        assert client.rerank("q", ["a"], timeout_s=1e12).results
    assert int(stub.headers[0]["x-request-timeout-ms"]) <= 1_000_000_000


def test_an_answer_that_does_not_end_is_cut_at_the_deadline() -> None:
    ended = threading.Event()

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        read(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000000")
        handler.end_headers()
        while not ended.wait(0.01):
            handler.wfile.write(b" ")

    with answering(endless) as stub, HttpRerankClient(stub.url) as client:
        try:
            with pytest.raises(DeadlineExceeded):
                client.rerank("q", ["a"], timeout_s=0.3)
        finally:
            ended.set()


async def test_a_refusal_of_a_body_that_was_not_read_is_told() -> None:
    async with listening(max_body_bytes=1000, max_documents=10) as sidecar:
        with HttpRerankClient(sidecar.url, max_attempts=1) as client:
            with pytest.raises(BodyTooLarge):
                await in_thread(client.rerank, "q", ["a" * 20_000_000])
            assert (await in_thread(client.rerank, "q", ["a" * 300] * 20)).results


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://a",
        "http://",
        "http://a:b@c",
        "http://a?b",
        "http://a#b",
        "http://a:b",
    ],
)
@pytest.mark.parametrize("client", [HttpRerankClient, AsyncHttpRerankClient])
def test_urls_that_cannot_be_used_are_explained(
    client: type[HttpRerankClient] | type[AsyncHttpRerankClient], url: str
) -> None:
    with pytest.raises(ValueError, match=r"^url: "):
        client(url)


def test_a_certificate_is_for_https() -> None:
    with pytest.raises(ValueError, match=r"^tls: "):
        HttpRerankClient("http://localhost", tls=ssl.create_default_context())


def test_an_ipv6_address_may_be_a_host() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
    with (
        HttpRerankClient(f"http://[::1]:{port}", max_attempts=1) as client,
        pytest.raises(Unreachable),
    ):
        client.rerank("q", ["a"])


def test_options_are_written_as_the_server_reads_them() -> None:
    options: RerankOptions = {
        "model": "m",
        "top_n": 0,
        "max_tokens_per_document": 5,
        "truncation_side": "left",
        "long_document_policy": "reject",
        "normalization": "logit",
        "score_threshold": 0.5,
        "priority": -1,
    }
    written: dict[str, Any] = json.loads(write_request("q", ["a"], options))
    assert written["options"] == {
        "model": "m",
        "top_n": 0,
        "return_documents": False,
        "score_threshold": 0.5,
        "truncation": {"max_tokens_per_document": 5, "side": "TRUNCATION_SIDE_LEFT"},
        "long_document_policy": "LONG_DOCUMENT_POLICY_REJECT",
        "priority": -1,
        "normalization": "NORMALIZATION_LOGIT",
    }


def test_a_model_that_is_not_loaded_reads_the_same_over_both_doors() -> None:
    unknown = ModelDescription(
        ModelReference("lazy", ""), "", None, None, False, None, "", "", False, ("a*",), False
    )
    body = json_response(200, render_models([unknown])).body
    assert read_models(bytes(body)) == parse_models(write_models([unknown]))
