"""An ensemble: several models score all documents, and their places are added up by weight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rerank_sidecar.errors import RerankError
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    Reranker,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.rerankers.members import (
    Answer,
    ask,
    gathered,
    slowest_rate,
    tokens_at,
    with_places,
)
from rerank_sidecar.types import Document, Score


class Fusion(StrEnum):
    """How much a place in one model's order is worth.

    RECIPROCAL_RANK: 1 / (constant + place), so that first places count most (Cormack, Clarke and
    Büttcher, "Reciprocal Rank Fusion", SIGIR 2009). RANK: every place counts the same (Borda).
    """

    RECIPROCAL_RANK = "reciprocal_rank"
    RANK = "rank"


@dataclass(frozen=True, slots=True)
class EnsembleConfig:
    """One weight for each member, above 0, and how places are made into a sum."""

    weights: Sequence[float]
    fusion: Fusion = Fusion.RECIPROCAL_RANK
    rank_constant: int = 60

    def worth(self, place: int) -> float:
        """Tell what a place is worth before it is weighed; more is better."""
        if self.fusion is Fusion.RANK:
            return -float(place)
        return 1.0 / (self.rank_constant + place)


class EnsembleReranker:
    """Scores by all members at once; a document's score is its place among the weighted sums.

    A document that fails with one member fails alone, with the error of the first such member.
    """

    def __init__(
        self, info: RerankerInfo, members: Sequence[Reranker], config: EnsembleConfig
    ) -> None:
        self._info = info
        self._members = members
        self._config = config

    @property
    def info(self) -> RerankerInfo:
        """Describe the reranker."""
        return self._info

    @property
    def tokens_per_s(self) -> float:
        """How fast the slowest member reads, in whose tokens estimates are told."""
        return slowest_rate(self._members)

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        """Estimate what all members read, as tokens of the slowest that take the same time."""
        rate = self.tokens_per_s
        estimates = (
            (member, member.estimate_tokens(query, documents, options)) for member in self._members
        )
        return round(sum(tokens_at(rate, member, tokens) for member, tokens in estimates))

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        """Score documents by all members and yield the place of each, once all are known.

        Raises what the first member to fail raises; the others are given up.
        """
        given = await gathered(documents)
        answers = await self._ask_all(query, given, options)
        outcomes = {index: _joint([each.outcomes[index] for each in answers]) for index, _ in given}
        scored = {index: each for index, each in outcomes.items() if isinstance(each, Score)}
        sums = self._sums(answers, scored)
        order = sorted(scored, key=lambda index: -sums[index])
        for indexed in with_places(outcomes, order):
            yield indexed

    async def _ask_all(
        self, query: str, documents: IndexedDocuments, options: ScoreOptions
    ) -> list[Answer]:
        try:
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(ask(member, query, documents, options))
                    for member in self._members
                ]
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        return [each.result() for each in asked]

    def _sums(self, answers: Sequence[Answer], scored: Mapping[int, Score]) -> dict[int, float]:
        sums = dict.fromkeys(scored, 0.0)
        for answer, weight in zip(answers, self._config.weights, strict=True):
            for index, place in _shared_places(answer, scored).items():
                sums[index] += weight * self._config.worth(place)
        return sums


def _joint(outcomes: Sequence[Outcome]) -> Outcome:
    """Give the first error, or the first score, which tells best where the document fits."""
    errors = (each for each in outcomes if isinstance(each, RerankError))
    first = next(errors, outcomes[0])
    if isinstance(first, RerankError):
        return first
    truncated = any(isinstance(each, Score) and each.truncated for each in outcomes)
    return replace(first, truncated=truncated)


def _shared_places(answer: Answer, scored: Mapping[int, Score]) -> dict[int, int]:
    """Give the place of each document in one member's order; equal scores share the best place."""
    scores = answer.scores()
    places: dict[int, int] = {}
    before: int | None = None
    for place, index in enumerate((each for each in answer.best_first() if each in scored), 1):
        is_equal = before is not None and scores[before].value == scores[index].value
        places[index] = places[before] if before is not None and is_equal else place
        before = index
    return places
