"""One sidecar on the embedded model for all contract tests, in a thread and loop of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.app import build_engine
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.settings import Settings, read_settings
from tests.contract.grpc_toy import Served, serving


@dataclass(frozen=True)
class Running:
    """A sidecar that runs: its engine and the loop that it belongs to, its ports, how to end it."""

    engine: Engine
    loop: asyncio.AbstractEventLoop
    http_port: int
    grpc_port: int
    stop: asyncio.Event


async def _serve(settings: Settings, running: Future[Running]) -> None:
    async with build_engine(settings) as engine:
        http_server, grpc_server = HttpServer(engine, settings), GrpcServer(engine, settings)
        ports = await http_server.start(), await grpc_server.start()
        stop = asyncio.Event()
        running.set_result(Running(engine, asyncio.get_running_loop(), *ports, stop))
        await stop.wait()
        await http_server.stop(grace_s=0)
        await grpc_server.stop(grace_s=0)


def _run(settings: Settings, running: Future[Running]) -> None:
    try:
        asyncio.run(_serve(settings, running))
    except BaseException as error:
        if running.done():
            raise
        running.set_exception(error)


@pytest.fixture(scope="session")
def sidecar() -> Iterator[Running]:
    settings = read_settings(
        model="embedded",
        http_port=0,
        grpc_port=0,
        max_documents=1000,
        max_document_bytes=200_000,
        unknown_model="error",
        score_cache_bytes=0,  # so that every entry's answer comes from the model
    )
    running: Future[Running] = Future()
    thread = threading.Thread(target=_run, args=(settings, running))
    thread.start()
    sidecar = running.result()
    yield sidecar
    sidecar.loop.call_soon_threadsafe(sidecar.stop.set)
    thread.join()


@pytest.fixture(scope="session")
def http_port(sidecar: Running) -> int:
    return sidecar.http_port


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        yield running
