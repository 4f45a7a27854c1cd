"""The one table of score kinds: what a score means and how it is mapped into [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

LEXICAL_HALF_SCORE = 10.0
"""The lexical score that UNIT maps to one half: the k of x / (x + k)."""


class ScoreKind(StrEnum):
    """What a score on a model's own scale means."""

    RAW_LOGIT = "RAW_LOGIT"
    PROBABILITY = "PROBABILITY"
    MAXSIM = "MAXSIM"
    COSINE = "COSINE"
    LEXICAL = "LEXICAL"
    RANK = "RANK"


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """How one kind of score behaves.

    `to_unit(score, documents)` maps a score into [0, 1]; only RANK looks at the number of
    documents. `to_logit(score)` gives the logit that a probability was made of, always finite, and
    turns a rank around, since of logits more is better; it leaves every other kind alone.
    `floor` is what a door that must answer a number gives a document that failed alone: no scored
    document lies below it.
    `rule` is the mapping into [0, 1] in words, for the docs.
    """

    to_unit: Callable[[float, int], float]
    floor: float
    rule: str
    to_logit: Callable[[float], float] = lambda x: x


def _logistic(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


def _logit(p: float) -> float:
    # Of 0 and 1, which have none, that of the next number is given: -744.4 and 36.7.
    p = min(max(p, math.ulp(0.0)), math.nextafter(1.0, 0.0))
    return math.log(p) - math.log1p(-p)


def _half_shifted(x: float) -> float:
    return min(1.0, max(0.0, (x + 1.0) / 2.0))


SCORE_SCALES: Mapping[ScoreKind, ScoreScale] = MappingProxyType(
    {
        ScoreKind.RAW_LOGIT: ScoreScale(
            lambda x, _n: _logistic(max(-700.0, x)), -1e4, "1 / (1 + exp(-x))"
        ),
        ScoreKind.PROBABILITY: ScoreScale(lambda x, _n: x, 0.0, "x", _logit),
        ScoreKind.MAXSIM: ScoreScale(
            lambda x, _n: _half_shifted(x), -1.0, "clamp((x + 1) / 2, 0, 1)"
        ),
        ScoreKind.COSINE: ScoreScale(
            lambda x, _n: _half_shifted(x), -1.0, "clamp((x + 1) / 2, 0, 1)"
        ),
        ScoreKind.LEXICAL: ScoreScale(
            lambda x, _n: x / (x + LEXICAL_HALF_SCORE), 0.0, f"x / (x + {LEXICAL_HALF_SCORE:g})"
        ),
        ScoreKind.RANK: ScoreScale(
            lambda rank, n: 1.0 - (rank - 1.0) / n,
            math.inf,
            "1 - (rank - 1) / n",
            lambda rank: -rank,
        ),
    }
)
"""Every score kind's scale. Mappings are fixed: never min-max within a request."""


def to_unit(kind: ScoreKind, score: float, document_count: int) -> float:
    """Map a score of the given kind into [0, 1], the same way in every request.

    `document_count` is the number of documents of the request, used by RANK alone.
    """
    return SCORE_SCALES[kind].to_unit(score, document_count)


def to_logit(kind: ScoreKind, score: float) -> float:
    """Give the logit that a probability was made of, a rank turned around, any other as it is."""
    return SCORE_SCALES[kind].to_logit(score)


def floor(kind: ScoreKind) -> float:
    """Give the finite score that stands for a document which could not be scored.

    Raises:
        ValueError: for RANK, where the worst place depends on the request.
    """
    value = SCORE_SCALES[kind].floor
    if not math.isfinite(value):
        raise ValueError(f"{kind} has no fixed floor")
    return value
