"""The HTTP server on a real socket: connections that stay, break, send too much, or must end."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import pytest

from rerank_sidecar.api.http_protocol import PatientProtocol
from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.telemetry.metrics import REQUESTS
from tests.unit.api.toy_engine import WAITS, Toy, engine_with, unready_engine

ANY_PORT: Mapping[str, object] = {"http_port": 0}


@dataclass
class Connection:
    """One connection on which requests are written byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, head: str, body: bytes = b"") -> None:
        self.writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def post(self, body: object) -> None:
        content = json.dumps(body).encode()
        await self.send(f"POST /rerank HTTP/1.1\nHost: x\nContent-Length: {len(content)}", content)

    async def answer(self) -> tuple[int, Any]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), json.loads(body) if body else None

    async def ask(self, *documents: str) -> tuple[int, Any]:
        await self.post({"query": "q", "documents": documents, "property": ""})
        return await self.answer()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def connected(engine: Engine) -> AsyncIterator[tuple[HttpServer, Connection]]:
    server = HttpServer(engine, engine.settings)
    connection = await Connection.to(await server.start())
    try:
        yield server, connection
    finally:
        await connection.close()
        await server.stop(0)


async def test_a_request_without_headers_on_a_kept_connection() -> None:
    async with connected(engine_with(Toy(), **ANY_PORT)) as (_, connection):
        for _ in range(3):
            status, answer = await connection.ask("0.5")
            assert (status, answer["scores"][0]["score"]) == (200, 0.5)


async def test_live_at_once_and_ready_with_the_model() -> None:
    engine, toy = unready_engine(**ANY_PORT), Toy()
    async with connected(engine) as (_, connection):
        for path, status in (("live", 204), ("ready", 503)):
            await connection.send(f"GET /.well-known/{path} HTTP/1.1\nHost: x")
            assert (await connection.answer())[0] == status
        engine.open(Registry([toy], any_script=toy))
        await connection.send("GET /.well-known/ready HTTP/1.1\nHost: x")
        assert (await connection.answer())[0] == 204


async def test_an_idle_connection_is_closed_after_the_keep_alive_time() -> None:
    engine = engine_with(Toy(), keep_alive_timeout_s=1, **ANY_PORT)
    async with connected(engine) as (_, connection):
        assert (await connection.ask("1"))[0] == 200
        assert await connection.reader.read() == b""


async def test_the_body_of_an_answer_does_not_wait_for_its_headers_to_arrive() -> None:
    """With Nagle's algorithm, every answer on a kept connection took 40 ms longer."""
    async with connected(engine_with(Toy(), **ANY_PORT)) as (server, connection):
        assert (await connection.ask("1"))[0] == 200
        (protocol,) = server._server.server_state.connections
        assert isinstance(protocol, PatientProtocol)
        accepted = protocol.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_caller_who_goes_away_takes_its_work_along() -> None:
    toy = Toy()
    async with connected(engine_with(toy, **ANY_PORT)) as (_, connection):
        await connection.post({"query": "q", "documents": [WAITS]})
        await toy.waiting.wait()
        await connection.close()
        await asyncio.wait_for(toy.abandoned.wait(), 10)


async def test_a_caller_who_goes_away_in_the_middle_of_its_body() -> None:
    counted = REQUESTS.labels(door="weaviate", outcome="CANCELLED")
    before = counted._value.get()
    async with connected(engine_with(Toy(), **ANY_PORT)) as (server, connection):
        await connection.send("POST /rerank HTTP/1.1\nHost: x\nContent-Length: 99", b'{"query"')
        await connection.close()
        await server.stop(10)
    assert counted._value.get() == before + 1


async def test_a_body_that_never_ends_is_given_up_at_the_deadline() -> None:
    async with connected(engine_with(Toy(), request_timeout_s=0.05, **ANY_PORT)) as (_, connection):
        await connection.send("POST /rerank HTTP/1.1\nHost: x\nContent-Length: 99", b'{"query"')
        status, answer = await connection.answer()
        assert (status, isinstance(answer["error"], str)) == (504, True)


async def test_the_deadline_is_told() -> None:
    async with connected(engine_with(Toy(), request_timeout_s=0.05, **ANY_PORT)) as (_, connection):
        status, answer = await connection.ask(WAITS)
        assert (status, "deadline" in answer["error"]) == (504, True)


@pytest.mark.parametrize("chunked", [False, True])
async def test_after_413_the_rest_of_the_body_is_thrown_away(chunked: bool) -> None:
    body = b"x" * 1_000_000
    length = f"Content-Length: {len(body)}"
    if chunked:
        length, body = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with connected(engine_with(Toy(), max_body_bytes=1000, **ANY_PORT)) as (_, connection):
        await connection.send(f"POST /rerank HTTP/1.1\nHost: x\n{length}", body)
        status, answer = await connection.answer()
        assert (status, isinstance(answer["error"], str)) == (413, True)
        assert (await connection.ask("1"))[0] == 200


