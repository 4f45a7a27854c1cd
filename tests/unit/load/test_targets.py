"""Each door is spoken to as its clients do, and every way it can answer has its reason."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from rerank_sidecar.load.requests import LoadRequest
from rerank_sidecar.load.targets import ANSWERED, Answer, Door, open_target

Reply = Callable[[dict[str, Any], int], web.Response]


@asynccontextmanager
async def _server(reply: Reply) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Answer both HTTP doors by a function of the body and its number; keep the bodies."""
    bodies: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        body["timeout_ms"] = int(request.headers["X-Request-Timeout-Ms"])
        bodies.append(body)
        return reply(body, len(bodies))

    app = web.Application()
    app.router.add_post("/rerank", answer)
    app.router.add_post("/api/v1/rerank", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}", bodies
    finally:
        await runner.cleanup()


def _weaviate_scores(body: dict[str, Any], number: int) -> web.Response:
    scores = [{"document": text, "score": 0.5} for text in body["documents"]]
    return web.json_response({"query": body["query"], "scores": scores})


def _native_scores(body: dict[str, Any], number: int) -> web.Response:
    scored = [{"index": index, "score": {"value": 1}} for index in range(len(body["documents"]))]
    return web.json_response({"results": scored})


def _request(documents: int) -> LoadRequest:
    return LoadRequest("q", tuple(f"text {number}" for number in range(documents)))


async def _ask(door: Door, reply: Reply, documents: int, **options: Any) -> Answer:
    async with _server(reply) as (url, _), open_target(door, url, **options) as target:
        return await target.ask(_request(documents), 5.0)


async def test_a_search_is_cut_into_chunks_of_32() -> None:
    async with (
        _server(_weaviate_scores) as (url, bodies),
        open_target(Door.WEAVIATE, url) as target,
    ):
        assert await target.ask(_request(100), 5.0) == ANSWERED
    assert sorted(len(body["documents"]) for body in bodies) == [4, 32, 32, 32]
    sent = sorted(text for body in bodies for text in body["documents"])
    assert sent == sorted(_request(100).documents)
    assert all(0 < body["timeout_ms"] <= 5000 for body in bodies)


async def test_one_refused_chunk_fails_the_search() -> None:
    def second_is_refused(body: dict[str, Any], number: int) -> web.Response:
        refusal = web.json_response({"error": "too busy"}, status=429)
        return refusal if number == 2 else _weaviate_scores(body, number)

    assert await _ask(Door.WEAVIATE, second_is_refused, 100) == Answer("HTTP 429", refused=True)


async def test_native_json_asks_for_the_model() -> None:
    async with (
        _server(_native_scores) as (url, bodies),
        open_target(Door.HTTP, url, model="m") as target,
    ):
        assert await target.ask(_request(3), 2.0) == ANSWERED
    assert bodies[0]["options"] == {"model": "m"}
    assert (bodies[0]["query"], len(bodies[0]["documents"])) == ("q", 3)
    assert bodies[0]["timeout_ms"] == 2000


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (429, {"error": {"reason": "OVERLOADED"}}, Answer("OVERLOADED", refused=True)),
        (504, {"error": {"reason": "DEADLINE_EXCEEDED"}}, Answer("DEADLINE_EXCEEDED")),
        (500, "no JSON of ours", Answer("HTTP 500")),
        (200, {"results": [{"score": {}}]}, Answer("WRONG_ANSWER")),
        (200, {"results": "none"}, Answer("WRONG_ANSWER")),
        (200, {"results": [{"score": {}}, {"error": {}}]}, Answer("DOCUMENTS_FAILED")),
    ],
)
async def test_reasons_of_native_json(status: int, body: Any, wanted: Answer) -> None:
    reply = lambda request, number: web.json_response(body, status=status)  # noqa: E731
    assert await _ask(Door.HTTP, reply, 2) == wanted


async def test_documents_that_failed_alone_on_weaviates_door() -> None:
    def one_failed(body: dict[str, Any], number: int) -> web.Response:
        scores = [{"document": text, "score": 0.5} for text in body["documents"]]
        return web.json_response({"scores": scores, "errors": [{"index": 0}]})

    assert await _ask(Door.WEAVIATE, one_failed, 2) == Answer("DOCUMENTS_FAILED")


@pytest.mark.parametrize("door", Door)
async def test_nobody_listens(door: Door, unused_tcp_port: int) -> None:
    scheme = "" if door is Door.GRPC else "http://"
    async with open_target(door, f"{scheme}127.0.0.1:{unused_tcp_port}") as target:
        answer = await target.ask(_request(2), 2.0)
    assert answer.reason is not None
    assert answer.reason.startswith(("UNAVAILABLE", "NOT_REACHED"))
    assert not answer.refused


async def test_no_answer_in_time() -> None:
    gone = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_target(Door.HTTP, f"http://127.0.0.1:{port}") as target:
            assert await target.ask(_request(2), 0.05) == Answer("NO_ANSWER_IN_TIME")
        await gone.wait()
