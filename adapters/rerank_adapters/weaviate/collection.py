"""A collection whose searches take our `rerank`; `async_collection` has the one for asyncio."""

# ruff: noqa: ANN401 - what is Weaviate's goes through as it is

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from weaviate.collections import Collection
from weaviate.exceptions import WeaviateQueryError

from rerank_adapters.candidates import Sidecar, rerank_candidates
from rerank_adapters.rerank import Rerank
from rerank_adapters.weaviate.methods import SearchMethod
from rerank_adapters.weaviate.module_faults import module_fault
from rerank_adapters.weaviate.results import Reranked
from rerank_adapters.weaviate.search import Search
from rerank_adapters.weaviate.wrapped import WrappedCollection, WrappedQuery


class RerankedQuery(WrappedQuery):
    """`collection.query` with our `rerank` on every search; all else is Weaviate's own."""

    bm25: SearchMethod
    hybrid: SearchMethod
    near_image: SearchMethod
    near_media: SearchMethod
    near_object: SearchMethod
    near_text: SearchMethod
    near_vector: SearchMethod

    def _reranking(self, name: str, method: Any) -> Callable[..., Any]:
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


class RerankedCollection(WrappedCollection[RerankedQuery]):
    """A collection whose `query` takes `rerank=Rerank(...)`; all else is the collection's own.

    Without a sidecar, Weaviate's module reranks: `oversample` makes it read more objects than come
    back, `offset` counts in the new order, and Weaviate's own `Rerank` goes through as it is. What
    the module cannot do (several properties, a model for one query, `fuse`) is refused. With a
    sidecar client, the application asks it, which needs no module and does all that `Rerank` can.

    `generate` takes Weaviate's own `Rerank` only.
    """

    _query_type = RerankedQuery

    def __init__(self, collection: Collection[Any, Any], sidecar: Sidecar | None = None) -> None:
        super().__init__(collection, sidecar)

    def __len__(self) -> int:
        return len(self._collection)
