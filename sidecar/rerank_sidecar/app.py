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

from rerank_sidecar.api.addresses import authority
from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading import load_rerankers
from rerank_sidecar.models.resolve import resolve_model
from rerank_sidecar.settings import Settings
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
    async with _registry(settings) as registry:
        engine = Engine(settings)
        engine.open(registry)
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
    _refuse_cuda(settings)
    began = time.monotonic()
    engine = Engine(settings)
    _exit_at_once_on_signal()
    async with _doors(engine, settings) as grpc_server, _registry(settings) as registry:
        stopped = _event_on_signal()
        engine.open(registry)
        await grpc_server.set_serving(True)
        _LOG.info("ready after %.1f s with %s", time.monotonic() - began, _names(engine))
        await stopped.wait()
        _LOG.info("draining for at most %g s", settings.shutdown_grace_s)
        await grpc_server.set_serving(False)
        await engine.drain(settings.shutdown_grace_s)


@asynccontextmanager
async def _registry(settings: Settings) -> AsyncIterator[Registry]:
    _refuse_cuda(settings)
    model = await asyncio.to_thread(resolve_model, settings)
    async with load_rerankers(model, settings) as registry:
        yield registry


@asynccontextmanager
async def _doors(engine: Engine, settings: Settings) -> AsyncIterator[GrpcServer]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(watched_event_loop())
        http_server = HttpServer(engine, settings)
        grpc_server = GrpcServer(engine, settings)
        http_port = await _bound(http_server, "http_port", settings.http_port)
        stack.push_async_callback(http_server.stop, _FLUSH_S)
        grpc_port = await _bound(grpc_server, "grpc_port", settings.grpc_port)
        stack.push_async_callback(grpc_server.stop, _FLUSH_S)
        for line in (
            f"HTTP  http://{authority(settings.host, http_port)}",
            f"gRPC  {authority(settings.host, grpc_port)}",
        ):
            _LOG.info("listening: %s", line)
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
        yield grpc_server


async def _bound(server: HttpServer | GrpcServer, setting: str, port: int) -> int:
    try:
        return await server.start()
    except (OSError, RuntimeError) as error:
        raise InvalidSetting(f"{setting}: cannot listen on port {port}: {error}") from error


def _refuse_cuda(settings: Settings) -> None:
    if settings.enable_cuda:
        raise InvalidSetting(
            f"enable_cuda: {settings.cuda_core} was asked for, but this version runs on the CPU "
            "only; unset ENABLE_CUDA"
        )


def _names(engine: Engine) -> str:
    return ", ".join(f"{each.model.name} ({each.engine})" for each in engine.models())


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
