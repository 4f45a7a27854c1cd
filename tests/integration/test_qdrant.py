"""`query_points` with `rerank=`, both kinds, over Qdrant in memory and the toy reranker's server.

The toy scores a text by the number that it spells, so the right order is plain to see.
"""

import copy
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.models import QueryResponse, ScoredPoint

from rerank_adapters.qdrant import RerankedPoint, RerankedQdrantClient, RerankedQueryResponse
from rerank_adapters.rerank import Rerank, WeightedSum
from tests.contract.grpc_toy import serving
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

BODY = Rerank("body", query="which is the highest?")

SELECTORS = [
    True,
    False,
    [],
    ["title"],
    ["body"],
    ["meta.page", "tags"],
    ("title", "meta"),
    ["chapters[].number"],
    models.PayloadSelectorInclude(include=["title", '"a key"']),
    models.PayloadSelectorExclude(exclude=["title"]),
    models.PayloadSelectorExclude(exclude=["body"]),
    models.PayloadSelectorExclude(exclude=["meta", "tags"]),
    models.PayloadSelectorExclude(exclude=["meta.body", "chapters[].text", "title"]),
]

PROPS = [
    "body",
    "meta.body",
    "chapters[].text",
    "chapters[1].text",
    "tags",
    '"a key"',
    ["title_number", "body"],
    lambda found: str(found.payload["meta"]["page"]),
]


def rich(number: int) -> dict[str, Any]:
    return {
        "title": f"title {number}",
        "title_number": "",
        "body": str(number),
        "meta": {"body": str(number), "page": number},
        "chapters": [{"number": 7, "text": ""}, {"number": 8, "text": str(number)}],
        "tags": [str(number)],
        "a key": str(number),
    }


@pytest.fixture
def seen() -> Spied:
    return []


@pytest.fixture(params=["sync", "async"])
async def app(request: pytest.FixtureRequest, seen: Spied) -> AsyncIterator[Application]:
    async with (
        serving(unknown_model="error") as served,
        application(request.param, served.target, lambda client: Spy(client, seen)) as opened,
    ):
        yield opened


async def test_points_come_best_first_with_both_scores(app: Application) -> None:
    await app.fill(bodies("2", "9", "-1", "5"))
    plain = await app.plain("query_points", COLLECTION, query=QUERY)
    result = await app.ask("query_points", COLLECTION, query=QUERY, rerank=BODY)
    assert isinstance(result, RerankedQueryResponse)
    assert isinstance(result, QueryResponse)
    assert all(isinstance(each, RerankedPoint) for each in result.points)
    assert all(isinstance(each, ScoredPoint) for each in result.points)
    assert [(each.id, each.score) for each in result.points] == [(1, 9), (3, 5), (0, 2), (2, -1)]
    stored = {each.id: each for each in plain.points}
    for each in result.points:
        assert each.store_score == stored[each.id].score
        assert each.payload == stored[each.id].payload
        assert each.version == stored[each.id].version
        assert each.error is None
    assert result.passed_through is None
    assert result.missing_texts == 0
    assert result.response is not None
    assert result.response.model == "toy"


async def test_without_rerank_it_is_qdrants_own_answer(app: Application) -> None:
    await app.fill(bodies("2", "9"))
    plain = await app.plain("query_points", COLLECTION, query=QUERY)
    result = await app.ask("query_points", COLLECTION, query=QUERY)
    assert type(result) is QueryResponse
    assert result == plain


async def test_arguments_by_position_mean_what_they_mean_to_qdrant(app: Application) -> None:
    await app.fill(bodies("2", "9", "5"))
    only = models.Filter(must=[models.HasIdCondition(has_id=[0, 2])])
    asked = (COLLECTION, QUERY, None, None, only, None, 1)
    assert ids(await app.plain("query_points", *asked)) == [0]
    assert ids(await app.ask("query_points", *asked, rerank=BODY)) == [0]
    assert ids(await app.ask("query_points", *asked[:-1], 2, rerank=BODY)) == [2, 0]


