"""What a query on Qdrant gives when the sidecar is gone, goes in mid-query, or is very busy."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from qdrant_client import models

from rerank_adapters.candidates import Placed
from rerank_adapters.errors import (
    CallEnded,
    LimitExceeded,
    RerankCallError,
    Unavailable,
    Unreachable,
)
from rerank_adapters.messages import DocumentError
from rerank_adapters.qdrant import RerankedPoint
from rerank_adapters.rerank import OnError, Rerank
from tests.contract.grpc_toy import Served, happened, serving
from tests.integration.qdrant_app import COLLECTION, QUERY, Application, application, bodies, ids

PRIVATE = "a text that is nobody's business"


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens: its port is taken, and closed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def rerank(on_error: OnError | None, **options: Any) -> Rerank:
    return Rerank("body", query=PRIVATE, on_error=on_error, **options)


@pytest.mark.parametrize(
    ("of_client", "of_query"), [("raise", None), ("raise", "raise"), ("passthrough", "raise")]
)
async def test_a_sidecar_that_is_not_there_is_an_error(
    kind: str, nobody: str, of_client: OnError, of_query: OnError | None
) -> None:
    async with application(kind, nobody, on_error=of_client, max_attempts=1) as app:
        await app.fill(bodies(PRIVATE, "2"))
        asked = {"query": QUERY, "rerank": rerank(of_query)}
        with pytest.raises(Unreachable) as caught:
            await app.ask("query_points", COLLECTION, **asked)
        assert PRIVATE not in str(caught.value)
        with pytest.raises(Unreachable):
            await app.ask("query_points_groups", COLLECTION, "title", **asked)
        requests = [models.QueryRequest(query=QUERY)] * 2
        with pytest.raises(Unreachable):
            await app.ask("query_batch_points", COLLECTION, requests, rerank=rerank(of_query))


@pytest.mark.parametrize(
    ("of_client", "of_query"), [("passthrough", None), ("raise", "passthrough")]
)
async def test_passing_through_gives_qdrants_own_page(
    kind: str,
    nobody: str,
    of_client: OnError,
    of_query: OnError | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with application(kind, nobody, on_error=of_client, max_attempts=1) as app:
        await app.fill(bodies("2", PRIVATE, None, "9", "3"))
        asked = {"query": QUERY, "limit": 2, "offset": 1, "with_payload": ["title"]}
        plain = await app.plain("query_points", COLLECTION, **asked)
        with caplog.at_level(logging.DEBUG):
            chosen = rerank(of_query, oversample=2)
            result = await app.ask("query_points", COLLECTION, **asked, rerank=chosen)
        assert isinstance(result.passed_through, Unreachable)
        assert result.missing_texts == 1
        assert ids(result) == [1, 2]
        for mine, theirs in zip(result.points, plain.points, strict=True):
            assert mine.score == mine.store_score == theirs.score
            assert mine.payload == theirs.payload
        assert PRIVATE not in caplog.text


async def test_passing_through_gives_qdrants_own_groups(kind: str, nobody: str) -> None:
    async with application(kind, nobody, max_attempts=1) as app:
        points = bodies("2", "9", "4", "5", "6")
        for at, group in enumerate("cabac"):
            points[at].payload = {"group": group, "body": "1"}
        await app.fill(points)
        asked = {"query": QUERY, "group_by": "group", "limit": 2}
        plain = await app.plain("query_points_groups", COLLECTION, **asked)
        chosen = rerank("passthrough", oversample=2)
        result = await app.ask("query_points_groups", COLLECTION, **asked, rerank=chosen)
        assert isinstance(result.passed_through, Unreachable)
        for mine, theirs in zip(result.groups, plain.groups, strict=True):
            assert mine.id == theirs.id
            assert [hit.id for hit in mine.hits] == [hit.id for hit in theirs.hits]


async def test_each_result_of_a_batch_is_flagged(kind: str, nobody: str) -> None:
    async with application(kind, nobody, max_attempts=1) as app:
        await app.fill(bodies("2", "9"))
        requests = [models.QueryRequest(query=QUERY)] * 3
        chosen = rerank("passthrough")
        results = await app.ask("query_batch_points", COLLECTION, requests, rerank=chosen)
        assert [ids(result) for result in results] == [[0, 1]] * 3
        assert all(isinstance(result.passed_through, Unreachable) for result in results)


async def killed_in_mid_query(app: Application, served: Served, on_error: OnError) -> Any:
    await app.fill(bodies("2", "wait", "9"))
    asked = app.ask("query_points", COLLECTION, query=QUERY, rerank=rerank(on_error))
    query = asyncio.create_task(asked)
    await happened(served.toy.began)
    await served.server.stop(0)
    return await query


async def test_a_sidecar_killed_in_mid_query_is_an_error(kind: str) -> None:
    async with serving() as served, application(kind, served.target, max_attempts=1) as app:
        with pytest.raises(RerankCallError) as caught:
            await killed_in_mid_query(app, served, "raise")
        assert isinstance(caught.value, (Unavailable, CallEnded))


async def test_a_sidecar_killed_in_mid_query_leaves_qdrants_order(kind: str) -> None:
    async with serving() as served, application(kind, served.target, max_attempts=1) as app:
        result = await killed_in_mid_query(app, served, "passthrough")
        assert ids(result) == [0, 1, 2]
        assert isinstance(result.passed_through, (Unavailable, CallEnded))


async def test_the_callers_own_mistake_is_never_passed_through(kind: str) -> None:
    async with serving(max_query_bytes=4) as served, application(kind, served.target) as app:
        await app.fill(bodies("2"))
        with pytest.raises(RerankCallError) as caught:
            asked = {"query": QUERY, "rerank": rerank("passthrough")}
            await app.ask("query_points", COLLECTION, **asked)
        assert isinstance(caught.value, LimitExceeded)


async def test_cancelling_a_query_ends_it_in_the_sidecar() -> None:
    async with serving() as served, application("async", served.target) as app:
        await app.fill(bodies("wait"))
        asked = app.ask("query_points", COLLECTION, query=QUERY, rerank=rerank(None))
        query = asyncio.create_task(asked)
        await happened(served.toy.began)
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        await happened(served.toy.ended)


def test_a_point_whose_text_failed_alone_says_so() -> None:
    found = models.ScoredPoint(id=3, version=0, score=0.5, payload={"body": "x"})
    error = DocumentError("DOCUMENT_TOO_LONG", "it has 900 tokens, and the model reads 512")
    point = RerankedPoint.of(found, Placed(0, -1.5, 0.5, error))
    assert (point.score, point.store_score, point.error) == (-1.5, 0.5, error)
    assert RerankedPoint.model_validate_json(point.model_dump_json()) == point
