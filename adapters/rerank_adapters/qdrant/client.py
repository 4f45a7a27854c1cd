"""Qdrant's client that blocks, with `rerank=` on its queries."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Unpack, overload

from qdrant_client import QdrantClient
from qdrant_client.http.models import GroupsResult, QueryRequest, QueryResponse

from rerank_adapters.candidates import Sidecar, rerank_candidates
from rerank_adapters.qdrant.options import BatchOptions, GroupOptions, QueryOptions, by_name
from rerank_adapters.qdrant.results import RerankedGroupsResult, RerankedQueryResponse
from rerank_adapters.qdrant.searches import Search, searches_of, store_order
from rerank_adapters.rerank import Rerank

_MOST_THREADS = 8
"""How many requests of one batch are reranked at once."""

if TYPE_CHECKING:
    from rerank_adapters.qdrant.options import Query

    _Base = QdrantClient  # all of its methods are here, too
else:
    _Base = object


class RerankedQdrantClient(_Base):
    """Qdrant's client, whose queries take `rerank=`; all else is the client's own.

    `client` is a `QdrantClient`, of a server or in local mode; `sidecar` is a `RerankClient` or its
    twin in this process. Both stay the caller's: `close()` closes Qdrant's client, as all methods
    that are not listed here are that client's. It may be shared by threads if both may.
    """

    def __init__(self, client: QdrantClient, sidecar: Sidecar) -> None:
        self._store: Any = client
        self._sidecar = sidecar

    @overload  # type: ignore[override]  # Qdrant's takes any **kwargs, to refuse them
    def query_points(
        self,
        collection_name: str,
        query: Query = None,
        *positional: object,
        rerank: Rerank,
        **options: Unpack[QueryOptions],
    ) -> RerankedQueryResponse: ...

    @overload
    def query_points(
        self,
        collection_name: str,
        query: Query = None,
        *positional: object,
        rerank: None = None,
        **options: Unpack[QueryOptions],
    ) -> QueryResponse: ...

    def query_points(
        self, *arguments: object, rerank: Rerank | None = None, **options: object
    ) -> QueryResponse:
        """Query points as Qdrant's client does, and rerank what it finds.

        Qdrant finds `limit` + `offset` points, or `oversample` times as many, from its first one
        on; the page is cut after reranking. Its `score_threshold` is about its own scores.

        Raises:
            RerankCallError: the sidecar failed, and `on_error` is not `passthrough`.
            ValueError: neither the query nor `rerank` has a text, or a key is no key of a payload.
            Exception: what Qdrant's client raises.
        """
        if rerank is None:
            plain: QueryResponse = self._store.query_points(*arguments, **options)
            return plain
        asked = by_name("query_points", arguments, options)
        search = Search.of(rerank, asked)
        found: QueryResponse = self._store.query_points(**{**asked, **search.asked, "offset": None})
        return self._reranked(search, found)

    @overload  # type: ignore[override]  # Qdrant's takes any **kwargs, to refuse them
    def query_batch_points(
        self,
        collection_name: str,
        requests: Sequence[QueryRequest],
        *positional: object,
        rerank: Rerank | Sequence[Rerank],
        **options: Unpack[BatchOptions],
    ) -> list[RerankedQueryResponse]: ...

    @overload
    def query_batch_points(
        self,
        collection_name: str,
        requests: Sequence[QueryRequest],
        *positional: object,
        rerank: None = None,
        **options: Unpack[BatchOptions],
    ) -> list[QueryResponse]: ...

    def query_batch_points(
        self,
        *arguments: object,
        rerank: Rerank | Sequence[Rerank] | None = None,
        **options: object,
    ) -> Sequence[QueryResponse]:
        """Query several times in one call to Qdrant, and rerank the results, up to 8 at once.

        `rerank` is one for all requests, or a list with one for each. The first error of the
        sidecar ends the call, unless `on_error` is `passthrough`.

        Raises:
            RerankCallError: the sidecar failed, and `on_error` is not `passthrough`.
            ValueError: as `query_points`; or there are not as many `rerank` as requests.
            Exception: what Qdrant's client raises.
        """
        if rerank is None:
            plain: list[QueryResponse] = self._store.query_batch_points(*arguments, **options)
            return plain
        asked = by_name("query_batch_points", arguments, options)
        searches, requests = searches_of(rerank, asked["requests"])
        found = self._store.query_batch_points(**{**asked, "requests": requests})
        with ThreadPoolExecutor(_MOST_THREADS) as pool:
            calls = [
                pool.submit(copy_context().run, self._reranked, *each)
                for each in zip(searches, found, strict=True)
            ]
            try:
                return [call.result() for call in calls]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    @overload  # type: ignore[override]  # Qdrant's takes any **kwargs, to refuse them
    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Query = None,
        *positional: object,
        rerank: Rerank,
        **options: Unpack[GroupOptions],
    ) -> RerankedGroupsResult: ...

    @overload
    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Query = None,
        *positional: object,
        rerank: None = None,
        **options: Unpack[GroupOptions],
    ) -> GroupsResult: ...

    def query_points_groups(
        self, *arguments: object, rerank: Rerank | None = None, **options: object
    ) -> GroupsResult:
        """Query groups of points as Qdrant's client does, and rerank what it finds.

        The hits of each group are reordered, and the groups by their best hit. `limit`, `top_n` and
        `oversample` count groups; of each Qdrant finds `group_size` hits.

        Raises:
            RerankCallError: the sidecar failed, and `on_error` is not `passthrough`.
            ValueError: neither the query nor `rerank` has a text, or a key is no key of a payload.
            Exception: what Qdrant's client raises.
        """
        if rerank is None:
            plain: GroupsResult = self._store.query_points_groups(*arguments, **options)
            return plain
        asked = by_name("query_points_groups", arguments, options)
        search = Search.of(rerank, asked)
        found: GroupsResult = self._store.query_points_groups(**{**asked, **search.asked})
        hits = store_order(found)
        candidates = search.candidates([hit.point for hit in hits])
        arrangement = rerank_candidates(self._sidecar, rerank, search.text, candidates)
        return search.groups(found, hits, arrangement)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name == "_store":  # not there yet: this is a copy in the making
            raise AttributeError(name)
        return getattr(self._store, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._store)})

    def _reranked(self, search: Search, found: QueryResponse) -> RerankedQueryResponse:
        candidates = search.candidates(found.points)
        arrangement = rerank_candidates(self._sidecar, search.rerank, search.text, candidates)
        return search.response(found.points, arrangement)
