"""From what a server answered to an outcome for each document, believing none of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from rerank_sidecar.errors import NonFiniteScore, RemoteFailed
from rerank_sidecar.rerankers.base import Outcome
from rerank_sidecar.rerankers.remote.base import Garbled
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Score

_ROUNDING = 1e-3
"""Servers that compute in half precision overshoot the ends of a range by this much."""

_RANGES = {
    ScoreKind.PROBABILITY: (0.0, 1.0),
    ScoreKind.COSINE: (-1.0, 1.0),
    ScoreKind.MAXSIM: (-1.0, 1.0),
}

_MOST_COUNTED = 2**31 - 1
"""No call reads as many tokens; what is said to be more is nonsense, which nobody sums up."""

_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})
"""How protobuf's JSON and some servers write them; others write null."""


def rows(answer: object, key: str | None = None) -> list[Any]:
    """Give the list that an answer is, or that it has under a key.

    Raises:
        Garbled: there is none.
    """
    found = answer if key is None else field(answer, key)
    if not isinstance(found, list):
        raise Garbled("there is no list of results")
    return found


def field(row: object, key: str) -> object:
    """Give a value of a JSON object.

    Raises:
        Garbled: it is no object, or has no such key.
    """
    if not isinstance(row, dict) or key not in row:
        raise Garbled(f"`{key}` is missing")
    return row[key]


def indexed(found: Iterable[object], score: str) -> Iterator[tuple[object, object]]:
    """Take index and score out of each result."""
    return ((field(row, "index"), field(row, score)) for row in found)


def whole_number(answer: object, *path: str) -> int:
    """Give a count that an answer may have, 0 if it has none that can be one."""
    for key in path:
        answer = answer.get(key) if isinstance(answer, dict) else None
    return plausible(answer) if isinstance(answer, int) else 0


def plausible(count: int) -> int:
    """Give a count that another server told, 0 if it is no count of anything here."""
    return count if 0 < count <= _MOST_COUNTED else 0


def outcomes(
    scored: Iterable[tuple[object, object]], count: int, kind: ScoreKind
) -> list[tuple[int, Outcome]]:
    """Give an outcome for each of `count` documents, whatever the order of the results.

    A document without a result, without a finite score or with one that its kind cannot have fails
    alone.

    Raises:
        Garbled: an index is no place of a document or comes twice, or a score is no number.
    """
    found: dict[int, Outcome] = {}
    for index, score in scored:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise Garbled(f"an index is not one of the {count} documents'")
        if index in found:
            raise Garbled("two results have the same index")
        found[index] = _outcome(score, kind)
    missing = RemoteFailed("the remote left the document out of its answer")
    return [(index, found.get(index, missing)) for index in range(count)]


def _outcome(score: object, kind: ScoreKind) -> Outcome:
    if score is None or (isinstance(score, str) and score in _NOT_FINITE):
        return _not_finite()
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise Garbled("a score is no number")
    try:
        value = float(score)
    except OverflowError:
        return _not_finite()
    return _in_range(value, kind) if math.isfinite(value) else _not_finite()


def _in_range(value: float, kind: ScoreKind) -> Outcome:
    least, most = _RANGES.get(kind, (-math.inf, math.inf))
    if not least - _ROUNDING <= value <= most + _ROUNDING:
        return RemoteFailed(
            f"the remote gave a score that no {kind} can be; the family option `score_kind` says "
            "what its scores are"
        )
    return Score(min(max(value, least), most))


def _not_finite() -> NonFiniteScore:
    return NonFiniteScore("the remote gave a score that is not finite")
