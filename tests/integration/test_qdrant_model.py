"""Qdrant with a sidecar on the embedded model: real texts, many candidates, many callers."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from qdrant_client import QdrantClient, models

from examples.labelled_set import DIMENSIONS, DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters import RerankClient
from rerank_adapters.qdrant import RerankedQdrantClient
from rerank_adapters.rerank import Rerank
from tests.contract.conftest import Running
from tests.integration.qdrant_app import COLLECTION, QUERY, Application, application, bodies, ids

OVERSAMPLED = 20


@pytest.fixture(params=["sync", "async"])
async def app(request: pytest.FixtureRequest, sidecar: Running) -> AsyncIterator[Application]:
    async with application(request.param, f"127.0.0.1:{sidecar.grpc_port}") as opened:
        yield opened


async def fill_labelled(app: Application) -> None:
    points = [
        models.PointStruct(id=at, vector=vector(text), payload={"body": text})
        for at, text in enumerate(DOCUMENTS)
    ]
    size = models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)
    await app.fill(points, size)


async def test_the_right_answers_come_first(app: Application) -> None:
    await fill_labelled(app)
    before, after = [], []
    for text, _ in QUERIES:
        asked = {"query": vector(text), "limit": 1}
        rerank = Rerank("body", query=text, oversample=OVERSAMPLED)
        before += ids(await app.plain("query_points", COLLECTION, **asked))
        after += ids(await app.ask("query_points", COLLECTION, **asked, rerank=rerank))
    assert precision_at_1(before) == 0.3
    assert precision_at_1(after) == 0.9


async def test_the_scores_are_those_of_the_sidecar(app: Application, sidecar: Running) -> None:
    await fill_labelled(app)
    text, _ = QUERIES[0]
    rerank = Rerank("body", query=text)
    asked = {"query": vector(text), "limit": len(DOCUMENTS)}
    result = await app.ask("query_points", COLLECTION, **asked, rerank=rerank)
    with RerankClient(f"127.0.0.1:{sidecar.grpc_port}") as client:
        direct = await asyncio.to_thread(client.rerank, text, DOCUMENTS)
    scores = [each.score for each in result.points]
    assert scores == sorted(scores, reverse=True)
    # Which texts run beside one moves its score in the last digits.
    expected = {each.index: each.score for each in direct.results}
    assert dict(zip(ids(result), scores, strict=True)) == pytest.approx(expected, abs=1e-2)


async def test_2000_candidates_in_one_query(app: Application) -> None:
    texts = [f"number {at} is a number" for at in range(2000)]
    texts[1700] = "red fruit such as apples and cherries"
    await app.fill(bodies(*texts))
    rerank = Rerank("body", query="red fruit", oversample=200)
    result = await app.ask("query_points", COLLECTION, query=QUERY, limit=10, rerank=rerank)
    assert len(result.response.results) == 2000
    assert len(result.points) == 10
    assert result.points[0].id == 1700
    assert result.missing_texts == 0


async def test_callers_at_the_same_time_get_their_own_answers(app: Application) -> None:
    await fill_labelled(app)

    async def best(text: str) -> int:
        rerank = Rerank("body", query=text, oversample=OVERSAMPLED)
        asked = {"query": vector(text), "limit": 1}
        [found] = ids(await app.ask("query_points", COLLECTION, **asked, rerank=rerank))
        return int(found)

    texts = [text for text, _ in QUERIES] * 4
    one_by_one = [await best(text) for text in texts[: len(QUERIES)]]
    at_once = await asyncio.gather(*map(best, texts))
    assert at_once == one_by_one * 4


def test_threads_share_a_client(sidecar: Running) -> None:
    store = QdrantClient(":memory:")
    size = models.VectorParams(size=DIMENSIONS, distance=models.Distance.COSINE)
    store.create_collection(COLLECTION, size)
    points = [
        models.PointStruct(id=at, vector=vector(text), payload={"body": text})
        for at, text in enumerate(DOCUMENTS)
    ]
    store.upsert(COLLECTION, points)
    with RerankClient(f"127.0.0.1:{sidecar.grpc_port}") as client:
        reranked = RerankedQdrantClient(store, client)

        def first(text: str) -> list[int]:
            rerank = Rerank("body", query=text)
            requests = [models.QueryRequest(query=vector(text), limit=20)] * 2
            results = reranked.query_batch_points(COLLECTION, requests, rerank=rerank)
            return [int(result.points[0].id) for result in results]

        texts = [text for text, _ in QUERIES]
        one_by_one = list(map(first, texts))
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(first, texts * 8)) == one_by_one * 8
    store.close()
