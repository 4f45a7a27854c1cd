"""What reranked searches return: Weaviate's own types, which also tell how the order came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar
from uuid import UUID

from weaviate.collections.classes.internal import GroupByMetadataReturn
from weaviate.outputs.query import (
    GenerativeGroupByReturn,
    GenerativeReturn,
    GroupByReturn,
    QueryReturn,
)

from rerank_adapters.errors import RerankCallError
from rerank_adapters.messages import DocumentError, RerankResponse

P = TypeVar("P")
"""The type of an object's properties, as in Weaviate's classes."""

R = TypeVar("R")
"""The type of an object's references."""


@dataclass
class RerankedQueryReturn(QueryReturn[P, R]):
    """A `QueryReturn` in its new order; `metadata.rerank_score` is what an object stands there by.

    `passed_through` is the error for which the objects came back in Weaviate's order; None: they
    were reranked. The others are known where the application asked the sidecar, and not where
    Weaviate did: `response` is the sidecar's answer, with the model and what it cost;
    `missing_texts` counts the objects that had no text, `missing_vectors` those that had not the
    vectors to be reranked by; `errors` says, by an object's id, why it has no score of its own: it
    has the worst of the others' and stands behind them.
    """

    passed_through: RerankCallError | None = None
    response: RerankResponse | None = None
    missing_texts: int | None = None
    missing_vectors: int | None = None
    errors: Mapping[UUID, DocumentError] = field(default_factory=dict)


@dataclass
class RerankedGroupByReturn(GroupByReturn[P, R]):
    """A `GroupByReturn` in its new order; the fields are those of `RerankedQueryReturn`.

    Each group's `rerank_score` is that of its first object.
    """

    passed_through: RerankCallError | None = None
    response: RerankResponse | None = None
    missing_texts: int | None = None
    missing_vectors: int | None = None
    errors: Mapping[UUID, DocumentError] = field(default_factory=dict)


@dataclass
class RerankedGroupByMetadata(GroupByMetadataReturn):
    """The metadata of an object in a group, with the score that Weaviate's own has no place for."""

    rerank_score: float | None = None


Returned = QueryReturn[Any, Any] | GroupByReturn[Any, Any]
"""What Weaviate's searches return."""

Reranked = RerankedQueryReturn[Any, Any] | RerankedGroupByReturn[Any, Any]
"""What they return with our `rerank`."""


def plain(found: object) -> Returned:
    """Give what a query returned in the type that it is declared to have.

    `near_vector` returns the types of `generate`, with nothing generated in them.

    Raises:
        TypeError: it is not what a query returns.
    """
    if isinstance(found, QueryReturn | GroupByReturn):
        return found
    if isinstance(found, GenerativeReturn) and found.generative is None:
        return QueryReturn(**_shared(found, QueryReturn))
    if isinstance(found, GenerativeGroupByReturn) and found.generated is None:
        return GroupByReturn(**_shared(found, GroupByReturn))
    kind = type(found).__name__
    raise TypeError(f"returned: must be a QueryReturn or a GroupByReturn, not {kind}")


def _shared(found: object, kind: type[Returned]) -> dict[str, Any]:
    return {each.name: getattr(found, each.name) for each in fields(kind)}


def first_of(
    found: Returned,
    count: int | None,
    offset: int = 0,
    passed_through: RerankCallError | None = None,
) -> Reranked:
    """Take `count` objects, or groups, from `offset` on, in the order in which they are."""
    page = slice(offset, None if count is None else offset + count)
    if isinstance(found, QueryReturn):
        rows: dict[str, object] = {"objects": found.objects[page]}
        return RerankedQueryReturn(**{**vars(found), **rows, "passed_through": passed_through})
    groups = dict(list(found.groups.items())[page])
    objects = [each for group in groups.values() for each in group.objects]
    grouped: dict[str, object] = {"objects": objects, "groups": groups}
    return RerankedGroupByReturn(**{**vars(found), **grouped, "passed_through": passed_through})
