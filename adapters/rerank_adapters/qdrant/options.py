"""The arguments of Qdrant's queries, named once for both clients."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict

from qdrant_client import QdrantClient

if TYPE_CHECKING:  # older versions of Qdrant's client do not have all of these names
    from qdrant_client.conversions import common_types as types
    from qdrant_client.http.models import WithLookupInterface

    Query = (
        types.PointId
        | list[float]
        | list[list[float]]
        | types.SparseVector
        | types.Query
        | types.NumpyArray
        | types.Document
        | types.Image
        | types.InferenceObject
        | None
    )


class _Options(TypedDict, total=False):
    using: str | None
    prefetch: types.Prefetch | list[types.Prefetch] | None
    query_filter: types.Filter | None
    search_params: types.SearchParams | None
    limit: int
    with_payload: types.WithPayloadInterface
    with_vectors: types.WithVector
    score_threshold: float | None
    lookup_from: types.LookupLocation | None
    consistency: types.ReadConsistency | None
    shard_key_selector: types.ShardKeySelector | None
    timeout: int | None


class QueryOptions(_Options, total=False):
    """The arguments of `query_points`, as Qdrant's client explains them."""

    offset: int | None


class GroupOptions(_Options, total=False):
    """The arguments of `query_points_groups`, as Qdrant's client explains them."""

    group_size: int
    with_lookup: WithLookupInterface | None


class BatchOptions(TypedDict, total=False):
    """The arguments of `query_batch_points`, as Qdrant's client explains them."""

    consistency: types.ReadConsistency | None
    timeout: int | None


def by_name(
    method: str, arguments: tuple[object, ...], options: dict[str, object]
) -> dict[str, Any]:
    """Give all arguments of a query by name, those that it leaves out with Qdrant's defaults.

    Raises:
        TypeError: there are too many, or one is missing.
    """
    bound = _signature(method).bind(None, *arguments, **options)
    bound.apply_defaults()
    named: dict[str, Any] = {**bound.arguments}
    named.pop("self")
    unknown = named.pop("kwargs", {})  # Qdrant's client itself refuses these
    return {**named, **unknown}


@lru_cache
def _signature(method: str) -> inspect.Signature:
    # Not the instance's: it may be wrapped, to trace it or for a test. Both clients have the same.
    return inspect.signature(getattr(QdrantClient, method))
