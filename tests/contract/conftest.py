"""A server on the embedded model for all contract tests, in a thread and loop of its own."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.app import build_engine
from rerank_sidecar.settings import Settings, read_settings


@dataclass(frozen=True)
class Running:
    """A server that runs: its port, and how to end it."""

    port: int
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


async def _serve(settings: Settings, running: Future[Running]) -> None:
    async with build_engine(settings) as engine:
        server, stop = HttpServer(engine, settings), asyncio.Event()
        port = await server.start()
        running.set_result(Running(port, asyncio.get_running_loop(), stop))
        await stop.wait()
        await server.stop(grace_s=0)


def _run(settings: Settings, running: Future[Running]) -> None:
    try:
        asyncio.run(_serve(settings, running))
    except BaseException as error:
        if running.done():
            raise
        running.set_exception(error)


@pytest.fixture(scope="session")
def http_port() -> Iterator[int]:
    settings = read_settings(None, model="embedded", http_port=0)
    running: Future[Running] = Future()
    thread = threading.Thread(target=_run, args=(settings, running))
    thread.start()
    server = running.result()
    yield server.port
    server.loop.call_soon_threadsafe(server.stop.set)
    thread.join()
