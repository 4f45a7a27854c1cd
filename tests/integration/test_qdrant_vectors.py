"""Points reranked by the vectors that Qdrant has of them, in memory and over a server's wire."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client import grpc as messages

from rerank_adapters import AsyncRerankClient, NotSupportedByModel, Rerank, RerankClient
from rerank_adapters.candidates import MISSING_VECTORS
from rerank_adapters.qdrant import AsyncRerankedQdrantClient, RerankedQdrantClient
from tests.integration.qdrant_app import COLLECTION, Application, application, ids
from tests.integration.qdrant_server import qdrant_server
from tests.unit.adapters.every_client import Sidecar, listening_beside
from tests.unit.adapters.toy_vectors import ToyMaxSim, encode, maxsim

COSINE = models.Distance.COSINE
VECTORS = {
    "dense": models.VectorParams(size=2, distance=COSINE),
    "colbert": models.VectorParams(
        size=2,
        distance=COSINE,
        multivector_config=models.MultiVectorConfig(
            comparator=models.MultiVectorComparator.MAX_SIM
        ),
    ),
}
SPARSE = {"words": models.SparseVectorParams()}
TOKENS: dict[int, Any] = {
    0: [[0.6, 0.8], [0.8, 0.6]],
    1: [[1.0, 0.1], [0.1, 1.0], [-1.0, 0.0]],
    2: None,
    3: [[0.0, 1.0]],
    4: [[1.0, 0.0], [0.0, 1.0]],
}
"""The vectors of each point, in the order of the dense ones."""

BEST_FIRST = [4, 1, 0, 3, 2]
BY_TOKENS = Rerank(vectors="colbert", query="red fruit")
QUERY: dict[str, Any] = {"query": [1.0, 0.0], "using": "dense"}


def points() -> list[models.PointStruct]:
    return [
        models.PointStruct(
            id=at,
            vector={"dense": [1.0, at / 10], "words": models.SparseVector(indices=[at], values=[1])}
            | ({} if tokens is None else {"colbert": tokens}),
            payload={"body": "sky", "kind": at % 2},
        )
        for at, tokens in TOKENS.items()
    ]


@pytest.fixture(scope="module")
def toy() -> ToyMaxSim:
    return ToyMaxSim()


@pytest.fixture(scope="module")
def sidecar(toy: ToyMaxSim) -> Iterator[Sidecar]:
    with listening_beside(reranker=toy) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
async def app(request: pytest.FixtureRequest, sidecar: Sidecar) -> AsyncIterator[Application]:
    async with application(request.param, sidecar.target) as opened:
        await opened.fill(points(), VECTORS, sparse_vectors_config=SPARSE)
        yield opened


async def test_points_are_reranked_by_their_vectors(app: Application, toy: ToyMaxSim) -> None:
    toy.documents.clear()
    found = await app.ask("query_points", COLLECTION, **QUERY, rerank=BY_TOKENS)
    assert ids(found) == BEST_FIRST
    stored, _ = await app.plain("scroll", COLLECTION, with_vectors=["colbert"])
    tokens = [np.asarray(each.vector["colbert"], "f") for each in stored if each.vector]
    assert [np.asarray(each).tolist() for each in toy.documents] == [
        each.tolist() for each in tokens
    ]
    expected = sorted((maxsim(encode("red fruit"), each) for each in tokens), reverse=True)
    assert [each.score for each in found.points[:4]] == pytest.approx(expected)
    assert found.response.model == "toy-maxsim"
    assert all(each.vector is None for each in found.points)
    assert all(each.payload == {"body": "sky", "kind": each.id % 2} for each in found.points)


async def test_points_without_such_vectors_come_last_and_are_counted(app: Application) -> None:
    found = await app.ask("query_points", COLLECTION, **QUERY, rerank=BY_TOKENS)
    errors = {each.id: each.error for each in found.points if each.error}
    assert errors == {2: MISSING_VECTORS}
    assert (found.missing_vectors, found.missing_texts) == (1, 0)
    first = await app.ask("query_points", COLLECTION, **QUERY, limit=1, rerank=BY_TOKENS)
    assert ids(first) == [0]  # the store found it, and no other
    best = Rerank(vectors="colbert", query="red fruit", oversample=5)
    wide = await app.ask("query_points", COLLECTION, **QUERY, limit=1, rerank=best)
    assert ids(wide) == [4]
    assert wide.missing_vectors == 1


async def test_no_point_has_vectors_of_a_wrong_name(app: Application) -> None:
    wrong = Rerank(vectors="colbrt", query="red fruit")
    found = await app.ask("query_points", COLLECTION, **QUERY, rerank=wrong)
    assert ids(found) == [0, 1, 2, 3, 4]
    assert (found.missing_vectors, found.response) == (5, None)


async def test_vectors_of_the_query_stand_for_its_text(app: Application, toy: ToyMaxSim) -> None:
    asked = Rerank(vectors="colbert", query_vectors=np.asarray([[0.0, 1.0]]))
    found = await app.ask("query_points", COLLECTION, **QUERY, rerank=asked)
    assert toy.queries[-1] is not None
    assert toy.queries[-1].tolist() == [[0.0, 1.0]]
    assert ids(found)[:2] == [3, 4]
    with pytest.raises(ValueError, match=r"^query: "):
        await app.ask("query_points", COLLECTION, **QUERY, rerank=Rerank(vectors="colbert"))


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        False,
        True,
        [],
        ["dense"],
        ["colbert"],
        ["words", "colbert"],
        ("dense", "words"),
        messages.WithVectorsSelector(enable=True),
        messages.WithVectorsSelector(include=messages.VectorsSelector(names=["dense"])),
    ],
    ids=str,
)
async def test_vectors_come_back_as_the_caller_asked(app: Application, wanted: Any) -> None:
    named = (
        wanted
        if not isinstance(wanted, messages.WithVectorsSelector)
        else (wanted.enable or list(wanted.include.names))
    )
    plain = await app.plain("query_points", COLLECTION, **QUERY, with_vectors=named)
    found = await app.ask(
        "query_points", COLLECTION, **QUERY, with_vectors=wanted, rerank=BY_TOKENS
    )
    assert ids(found) == BEST_FIRST
    assert {each.id: each.vector for each in found.points} == {
        each.id: each.vector for each in plain.points
    }


async def test_vectors_that_cannot_be_asked_for_or_compared(app: Application) -> None:
    with pytest.raises(TypeError, match=r"^with_vectors "):
        await app.ask("query_points", COLLECTION, **QUERY, with_vectors="dense", rerank=BY_TOKENS)
    sparse = Rerank(vectors="words", query="red fruit")
    with pytest.raises(ValueError, match=r"^vectors: 'words' are sparse"):
        await app.ask("query_points", COLLECTION, **QUERY, rerank=sparse)
    lexical = Rerank(vectors="colbert", query="red fruit", model="lexical", on_error="passthrough")
    with pytest.raises(NotSupportedByModel):
        await app.ask("query_points", COLLECTION, **QUERY, rerank=lexical)


async def test_one_vector_of_each_point_named_or_not(app: Application) -> None:
    dense = Rerank(vectors="dense", query="fruit")
    found = await app.ask("query_points", COLLECTION, **QUERY, rerank=dense)
    assert ids(found) == [4, 3, 2, 1, 0]
    alone = [models.PointStruct(id=at, vector=[1.0, at / 10]) for at in range(3)]
    await app.fill(alone, name="unnamed")
    unnamed = Rerank(vectors="", query="fruit")
    for wanted, kept in ((False, None), ([], {}), (True, [1.0, 0.0])):
        found = await app.ask(
            "query_points", "unnamed", query=[1.0, 0.0], with_vectors=wanted, rerank=unnamed
        )
        assert ids(found) == [2, 1, 0]
        assert found.points[2].vector == kept


async def test_batches_and_groups(app: Application) -> None:
    requests = [
        models.QueryRequest(**QUERY, limit=5, with_vector=wanted) for wanted in (None, ["dense"])
    ]
    batch = await app.ask("query_batch_points", COLLECTION, requests, rerank=BY_TOKENS)
    assert [ids(each) for each in batch] == [BEST_FIRST] * 2
    assert [each.points[0].vector and [*each.points[0].vector] for each in batch] == [
        None,
        ["dense"],
    ]
    groups = await app.ask(
        "query_points_groups", COLLECTION, "kind", **QUERY, group_size=5, rerank=BY_TOKENS
    )
    assert [[hit.id for hit in group.hits] for group in groups.groups] == [[4, 0, 2], [1, 3]]
    assert groups.missing_vectors == 1
    assert groups.groups[0].hits[0].vector is None


async def test_a_sidecar_that_is_gone_gives_the_stores_order(app: Application) -> None:
    async with application(app.kind, "localhost:1", max_attempts=1) as gone:
        await gone.fill(points(), VECTORS, sparse_vectors_config=SPARSE)
        asked = Rerank(vectors="colbert", query="red fruit", on_error="passthrough")
        found = await gone.ask("query_points", COLLECTION, **QUERY, rerank=asked)
        assert ids(found) == [0, 1, 2, 3, 4]
        assert found.passed_through is not None
        assert found.missing_vectors == 1


@pytest.mark.parametrize("by_grpc", [False, True], ids=["http", "grpc"])
async def test_clients_of_a_server(sidecar: Sidecar, by_grpc: bool) -> None:
    with qdrant_server() as server:
        server.memory.create_collection(COLLECTION, VECTORS, sparse_vectors_config=SPARSE)
        server.memory.upsert(COLLECTION, points())
        ports = {"port": server.http_port, "grpc_port": server.grpc_port}
        options: Any = {"host": "127.0.0.1", **ports, "prefer_grpc": by_grpc}
        options["check_compatibility"] = False
        with RerankClient(sidecar.target) as client:
            store = QdrantClient(**options)
            reranked = RerankedQdrantClient(store, client)
            found = reranked.query_points(COLLECTION, **QUERY, rerank=BY_TOKENS)
            store.close()
        assert ids(found) == BEST_FIRST
        async with AsyncRerankClient(sidecar.target) as waiting:
            async_store = AsyncQdrantClient(**options)
            waited = AsyncRerankedQdrantClient(async_store, waiting)
            found = await waited.query_points(COLLECTION, **QUERY, rerank=BY_TOKENS)
            await async_store.close()
        assert ids(found) == BEST_FIRST