async def test_what_qdrant_does_not_know_it_refuses_itself(app: Application) -> None:
    await app.fill(bodies("2"))
    with pytest.raises(AssertionError, match="Unknown arguments"):
        await app.ask("query_points", COLLECTION, query=QUERY, depth=3, rerank=BODY)
    with pytest.raises(ValueError, match="not found"):
        await app.ask("query_points", "nowhere", query=QUERY, rerank=BODY)


async def test_all_other_methods_are_the_clients(app: Application) -> None:
    await app.fill(bodies("2", "9"))
    assert (await app.ask("count", COLLECTION)).count == 2
    assert app.client.init_options == app.store.init_options
    assert copy.copy(app.client).init_options == app.store.init_options
    with pytest.raises(AttributeError, match="no_such_method"):
        _ = app.client.no_such_method


@pytest.mark.parametrize(
    ("page", "candidates", "found"),
    [
        ({"limit": 3}, 3, [2, 1, 0]),
        ({"limit": 3, "offset": 2}, 5, [2, 1, 0]),
        ({"limit": 2, "rerank": {"oversample": 3}}, 6, [5, 4]),
        ({"limit": 2, "offset": 1, "rerank": {"oversample": 3}}, 9, [7, 6]),
        ({"limit": 2, "offset": 1, "rerank": {"oversample": 1.5}}, 5, [3, 2]),
        ({"limit": 4, "offset": 2, "rerank": {"top_n": 1}}, 6, [3]),
        ({"limit": 50, "offset": 18}, 20, [1, 0]),
        ({"limit": 5, "offset": 30}, 20, []),
        ({}, 10, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ],
)
async def test_the_page_is_cut_after_reranking(
    app: Application, seen: Spied, page: dict[str, Any], candidates: int, found: list[int]
) -> None:
    await app.fill(bodies(*map(str, range(20))))
    asked = dict(page)
    rerank = Rerank("body", query="highest", **asked.pop("rerank", {}))
    result = await app.ask("query_points", COLLECTION, query=QUERY, rerank=rerank, **asked)
    assert ids(result) == found
    [(_, texts)] = seen
    assert len(texts) == candidates


@pytest.mark.parametrize("selector", SELECTORS, ids=str)
@pytest.mark.parametrize("prop", PROPS, ids=lambda each: getattr(each, "__name__", str(each)))
async def test_the_payload_is_what_the_caller_asked_for(
    app: Application, selector: Any, prop: Any
) -> None:
    await app.fill([point(at, rich(number)) for at, number in enumerate([3, 1, 8])])
    asked = {"query": QUERY, "with_payload": selector}
    plain = await app.plain("query_points", COLLECTION, **asked)
    rerank = Rerank(prop, query="highest")
    result = await app.ask("query_points", COLLECTION, **asked, rerank=rerank)
    assert ids(result) == [2, 0, 1]
    assert [each.score for each in result.points] == [8, 3, 1]
    assert result.missing_texts == 0
    payloads = {each.id: each.payload for each in plain.points}
    assert [each.payload for each in result.points] == [payloads[at] for at in ids(result)]


async def test_a_missing_text_scores_as_empty_and_is_counted(app: Application, seen: Spied) -> None:
    await app.fill([*bodies("-2", None, "4"), point(3, {"body": 17}), point(4, {"body": ["1"]})])
    result = await app.ask("query_points", COLLECTION, query=QUERY, rerank=BODY)
    assert ids(result) == [2, 4, 1, 3, 0]
    assert result.missing_texts == 2
    assert seen == [("which is the highest?", ("-2", "", "4", "", "1"))]


async def test_nothing_found_asks_nobody(app: Application, seen: Spied) -> None:
    await app.fill(bodies("1"))
    nothing = models.Filter(must=[models.HasIdCondition(has_id=[99])])
    asked = {"query": QUERY, "query_filter": nothing}
    result = await app.ask("query_points", COLLECTION, **asked, rerank=BODY)
    assert (result.points, result.response, result.passed_through) == ([], None, None)
    assert not seen


async def test_rows_that_come_in_are_not_changed(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.fill(bodies("2", "9"))
    found = await app.plain("query_points", COLLECTION, query=QUERY, with_vectors=True)
    before = copy.deepcopy(found)
    if app.kind == "async":

        async def answer(collection_name: str, **options: Any) -> Any:
            return found

        monkeypatch.setattr(app.store, "query_points", answer)
    else:
        monkeypatch.setattr(app.store, "query_points", lambda collection_name, **options: found)
    asked = {"query": QUERY, "with_payload": ["title"], "limit": 10, "prefetch": None}
    result = await app.ask("query_points", COLLECTION, **asked, rerank=BODY)
    assert [each.payload for each in result.points] == [{"title": "title 1"}, {"title": "title 0"}]
    assert result.points[0].vector == before.points[1].vector
    assert found == before


async def test_fused_orders_count_the_stores(app: Application) -> None:
    await app.fill(bodies("0.2", "0.1", "0.3"))
    by_rank = Rerank("body", query="highest", fuse="reciprocal_rank")
    result = await app.ask("query_points", COLLECTION, query=QUERY, rerank=by_rank)
    assert ids(result) == [0, 2, 1]
    assert result.points[0].score == pytest.approx(1 / 61 + 1 / 62)
    by_store = Rerank("body", query="highest", fuse=WeightedSum(0.0, "cosine"))
    result = await app.ask("query_points", COLLECTION, query=QUERY, rerank=by_store)
    assert ids(result) == [0, 1, 2]
    assert result.points[0].score == pytest.approx((result.points[0].store_score + 1) / 2)


async def test_a_result_travels_like_qdrants(app: Application) -> None:
    await app.fill(bodies("2", "9"))
    result = await app.ask("query_points", COLLECTION, query=QUERY, rerank=BODY)
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301
    again = RerankedQueryResponse.model_validate_json(result.model_dump_json())
    assert again.points == result.points
    assert ids(QueryResponse.model_validate(result.model_dump())) == [1, 0]


def test_every_method_of_qdrants_client_is_there() -> None:
    store = QdrantClient(":memory:")
    client = RerankedQdrantClient(store, sidecar=None)  # type: ignore[arg-type]
    methods = {name for name, method in vars(QdrantClient).items() if callable(method)}
    assert {"upsert", "delete", "scroll", "recover_snapshot"} <= methods
    public = {name for name in methods if not name.startswith("_")}
    ours = {"query_points", "query_batch_points", "query_points_groups"}
    assert all(getattr(client, name) == getattr(store, name) for name in public - ours)
    assert public <= set(dir(client))


@pytest.mark.parametrize("rerank", ["body", [BODY], 5], ids=str)
async def test_only_a_rerank_reranks(app: Application, rerank: Any) -> None:
    await app.fill(bodies("2"))
    for method, more in (
        ("query_points", {"query": QUERY}),
        ("query_points_groups", {"query": QUERY, "group_by": "title"}),
    ):
        with pytest.raises(TypeError, match=r"^rerank: must be a Rerank"):
            await app.ask(method, COLLECTION, **more, rerank=rerank)
    with pytest.raises(TypeError, match=r"^rerank: must be a Rerank"):
        request = models.QueryRequest(query=QUERY)
        await app.ask("query_batch_points", COLLECTION, [request], rerank=[None])


def test_without_qdrants_client_the_import_says_what_to_install() -> None:
    program = "import sys; sys.modules['qdrant_client'] = None; import rerank_adapters.qdrant"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "pip install 'rerank-sidecar[qdrant]'" in ran.stderr.splitlines()[-1]
