"""The only thing that the doors call: checks, routes, scores, isolates failures and orders."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from rerank_sidecar.engine.admission import Admission
from rerank_sidecar.engine.call import Call, Shared
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.engine.score_cache import ScoreCache
from rerank_sidecar.engine.validation import (
    check_chunk,
    check_count,
    check_query_vectors,
    check_request,
)
from rerank_sidecar.errors import (
    NotReady,
    RerankError,
    ShuttingDown,
    as_rerank_error,
)
from rerank_sidecar.rerankers.scripts import reads_query
from rerank_sidecar.settings import Settings
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
        self._scores = ScoreCache(settings.score_cache_bytes)
        self._admission = Admission(settings)
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
        """Begin to answer with these models, those loaded at the start being warmed up."""
        self._registry = registry
        registry.unknown_model = self._settings.unknown_model

    async def drain(self, grace_s: float) -> None:
        """Take no new requests and wait up to so many seconds for the running ones."""
        self._draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            _LOG.warning("%d requests did not finish within %g s", self._running, grace_s)

    def models(self) -> list[ModelDescription]:
        """Describe the models that can answer, loaded or not, the default first.

        Raises:
            NotReady: the models have not been loaded yet.
        """
        return self._ready_registry().models()

    def describe(self, name: str | None) -> ModelDescription:
        """Describe the model that a request of this name would get, whatever its query's script.

        Raises:
            NotReady: the models have not been loaded yet.
            ModelNotFound: no model of that name is served.
        """
        registry = self._ready_registry()
        return registry.describe(registry.find(name))

    def settings_of(self, model: str | None) -> Settings:
        """Give the settings that hold for requests to a model of this name.

        Raises:
            NotReady: the models have not been loaded yet.
            ModelNotFound: no model of that name is served.
        """
        return self._ready_registry().find(model).settings or self._settings

    @property
    def most_documents(self) -> int:
        """How many documents the most generous model takes in one request."""
        own = (each.settings for each in self._registry or ())
        return max(each.max_documents for each in (self._settings, *filter(None, own)))

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
        check_count(len(request.documents), self.settings_of(request.options.model))
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
        arrived = time.monotonic()
        registry = self._ready_registry()
        model = registry.find(options.model)
        settings = model.settings or self._settings
        check_request(query, options, settings)
        with self._counted(), model.acquire() as instance:
            reranker = instance.reranker
            if reranker is None:
                reranker = await instance.ready(arrived + _time_limit_s(options, settings))
            if options.query_vectors is None and not reads_query(query, reranker.info.scripts):
                reranker = registry.any_script
            check_chunk(options, reranker.info)
            check_query_vectors(options, reranker.info)
            shared = Shared(settings, self._scores, self._admission)
            call = Call(reranker, query, options, shared, arrived)
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


def _time_limit_s(options: RerankOptions, settings: Settings) -> float:
    return settings.request_timeout_s if options.timeout_s is None else options.timeout_s


async def _at_once(documents: Sequence[Document]) -> AsyncIterator[Sequence[Document]]:
    yield documents


def _arrange(found: dict[int, RankedDocument], end: StreamSummary) -> RerankResult:
    failed = (found[index] for index in sorted(found) if found[index].error is not None)
    return RerankResult((*(found[index] for index in end.order), *failed), end.summary)
