"""Clients of a Qdrant server, over HTTP and gRPC: a stand-in, and `QDRANT_URL` if it is set."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client import grpc as messages

from rerank_adapters import AsyncRerankClient, RerankClient
from rerank_adapters.qdrant import AsyncRerankedQdrantClient, RerankedQdrantClient
from rerank_adapters.rerank import Rerank
from tests.contract.grpc_toy import serving
from tests.integration.qdrant_app import COLLECTION, QUERY, Application, ids, point
from tests.integration.qdrant_server import qdrant_server

BODY = Rerank("body", query="highest")
POINTS = [
    point(at, {"title": f"title {at}", "body": str(score), "meta": {"page": at, "text": "1"}})
    for at, score in enumerate([3, 1, 8, 5, 2])
]


@dataclass(frozen=True)
class Store:
    """A Qdrant server with a filled collection."""

    options: dict[str, Any]
    collection: str


@pytest.fixture(params=["stand-in", "server"] if "QDRANT_URL" in os.environ else ["stand-in"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    vectors = models.VectorParams(size=2, distance=models.Distance.COSINE)
    if request.param == "stand-in":
        with qdrant_server() as server:
            server.memory.create_collection(COLLECTION, vectors)
            server.memory.upsert(COLLECTION, POINTS)
            ports = {"port": server.http_port, "grpc_port": server.grpc_port}
            yield Store({"host": "127.0.0.1", **ports, "check_compatibility": False}, COLLECTION)
        return
    options: dict[str, Any] = {
        "url": os.environ["QDRANT_URL"],
        "api_key": os.environ.get("QDRANT_API_KEY"),
    }
    client = QdrantClient(**options)
    collection = f"rerank_sidecar_test_{uuid.uuid4().hex}"
    client.create_collection(collection, vectors)
    try:
        client.upsert(collection, POINTS, wait=True)
        yield Store(options, collection)
    finally:
        client.delete_collection(collection)
        client.close()


@pytest.fixture(params=["http", "grpc"])
def options(request: pytest.FixtureRequest, store: Store) -> dict[str, Any]:
    return {**store.options, "prefer_grpc": request.param == "grpc"}


@pytest.fixture(params=["sync", "async"])
async def app(
    request: pytest.FixtureRequest, options: dict[str, Any]
) -> AsyncIterator[Application]:
    async with serving() as served:
        if request.param == "async":
            async with AsyncRerankClient(served.target) as client:
                remote = AsyncQdrantClient(**options)
                yield Application("async", remote, AsyncRerankedQdrantClient(remote, client))
                await remote.close()
        else:
            with RerankClient(served.target) as blocking:
                far = QdrantClient(**options)
                yield Application("sync", far, RerankedQdrantClient(far, blocking))
                far.close()


@pytest.mark.parametrize(
    ("selector", "kept"),
    [
        (True, {"title": "title 2", "body": "8", "meta": {"page": 2, "text": "1"}}),
        (False, None),
        (["title"], {"title": "title 2"}),
        (["meta.page"], {"meta": {"page": 2}}),
        (
            models.PayloadSelectorExclude(exclude=["body", "title"]),
            {"meta": {"page": 2, "text": "1"}},
        ),
        (messages.WithPayloadSelector(enable=False), None),
        (
            messages.WithPayloadSelector(include=messages.PayloadIncludeSelector(fields=["title"])),
            {"title": "title 2"},
        ),
    ],
    ids=str,
)
async def test_points(app: Application, store: Store, selector: Any, kept: Any) -> None:
    asked = {"query": QUERY, "limit": 1, "offset": 1, "with_payload": selector}
    oversampled = Rerank("body", query="highest", oversample=2)
    result = await app.ask("query_points", store.collection, **asked, rerank=oversampled)
    assert ids(result) == [3]
    best = await app.ask(
        "query_points", store.collection, **{**asked, "offset": None, "limit": 3}, rerank=BODY
    )
    assert ids(best) == [2, 0, 1]
    assert best.points[0].payload == kept
    plain = await app.plain("query_points", store.collection, QUERY, limit=3)
    assert best.points[0].store_score == plain.points[2].score


async def test_vectors(app: Application, store: Store) -> None:
    asked = {"query": QUERY, "with_vectors": True}
    plain = await app.plain("query_points", store.collection, **asked)
    result = await app.ask("query_points", store.collection, **asked, rerank=BODY)
    assert [each.vector for each in result.points] == [
        plain.points[at].vector for at in (2, 3, 0, 4, 1)
    ]


async def test_batches(app: Application, store: Store) -> None:
    requests = [
        models.QueryRequest(query=QUERY, limit=3, with_payload=True),
        models.QueryRequest(query=QUERY, limit=2, offset=1),
    ]
    first, second = await app.ask("query_batch_points", store.collection, requests, rerank=BODY)
    assert ids(first) == [2, 0, 1]
    assert first.points[0].payload == POINTS[2].payload
    assert ids(second) == [0, 1]
    assert second.points[0].payload is None


async def test_groups(app: Application, store: Store) -> None:
    groups = await app.ask(
        "query_points_groups", store.collection, "meta.text", QUERY, limit=2, rerank=BODY
    )
    assert [(group.id, [hit.id for hit in group.hits]) for group in groups.groups] == [
        ("1", [2, 0, 1])
    ]
    assert groups.groups[0].hits[0].payload == POINTS[2].payload
