"""Clients of the sidecar's HTTP door, for where gRPC does not get through; standard library only.

They speak the native JSON form and raise the same errors; there is no streaming form.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Unpack

from rerank_adapters.messages import Model, RerankResponse
from rerank_adapters.transport.base import AsyncClient, BlockingClient
from rerank_adapters.transport.calls import Ask
from rerank_adapters.transport.http_calls import HttpCall, HttpDoor
from rerank_adapters.transport.http_connections import Request, deadline_passed
from rerank_adapters.transport.json_wire import read_models, read_response, write_request
from rerank_adapters.transport.policy import DEFAULT_TIMEOUT_S, ClientOptions, Policy

DEFAULT_URL = "http://localhost:8080"

_MODELS = Request("GET", "/api/v1/models")

_MOST_THREADS = 64
"""Calls of an asynchronous client that run at once; others wait, and their time runs."""


class HttpRerankClient(BlockingClient):
    """Reranks over HTTP; keeps its connections, and threads may share it.

    `url` is that of the server, such as `http://localhost:8080`, with a path if something in front
    of it adds one. `timeout_s` is the deadline of every call that does not name its own, in
    seconds. `token` is sent with every call. `tls` is for `https`; by default the authorities that
    Python knows are trusted. `ClientOptions` lists the others. Proxies of the environment are not
    used. It may be used on both sides of a fork.

    Raises:
        TypeError: there is no such option.
        ValueError: an argument cannot be used; the message names it.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(Policy(timeout_s, **options))
        self._door = HttpDoor(url, tls, token, self._policy.max_attempts)

    def close(self) -> None:
        """Close the connections and end the calls that still run on them."""
        self._door.connections.close()

    def _ask(self, ask: Ask) -> RerankResponse:
        return read_response(_call(self._door, _rerank(ask), ask.timeout_s).run())

    def _list(self, timeout_s: float) -> tuple[Model, ...]:
        return read_models(_call(self._door, _MODELS, timeout_s).run())


class AsyncHttpRerankClient(AsyncClient):
    """The same for asyncio; each call has a thread while it runs."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(Policy(timeout_s, **options))
        self._door = HttpDoor(url, tls, token, self._policy.max_attempts)
        self._threads: dict[int, ThreadPoolExecutor] = {}  # by process

    async def close(self) -> None:
        """Close the connections and end the calls that still run on them."""
        self._door.connections.close()
        threads = self._threads.pop(os.getpid(), None)
        if threads is not None:
            threads.shutdown(wait=False)

    async def _ask(self, ask: Ask) -> RerankResponse:
        return read_response(await self._answer(_rerank(ask), ask.timeout_s))

    async def _list(self, timeout_s: float) -> tuple[Model, ...]:
        return read_models(await self._answer(_MODELS, timeout_s))

    async def _answer(self, request: Request, timeout_s: float) -> bytes:
        self._door.connections.check_open()
        call = _call(self._door, request, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):  # it may wait for a thread
                return await asyncio.get_running_loop().run_in_executor(self._pool(), call.run)
        except TimeoutError:
            call.abort()
            raise deadline_passed() from None
        except asyncio.CancelledError:
            call.abort()
            raise

    def _pool(self) -> ThreadPoolExecutor:
        process = os.getpid()
        if process not in self._threads:
            self._threads[process] = ThreadPoolExecutor(_MOST_THREADS, "rerank-http")
        return self._threads[process]


def _rerank(ask: Ask) -> Request:
    body = write_request(ask.query, ask.documents, ask.options)
    return Request("POST", "/api/v1/rerank", body)


def _call(door: HttpDoor, request: Request, timeout_s: float) -> HttpCall:
    return HttpCall(door, request, time.monotonic() + timeout_s)
