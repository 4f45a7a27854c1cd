"""Rerankers that pretend to run a model, so that cache and admission have something to do."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, Score

TOKENS_OF_DOCUMENT = 10


class Model:
    """Scores a document by its length; each costs ten tokens, of which it reads 1000 a second.

    At the document "wait" it sets `waits` and goes on once `go` is set; "cut" tells of a cut query.
    `calls` and `texts` tell what it was asked.
    """

    def __init__(
        self,
        *,
        comparable: bool = True,
        keep_scores: bool = True,
        tokens_per_s: float = 1000.0,
    ) -> None:
        self.info = RerankerInfo(
            *("model", "1", "toy", ScoreKind.MAXSIM, "python", "test"),
            comparable_across_requests=comparable,
            keep_scores=keep_scores,
        )
        self.tokens_per_s = tokens_per_s
        self.calls: list[ScoreOptions] = []
        self.texts: list[str] = []
        self.waits = asyncio.Event()
        self.go = asyncio.Event()
        self.outcome: Outcome | None = None

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        return TOKENS_OF_DOCUMENT * len(documents)

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        self.calls.append(options)
        async for group in documents:
            for index, document in group:
                self.texts.append(document.text)
                if document.text == "wait":
                    self.waits.set()
                    await self.go.wait()
                options.meter.query_truncated |= document.text == "cut"
                options.meter.tokens += TOKENS_OF_DOCUMENT
                yield index, self.outcome or Score(1 / (1 + len(document.text)))


def engine_over(model: Model, **settings: object) -> Engine:
    engine = Engine(Settings.model_validate({**Settings().model_dump(), **settings}))
    engine.open(Registry([model], any_script=model))
    return engine


def ask(*texts: str, query: str = "query", options: RerankOptions | None = None) -> RerankRequest:
    return RerankRequest(query, tuple(map(Document, texts)), options or RerankOptions())
