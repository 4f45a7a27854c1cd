"""The engine and its reference in one process, on the same requests, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.types import Document, RerankRequest

Scores = npt.NDArray[np.float64]
Score = Callable[[str, Sequence[str]], Scores]


@dataclass
class Contender:
    """Something that scores, with the seconds of each of its turns and its last turn's scores."""

    name: str
    seconds: list[float] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)

    @property
    def typical_s(self) -> float:
        """Give the median turn."""
        return statistics.median(self.seconds)

    def times_as_fast_as(self, other: Contender) -> float:
        """Give the median of the ratios of turns of the same round."""
        pairs = zip(other.seconds, self.seconds, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    def turn(self, score: Score, requests: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Score every request once, by a plain function."""
        start = time.perf_counter()
        self.scores = [score(query, texts) for query, texts in requests]
        self.seconds.append(time.perf_counter() - start)

    async def turn_of(self, engine: Engine, requests: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Score every request once, by an engine of ours."""
        start = time.perf_counter()
        self.scores = [await engine_scores(engine, query, texts) for query, texts in requests]
        self.seconds.append(time.perf_counter() - start)


async def engine_scores(engine: Engine, query: str, texts: Sequence[str]) -> Scores:
    """Score with an engine of ours; every document must have a score."""
    result = await engine.rerank(RerankRequest(query, tuple(map(Document, texts))))
    values = {each.index: each.score.value for each in result.results if each.score is not None}
    return np.array([values[index] for index in range(len(texts))])


def timed(score: Score, query: str, texts: Sequence[str]) -> tuple[float, Scores]:
    """Score once and tell the seconds."""
    start = time.perf_counter()
    scores = score(query, texts)
    return time.perf_counter() - start, scores
