"""A model as it was loaded once, and the requests that keep it from being closed.

A request leases the instance that answers it. An instance that was replaced or unloaded is closed
when its last lease has ended, so that no request loses the model under its feet.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

from rerank_sidecar.errors import (
    DeadlineExceeded,
    NotReady,
    RerankError,
    ShuttingDown,
    as_rerank_error,
    error_row,
)
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.telemetry.crashes import log_crash

_LOG = logging.getLogger(__name__)

_TRY_AGAIN_S = 10.0
"""How long a model that could not be loaded for a request is left alone."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A reranker that has warmed up, and what gives back all that it runs on."""

    reranker: Reranker
    close: Callable[[], Awaitable[None]]


class Instance:
    """One loading of a model, from the moment at which it begins until what was loaded is closed.

    Leases can be taken while it still loads; whoever takes one ends it.
    """

    def __init__(self, name: str, loaded: LoadedModel | None = None) -> None:
        self._name = name
        self._loaded = loaded
        self._loading: asyncio.Task[LoadedModel] | None = None
        self._on_failure: Callable[[RerankError], None] | None = None
        self._error: RerankError | None = None
        self._failed_at = 0.0
        self._leases = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def reranker(self) -> Reranker | None:
        """Give the reranker, once it has been loaded."""
        return None if self._loaded is None else self._loaded.reranker

    @property
    def is_loading(self) -> bool:
        """Tell whether it is being loaded."""
        return self._loading is not None and not self._loading.done()

    @property
    def has_failed(self) -> bool:
        """Tell whether it could not be loaded."""
        return self._error is not None

    @property
    def try_again_s(self) -> float:
        """How long after a failure nobody should try again, in seconds from now."""
        return max(0.0, self._failed_at + _TRY_AGAIN_S - time.monotonic())

    def begin(
        self,
        loading: Coroutine[Any, Any, LoadedModel],
        on_failure: Callable[[RerankError], None] | None = None,
    ) -> None:
        """Begin to load; once for each instance, on the event loop."""
        self._on_failure = on_failure
        self._loading = asyncio.create_task(loading)
        self._loading.add_done_callback(self._on_loaded)

    async def loaded(self) -> Reranker:
        """Wait until it is loaded, without a request of its own.

        Raises:
            RerankError: it cannot be loaded; StartupErrors say why.
        """
        if self._loading is not None:
            await asyncio.wait([self._loading])
        if self._error is not None:
            raise self._error
        return self._ready()

    async def ready(self, deadline: float) -> Reranker:
        """Wait until it is loaded, for a request that holds a lease.

        `deadline` is in seconds on the clock of `time.monotonic`.

        Raises:
            DeadlineExceeded: it was not loaded by then; it goes on being loaded.
            NotReady: it cannot be loaded.
        """
        if self._loaded is None and self._loading is not None:
            left_s = max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait([self._loading], timeout=left_s)
            if not done:
                raise DeadlineExceeded(f"the deadline passed while {self._name} was being loaded")
        self.check()
        return self._ready()

    def check(self) -> None:
        """Refuse whoever wants an instance that could not be loaded.

        Raises:
            NotReady: it could not; why is for the log and for administrators.
        """
        if isinstance(self._error, ShuttingDown):
            raise self._error
        if self._error is not None:
            raise NotReady(
                f"the model {self._name} could not be loaded ({error_row(self._error).reason}); "
                "the server's log says why",
                max(1.0, self.try_again_s),
            )

    def acquire(self) -> None:
        """Take a lease; the end of a `with` block ends it."""
        self._leases += 1
        self._unused.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End a lease."""
        self._leases -= 1
        if not self._leases:
            self._unused.set()

    async def retire(self) -> None:
        """Wait for the last lease, then close; nobody may take another one from here on."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
        await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Give back at once what was loaded, whoever uses it; what is being loaded is given up."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        loaded, self._loaded = self._loaded, None
        self._error = ShuttingDown(f"the model {self._name} has been unloaded")
        if loaded is not None:
            await loaded.close()

    def _ready(self) -> Reranker:
        if self._loaded is None:
            raise NotReady(f"the model {self._name} has not been loaded")
        return self._loaded.reranker

    def _on_loaded(self, loading: asyncio.Task[LoadedModel]) -> None:
        self._loading = None
        if loading.cancelled():
            return
        error = loading.exception()
        if error is None:
            self._loaded = loading.result()
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._failed_at = time.monotonic()
        self._error = as_rerank_error(error)
        if self._error is not error:
            log_crash(_LOG, f"loading the model {self._name}", error)
        if self._on_failure is not None:
            self._on_failure(self._error)
