"""An engine over a toy reranker: a document's text says what becomes of it."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import httpx

from rerank_sidecar.api.http_app import build_http_app
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.errors import BackendFailed
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import read_settings
from rerank_sidecar.types import Document, Score, Window

FAILS = "fails"
CRASHES = "crashes"
WAITS = "waits"


class Toy:
    """Scores a number by its value and other texts by their length; remembers what it saw.

    A document that waits does so until `released` is set; `abandoned` tells that it was given up.
    """

    def __init__(self, kind: ScoreKind = ScoreKind.RAW_LOGIT) -> None:
        self.queries: list[str] = []
        self.options: list[ScoreOptions] = []
        self.texts: list[str] = []
        self.waiting = asyncio.Event()
        self.released = asyncio.Event()
        self.abandoned = asyncio.Event()
        self.info = RerankerInfo(
            *("toy", "1", "toy", kind, "python", "test"),
            keep_scores=False,
        )

    @property
    def tokens_per_s(self) -> float:
        return math.inf  # it runs no model

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        return 0

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        self.queries.append(query)
        self.options.append(options)
        async for group in documents:
            for index, document in group:
                self.texts.append(document.text)
                if document.text == WAITS:
                    await self._wait()
                yield index, _outcome(document.text)

    async def _wait(self) -> None:
        self.waiting.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.abandoned.set()
            raise


def _outcome(text: str) -> Outcome:
    if text == FAILS:
        return BackendFailed("the forward pass failed")
    if text == CRASHES:
        raise KeyError(text)
    try:
        return Score(float(text), best_window=Window(0, len(text)))
    except ValueError:
        return Score(float(len(text)))


def engine_with(toy: Toy, **settings: object) -> Engine:
    """Make an engine that is ready and knows nothing but the toy."""
    engine = unready_engine(**settings)
    engine.open(Registry([toy], any_script=toy))
    return engine


def unready_engine(**settings: object) -> Engine:
    """Make an engine whose model has not been loaded yet."""
    return Engine(read_settings(None, **settings))


def client_of(engine: Engine) -> httpx.AsyncClient:
    """Make a client that calls the application without a socket."""
    transport = httpx.ASGITransport(build_http_app(engine, engine.settings))
    return httpx.AsyncClient(transport=transport, base_url="http://sidecar")
