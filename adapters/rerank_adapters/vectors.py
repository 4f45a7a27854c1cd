"""Vectors that the caller has already, sent in place of a text; without NumPy, and from it."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, TypeAlias

_NUMBER_BYTES = 4


class HasToList(Protocol):
    """What gives its numbers as lists: arrays of NumPy and Python, tensors."""

    def tolist(self) -> Any:  # noqa: ANN401 - lists, as deep as the array
        """Give the numbers."""
        ...


VectorsLike: TypeAlias = (
    "Vectors | Sequence[float] | Sequence[Sequence[float] | HasToList] | HasToList"
)
"""One vector for each token, or one alone: lists of numbers, a NumPy array, a tensor."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors in the form in which they travel; made once, they may be sent many times.

    `dimension` is how many numbers each has, `values` those of all vectors one after the other, as
    float32, little-endian.
    """

    dimension: int
    values: bytes = field(repr=False)

    @classmethod
    def of(cls, given: VectorsLike) -> Vectors:
        """Take [rows, dimension] numbers, or [dimension] for one vector alone.

        A float32 array is copied as it is, without a look at its numbers. Whether all are finite
        the server decides.

        Raises:
            TypeError: they are no numbers.
            ValueError: there is no vector, or they differ in length.
        """
        if isinstance(given, Vectors):
            return given
        return _copied(given) or _packed(given)

    def __len__(self) -> int:
        return len(self.values) // (_NUMBER_BYTES * self.dimension)

    def rows(self) -> list[list[float]]:
        """Give the numbers of each vector."""
        numbers = _swapped(array("f", self.values)).tolist()
        starts = range(0, len(numbers), self.dimension)
        return [numbers[start : start + self.dimension] for start in starts]


def packed(vectors: VectorsLike | None) -> Vectors | None:
    """Give vectors in the form in which they travel, if there are any; raises what `of` raises."""
    return None if vectors is None else Vectors.of(vectors)


def _copied(given: object) -> Vectors | None:
    """Copy float32 numbers of one or two dimensions; None: it is something else."""
    try:
        view = memoryview(given)  # type: ignore[arg-type]  # whether it is one is the question
    except (TypeError, ValueError):  # no buffer; one of numbers that buffers do not know
        return None
    if view.format != "f" or view.ndim not in {1, 2} or not view.nbytes:
        return None
    dimension = view.shape[-1] if view.shape else 0
    return Vectors(dimension, _swapped(array("f", view.tobytes())).tobytes())


def _packed(given: object) -> Vectors:
    rows = _listed(given)
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise TypeError(f"vectors: must be lists of numbers, not {type(given).__name__}")
    rows = [_listed(row) for row in rows]
    if not any(isinstance(row, Sequence) for row in rows):
        rows = [rows]
    if not all(isinstance(row, Sequence) and not isinstance(row, str | bytes) for row in rows):
        raise TypeError("vectors: must be lists of numbers, or one list of numbers")
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError("vectors: must be one or more, all as long")
    try:
        numbers = array("f", chain.from_iterable(rows))
    except TypeError:
        raise TypeError("vectors: must be of numbers") from None
    return Vectors(lengths.pop(), _swapped(numbers).tobytes())


def _listed(given: Any) -> Any:  # noqa: ANN401 - whatever a store or a library gives
    for name in ("tolist", "to_list"):  # as NumPy's arrays and pgvector's values have it
        if hasattr(given, name):
            return getattr(given, name)()
    return given


def _swapped(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
