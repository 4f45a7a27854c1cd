"""An application on Weaviate, and the same questions to it whether it blocks or not."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import weaviate
from weaviate.classes.config import Configure, DataType, Property
from weaviate.classes.data import DataObject

from examples.labelled_set import DOCUMENTS, vector
from rerank_adapters import AsyncRerankClient, RerankClient
from rerank_adapters.weaviate import (
    AsyncRerankedCollection,
    RerankedCollection,
    reranker_config,
)

PROPERTIES = [
    Property(name="body", data_type=DataType.TEXT),
    Property(name="title", data_type=DataType.TEXT),
    Property(name="kind", data_type=DataType.TEXT),
    Property(name="at", data_type=DataType.INT),
]

Row = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """A Weaviate whose transformers module asks a sidecar, and where to find both.

    `sidecar_inside` is the sidecar's HTTP address as Weaviate reaches it.
    """

    connect: Callable[[], weaviate.WeaviateClient]
    connect_async: Callable[[], weaviate.WeaviateAsyncClient]
    sidecar_url: str
    sidecar_target: str
    sidecar_inside: str


@dataclass(frozen=True)
class Application:
    """A collection of one kind of client, plain and with our `rerank`: by module, or by sidecar."""

    is_async: bool
    client: Any
    sidecar: Any
    plain: Any
    reranked: Any

    async def ask(self, method: str, *positional: Any, **arguments: Any) -> Any:
        """Search with our `rerank`."""
        return await self.call(getattr(self.reranked.query, method), *positional, **arguments)

    async def own(self, method: str, *positional: Any, **arguments: Any) -> Any:
        """Search with Weaviate's client alone."""
        return await self.call(getattr(self.plain.query, method), *positional, **arguments)

    async def call(self, method: Callable[..., Any], *positional: Any, **arguments: Any) -> Any:
        if self.is_async:
            result = method(*positional, **arguments)
            return await result if inspect.isawaitable(result) else result
        return await asyncio.to_thread(method, *positional, **arguments)


def labelled() -> list[Row]:
    """The documents of the labelled set, each knowing its place in it."""
    return [
        {"body": text, "title": f"title {at}", "kind": "even" if at % 2 == 0 else "odd", "at": at}
        for at, text in enumerate(DOCUMENTS)
    ]


def places(found: Any) -> list[int]:
    """Where the objects stand in the labelled set."""
    return [int(each.properties["at"]) for each in found.objects]


def rerank_scores(found: Any) -> list[float]:
    return [each.metadata.rerank_score for each in found.objects]


@asynccontextmanager
async def application(
    server: Server,
    rows: Sequence[Row],
    *,
    is_async: bool = False,
    by_sidecar: bool = False,
    target: str | None = None,
    config: Any = None,
    **options: Any,
) -> AsyncIterator[Application]:
    """Fill a collection that is gone in the end; `target` is another sidecar for the client."""
    name = f"Article{uuid4().hex}"
    chosen = target or server.sidecar_target
    with server.connect() as client:
        collection = client.collections.create(
            name,
            properties=PROPERTIES,
            reranker_config=config or reranker_config(),
            vector_config=Configure.Vectors.self_provided(),
        )
        inserted = collection.data.insert_many(
            [DataObject(properties=row, vector=vector(str(row.get("body")))) for row in rows]
        )
        assert not inserted.has_errors, inserted.errors
        try:
            if is_async:
                async with server.connect_async() as own, AsyncRerankClient(chosen, **options) as s:
                    plain = own.collections.use(name)
                    reranked = AsyncRerankedCollection(plain, s if by_sidecar else None)
                    yield Application(True, own, s, plain, reranked)
            else:
                with RerankClient(chosen, **options) as sidecar:
                    own_one = RerankedCollection(collection, sidecar if by_sidecar else None)
                    yield Application(False, client, sidecar, collection, own_one)
        finally:
            client.collections.delete(name)
