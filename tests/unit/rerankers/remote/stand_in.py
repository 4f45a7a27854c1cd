"""An HTTP server that answers as it is told and keeps what it was asked, and rerankers over it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.remote import RemoteFamily
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.settings import read_settings

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]

WAIT_S = 20.0
"""How long a test waits for what must happen; only a failure takes as long."""


@dataclass
class Asked:
    """One request as it arrived; `connection` is told apart by the client's port."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int


@dataclass
class StandIn:
    """A real HTTP server. Replies are taken from `script`, and when it is empty from `usual`."""

    usual: Reply
    script: list[Reply] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    now: int = 0
    most: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = json.loads(content) if content else None
        self.asked.append(Asked(request.method, request.path, headers, body, port))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            reply = self.script.pop(0) if self.script else self.usual
            return await reply(request)
        finally:
            self.now -= 1

    @property
    def posts(self) -> list[Asked]:
        return [each for each in self.asked if each.method == "POST"]


@asynccontextmanager
async def standing_in(usual: Reply, *script: Reply) -> AsyncIterator[StandIn]:
    server = StandIn(usual, list(script))
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(source: str, **options: Any) -> AsyncIterator[Reranker]:
    """Load a model as the server does, and close it."""
    settings = read_settings(model=source, family_options=options)
    with ThreadPoolExecutor(1) as executor:
        async with AsyncExitStack() as stack:
            yield await RemoteFamily().load(Loading("far", settings, executor, stack))


def says(body: Any, status: int = 200, **headers: str) -> Reply:
    """Reply with JSON."""

    async def reply(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(
            text=text, status=status, headers=named, content_type="application/json"
        )

    return reply


def results(key: str, score: str, **more: Any) -> dict[str, Any]:
    """Make an answer for two documents, of which the second is the better one."""
    return {**more, key: [{"index": 1, score: 0.97}, {"index": 0, score: 0.003}]}


def cohere_scores(texts: Sequence[str]) -> dict[str, Any]:
    """Cohere's answer, best first, where each text spells its score."""
    scored = [{"index": i, "relevance_score": float(text)} for i, text in enumerate(texts)]
    scored.sort(key=lambda each: each["relevance_score"], reverse=True)
    return {"id": "07734bd2", "results": scored, "meta": {"api_version": {"version": "2"}}}


async def like_cohere(request: web.Request) -> web.StreamResponse:
    """Score as Cohere does."""
    body = json.loads(await request.read())
    return web.json_response(cohere_scores(body["documents"]))
