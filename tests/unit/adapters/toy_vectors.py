"""A late-interaction reranker of two numbers a vector, which says what vectors reached it."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import numpy as np

from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, Score, Vectors

WORDS = {"red": (1.0, 0.0), "fruit": (0.0, 1.0)}
_ANY_OTHER_WORD = (-1.0, 0.0)


def encode(text: str) -> Vectors:
    """Give a vector for each word of a text, and one for an empty text."""
    words = text.split() or [""]
    return np.asarray([WORDS.get(word, _ANY_OTHER_WORD) for word in words], dtype=np.float32)


def maxsim(query: Vectors, document: Vectors) -> float:
    """Mean over the query's vectors of the best cosine with one of the document's."""
    units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (query, document)]
    return float((units[0] @ units[1].T).max(axis=1).mean())


class ToyMaxSim:
    """Scores by MaxSim over the vectors that callers send, or over those of words.

    `queries` and `documents` are what arrived, None where a text was to be encoded.
    """

    def __init__(self) -> None:
        self.queries: list[Vectors | None] = []
        self.documents: list[Vectors | None] = []
        self.info = RerankerInfo(
            *("toy-maxsim", "1", "late_interaction", ScoreKind.MAXSIM, "numpy", "test"),
            vector_dimension=2,
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
        self.queries.append(options.query_vectors)
        asked = encode(query) if options.query_vectors is None else options.query_vectors
        async for group in documents:
            for index, document in group:
                self.documents.append(document.vectors)
                given = document.vectors
                vectors = encode(document.text) if given is None else given
                options.meter.pairs += 1
                yield index, Score(maxsim(asked, vectors))


class StandIn(ToyMaxSim):
    """Answers in another model's place, by calls to another server."""

    def __init__(self) -> None:
        super().__init__()
        self.answering = self.info
        self.info = RerankerInfo(
            *("primary", "1", "fallback", ScoreKind.MAXSIM, "numpy", "test"),
            keep_scores=False,
            vector_dimension=2,
        )

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        options.meter.answered_by = self.answering
        options.meter.remote_calls += 3
        async for each in super().score(query, documents, options):
            yield each
