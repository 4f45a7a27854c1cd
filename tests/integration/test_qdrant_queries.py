"""Every kind of query that Qdrant has goes on working with `rerank=`, and gives its text."""

import math
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from rerank_adapters.qdrant.searches import query_text
from rerank_adapters.rerank import Rerank
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
)

BODY = Rerank("body", query="highest")
DENSE = models.VectorParams(size=2, distance=models.Distance.COSINE)
DOCUMENT = models.Document(text="red fruit", model="any")
TEXT = models.TextQuery(text="red fruit")


@pytest.fixture
def seen() -> Spied:
    return []


@pytest.fixture(params=["sync", "async"])
async def app(request: pytest.FixtureRequest, seen: Spied) -> AsyncIterator[Application]:
    async with (
        serving() as served,
        application(request.param, served.target, lambda client: Spy(client, seen)) as opened,
    ):
        yield opened


def hybrid(at: int, score: int) -> models.PointStruct:
    angle = (at + 1) / 100
    turned = [math.cos(angle), math.sin(angle)]
    return models.PointStruct(
        id=at,
        vector={
            "dense": turned,
            "tokens": [turned, [0.0, 1.0]],
            "words": models.SparseVector(indices=[at % 3, 3], values=[1.0, 0.5]),
        },
        payload={"body": str(score), "even": at % 2 == 0},
    )


async def fill_hybrid(app: Application) -> None:
    many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    tokens = models.VectorParams(size=2, distance=models.Distance.COSINE, multivector_config=many)
    sparse = {"words": models.SparseVectorParams()}
    vectors = {"dense": DENSE, "tokens": tokens}
    points = [hybrid(at, score) for at, score in enumerate([4, 1, 6, 3, 8, 5, 2, 7])]
    await app.fill(points, vectors, sparse_vectors_config=sparse)


EVEN = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
PREFETCHES = [
    models.Prefetch(query=QUERY, using="dense", limit=3),
    models.Prefetch(
        query=models.SparseVector(indices=[0, 3], values=[1.0, 1.0]), using="words", limit=4
    ),
]

QUERIES: dict[str, dict[str, Any]] = {
    "named": {"query": QUERY, "using": "dense", "limit": 4},
    "an array": {"query": np.array(QUERY), "using": "dense", "limit": 4},
    "multi": {"query": [QUERY, [0.0, 1.0]], "using": "tokens", "limit": 4},
    "sparse": {
        "query": models.SparseVector(indices=[1, 3], values=[2.0, 1.0]),
        "using": "words",
        "limit": 4,
    },
    "filtered": {"query": QUERY, "using": "dense", "query_filter": EVEN},
    "of a point": {"query": 3, "using": "dense", "limit": 4},
    "recommended": {
        "query": models.RecommendQuery(recommend=models.RecommendInput(positive=[2, 5])),
        "using": "dense",
        "limit": 4,
    },
    "fused": {"query": models.FusionQuery(fusion=models.Fusion.RRF), "prefetch": PREFETCHES},
    "weighted": {"query": models.RrfQuery(rrf=models.Rrf(k=3)), "prefetch": PREFETCHES},
    "in two steps": {"query": QUERY, "using": "dense", "prefetch": PREFETCHES[1]},
    "formula": {
        "query": models.FormulaQuery(formula=models.SumExpression(sum=["$score", 1.0])),
        "prefetch": PREFETCHES[0],
    },
    "none": {"limit": 4, "query_filter": EVEN},
    "scores above": {"query": QUERY, "using": "dense", "score_threshold": math.cos(0.055)},
    "diverse": {
        "query": models.NearestQuery(nearest=QUERY, mmr=models.Mmr(diversity=0.5)),
        "using": "dense",
        "limit": 4,
    },
}


@pytest.mark.parametrize("asked", QUERIES.values(), ids=QUERIES)
async def test_the_points_are_those_that_qdrant_finds(
    app: Application, asked: dict[str, Any]
) -> None:
    await fill_hybrid(app)
    plain = await app.plain("query_points", COLLECTION, **asked, with_vectors=True)
    result = await app.ask("query_points", COLLECTION, **asked, with_vectors=True, rerank=BODY)
    assert 0 < len(result.points) == len(plain.points) < 8
    best = sorted(plain.points, key=lambda point: -int(point.payload["body"]))
    assert ids(result) == [point.id for point in best]
    assert [point.store_score for point in result.points] == [point.score for point in best]
    assert [point.vector for point in result.points] == [point.vector for point in best]