async def test_who_asks_before_sending_too_much_is_told_not_to() -> None:
    async with connected(engine_with(Toy(), max_body_bytes=1000, **ANY_PORT)) as (_, connection):
        head = "POST /rerank HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 2000"
        await connection.send(head)
        assert (await connection.answer())[0] == 413


async def test_requests_sent_at_once_are_answered_in_order() -> None:
    async with connected(engine_with(Toy(), **ANY_PORT)) as (_, connection):
        for number in range(5):
            await connection.post({"query": "q", "documents": [str(number)]})
        answers = [await connection.answer() for _ in range(5)]
        assert [answer["scores"][0]["score"] for _, answer in answers] == [0, 1, 2, 3, 4]


async def test_what_is_not_http_is_told_so_in_json() -> None:
    async with connected(engine_with(Toy(), **ANY_PORT)) as (_, connection):
        await connection.send("hello")
        status, answer = await connection.answer()
        assert (status, isinstance(answer["error"], str)) == (400, True)


@pytest.mark.parametrize("begin", ["GET /", "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\n"])
async def test_a_head_without_an_end_is_refused(begin: str) -> None:
    async with connected(engine_with(Toy(), **ANY_PORT)) as (_, connection):
        connection.writer.write(begin.encode())
        await connection.writer.drain()
        answering = asyncio.create_task(connection.answer())
        piece = b"x: 456789012345\r\n" * 256 if begin.endswith("\n") else b"a" * 4096
        for _ in range(1000):
            if answering.done() or connection.writer.is_closing():
                break
            connection.writer.write(piece)
            await asyncio.sleep(0.001)
        assert await answering == (431, {"error": "the headers are too large"})


async def test_a_head_that_ends_in_one_piece_with_a_large_body_is_read() -> None:
    body = json.dumps({"query": "q", "documents": ["0.5"], "more": "a" * 150_000}).encode()
    head = f"POST /weaviate/rerank HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with connected(engine_with(Toy(), **ANY_PORT)) as (_, connection):
        connection.writer.write(head[:20])
        await asyncio.sleep(0.05)  # so that the rest comes in another piece
        connection.writer.write(head[20:] + body)
        status, answer = await connection.answer()
        assert (status, answer["scores"][0]["score"]) == (200, 0.5)


async def test_stop_lets_running_calls_finish() -> None:
    toy = Toy()
    async with connected(engine_with(toy, **ANY_PORT)) as (server, connection):
        answering = asyncio.create_task(connection.ask(WAITS))
        await toy.waiting.wait()
        stopping = asyncio.create_task(server.stop(30))
        toy.released.set()
        assert (await answering)[0] == 200
        await stopping


async def test_stop_ends_what_does_not_finish_and_says_so() -> None:
    toy = Toy()
    async with connected(engine_with(toy, **ANY_PORT)) as (server, connection):
        answering = asyncio.create_task(connection.ask(WAITS))
        await toy.waiting.wait()
        await server.stop(0)
        status, answer = await answering
        assert (status, "shutting down" in answer["error"]) == (503, True)
        assert toy.abandoned.is_set()


async def test_stop_closes_idle_connections_and_the_port() -> None:
    engine = engine_with(Toy(), **ANY_PORT)
    server = HttpServer(engine, engine.settings)
    port = await server.start()
    connection = await Connection.to(port)
    assert (await connection.ask("1"))[0] == 200
    await server.stop(10)
    assert await connection.reader.read() == b""
    await connection.close()
    with pytest.raises(ConnectionRefusedError):
        await Connection.to(port)


async def test_a_server_that_never_started_stops() -> None:
    engine = engine_with(Toy(), **ANY_PORT)
    await HttpServer(engine, engine.settings).stop(10)


async def test_a_port_that_is_taken_is_a_wrong_setting() -> None:
    first = engine_with(Toy(), **ANY_PORT)
    server = HttpServer(first, first.settings)
    port = await server.start()
    second = engine_with(Toy(), http_port=port)
    with pytest.raises(InvalidSetting, match=str(port)):
        await HttpServer(second, second.settings).start()
    await server.stop(0)


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
async def test_any_address_can_be_listened_on(host: str) -> None:
    engine = engine_with(Toy(), host=host, **ANY_PORT)
    server = HttpServer(engine, engine.settings)
    reader, writer = await asyncio.open_connection(host, await server.start())
    connection = Connection(reader, writer)
    assert (await connection.ask("1"))[0] == 200
    await connection.close()
    await server.stop(0)


async def test_signals_are_left_alone() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    async with connected(engine_with(Toy(), **ANY_PORT)) as (_, connection):
        assert (await connection.ask("1"))[0] == 200
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


async def test_texts_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with connected(engine_with(Toy(), **ANY_PORT)) as (_, connection):
        assert (await connection.ask("a secret"))[0] == 200
    assert "secret" not in caplog.text
