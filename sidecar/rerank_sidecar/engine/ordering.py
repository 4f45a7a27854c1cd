"""Ordering scored documents: best first, ties in input order, threshold and top_n applied."""

from __future__ import annotations

from collections.abc import Iterable

from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Normalization, RerankOptions


def order(
    scores: Iterable[tuple[int, float]], options: RerankOptions, kind: ScoreKind
) -> tuple[int, ...]:
    """Give the indexes that the options leave, best first.

    `scores` are pairs of index and returned score, in any order. A rank that is not mapped into
    [0, 1] is better when it is lower; every other score when it is higher.
    """
    lower_is_better = kind is ScoreKind.RANK and options.normalization is not Normalization.UNIT
    sign = 1.0 if lower_is_better else -1.0
    limit = options.score_threshold
    kept = [
        (sign * score, index)
        for index, score in scores
        if limit is None or sign * score <= sign * limit
    ]
    return tuple(index for _, index in sorted(kept)[: options.top_n])
