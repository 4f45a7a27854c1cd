"""The only thing that the doors call: checks, routes, scores, isolates failures and orders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from rerank_sidecar.engine.admission import Admission
from rerank_sidecar.engine.call import Call, Shared
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.engine.score_cache import ScoreCache
from rerank_sidecar.engine.validation import check_count, check_request
from rerank_sidecar.errors import (
    NotReady,
    RerankError,
    ShuttingDown,
    as_rerank_error,
)
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.telemetry.crashes import log_crash
from rerank_sidecar.types import (
    Document,
    ModelDescription,
    RankedDocument,
    RerankOptions,
    RerankRequest,
    RerankResult,
    StreamSummary,
)

_LOG = logging.getLogger(__name__)


class Engine:
    """Answers rerank requests from whichever door; belongs to one event loop.

    It exists before its models do, so that the doors can say "not ready"; `open` makes it ready.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shared = Shared(settings, ScoreCache(settings.score_cache_bytes), Admission(settings))
        self._registry: Registry | None = None
        self._draining = False
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def settings(self) -> Settings:
        """Give the settings that the server was started with."""
        return self._settings

    @property
    def is_ready(self) -> bool:
        """Tell whether requests are answered now."""
        return self._registry is not None and not self._draining

    def open(self, registry: Registry) -> None:
        """Begin to answer with these rerankers, which have warmed up."""
        self._registry = registry
        metrics.TOKENS_PER_SECOND.set_function(lambda: registry.default.tokens_per_s)

    async def drain(self, grace_s: float) -> None:
        """Take no new requests and wait up to so many seconds for the running ones."""
        self._draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            _LOG.warning("%d requests did not finish within %g s", self._running, grace_s)

    def models(self) -> list[ModelDescription]:
        """Describe the models that answer, the default first.

        Raises:
            NotReady: the models have not been loaded yet.
        """
        return self._ready_registry().models()

    async def rerank(self, request: RerankRequest) -> RerankResult:
        """Score all documents of a request and put them in order.

        A request without a time limit of its own has `request_timeout_s`.

        Raises:
            RequestError: the request cannot be answered as it stands; `.field` names the field.
            CallEnded: the deadline passed.
            Unavailable: the server is starting or draining, or has too much to do to answer in
                time.
            ServerFault: something of ours broke.
        """
        check_count(len(request.documents), self._settings)
        found: dict[int, RankedDocument] = {}
        async with aclosing(
            self.stream(request.query, request.options, _at_once(request.documents))
        ) as events:
            async for event in events:
                if isinstance(event, StreamSummary):
                    return _arrange(found, event)
                found[event.index] = event
        raise AssertionError("a stream ends with its summary")

    async def stream(
        self, query: str, options: RerankOptions, documents: AsyncIterator[Sequence[Document]]
    ) -> AsyncGenerator[RankedDocument | StreamSummary, None]:
        """Score documents as they arrive; yield each as it is known, then the summary.

        Documents are numbered in the order in which they arrive. One that fails alone is yielded
        with its error. Raises what `rerank` raises.
        """
        registry = self._ready_registry()
        check_request(query, options, self._settings)
        call = Call(registry.choose(options.model, query), query, options, self._shared)
        with self._counted():
            async with aclosing(call.outcomes(documents)) as events:
                async for event in events:
                    yield event
            yield call.summary()

    def _ready_registry(self) -> Registry:
        if self._draining:
            raise ShuttingDown("the server is shutting down")
        if self._registry is None:
            raise NotReady("the model has not warmed up yet")
        return self._registry

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        self._idle.clear()
        try:
            yield
        except (RerankError, GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:
            log_crash(_LOG, "a request", error)
            raise as_rerank_error(error) from error
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()


async def _at_once(documents: Sequence[Document]) -> AsyncIterator[Sequence[Document]]:
    yield documents


def _arrange(found: dict[int, RankedDocument], end: StreamSummary) -> RerankResult:
    failed = (found[index] for index in sorted(found) if found[index].error is not None)
    return RerankResult((*(found[index] for index in end.order), *failed), end.summary)
