"""One search with `rerank=`: what Weaviate is asked for, and what is made of its answer.

No input or output happens here: the collections, blocking and asynchronous, ask alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from weaviate.classes.query import GroupBy, QueryNested
from weaviate.classes.query import Rerank as WeaviateRerank

from rerank_adapters.candidates import Arrangement, Candidates
from rerank_adapters.errors import RerankCallError
from rerank_adapters.rerank import Rerank, fields
from rerank_adapters.weaviate.results import Reranked, Returned, first_of, plain
from rerank_adapters.weaviate.returned import arranged, candidates_of

SEARCHES = frozenset(
    {"bm25", "hybrid", "near_image", "near_media", "near_object", "near_text", "near_vector"}
)
"""The methods of `collection.query` that take `rerank`."""

_WITH_TEXT = frozenset({"bm25", "hybrid", "near_text"})
"""Those whose first argument is the text of the query."""


@dataclass(frozen=True, slots=True)
class Search:
    """What one of Weaviate's searches was called with, and our `Rerank`.

    Raises:
        ValueError: they do not go together; the message says why.
    """

    rerank: Rerank
    query: str
    arguments: Mapping[str, Any]

    @classmethod
    def of(
        cls, method: str, rerank: Rerank, positional: Sequence[Any], arguments: Mapping[str, Any]
    ) -> Search:
        """Make one of a call of a method of `collection.query`."""
        text = None
        if method in _WITH_TEXT:
            given = positional[0] if positional else arguments.get("query")
            text = given if isinstance(given, str | None) else " ".join(given)
        return cls(rerank, rerank.query_text(text), arguments)

    def __post_init__(self) -> None:
        if self.rerank.vectors is not None:
            raise ValueError("vectors: query with include_vector, and then rerank_query_return")
        if self._limit is None and (self._offset or self.rerank.oversample is not None):
            raise ValueError("limit: needed with an offset and with oversample")
        if self._group_by is not None and self._offset:
            raise ValueError("offset: there is none in groups that are reranked")

    def for_module(self) -> dict[str, Any]:
        """Give the arguments with which Weaviate's module reranks all candidates.

        Raises:
            ValueError: the module cannot do what `rerank` asks for.
        """
        prop = self.rerank.prop
        if not isinstance(prop, str):
            raise _only_with_sidecar("prop: Weaviate's module reads one property")
        if self.rerank.query_vectors is not None:
            raise _only_with_sidecar("query_vectors: Weaviate's module sends texts")
        if self.rerank.model is not None:
            raise _only_with_sidecar("model: a collection has one, by its reranker_config")
        if self.rerank.fuse != "none":
            raise _only_with_sidecar("fuse: Weaviate's module gives its own order alone")
        return {**self._candidates(), "rerank": WeaviateRerank(prop=prop, query=self.query)}

    def for_sidecar(self) -> dict[str, Any]:
        """Give the arguments that find all candidates, with the properties that are reranked by.

        Raises:
            ValueError: the type of the properties lacks one of those.
        """
        asked = self._candidates()
        if hidden := self._hidden():
            asked["return_properties"] = [*_selected(asked["return_properties"]), *hidden]
        return asked

    def read(self, found: Returned) -> Candidates:
        """Read what the sidecar is asked to rerank."""
        return candidates_of(plain(found), self.rerank)

    def arranged(self, found: Returned, arrangement: Arrangement) -> Reranked:
        """Make the answer of all candidates and the sidecar's order."""
        found, hidden = plain(found), frozenset(self._hidden())
        if hidden:
            shown: dict[str, Any] = {"objects": [_without(row, hidden) for row in found.objects]}
            found = replace(found, **shown)
        return arranged(found, arrangement, self._count, self._offset)

    def cut(self, found: Returned) -> Reranked:
        """Make the answer of all candidates in the order that the module gave them."""
        return first_of(plain(found), self._count, self._offset)

    def passed_through(self, found: Returned, error: RerankCallError) -> Reranked:
        """Make the answer of what Weaviate found without reranking, by the caller's arguments."""
        return first_of(plain(found), self._count, passed_through=error)

    def _candidates(self) -> dict[str, Any]:
        if self._limit is None:
            return dict(self.arguments)
        limit = self.rerank.candidates(self._limit, self._offset)
        asked = {**self.arguments, "limit": limit, "offset": None}
        if self._group_by is not None:
            groups = math.ceil(self._group_by.number_of_groups * (self.rerank.oversample or 1))
            asked["group_by"] = self._group_by.model_copy(update={"number_of_groups": groups})
        return asked

    def _hidden(self) -> list[str]:
        """List the properties that are reranked by, but that the caller does not want to see."""
        given = self.arguments.get("return_properties")
        if given is None or given is True:
            return []
        is_type = isinstance(given, type)
        shown = list(given.__annotations__) if is_type else _selected(given)
        names = {each.name if isinstance(each, QueryNested) else each for each in shown}
        hidden = [name for name in fields(self.rerank.prop) if name not in names]
        if is_type and hidden:
            raise ValueError(f"return_properties: its type lacks {hidden[0]!r}, to rerank by")
        return hidden

    @property
    def _count(self) -> int | None:
        """How many objects come back, or groups where the query groups; None: all found."""
        asked = self._limit if self._group_by is None else self._group_by.number_of_groups
        return min((each for each in (asked, self.rerank.top_n) if each is not None), default=None)

    @property
    def _limit(self) -> int | None:
        limit: int | None = self.arguments.get("limit")
        return limit

    @property
    def _offset(self) -> int:
        return self.arguments.get("offset") or 0

    @property
    def _group_by(self) -> GroupBy | None:
        group_by: GroupBy | None = self.arguments.get("group_by")
        return group_by


def _selected(return_properties: Any) -> list[Any]:  # noqa: ANN401
    if not return_properties:
        return []
    is_one = isinstance(return_properties, str | QueryNested)
    return [return_properties] if is_one else list(return_properties)


def _without(row: Any, hidden: frozenset[str]) -> Any:  # noqa: ANN401
    kept = {name: value for name, value in row.properties.items() if name not in hidden}
    shown = copy(row)
    shown.properties = kept
    return shown


def _only_with_sidecar(why: str) -> ValueError:
    return ValueError(f"{why}; give the collection a sidecar for more")
