"""A document's token vectors in compact form: 8 bits a number, one scale for each token.

Scores are computed from this form alone, whether it has just been made or comes from a cache. And
they are computed in whole numbers: a query's rows are rounded, too, so finely that every sum of
their products with a document's stays below 2**24, up to which float32 holds every whole number.
So no product is rounded, and no bit of a score depends on the order in which a library adds, on
how many documents are multiplied at once, or on how many threads do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import NonFiniteScore
from rerank_sidecar.types import Window

Vectors = npt.NDArray[np.float32]

_LEVELS = 127
_EXACT = 2**24
"""Float32 holds every whole number up to here."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenMatrix:
    """Unit vectors as `levels` times `scales`: int8 [tokens, dimension] and float32 [tokens].

    A scale is one over the length of its row of levels, so that each row stays a unit vector.
    """

    levels: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @classmethod
    def of(cls, vectors: Vectors) -> TokenMatrix:
        """Round vectors [tokens, dimension] of any length, symmetrically; zeros stay zeros.

        Raises:
            NonFiniteScore: a number is infinite or none.
        """
        levels = np.rint(_relative_to_largest(vectors) * np.float32(_LEVELS))
        return cls(levels.astype(np.int8), _one_over_length(levels).astype(np.float32))

    def __len__(self) -> int:
        return len(self.scales)


@dataclass(frozen=True, slots=True, eq=False)
class QueryMatrix:
    """A query's unit vectors in whole numbers: float32 [dimension, tokens], float64 [tokens]."""

    levels: Vectors
    scales: npt.NDArray[np.float64]

    @classmethod
    def of(cls, vectors: Vectors) -> QueryMatrix:
        """Round vectors [tokens, dimension] as finely as their products with levels stay exact.

        Raises:
            NonFiniteScore: a number is infinite or none.
        """
        relative = _relative_to_largest(vectors).astype(np.float64)
        dimension = vectors.shape[1]
        sums = np.maximum(np.abs(relative).sum(axis=1, keepdims=True), 1.0)
        # Rounding adds at most a half for each number to the sum of a row's sizes.
        levels = np.rint(relative * ((_EXACT / _LEVELS - dimension / 2) / sums))
        return cls(np.ascontiguousarray(levels.T, dtype=np.float32), _one_over_length(levels))


@dataclass(frozen=True, slots=True, eq=False)
class EncodedDocument:
    """All that a score needs of a document: the matrix of each window and where it came from.

    `windows` are the characters of each, or empty when the document was read whole.
    """

    matrices: tuple[TokenMatrix, ...]
    windows: tuple[Window, ...] = ()
    truncated: bool = False


def products(query: QueryMatrix, matrices: Sequence[TokenMatrix]) -> Vectors:
    """Multiply each row of the matrices, one matrix after the other, with each of the query's.

    The result is float32 [rows of all matrices, tokens of the query]; times the query's scales it
    is cosines.
    """
    # One product for each matrix: its numbers then fit in the cache of a core.
    exact = [matrix.levels.astype(np.float32) @ query.levels for matrix in matrices]
    scaled: Vectors = np.concatenate(exact)
    scaled *= np.concatenate([matrix.scales for matrix in matrices])[:, np.newaxis]
    return scaled


def _relative_to_largest(vectors: Vectors) -> Vectors:
    """Scale each row so that its largest number is 1 or -1; rows of next to nothing become 0."""
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
    if not np.isfinite(largest).all():
        raise NonFiniteScore("the model gave numbers that are not finite")
    relative: Vectors = vectors / np.maximum(largest, np.finfo(np.float32).tiny)
    return relative


def _one_over_length(levels: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    exact = levels if levels.shape[1] * _LEVELS**2 <= _EXACT else levels.astype(np.float64)
    squares = np.einsum("td,td->t", exact, exact).astype(np.float64)
    scales: npt.NDArray[np.float64] = np.zeros_like(squares)
    np.divide(1.0, np.sqrt(squares), out=scales, where=squares > 0)
    return scales
