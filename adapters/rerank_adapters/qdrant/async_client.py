"""Qdrant's client for asyncio, with `rerank=` on its queries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

from qdrant_client import AsyncQdrantClient
from qdrant_client.http.models import GroupsResult, QueryRequest, QueryResponse

from rerank_adapters.candidates import AsyncSidecar, rerank_candidates_async
from rerank_adapters.qdrant.options import BatchOptions, GroupOptions, QueryOptions, by_name
from rerank_adapters.qdrant.results import RerankedGroupsResult, RerankedQueryResponse
from rerank_adapters.qdrant.searches import Search, searches_of, store_order
from rerank_adapters.rerank import Rerank

if TYPE_CHECKING:
    from rerank_adapters.qdrant.options import Query

    _Base = AsyncQdrantClient  # all of its methods are here, too
else:
    _Base = object


class AsyncRerankedQdrantClient(_Base):
    """The same for asyncio: `client` is an `AsyncQdrantClient`, `sidecar` an `AsyncRerankClient`.

    Cancelling a query ends its work in Qdrant's client and in the sidecar. It may be shared by
    tasks of one event loop.
    """

    def __init__(self, client: AsyncQdrantClient, sidecar: AsyncSidecar) -> None:
        self._store: Any = client
        self._sidecar = sidecar

    @overload  # type: ignore[override]  # Qdrant's takes any **kwargs, to refuse them
    async def query_points(
        self,
        collection_name: str,
        query: Query = None,
        *positional: object,
        rerank: Rerank,
        **options: Unpack[QueryOptions],
    ) -> RerankedQueryResponse: ...

    @overload
    async def query_points(
        self,
        collection_name: str,
        query: Query = None,
        *positional: object,
        rerank: None = None,
        **options: Unpack[QueryOptions],
    ) -> QueryResponse: ...

    async def query_points(
        self, *arguments: object, rerank: Rerank | None = None, **options: object
    ) -> QueryResponse:
        """Query points and rerank them; as `RerankedQdrantClient.query_points`."""
        if rerank is None:
            plain: QueryResponse = await self._store.query_points(*arguments, **options)
            return plain
        asked = by_name("query_points", arguments, options)
        search = Search.of(rerank, asked)
        asked.update(search.asked, offset=None)
        found: QueryResponse = await self._store.query_points(**asked)
        return await self._reranked(search, found)

    @overload  # type: ignore[override]  # Qdrant's takes any **kwargs, to refuse them
    async def query_batch_points(
        self,
        collection_name: str,
        requests: Sequence[QueryRequest],
        *positional: object,
        rerank: Rerank | Sequence[Rerank],
        **options: Unpack[BatchOptions],
    ) -> list[RerankedQueryResponse]: ...

    @overload
    async def query_batch_points(
        self,
        collection_name: str,
        requests: Sequence[QueryRequest],
        *positional: object,
        rerank: None = None,
        **options: Unpack[BatchOptions],
    ) -> list[QueryResponse]: ...

    async def query_batch_points(
        self,
        *arguments: object,
        rerank: Rerank | Sequence[Rerank] | None = None,
        **options: object,
    ) -> Sequence[QueryResponse]:
        """Query several times and rerank all at once; as `RerankedQdrantClient` does."""
        if rerank is None:
            plain: list[QueryResponse] = await self._store.query_batch_points(*arguments, **options)
            return plain
        asked = by_name("query_batch_points", arguments, options)
        searches, requests = searches_of(rerank, asked["requests"])
        found = await self._store.query_batch_points(**{**asked, "requests": requests})
        try:
            async with asyncio.TaskGroup() as tasks:
                calls = [
                    tasks.create_task(self._reranked(*each))
                    for each in zip(searches, found, strict=True)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        return [call.result() for call in calls]

    @overload  # type: ignore[override]  # Qdrant's takes any **kwargs, to refuse them
    async def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Query = None,
        *positional: object,
        rerank: Rerank,
        **options: Unpack[GroupOptions],
    ) -> RerankedGroupsResult: ...

    @overload
    async def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Query = None,
        *positional: object,
        rerank: None = None,
        **options: Unpack[GroupOptions],
    ) -> GroupsResult: ...

    async def query_points_groups(
        self, *arguments: object, rerank: Rerank | None = None, **options: object
    ) -> GroupsResult:
        """Query groups of points and rerank them; as `RerankedQdrantClient` does."""
        if rerank is None:
            plain: GroupsResult = await self._store.query_points_groups(*arguments, **options)
            return plain
        asked = by_name("query_points_groups", arguments, options)
        search = Search.of(rerank, asked)
        found: GroupsResult = await self._store.query_points_groups(**{**asked, **search.asked})
        hits = store_order(found)
        candidates = search.candidates([hit.point for hit in hits])
        arrangement = await rerank_candidates_async(self._sidecar, rerank, search.text, candidates)
        return search.groups(found, hits, arrangement)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name == "_store":  # not there yet: this is a copy in the making
            raise AttributeError(name)
        return getattr(self._store, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._store)})

    async def _reranked(self, search: Search, found: QueryResponse) -> RerankedQueryResponse:
        candidates = search.candidates(found.points)
        arrangement = await rerank_candidates_async(
            self._sidecar, search.rerank, search.text, candidates
        )
        return search.response(found.points, arrangement)
