"""A collection whose searches take our `rerank`; `async_collection` has the one for asyncio."""

# ruff: noqa: ANN401 - what is Weaviate's goes through as it is

from __future__ import annotations

from functools import wraps
from typing import Any

from weaviate.collections import Collection
from weaviate.exceptions import WeaviateQueryError

from rerank_adapters.candidates import Sidecar, rerank_candidates
from rerank_adapters.rerank import Rerank
from rerank_adapters.weaviate.methods import Generate, SearchMethod
from rerank_adapters.weaviate.module_faults import PassThroughs, module_fault
from rerank_adapters.weaviate.results import Reranked
from rerank_adapters.weaviate.search import SEARCHES, Search


class RerankedCollection:
    """A collection whose `query` takes `rerank=Rerank(...)`; all else is the collection's own.

    Without a sidecar, Weaviate's module reranks: `oversample` makes it read more objects than come
    back, `offset` counts in the new order, and Weaviate's own `Rerank` goes through as it is. What
    the module cannot do (several properties, a model for one query, `fuse`) is refused. With a
    sidecar client, the application asks it, which needs no module and does all that `Rerank` can.

    `generate` takes Weaviate's own `Rerank` only.
    """

    def __init__(self, collection: Collection[Any, Any], sidecar: Sidecar | None = None) -> None:
        self._collection = collection
        self._sidecar = sidecar
        self._passed = PassThroughs()
        self._wire()

    @property
    def passthrough_count(self) -> int:
        """Give how many searches came back in Weaviate's order because its module failed.

        Those that failed at a sidecar client are counted there.
        """
        return self._passed.count

    def with_tenant(self, tenant: Any) -> RerankedCollection:
        """Give the collection of one tenant, as `Collection.with_tenant` does."""
        return self._of(self._collection.with_tenant(tenant))

    def with_consistency_level(self, consistency_level: Any) -> RerankedCollection:
        """Give the collection at a consistency, as `Collection.with_consistency_level` does."""
        return self._of(self._collection.with_consistency_level(consistency_level))

    def __len__(self) -> int:
        return len(self._collection)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._collection, name)

    def _of(self, collection: Collection[Any, Any]) -> RerankedCollection:
        other = RerankedCollection(collection, self._sidecar)
        other._passed = self._passed
        other._wire()
        return other

    def _wire(self) -> None:
        self.query = RerankedQuery(self._collection.query, self._sidecar, self._passed)
        self.generate = Generate(self._collection.generate)


class RerankedQuery:
    """`collection.query` with our `rerank` on every search; all else is Weaviate's own."""

    bm25: SearchMethod
    hybrid: SearchMethod
    near_image: SearchMethod
    near_media: SearchMethod
    near_object: SearchMethod
    near_text: SearchMethod
    near_vector: SearchMethod

    def __init__(
        self,
        query: Any,
        sidecar: Sidecar | None,
        passed: PassThroughs,
    ) -> None:
        self._query = query
        self._sidecar = sidecar
        self._passed = passed
        for name in SEARCHES:
            setattr(self, name, self._reranking(name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._query, name)

    def _reranking(self, name: str) -> Any:
        method = getattr(self._query, name)

        @wraps(method)
        def search(*positional: Any, rerank: Any = None, **arguments: Any) -> Any:
            if not isinstance(rerank, Rerank):
                return method(*positional, rerank=rerank, **arguments)
            asked = Search.of(name, rerank, positional, arguments)
            if self._sidecar is None:
                return self._by_module(method, positional, asked)
            found = method(*positional, **asked.for_sidecar())
            order = rerank_candidates(self._sidecar, rerank, asked.query, asked.read(found))
            return asked.arranged(found, order)

        return search

    def _by_module(self, method: Any, positional: Any, asked: Search) -> Reranked:
        try:
            return asked.cut(method(*positional, **asked.for_module()))
        except WeaviateQueryError as error:
            fault = module_fault(error)
            if fault is None or asked.rerank.on_error != "passthrough":
                raise
        self._passed.add(fault)
        return asked.passed_through(method(*positional, **asked.arguments), fault)
