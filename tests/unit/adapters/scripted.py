"""A reranker that fails as often as it is told, for what a client does about it."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, Score


class Scripted:
    """Raises the next of its `errors`, and with none left gives every document the same score.

    `asked` counts requests, `began` and `ended` tell of them. While `release` is not set, the
    document "wait" is not scored.
    """

    def __init__(self, *errors: Exception, name: str = "scripted") -> None:
        self.errors = list(errors)
        self.asked = 0
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.release = asyncio.Event()
        self.info = RerankerInfo(
            *(name, "1", "toy", ScoreKind.MAXSIM, "python", "test", 512), keep_scores=False
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
        self.asked += 1
        self.began.set()
        try:
            async for group in documents:
                if self.errors:
                    raise self.errors.pop(0)
                for index, document in group:
                    if document.text == "wait":
                        await self.release.wait()
                    yield index, Score(1.0)
        finally:
            self.ended.set()
