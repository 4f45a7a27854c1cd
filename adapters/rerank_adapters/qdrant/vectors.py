"""Stored vectors: reading those of a point, and asking for them where the caller did not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_client import grpc
from qdrant_client.conversions.conversion import GrpcToRest
from qdrant_client.http.models import ScoredPoint

from rerank_adapters.rerank import Rerank
from rerank_adapters.vectors import Vectors

_UNNAMED = ""
"""Qdrant's name for the vector of a collection whose vectors have no names."""


@dataclass(frozen=True, slots=True)
class VectorSelection:
    """What the store is asked for, and how that becomes what the caller asked for."""

    asked: bool | list[str] | None
    keep: Callable[[Any], Any]


def select_vectors(with_vectors: Any, rerank: Rerank) -> VectorSelection:  # noqa: ANN401
    """Select the vectors that the caller wants and those that points are reranked by.

    Raises:
        TypeError: `with_vectors` is none of what Qdrant's client takes.
    """
    if isinstance(with_vectors, grpc.WithVectorsSelector):
        with_vectors = GrpcToRest.convert_with_vectors_selector(with_vectors)
    name = rerank.vectors
    if name is None or with_vectors is True:
        return VectorSelection(with_vectors, _all)
    if with_vectors is None or with_vectors is False:
        return VectorSelection([name], lambda vector: None)
    if not isinstance(with_vectors, list | tuple):
        raise TypeError("with_vectors must be a bool or a list of names")
    if name in with_vectors:
        return VectorSelection([*with_vectors], _all)
    return VectorSelection([*with_vectors, name], lambda vector: _without(vector, name))


def vectors_of(point: ScoredPoint, name: str) -> Vectors | None:
    """Give a point's vectors of a name, one or several; None: it has none.

    Raises:
        ValueError: they are sparse.
    """
    stored = point.vector
    if not isinstance(stored, Mapping):
        stored = {} if stored is None else {_UNNAMED: stored}
    vectors = stored.get(name)
    if not isinstance(vectors, list | None):
        raise ValueError(f"vectors: {name!r} are sparse, and cannot be compared")
    return Vectors.of(vectors) if vectors else None


def _all(vector: Any) -> Any:  # noqa: ANN401
    return vector


def _without(vector: Any, name: str) -> Any:  # noqa: ANN401
    if not isinstance(vector, Mapping):
        return {}  # it was the unnamed one, alone
    return {key: value for key, value in vector.items() if key != name}
