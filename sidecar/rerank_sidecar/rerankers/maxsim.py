"""MaxSim: how a query's token vectors meet those of documents; pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rerank_sidecar.batching.tokenization import SpecialTokens
from rerank_sidecar.rerankers.token_matrix import QueryMatrix, TokenMatrix, Vectors, products

_PRODUCTS_AT_ONCE = 4_000_000
"""So many cosines, 16 MB of them, are in memory at once."""


@dataclass(frozen=True, slots=True)
class MaxSim:
    """Turns hidden states [tokens, dimension] into matrices, and matrices into scores.

    An encoder may give a single vector [dimension] for a text, which is a matrix of one row.

    Special tokens take part where the switches say so; a text that has no other tokens keeps
    them. With a `cosine_weight` of w the score is (maxsim + w * cosine) / (1 + w), where the
    cosine is that of the mean token vectors, special tokens included: the last row of a matrix.
    """

    special_tokens: SpecialTokens
    keep_query_special_tokens: bool = True
    keep_document_special_tokens: bool = True
    cosine_weight: float = 0.0

    def encode_query(self, _position: int, hidden: Vectors) -> QueryMatrix:
        """Make a query's matrix.

        Raises:
            NonFiniteScore: a number is infinite or none.
        """
        return QueryMatrix.of(self._rows(hidden, keep=self.keep_query_special_tokens))

    def encode_document(self, hidden: Vectors) -> TokenMatrix:
        """Make the matrix of one window of a document; without any vector it is near to nothing.

        Raises:
            NonFiniteScore: a number is infinite or none.
        """
        rows = self._rows(hidden, keep=self.keep_document_special_tokens)
        return TokenMatrix.of(rows if len(rows) else np.zeros((1, rows.shape[1]), np.float32))

    def scores(self, query: QueryMatrix, matrices: Sequence[TokenMatrix]) -> list[float]:
        """Score each matrix; no bit of a score depends on the others."""
        most_rows = max(1, _PRODUCTS_AT_ONCE // len(query.scales))
        return [
            score for part in _parts(matrices, most_rows) for score in self._scores(query, part)
        ]

    def _rows(self, hidden: Vectors, *, keep: bool) -> Vectors:
        hidden = np.atleast_2d(hidden)
        before, after = (len(run) for run in self.special_tokens.runs)
        text = hidden[before : len(hidden) - after]
        kept = hidden if keep or len(text) == 0 else text
        if not self.cosine_weight:
            return kept
        return np.concatenate([kept, hidden.mean(axis=0, keepdims=True)])

    def _scores(self, query: QueryMatrix, matrices: Sequence[TokenMatrix]) -> list[float]:
        ends = np.cumsum([len(matrix) for matrix in matrices])
        starts = np.concatenate([[0], ends[:-1]])
        cosines = products(query, matrices)
        if not self.cosine_weight:
            best = np.maximum.reduceat(cosines, starts, axis=0) * query.scales
            return [_clipped(_mean(row)) for row in best.tolist()]
        # Every other segment is the row of a mean vector alone.
        segments = np.stack([starts, ends - 1], axis=1).ravel()
        best = np.maximum.reduceat(cosines, segments, axis=0) * query.scales
        maxsims = map(_mean, best[::2, :-1].tolist())
        return [self._blend(*pair) for pair in zip(maxsims, best[1::2, -1].tolist(), strict=True)]

    def _blend(self, maxsim: float, cosine: float) -> float:
        weight = self.cosine_weight
        return _clipped((maxsim + weight * cosine) / (1 + weight))


def _parts(matrices: Sequence[TokenMatrix], most_rows: int) -> Iterator[list[TokenMatrix]]:
    part: list[TokenMatrix] = []
    rows = 0
    for matrix in matrices:
        if part and rows + len(matrix) > most_rows:
            yield part
            part, rows = [], 0
        part.append(matrix)
        rows += len(matrix)
    if part:
        yield part


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)  # correctly rounded in any order


def _clipped(cosine: float) -> float:
    return min(1.0, max(-1.0, cosine))  # rounding leaves the range of a cosine
