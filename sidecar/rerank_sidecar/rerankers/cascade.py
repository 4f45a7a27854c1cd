"""A cascade: a cheap model scores all documents, and each dearer one only the best of them.

After Wang, Lin and Metzler, "A Cascade Ranking Model for Efficient Ranked Retrieval", SIGIR 2011.
A document's score is its place: the scores of two models have no scale in common, and a score that
was made up so as to lie below another model's would mean nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    Reranker,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.rerankers.members import (
    ask,
    gathered,
    slowest_rate,
    tokens_at,
    with_places,
)
from rerank_sidecar.types import Document


class CascadeReranker:
    """Scores by stages, of which each hands its `keep` best documents on to the next.

    `keep` has one number for each stage but the last. What a stage does not hand on keeps its order
    behind all that it does. A document that fails in a stage fails alone.
    """

    def __init__(self, info: RerankerInfo, stages: Sequence[Reranker], keep: Sequence[int]) -> None:
        self._info = info
        self._stages = stages
        self._keep = keep

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._info

    @property
    def tokens_per_s(self) -> float:
        """How fast the slowest stage reads, in whose tokens estimates are told."""
        return slowest_rate(self._stages)

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """Estimate what all stages read, as tokens of the slowest that take the same time.

        Which documents reach a later stage is not known yet: they are taken for average ones.
        """
        rate, tokens, count = self.tokens_per_s, 0.0, len(documents)
        for stage, kept in zip(self._stages, (count, *self._keep), strict=True):
            share = min(kept, count) / max(1, count)
            tokens += share * tokens_at(
                rate, stage, stage.estimate_tokens(query, documents, options)
            )
        return round(tokens)

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents stage by stage and yield the place of each, once all are known.

        Raises whatever a stage raises.
        """
        reaching = await gathered(documents)
        outcomes: dict[int, Outcome] = {}
        order: list[int] = []
        for stage, kept in zip(self._stages, (*self._keep, 0), strict=True):
            answer = await ask(stage, query, reaching, options)
            outcomes.update(answer.outcomes)
            best_first = answer.best_first()
            order = best_first[kept:] + order
            by_index = dict(reaching)
            reaching = [(index, by_index[index]) for index in best_first[:kept]]
        for indexed in with_places(outcomes, order):
            yield indexed
