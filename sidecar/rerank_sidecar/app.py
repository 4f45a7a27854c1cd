"""The composition root: settings become models, models an engine, the engine gets its doors."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from rerank_sidecar.api.addresses import authority
from rerank_sidecar.api.doors import check_default
from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.api.listeners import make_listeners
from rerank_sidecar.engine.administration import Administration
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.repository import ModelRepository
from rerank_sidecar.engine.served_model import Check
from rerank_sidecar.errors import InvalidSetting, RerankError
from rerank_sidecar.loading.loader import model_loader
from rerank_sidecar.models.torch_device import asked_by, choose_devices, wanted_device
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry.crashes import log_crash
from rerank_sidecar.telemetry.event_loop import watched_event_loop
from rerank_sidecar.telemetry.logs import configure_logging

_LOG = logging.getLogger(__name__)

_FLUSH_S = 1.0
"""What the last answers get to leave, once the engine has drained."""


@asynccontextmanager
async def build_engine(settings: Settings) -> AsyncIterator[Engine]:
    """Load the models, warm them up and give an engine that is ready, with no server around it.

    Raises:
        StartupError: a setting is wrong or the model cannot be had.
    """
    async with _models(settings) as repository:
        engine = Engine(settings)
        engine.open(repository.registry)
        try:
            yield engine
        finally:
            await engine.drain(settings.shutdown_grace_s)


async def serve(settings: Settings) -> None:
    """Open the doors, load the models, and answer until SIGINT or SIGTERM; then drain.

    The doors are open before the models are loaded: live answers, ready does not yet.

    Raises:
        StartupError: a setting is wrong, a port is taken or the model cannot be had.
    """
    configure_logging(settings)
    _require_device(settings)
    began = time.monotonic()
    engine, administration = Engine(settings), Administration(settings)
    _exit_at_once_on_signal()
    async with (
        _reloading_on_signal(administration, settings),
        _doors(engine, administration, settings) as grpc_server,
        _models(settings, partial(check_default, settings)) as repository,
    ):
        stopped = _event_on_signal()
        engine.open(repository.registry)
        administration.open(repository)
        await grpc_server.set_serving(True)
        _LOG.info("ready after %.1f s with %s", time.monotonic() - began, _names(engine))
        await stopped.wait()
        _LOG.info("draining for at most %g s", settings.shutdown_grace_s)
        await grpc_server.set_serving(False)
        await engine.drain(settings.shutdown_grace_s)
        is_loading = repository.is_loading
    if is_loading:
        os._exit(0)  # the thread that loads cannot be interrupted, and would be waited for


@asynccontextmanager
async def _models(settings: Settings, check: Check | None = None) -> AsyncIterator[ModelRepository]:
    _require_device(settings)
    with model_loader(settings) as loader:
        repository = ModelRepository(loader.load, LexicalReranker(), check)
        try:
            await repository.apply(settings)
            yield repository
        finally:
            await repository.close()


@asynccontextmanager
async def _doors(
    engine: Engine, administration: Administration, settings: Settings
) -> AsyncIterator[GrpcServer]:
    listeners = make_listeners(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(watched_event_loop())
        http_server = HttpServer(engine, settings, listeners.http)
        grpc_server = GrpcServer(engine, settings, listeners.grpc, administration)
        http_port = await _opened(stack, http_server, "http_port")
        grpc_port = await _opened(stack, grpc_server, "grpc_port")
        lines = [
            f"HTTP  {listeners.http.url(http_port)}",
            f"gRPC  {authority(settings.host, grpc_port)}",
        ]
        if listeners.weaviate is not None:
            weaviate_server = HttpServer(engine, settings, listeners.weaviate)
            weaviate_port = await _opened(stack, weaviate_server, "weaviate_port")
            lines.append(f"Weaviate  {listeners.weaviate.url(weaviate_port)}")
        for line in lines:
            _LOG.info("listening: %s", line)
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
        yield grpc_server


async def _opened(stack: AsyncExitStack, server: HttpServer | GrpcServer, setting: str) -> int:
    try:
        port = await server.start()
    except (OSError, RuntimeError, InvalidSetting) as error:
        raise InvalidSetting(f"{setting}: {error}") from error
    stack.push_async_callback(server.stop, _FLUSH_S)
    return port


def _require_device(settings: Settings) -> None:
    """Refuse a GPU that is not there before anything is loaded, whatever the models run on."""
    choose_devices(wanted_device(settings), asked_by(settings))


def _names(engine: Engine) -> str:
    models = engine.models()
    return ", ".join(f"{each.model.name} ({each.engine or 'not loaded'})" for each in models)


@asynccontextmanager
async def _reloading_on_signal(
    administration: Administration, settings: Settings
) -> AsyncIterator[None]:
    """Read the settings again at SIGHUP, if there is a file that may have changed."""
    loop, running = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def begin() -> None:
        task = asyncio.create_task(_reload(administration))
        running.add(task)
        task.add_done_callback(running.discard)

    if settings.config_file is not None:
        loop.add_signal_handler(signal.SIGHUP, begin)
    try:
        yield
    finally:
        for task in running:
            task.cancel()


async def _reload(administration: Administration) -> None:
    try:
        await administration.reload()
    except RerankError as error:
        _LOG.error("SIGHUP changed nothing: %s", " ".join(error.message.split()))
    except Exception as error:  # noqa: BLE001 - a bad file must not end what runs
        log_crash(_LOG, "reading the settings again", error)


def _exit_at_once_on_signal() -> None:
    # A model that is being converted in a thread cannot be interrupted, and process 1 of a
    # container ignores signals that it does not handle.
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, os._exit, 128 + each)


def _event_on_signal() -> asyncio.Event:
    stopped = asyncio.Event()

    def stop(number: int) -> None:
        if stopped.is_set():  # who asks twice does not want to wait for the drain
            os._exit(128 + number)
        stopped.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stop, each)
    return stopped
