"""Every client, asked alike, and a sidecar with both of its doors over one engine."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pytest

from rerank_adapters import (
    AsyncHttpRerankClient,
    AsyncRerankClient,
    HttpRerankClient,
    RerankCallError,
    RerankClient,
)
from rerank_adapters.errors import ERRORS
from rerank_adapters.transport.base import AsyncClient, BlockingClient
from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.in_process import AsyncInProcessRerankClient, InProcessRerankClient
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import Settings

GRPC = ("grpc", "grpc async")
HTTP = ("http", "http async")
IN_PROCESS = ("in process", "in process async")

DOCUMENTS = ("green vegetable", "red fruit", "a red vegetable")

T = TypeVar("T")

WAIT_S = 60.0
"""How long a test waits for what must happen; only a failure takes as long."""

THREADS = ThreadPoolExecutor(64)

Ask = Callable[..., Coroutine[None, None, Any]]
"""A method of a client by its name, with the same arguments; every client can be asked."""


@dataclass(frozen=True)
class Sidecar:
    """Where a sidecar listens, and the settings that it has."""

    target: str
    url: str
    settings: Settings
    engine: Engine


@asynccontextmanager
async def listening(
    *, is_ready: bool = True, reranker: Reranker | None = None, **settings: object
) -> AsyncIterator[Sidecar]:
    chosen = Settings.model_validate(
        {"grpc_port": 0, "http_port": 0, "model": "lexical", **settings}
    )
    engine = Engine(chosen)
    if is_ready:
        lexical = LexicalReranker()
        engine.open(Registry([reranker or lexical], any_script=lexical))
    grpc_server, http_server = GrpcServer(engine, chosen), HttpServer(engine, chosen)
    target = f"localhost:{await grpc_server.start()}"
    scheme = "http" if chosen.tls_certificate is None else "https"
    url = f"{scheme}://127.0.0.1:{await http_server.start()}"
    try:
        yield Sidecar(target, url, chosen, engine)
    finally:
        await grpc_server.stop(0)
        await http_server.stop(0)


@contextmanager
def listening_beside(**settings: Any) -> Iterator[Sidecar]:
    """A sidecar in a thread and loop of its own, which many tests can share."""
    opened: Future[tuple[Sidecar, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with listening(**settings) as sidecar:
            stopping = asyncio.Event()
            opened.set_result((sidecar, asyncio.get_running_loop(), stopping))
            await stopping.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    sidecar, loop, stopping = opened.result(WAIT_S)
    yield sidecar
    loop.call_soon_threadsafe(stopping.set)
    thread.join()


def client_of(
    kind: str, sidecar: Sidecar, timeout_s: float = 20.0, **options: Any
) -> BlockingClient | AsyncClient:
    makers: dict[str, Callable[[], BlockingClient | AsyncClient]] = {
        "grpc": lambda: RerankClient(sidecar.target, timeout_s, **options),
        "grpc async": lambda: AsyncRerankClient(sidecar.target, timeout_s, **options),
        "http": lambda: HttpRerankClient(sidecar.url, timeout_s, **options),
        "http async": lambda: AsyncHttpRerankClient(sidecar.url, timeout_s, **options),
        "in process": lambda: InProcessRerankClient(sidecar.settings, timeout_s, **options),
        "in process async": lambda: AsyncInProcessRerankClient(
            sidecar.settings, timeout_s, **options
        ),
    }
    return makers[kind]()


@asynccontextmanager
async def asking(
    kind: str, sidecar: Sidecar, timeout_s: float = 20.0, **options: Any
) -> AsyncIterator[Ask]:
    client = client_of(kind, sidecar, timeout_s, **options)
    if isinstance(client, AsyncClient):
        async with client:
            yield asked(client)
    else:
        await in_thread(client.__enter__)
        try:
            yield asked(client)
        finally:
            await in_thread(client.close)


def asked(client: BlockingClient | AsyncClient) -> Ask:
    async def ask(method: str, *args: Any, **options: Any) -> Any:
        bound = getattr(client, method)
        if isinstance(client, AsyncClient):
            return await bound(*args, **options)
        return await in_thread(bound, *args, **options)

    return ask


async def in_thread(function: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call what blocks, in none of the loop's own threads, which the server in it needs."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(THREADS, partial(function, *args, **options))


async def failure(call: Awaitable[Any]) -> RerankCallError:
    with pytest.raises(RerankCallError) as caught:
        await call
    return caught.value


def error_of_reason(reason: str, retry_after_s: float | None = None) -> RerankCallError:
    kind, code = ERRORS[reason]
    return kind(code, reason, "why", None, retry_after_s)
