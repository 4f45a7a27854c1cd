"""An engine on an event loop of its own, for callers who have none."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TypeVar

from rerank_sidecar.app import build_engine
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.settings import Settings

_T = TypeVar("_T")


class EngineThread:
    """A thread with an event loop and, on it, an engine.

    Raises:
        StartupError: a setting is wrong or the model cannot be had.
    """

    def __init__(self, settings: Settings) -> None:
        self.process = os.getpid()
        self._started: Future[tuple[Engine, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(
            target=self._main, args=(settings,), name="rerank-engine", daemon=True
        )
        self._thread.start()
        self.engine, self._loop, self._stopping = self._started.result()
        atexit.register(self.stop)  # the interpreter must not end under a forward pass

    def run(self, coroutine: Coroutine[None, None, _T]) -> _T:
        """Run a coroutine on the loop and wait for it; who stops waiting cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Let running requests end, then the engine and the thread."""
        atexit.unregister(self.stop)
        if self.process != os.getpid():
            return  # a fork copies no threads
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _main(self, settings: Settings) -> None:
        try:
            asyncio.run(self._serve(settings))
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self, settings: Settings) -> None:
        async with build_engine(settings) as engine:
            stopping = asyncio.Event()
            self._started.set_result((engine, asyncio.get_running_loop(), stopping))
            await stopping.wait()