@pytest.mark.parametrize(
    ("limits", "oversample", "candidates"),
    [((None, None), 4, 8), ((None, None), None, 2), ((3, 3), 4, 5), ((3, None), 4, 8)],
)
async def test_prefetches_find_enough_unless_they_have_limits_of_their_own(
    app: Application,
    seen: Spied,
    limits: tuple[int | None, int | None],
    oversample: float | None,
    candidates: int,
) -> None:
    await fill_hybrid(app)
    sparse = models.SparseVector(indices=[0, 3], values=[1.0, 1.0])
    inner = models.Prefetch(query=sparse, using="words", limit=limits[1])
    prefetch = [
        models.Prefetch(query=QUERY, using="dense", limit=limits[0]),
        models.Prefetch(query=QUERY, using="dense", prefetch=inner, limit=limits[1]),
    ]
    fused = models.FusionQuery(fusion=models.Fusion.RRF)
    rerank = Rerank("body", query="highest", oversample=oversample)
    asked = {"query": fused, "prefetch": prefetch, "limit": 2}
    await app.ask("query_points", COLLECTION, **asked, rerank=rerank)
    [(_, texts)] = seen
    assert len(texts) == candidates
    assert [each.limit for each in (*prefetch, inner)] == [*limits, limits[1]]


async def test_the_text_of_qdrants_query_is_what_is_reranked_by(
    app: Application, seen: Spied
) -> None:
    texts = models.TextIndexParams(type=models.TextIndexType.TEXT, scoring=True)
    await app.fill(bodies("4 red", "7"))
    await app.plain("create_payload_index", COLLECTION, "body", texts)
    asked = {"query": TEXT, "using": "body"}
    for_toy = Rerank(lambda point: point.payload["body"].split()[0])
    result = await app.ask("query_points", COLLECTION, **asked, rerank=for_toy)
    assert ids(result) == [0]
    assert seen == [("red fruit", ("4",))]


@pytest.mark.parametrize("query", [QUERY, 3, None, models.SparseVector(indices=[1], values=[1.0])])
async def test_a_query_without_a_text_needs_one(app: Application, seen: Spied, query: Any) -> None:
    # The collection does not exist, so that only a query that never reached it raises this.
    textless = Rerank("body")
    with pytest.raises(ValueError, match="query: the store's query has no text"):
        await app.ask("query_points", "nowhere", query=query, rerank=textless)
    with pytest.raises(ValueError, match="query: the store's query has no text"):
        requests = [models.QueryRequest(query=query)]
        await app.ask("query_batch_points", "nowhere", requests, rerank=textless)
    with pytest.raises(ValueError, match="query: the store's query has no text"):
        await app.ask("query_points_groups", "nowhere", "body", query=query, rerank=textless)
    assert not seen


@pytest.mark.parametrize(
    ("query", "prefetch", "text"),
    [
        (DOCUMENT, None, "red fruit"),
        (TEXT, None, "red fruit"),
        (models.TextQuery(text=models.TextQueryInput(query="red fruit")), None, "red fruit"),
        (models.NearestQuery(nearest=DOCUMENT), None, "red fruit"),
        (
            models.DiscoverQuery(discover=models.DiscoverInput(target=DOCUMENT, context=[])),
            None,
            "red fruit",
        ),
        (
            models.RelevanceFeedbackQuery(
                relevance_feedback=models.RelevanceFeedbackInput(
                    target=DOCUMENT,
                    feedback=[],
                    strategy=models.NaiveFeedbackStrategy(
                        naive=models.NaiveFeedbackStrategyParams(a=1.0, b=1.0, c=1.0)
                    ),
                )
            ),
            None,
            "red fruit",
        ),
        (DOCUMENT, models.Prefetch(query=models.Document(text="blue", model="any")), "red fruit"),
        (None, models.Prefetch(query=DOCUMENT), "red fruit"),
        (None, [models.Prefetch(query=DOCUMENT), models.Prefetch(query=TEXT)], "red fruit"),
        (None, [models.Prefetch(query=DOCUMENT), models.Prefetch(query=QUERY)], "red fruit"),
        (None, models.Prefetch(prefetch=models.Prefetch(query=DOCUMENT)), "red fruit"),
        (
            None,
            [
                models.Prefetch(query=DOCUMENT),
                models.Prefetch(query=models.Document(text="blue", model="any")),
            ],
            None,
        ),
        ("5b1ab3c8-cd1f-4b8d-9e29-0d0d6d9e3c1f", None, None),
        (None, None, None),
    ],
)
def test_where_the_text_of_a_query_is(query: Any, prefetch: Any, text: str | None) -> None:
    assert query_text(query, prefetch) == text
