"""Vectors that the caller has already, sent in place of a text; without NumPy, and from it."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
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
            ValueError: there is no vector, they differ in length, or a number is too large.
        """
        if isinstance(given, Vectors):
            return given
        return _copied(given) or _packed(given)

    def __len__(self) -> int:
        return len(self.values) // (_NUMBER_BYTES * self.dimension)

    def rows(self) -> list[list[float]]:
        """Give the numbers of each vector."""
        return list(map(list, _row(self.dimension).iter_unpack(self.values)))


def packed(vectors: VectorsLike | None) -> Vectors | None:
    """Give vectors in the form in which they travel, if there are any; raises what `of` raises."""
    return None if vectors is None else Vectors.of(vectors)


def _copied(given: object) -> Vectors | None:
    """Copy float32 numbers of one or two dimensions; None: they are to be packed one by one."""
    if sys.byteorder != "little":
        return None
    try:
        view = memoryview(given)  # type: ignore[arg-type]  # whether it is one is the question
    except (TypeError, ValueError):  # no buffer; one of numbers that buffers do not know
        return None
    if view.format != "f" or view.ndim not in {1, 2} or not view.nbytes:
        return None
    return Vectors(view.shape[-1] if view.shape else 0, view.tobytes())


def _packed(given: object) -> Vectors:
    rows = _rows(given)
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError("vectors: must be one or more, all as long")
    dimension = lengths.pop()
    row_form = _row(dimension)
    try:
        return Vectors(dimension, b"".join(row_form.pack(*row) for row in rows))
    except struct.error:
        raise TypeError("vectors: must be of numbers") from None
    except OverflowError:
        raise ValueError("vectors: a number is too large for 32 bits") from None


def _rows(given: object) -> list[Sequence[float]]:
    rows = _listed(given)
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise TypeError(f"vectors: must be lists of numbers, not {type(given).__name__}")
    rows = [_listed(row) for row in rows]
    if not any(isinstance(row, Sequence) for row in rows):
        rows = [rows]
    if not all(isinstance(row, Sequence) and not isinstance(row, str | bytes) for row in rows):
        raise TypeError("vectors: must be lists of numbers, or one list of numbers")
    return rows


def _listed(given: Any) -> Any:  # noqa: ANN401 - whatever a store or a library gives
    for name in ("tolist", "to_list"):  # as NumPy's arrays and pgvector's values have it
        if hasattr(given, name):
            return getattr(given, name)()
    return given


def _row(dimension: int) -> struct.Struct:
    return struct.Struct(f"<{dimension}f")
