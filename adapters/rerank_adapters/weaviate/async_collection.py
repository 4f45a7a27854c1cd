"""A collection for asyncio whose searches take our `rerank`, as in `collection`."""

# ruff: noqa: ANN401 - what is Weaviate's goes through as it is

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from weaviate.collections import CollectionAsync
from weaviate.exceptions import WeaviateQueryError

from rerank_adapters.candidates import AsyncSidecar, rerank_candidates_async
from rerank_adapters.rerank import Rerank
from rerank_adapters.weaviate.methods import AsyncSearchMethod
from rerank_adapters.weaviate.module_faults import module_fault
from rerank_adapters.weaviate.results import Reranked
from rerank_adapters.weaviate.search import Search
from rerank_adapters.weaviate.wrapped import WrappedCollection, WrappedQuery


class AsyncRerankedQuery(WrappedQuery):
    """`collection.query` with our `rerank` on every search; all else is Weaviate's own."""

    bm25: AsyncSearchMethod
    hybrid: AsyncSearchMethod
    near_image: AsyncSearchMethod
    near_media: AsyncSearchMethod
    near_object: AsyncSearchMethod
    near_text: AsyncSearchMethod
    near_vector: AsyncSearchMethod

    def _reranking(self, name: str, method: Any) -> Callable[..., Any]:
        @wraps(method)
        async def search(*positional: Any, rerank: Any = None, **arguments: Any) -> Any:
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

    async def _by_module(self, method: Any, positional: Any, asked: Search) -> Reranked:
        try:
            return asked.cut(await method(*positional, **asked.for_module()))
        except WeaviateQueryError as error:
            fault = module_fault(error)
            if fault is None or asked.rerank.on_error != "passthrough":
                raise
        self._passed.add(fault)
        return asked.passed_through(await method(*positional, **asked.arguments), fault)


class AsyncRerankedCollection(WrappedCollection[AsyncRerankedQuery]):
    """`RerankedCollection` for `CollectionAsync` and an asynchronous sidecar client."""

    _query_type = AsyncRerankedQuery

    def __init__(
        self, collection: CollectionAsync[Any, Any], sidecar: AsyncSidecar | None = None
    ) -> None:
        super().__init__(collection, sidecar)
