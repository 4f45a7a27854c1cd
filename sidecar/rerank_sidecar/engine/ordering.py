"""Ordering scored documents: best first, ties in input order, threshold and top_n applied."""

from __future__ import annotations

from collections.abc import Iterable

from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Normalization, RerankOptions

_TURNED = frozenset({Normalization.UNIT, Normalization.LOGIT})
"""Scales on which ranks are turned around, so that more is better."""


def order(
    scores: Iterable[tuple[int, float]], options: RerankOptions, kind: ScoreKind
) -> tuple[int, ...]:
    """Give the indexes that the options leave, best first.

    `scores` are pairs of index and returned score, in any order. A rank that was not turned around
    is better when it is lower; every other score when it is higher.
    """
    lower_is_better = kind is ScoreKind.RANK and options.normalization not in _TURNED
    sign = 1.0 if lower_is_better else -1.0
    limit = options.score_threshold
    kept = [
        (sign * score, index)
        for index, score in scores
        if limit is None or sign * score <= sign * limit
    ]
    return tuple(index for _, index in sorted(kept)[: options.top_n])
