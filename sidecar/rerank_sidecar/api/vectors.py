"""Vectors that callers send in place of texts: from bytes or JSON numbers to one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rerank_sidecar.errors import InvalidField
from rerank_sidecar.types import Vectors
from rerank_sidecar.v1 import rerank_pb2 as pb


def read_message(message: pb.Vectors, field: str) -> Vectors:
    """Read the float32 numbers of a message of rerank.proto as [rows, dimension].

    Raises:
        InvalidField: they are no whole number of vectors, or not all finite.
    """
    if not message.dimension:
        raise InvalidField(f"{field}.dimension: must be at least 1", f"{field}.dimension")
    row_bytes = 4 * message.dimension
    if not message.values or len(message.values) % row_bytes:
        raise InvalidField(
            f"{field}.values: {len(message.values)} bytes are not one or more vectors of "
            f"{row_bytes} bytes",
            f"{field}.values",
        )
    rows = np.frombuffer(message.values, dtype="<f4").reshape(-1, message.dimension)
    return _finite(rows, f"{field}.values")


def read_rows(rows: Sequence[Sequence[float]], field: str) -> Vectors:
    """Read lists of numbers, one for each vector, as float32 [rows, dimension].

    Raises:
        InvalidField: there is no vector, they differ in length, or a number is too large.
    """
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise InvalidField(f"{field}: must be one or more lists of numbers, all as long", field)
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused
        return _finite(np.asarray(rows, dtype=np.float32), field)


def _finite(rows: Vectors, field: str) -> Vectors:
    if not np.isfinite(rows).all():
        raise InvalidField(f"{field}: every number must be finite", field)
    return rows
