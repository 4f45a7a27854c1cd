"""Stored vectors: what the drivers make of a column of them, with pgvector registered or not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rerank_adapters.vectors import Vectors

_VECTOR = re.compile(r"\[([-+.,eE\d]+)\]")


def vectors_of(value: object) -> Vectors | None:
    """Read a `vector`, `halfvec`, `vector[]`, `halfvec[]`, `real[]` or `real[][]`.

    They come as lists and arrays of numbers, as pgvector's own values or, where the driver has not
    been told of pgvector, in PostgreSQL's text form: `[1,2]`, and `{"[1,2]","[3,4]"}` of an array.
    Gives None for NULL, and for an array that has no vector.

    Raises:
        TypeError: it is something else.
        ValueError: it is something else in text form, or an array has a NULL in it.
    """
    if value is None or (isinstance(value, str | Sequence) and value in ("{}", [], ())):
        return None
    if isinstance(value, str):
        return Vectors.of(_rows(value))
    if isinstance(value, list | tuple) and any(isinstance(each, str) for each in value):
        return Vectors.of([row for each in value for row in _rows(each)])
    return Vectors.of(value)  # type: ignore[arg-type]  # whatever the driver made


def _rows(text: object) -> list[list[float]]:
    rows = _VECTOR.findall(text) if isinstance(text, str) else []
    if not rows or _VECTOR.sub("", str(text)).strip('{}",'):
        # The text may be a document's, which no message may carry.
        raise ValueError("vectors: must be of vector, halfvec or real, or of arrays of those")
    return [[float(number) for number in row.split(",")] for row in rows]
