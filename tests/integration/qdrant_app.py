"""An application on Qdrant: a collection, and both reranked clients asked in the same way."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from rerank_adapters import AsyncRerankClient, RerankClient
from rerank_adapters.qdrant import AsyncRerankedQdrantClient, RerankedQdrantClient

COLLECTION = "articles"
QUERY = [1.0, 0.0]
"""The vector to which the first point is nearest, then the second, and so on."""


def point(at: int, payload: dict[str, Any]) -> models.PointStruct:
    angle = (at + 1) / 1000
    return models.PointStruct(id=at, vector=[math.cos(angle), math.sin(angle)], payload=payload)


def bodies(*texts: str | None) -> list[models.PointStruct]:
    """Points in the store's order, their texts under `body`; the toy reranker reads numbers."""
    return [
        point(
            at, {"title": f"title {at}"} if text is None else {"title": f"title {at}", "body": text}
        )
        for at, text in enumerate(texts)
    ]


@dataclass(frozen=True)
class Application:
    """A reranked client of one kind, its store, and how their methods are called."""

    kind: str
    store: Any
    client: Any

    async def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        return await self._call(getattr(self.client, method), arguments, options)

    async def plain(self, method: str, *arguments: Any, **options: Any) -> Any:
        return await self._call(getattr(self.store, method), arguments, options)

    async def _call(
        self, method: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]
    ) -> Any:
        if self.kind == "async":
            return await method(*arguments, **options)
        return await asyncio.to_thread(method, *arguments, **options)

    async def fill(
        self,
        points: Sequence[models.PointStruct],
        vectors: Any = None,
        name: str = COLLECTION,
        **more: Any,
    ) -> None:
        chosen = vectors or models.VectorParams(size=2, distance=models.Distance.COSINE)
        await self.plain("create_collection", name, vectors_config=chosen, **more)
        await self.plain("upsert", name, list(points))


@asynccontextmanager
async def application(
    kind: str, target: str, sidecar: Any = None, **options: Any
) -> AsyncIterator[Application]:
    """Open an application on an empty store in memory, and close it.

    `sidecar` wraps the client of the sidecar.
    """
    wrapped = sidecar or (lambda client: client)
    if kind == "async":
        async with AsyncRerankClient(target, 20.0, **options) as client:
            store = AsyncQdrantClient(":memory:")
            yield Application(kind, store, AsyncRerankedQdrantClient(store, wrapped(client)))
            await store.close()
    else:
        with RerankClient(target, 20.0, **options) as blocking:
            memory = QdrantClient(":memory:")
            yield Application(kind, memory, RerankedQdrantClient(memory, wrapped(blocking)))
            memory.close()


def ids(result: Any) -> list[Any]:
    return [point.id for point in result.points]


Spied = list[tuple[str, tuple[str, ...]]]


class Spy:
    """A sidecar that notes the query and the texts of each call, and passes it on."""

    def __init__(self, sidecar: Any, seen: Spied) -> None:
        self._sidecar = sidecar
        self._seen = seen

    def rerank(self, query: str, documents: Sequence[str], **options: Any) -> Awaitable[Any] | Any:
        self._seen.append((query, tuple(documents)))
        return self._sidecar.rerank(query, documents, **options)
