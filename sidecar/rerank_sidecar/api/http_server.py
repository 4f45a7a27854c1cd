"""The HTTP server around the app: uvicorn inside an event loop that somebody else runs."""

from __future__ import annotations

import asyncio
import math
import socket

import uvicorn

from rerank_sidecar.api.http_app import build_http_app
from rerank_sidecar.api.http_protocol import PatientProtocol
from rerank_sidecar.api.listeners import Listener, make_listeners
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.settings import Settings

_BACKLOG = 2048


class HttpServer:
    """Listens for HTTP; made and used in one running event loop, whose signals it leaves alone.

    `listener` says where and for whom, by default for all as the settings have it.

    Raises:
        InvalidSetting: the settings contradict each other or name files that cannot be used.
    """

    def __init__(
        self, engine: Engine, settings: Settings, listener: Listener | None = None
    ) -> None:
        self._listener = listener or make_listeners(settings).http
        self._server = uvicorn.Server(_config(engine, settings, self._listener))
        self._socket: socket.socket | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Begin to listen and give the port; readiness is the engine's affair.

        Raises:
            InvalidSetting: the address cannot be listened on.
        """
        self._socket = _listen(self._listener.host, self._listener.port)
        # `Server.serve` would do the rest, but it takes over the signals of the process.
        self._server.config.load()
        if self._listener.tls is not None:
            self._server.config.ssl = self._listener.tls.ssl_context()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[self._socket])
        self._ticking = asyncio.create_task(self._server.main_loop())
        port: int = self._socket.getsockname()[1]
        return port

    async def stop(self, grace_s: float) -> None:
        """Take no new connections, let running calls finish for so many seconds, then end them."""
        if self._ticking is None or self._socket is None:
            return
        self._server.should_exit = True
        self._server.config.timeout_graceful_shutdown = math.ceil(grace_s)
        await self._ticking
        await self._server.shutdown(sockets=[self._socket])
        # What outlived the grace has been cancelled, and answers so before it goes.
        await asyncio.gather(*self._server.server_state.tasks, return_exceptions=True)
        self._ticking = None


def _config(engine: Engine, settings: Settings, listener: Listener) -> uvicorn.Config:
    return uvicorn.Config(
        build_http_app(engine, settings, guard=listener.guard, only=listener.only),
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.keep_alive_timeout_s,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        # Connections inherit it. asyncio sets it only where a socket names its protocol, which
        # those made by `create_server` do not, and without it an answer's body waits up to 40 ms
        # until its headers are acknowledged.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise InvalidSetting(f"cannot listen for HTTP on {host} port {port}: {error}") from error
