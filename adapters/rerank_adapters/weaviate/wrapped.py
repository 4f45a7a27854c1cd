"""What the reranked collections, blocking and asynchronous, have in common."""

# ruff: noqa: ANN401 - what is Weaviate's goes through as it is

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from rerank_adapters.weaviate.methods import Generate
from rerank_adapters.weaviate.module_faults import PassThroughs
from rerank_adapters.weaviate.search import SEARCHES


class WrappedQuery(ABC):
    """A `collection.query` whose searches are made to rerank; all else is Weaviate's own."""

    def __init__(self, query: Any, sidecar: Any, passed: PassThroughs) -> None:
        self._query = query
        self._sidecar = sidecar
        self._passed = passed
        for name in SEARCHES:
            setattr(self, name, self._reranking(name, getattr(query, name)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._query, name)

    @abstractmethod
    def _reranking(self, name: str, method: Any) -> Callable[..., Any]:
        """Make a search that reranks of Weaviate's method of this name."""


Q = TypeVar("Q", bound=WrappedQuery)
"""What stands for `collection.query`."""


class WrappedCollection(Generic[Q]):
    """A collection with another `query`; all else is the collection's own."""

    query: Q
    _query_type: type[Q]

    def __init__(self, collection: Any, sidecar: Any) -> None:
        self._collection = collection
        self._sidecar = sidecar
        self._count_in(PassThroughs())

    @property
    def passthrough_count(self) -> int:
        """Give how many searches came back in Weaviate's order because its module failed.

        Those that failed at a sidecar client are counted there.
        """
        return self._passed.count

    def with_tenant(self, tenant: Any) -> Self:
        """Give the collection of one tenant, as Weaviate's method of that name does."""
        return self._of(self._collection.with_tenant(tenant))

    def with_consistency_level(self, consistency_level: Any) -> Self:
        """Give the collection at a consistency, as Weaviate's method of that name does."""
        return self._of(self._collection.with_consistency_level(consistency_level))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._collection, name)

    def _of(self, collection: Any) -> Self:
        other = type(self)(collection, self._sidecar)
        other._count_in(self._passed)
        return other

    def _count_in(self, passed: PassThroughs) -> None:
        self._passed = passed
        self.query = self._query_type(self._collection.query, self._sidecar, passed)
        self.generate = Generate(self._collection.generate)
