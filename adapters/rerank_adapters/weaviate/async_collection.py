"""A collection for asyncio whose searches take our `rerank`, as in `collection`."""

# ruff: noqa: ANN401 - what is Weaviate's goes through as it is

from __future__ import annotations

from functools import wraps
from typing import Any

from weaviate.collections import CollectionAsync
from weaviate.exceptions import WeaviateQueryError

from rerank_adapters.candidates import AsyncSidecar, rerank_candidates_async
from rerank_adapters.rerank import Rerank
from rerank_adapters.weaviate.methods import AsyncSearchMethod, Generate
from rerank_adapters.weaviate.module_faults import PassThroughs, module_fault
from rerank_adapters.weaviate.results import Reranked
from rerank_adapters.weaviate.search import SEARCHES, Search


class AsyncRerankedCollection:
    """`RerankedCollection` for `CollectionAsync` and an asynchronous sidecar client."""

    def __init__(
        self, collection: CollectionAsync[Any, Any], sidecar: AsyncSidecar | None = None
    ) -> None:
        self._collection = collection
        self._sidecar = sidecar
        self._passed = PassThroughs()
        self._wire()

    @property
    def passthrough_count(self) -> int:
        """Give how many searches came back in Weaviate's order because its module failed."""
        return self._passed.count

    def with_tenant(self, tenant: Any) -> AsyncRerankedCollection:
        """Give the collection of one tenant, as `CollectionAsync.with_tenant` does."""
        return self._of(self._collection.with_tenant(tenant))

    def with_consistency_level(
        self,
        consistency_level: Any,
    ) -> AsyncRerankedCollection:
        """Give the collection at a consistency, as Weaviate's method of that name does."""
        return self._of(self._collection.with_consistency_level(consistency_level))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._collection, name)

    def _of(self, collection: CollectionAsync[Any, Any]) -> AsyncRerankedCollection:
        other = AsyncRerankedCollection(collection, self._sidecar)
        other._passed = self._passed
        other._wire()
        return other

    def _wire(self) -> None:
        self.query = AsyncRerankedQuery(self._collection.query, self._sidecar, self._passed)
        self.generate = Generate(self._collection.generate)


class AsyncRerankedQuery:
    """`collection.query` with our `rerank` on every search; all else is Weaviate's own."""

    bm25: AsyncSearchMethod
    hybrid: AsyncSearchMethod
    near_image: AsyncSearchMethod
    near_media: AsyncSearchMethod
    near_object: AsyncSearchMethod
    near_text: AsyncSearchMethod
    near_vector: AsyncSearchMethod

    def __init__(
        self,
        query: Any,
        sidecar: AsyncSidecar | None,
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
        async def search(
            *positional: Any,
            rerank: Any = None,
            **arguments: Any,
        ) -> Any:
            if not isinstance(rerank, Rerank):
                return await method(*positional, rerank=rerank, **arguments)
            asked = Search.of(name, rerank, positional, arguments)
            if self._sidecar is None:
                return await self._by_module(method, positional, asked)
            found = await method(*positional, **asked.for_sidecar())
            candidates = asked.read(found)
            order = await rerank_candidates_async(self._sidecar, rerank, asked.query, candidates)
            return asked.arranged(found, order)

        return search

    async def _by_module(
        self,
        method: Any,
        positional: Any,
        asked: Search,
    ) -> Reranked:
        try:
            return asked.cut(await method(*positional, **asked.for_module()))
        except WeaviateQueryError as error:
            fault = module_fault(error)
            if fault is None or asked.rerank.on_error != "passthrough":
                raise
        self._passed.add(fault)
        return asked.passed_through(await method(*positional, **asked.arguments), fault)
