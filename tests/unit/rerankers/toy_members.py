"""Rerankers to be combined: they score by the number that a text begins with, or fail."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rerank_sidecar.errors import BackendFailed, RerankError
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, Score

BROKEN = "broken"
"""A text that fails alone."""


def number(text: str) -> float:
    """Give the number that a text begins with."""
    return float(text.split(maxsplit=1)[0])


@dataclass
class ToyMember:
    """Scores each document by `scored`; a RANK member gives places of its own instead.

    With an `error` it raises after so many outcomes. With a `gate` it waits there before the last.
    `asked` are the texts of each call, `told` the options.
    """

    name: str = "toy"
    scored: Callable[[str], float] = number
    kind: ScoreKind = ScoreKind.RAW_LOGIT
    rate: float = math.inf
    error: BaseException | None = None
    outcomes_before_error: int = 0
    broken: str = BROKEN
    gate: asyncio.Event | None = None
    described: dict[str, Any] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)
    told: list[ScoreOptions] = field(default_factory=list)
    arrivals: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    closed: int = 0

    @property
    def info(self) -> RerankerInfo:
        usual = RerankerInfo(self.name, "1", "toy", self.kind, "python", self.name)
        return replace(usual, **self.described)

    @property
    def tokens_per_s(self) -> float:
        return self.rate

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        return 100 * len(documents)

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        given = [each async for group in documents for each in group]
        self.asked.append([document.text for _, document in given])
        self.told.append(options)
        self.arrivals.put_nowait(query)
        gate, error = self.gate, self.error  # those of this call, whatever is set meanwhile
        options.meter.tokens += 100 * len(given)
        options.meter.pairs += len(given)
        outcomes = self._outcomes(given)
        most = self.outcomes_before_error if error is not None else len(outcomes)
        try:
            for indexed in outcomes[: most - 1 if gate else most]:
                yield indexed
            if gate is not None:
                await gate.wait()
            if error is not None:
                raise error
            if gate is not None:
                yield outcomes[-1]
        finally:
            self.closed += 1

    def _outcomes(self, given: IndexedDocuments) -> list[tuple[int, Outcome]]:
        scores = {index: self._score(document.text) for index, document in given}
        if self.kind is ScoreKind.RANK:
            best_first = sorted(scores, key=lambda index: -_value(scores[index]))
            scores = {index: Score(float(place)) for place, index in enumerate(best_first, 1)}
        return list(scores.items())

    def _score(self, text: str) -> Outcome:
        if text in {BROKEN, self.broken}:
            return BackendFailed("the toy failed")
        return Score(self.scored(text))


def _value(outcome: Outcome) -> float:
    return -math.inf if isinstance(outcome, RerankError) else outcome.value
