"""`query_batch_points` and `query_points_groups` with `rerank=`, both kinds."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from qdrant_client import models
from qdrant_client.http.models import GroupsResult, PointGroup, QueryResponse

from rerank_adapters.errors import ModelNotFound
from rerank_adapters.qdrant import (
    RerankedGroup,
    RerankedGroupsResult,
    RerankedPoint,
    RerankedQueryResponse,
)
from rerank_adapters.rerank import Rerank
from tests.contract.grpc_toy import WAIT_S, serving
from tests.integration.qdrant_app import (
    COLLECTION,
    QUERY,
    Application,
    Spied,
    Spy,
    application,
    bodies,
    ids,
    point,
)

BODY = Rerank("body", query="highest")
TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("trace")


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def seen() -> Spied:
    return []


@pytest.fixture
async def app(kind: str, seen: Spied) -> AsyncIterator[Application]:
    async with (
        serving(unknown_model="error") as served,
        application(kind, served.target, lambda client: Spy(client, seen)) as opened,
    ):
        yield opened


def request(**options: Any) -> models.QueryRequest:
    return models.QueryRequest(query=QUERY, **options)


async def test_one_rerank_for_all_requests(app: Application) -> None:
    await app.fill(bodies("2", "9", "5", "7"))
    requests = [
        request(limit=2, with_payload=True),
        request(limit=2, offset=1, with_payload=["title"]),
        request(filter=models.Filter(must=[models.HasIdCondition(has_id=[0, 2])])),
    ]
    before = [each.model_copy(deep=True) for each in requests]
    plain = await app.plain("query_batch_points", COLLECTION, requests)
    results = await app.ask("query_batch_points", COLLECTION, requests, rerank=BODY)
    assert all(isinstance(each, RerankedQueryResponse) for each in results)
    assert [ids(each) for each in results] == [[1, 0], [2, 0], [2, 0]]
    assert requests == before
    assert results[0].points[0].payload == plain[0].points[1].payload
    assert [each.payload for each in results[1].points] == [
        {"title": "title 2"},
        {"title": "title 0"},
    ]
    assert [each.payload for each in results[2].points] == [None, None]


async def test_one_rerank_for_each_request(app: Application, seen: Spied) -> None:
    await app.fill(bodies("2", "9", "5"))
    each = [
        Rerank("body", query="first", oversample=3),
        Rerank("title", query="second", on_error="passthrough", model="nope"),
    ]
    with pytest.raises(ModelNotFound):  # the caller's own mistake is never passed through
        await app.ask("query_batch_points", COLLECTION, [request()] * 2, rerank=each)
    seen.clear()
    each[1] = Rerank("body", query="second", top_n=1)
    found = await app.ask("query_batch_points", COLLECTION, [request(limit=1)] * 2, rerank=each)
    assert [ids(result) for result in found] == [[1], [0]]
    assert sorted(seen) == [("first", ("2", "9", "5")), ("second", ("2",))]


async def test_a_batch_that_does_not_fit_is_refused(app: Application, seen: Spied) -> None:
    with pytest.raises(ValueError, match="rerank: there are 1 for 2 requests"):
        await app.ask("query_batch_points", COLLECTION, [request()] * 2, rerank=[BODY])
    with pytest.raises(TypeError, match="QueryRequests, not dict"):
        await app.ask("query_batch_points", COLLECTION, [{"query": QUERY}], rerank=BODY)
    assert await app.ask("query_batch_points", COLLECTION, [], rerank=BODY) == []
    assert not seen


async def test_without_rerank_a_batch_is_qdrants_own(app: Application) -> None:
    await app.fill(bodies("2", "9"))
    requests = [request(with_payload=True)]
    plain = await app.plain("query_batch_points", COLLECTION, requests)
    results = await app.ask("query_batch_points", COLLECTION, requests)
    assert results == plain
    assert type(results[0]) is QueryResponse


class AtOnce:
    """A sidecar that answers when three are asking; fails after a while if they never do."""

    def __init__(self, sidecar: Any, kind: str) -> None:
        self._sidecar = sidecar
        self._kind = kind
        self._blocking = threading.Barrier(3, timeout=WAIT_S)
        self._async = asyncio.Barrier(3)

    def rerank(self, query: str, documents: Sequence[str], **options: Any) -> Any:
        assert TRACE.get() == "of the caller"
        if self._kind == "async":
            return self._later(query, documents, **options)
        self._blocking.wait()
        return self._sidecar.rerank(query, documents, **options)

    async def _later(self, query: str, documents: Sequence[str], **options: Any) -> Any:
        await asyncio.wait_for(self._async.wait(), WAIT_S)
        return await self._sidecar.rerank(query, documents, **options)


async def test_the_requests_of_a_batch_are_reranked_at_once(kind: str) -> None:
    TRACE.set("of the caller")
    async with (
        serving() as served,
        application(kind, served.target, lambda client: AtOnce(client, kind)) as app,
    ):
        await app.fill(bodies("2", "9"))
        results = await app.ask("query_batch_points", COLLECTION, [request()] * 3, rerank=BODY)
    assert [ids(result) for result in results] == [[1, 0]] * 3


async def test_one_failed_rerank_ends_those_beside_it() -> None:
    ended = asyncio.Event()

    class Failing:
        async def rerank(self, query: str, documents: Sequence[str], **options: Any) -> Any:
            if query == "fails":
                raise LookupError("this one")
            try:
                await asyncio.sleep(WAIT_S)
            finally:
                ended.set()

    async with serving() as served, application("async", served.target, lambda _: Failing()) as app:
        await app.fill(bodies("2"))
        each = [Rerank("body", query="waits"), Rerank("body", query="fails")]
        with pytest.raises(LookupError, match="this one"):
            await app.ask("query_batch_points", COLLECTION, [request()] * 2, rerank=each)
    assert ended.is_set()


def grouped(*texts: str) -> list[models.PointStruct]:
    """One letter and one number for each point, such as a3: its group and its text."""
    return [
        point(at, {"group": text[0], "body": text[1:], "at": at}) for at, text in enumerate(texts)
    ]


def members(result: GroupsResult) -> list[tuple[Any, list[Any]]]:
    return [(group.id, [point.id for point in group.hits]) for group in result.groups]


GROUPS = grouped("a2", "b1", "a6", "c4", "b9", "c3", "a1", "d8")


async def test_groups_are_ordered_by_their_best_hit(app: Application) -> None:
    await app.fill(GROUPS)
    asked = {"query": QUERY, "group_by": "group", "group_size": 3}
    plain = await app.plain("query_points_groups", COLLECTION, **asked)
    result = await app.ask("query_points_groups", COLLECTION, **asked, rerank=BODY)
    assert members(result) == [("b", [4, 1]), ("d", [7]), ("a", [2, 0, 6]), ("c", [3, 5])]
    assert isinstance(result, RerankedGroupsResult)
    assert isinstance(result, GroupsResult)
    assert all(isinstance(each, RerankedGroup) for each in result.groups)
    assert all(isinstance(each, PointGroup) for each in result.groups)
    stored = {hit.id: hit for group in plain.groups for hit in group.hits}
    for hit in (hit for group in result.groups for hit in group.hits):
        assert isinstance(hit, RerankedPoint)
        assert hit.store_score == stored[hit.id].score
        assert hit.payload == stored[hit.id].payload
        assert hit.score == float((hit.payload or {})["body"])
    assert result.missing_texts == 0
    assert result.passed_through is None


async def test_limits_of_groups_count_groups(app: Application, seen: Spied) -> None:
    await app.fill(GROUPS)
    asked = {"query": QUERY, "group_by": "group", "group_size": 2, "with_payload": ["at"]}
    two = Rerank("body", query="highest", oversample=2)
    result = await app.ask("query_points_groups", COLLECTION, **asked, limit=2, rerank=two)
    assert members(result) == [("b", [4, 1]), ("d", [7])]
    assert result.groups[0].hits[0].payload == {"at": 4}
    one = Rerank("body", query="highest", top_n=1)
    result = await app.ask("query_points_groups", COLLECTION, **asked, limit=2, rerank=one)
    assert members(result) == [("b", [4, 1])]
    assert [len(texts) for _, texts in seen] == [7, 4]


async def test_a_point_of_several_groups_is_in_each(app: Application) -> None:
    points = [point(at, {"group": [*"ab"], "body": str(at)}) for at in range(2)]
    await app.fill([*points, point(2, {"group": "b"})])
    asked = {"query": QUERY, "group_by": "group"}
    result = await app.ask("query_points_groups", COLLECTION, **asked, rerank=BODY)
    assert members(result) == [("a", [1, 0]), ("b", [1, 0, 2])]
    assert result.missing_texts == 1


async def test_what_is_looked_up_stays_with_its_group(app: Application) -> None:
    await app.fill([point(at, {"group": at % 2, "body": str(at)}) for at in range(3)])
    about = [point(at, {"name": f"group {at}"}) for at in range(2)]
    await app.fill(about, name="groups")
    asked = {"query": QUERY, "group_by": "group", "with_lookup": "groups"}
    result = await app.ask("query_points_groups", COLLECTION, **asked, rerank=BODY)
    assert members(result) == [(0, [2, 0]), (1, [1])]
    assert [group.lookup.payload["name"] for group in result.groups] == ["group 0", "group 1"]


@pytest.mark.parametrize("distance", [models.Distance.COSINE, models.Distance.EUCLID])
async def test_fusing_counts_the_stores_order_over_all_groups(
    app: Application, distance: models.Distance
) -> None:
    # The store's order is 0 to 3; by groups it would be 0, 2, 1, 3.
    await app.fill(grouped("a1", "b3", "a2", "b0"), models.VectorParams(size=2, distance=distance))
    by_rank = Rerank("body", query="highest", fuse="reciprocal_rank")
    asked = {"query": QUERY, "group_by": "group"}
    result = await app.ask("query_points_groups", COLLECTION, **asked, rerank=by_rank)
    scores = {hit.id: hit.score for group in result.groups for hit in group.hits}
    places = {0: 3, 1: 1, 2: 2, 3: 4}
    assert scores == {at: 1 / (61 + at) + 1 / (60 + place) for at, place in places.items()}


async def test_without_rerank_groups_are_qdrants_own(app: Application) -> None:
    await app.fill(GROUPS)
    asked = (COLLECTION, "group", QUERY)
    plain = await app.plain("query_points_groups", *asked)
    result = await app.ask("query_points_groups", *asked)
    assert type(result) is GroupsResult
    assert result == plain
    assert members(await app.ask("query_points_groups", *asked, rerank=BODY))[0] == ("b", [4, 1])
