"""Weaviate's collections with our `rerank`, on the stand-in."""

import asyncio
import copy
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.query import Filter, GroupBy, HybridFusion, MetadataQuery, Move, QueryNested
from weaviate.classes.query import Rerank as WeaviateRerank
from weaviate.proto.v1 import search_get_pb2

from examples.labelled_set import DOCUMENTS, QUERIES, vector
from rerank_adapters.rerank import Rerank, WeightedSum
from rerank_adapters.weaviate import (
    RerankedCollection,
    RerankedGroupByMetadata,
    RerankedQueryReturn,
    rerank_query_return,
)
from tests.integration.weaviate_app import (
    Application,
    Server,
    application,
    labelled,
    places,
    rerank_scores,
)
from tests.integration.weaviate_servers import running, server
from tests.integration.weaviate_stand_in import Running
from tests.integration.weaviate_suite import QUERY, WeaviateSuite, first_arguments

__all__ = ["running", "server"]


class TestStandIn(WeaviateSuite):
    """The stand-in passes what a server passes."""


@pytest.fixture
async def by_module(server: Server) -> AsyncIterator[Application]:
    async with application(server, labelled()) as app:
        yield app


@pytest.fixture
async def by_sidecar(server: Server) -> AsyncIterator[Application]:
    async with application(server, labelled(), by_sidecar=True) as app:
        yield app


COMMON: dict[str, Any] = {
    "auto_limit": 3,
    "filters": Filter.by_property("kind").equal("even"),
    "include_vector": True,
    "return_metadata": MetadataQuery.full(),
    "return_properties": ["body", "at"],
}

OWN: dict[str, dict[str, Any]] = {
    "bm25": {"query_properties": ["body"]},
    "hybrid": {"alpha": 0.3, "fusion_type": HybridFusion.RANKED},
    "near_object": {"certainty": 0.1},
    "near_text": {"move_to": Move(force=0.5, concepts=["apple"])},
    "near_vector": {"distance": 0.99},
}
"""Arguments that only one of the searches has, or some."""


@pytest.mark.parametrize("search", OWN)
async def test_every_other_argument_goes_through(
    running: Running, by_module: Application, search: str
) -> None:
    positional, arguments = await first_arguments(by_module, search)
    arguments = {**arguments, **OWN[search], **COMMON}
    await by_module.own(search, *positional, **arguments, limit=7)
    wanted = Rerank("body", "a question", oversample=3)
    await by_module.ask(search, *positional, **arguments, limit=5, offset=2, rerank=wanted)
    plain, ours = running.stand_in.searches[-2:]
    expected = search_get_pb2.SearchRequest()
    expected.CopyFrom(plain)
    expected.limit = 21
    expected.rerank.property, expected.rerank.query = "body", "a question"
    assert ours == expected


async def test_weaviates_own_rerank_and_none_go_through(by_module: Application) -> None:
    asked = {"limit": 4}
    plain = await by_module.own("near_vector", vector(QUERY), **asked)
    assert places(await by_module.ask("near_vector", vector(QUERY), **asked)) == places(plain)
    own = WeaviateRerank(prop="body", query=QUERY)
    found = await by_module.ask("near_vector", vector(QUERY), rerank=own, **asked)
    assert sorted(places(found)) == sorted(places(plain))
    assert rerank_scores(found) == sorted(rerank_scores(found), reverse=True)


async def test_the_texts_of_near_text_are_the_query(by_module: Application) -> None:
    first, second = QUERY.split(" ", 1)
    found = await by_module.ask("near_text", [first, second], limit=3, rerank=Rerank("body"))
    named = await by_module.ask("near_text", query=QUERY, limit=3, rerank=Rerank("body"))
    assert rerank_scores(found) == rerank_scores(named)


async def test_without_a_limit_it_is_the_servers(by_module: Application) -> None:
    found = await by_module.ask("near_vector", vector(QUERY), rerank=Rerank("body", QUERY))
    assert len(found.objects) == 10
    top = Rerank("body", QUERY, top_n=2)
    assert len((await by_module.ask("near_vector", vector(QUERY), rerank=top)).objects) == 2


@pytest.mark.parametrize(
    ("rerank", "arguments", "message"),
    [
        (Rerank("body"), {}, "query: the store's query has no text"),
        (Rerank("body", QUERY, oversample=2), {}, "limit: needed"),
        (Rerank("body", QUERY), {"offset": 3}, "limit: needed"),
        (Rerank(["title", "body"], QUERY), {}, "prop: .* reads one property; give .* a sidecar"),
        (Rerank(str, QUERY), {}, "prop: .* reads one property; give .* a sidecar"),
        (Rerank("body", QUERY, model="lexical"), {}, "model: .* reranker_config; give .* sidecar"),
        (Rerank("body", QUERY, fuse="reciprocal_rank"), {}, "fuse: .* a sidecar"),
        (
            Rerank("body", QUERY),
            {
                "limit": 5,
                "offset": 1,
                "group_by": GroupBy(prop="kind", number_of_groups=1, objects_per_group=1),
            },
            "offset: there is none in groups",
        ),
    ],
)
async def test_what_cannot_be_is_refused(
    by_module: Application, rerank: Rerank, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        await by_module.ask("near_vector", vector(QUERY), rerank=rerank, **arguments)


async def test_generate_takes_weaviates_own_rerank_only(by_module: Application) -> None:
    generate = by_module.reranked.generate
    with pytest.raises(TypeError, match="search with query and our Rerank first"):
        generate.near_vector(vector(QUERY), limit=3, rerank=Rerank("body", QUERY))
    found = generate.near_vector(vector(QUERY), limit=3)
    assert len(found.objects) == 3


async def test_all_else_is_the_collections_own(by_module: Application) -> None:
    reranked = by_module.reranked
    assert reranked.name == by_module.plain.name
    assert reranked.config.get() == by_module.plain.config.get()
    assert len(reranked.query.fetch_objects(limit=5).objects) == 5
    assert copy.copy(reranked).name == reranked.name
    with pytest.raises(AttributeError):
        reranked.no_such_thing  # noqa: B018
    with pytest.raises(AttributeError):
        reranked.query.no_such_thing  # noqa: B018


async def test_tenants_and_consistency(running: Running, by_module: Application) -> None:
    other = by_module.reranked.with_tenant("one").with_consistency_level(ConsistencyLevel.ALL)
    assert isinstance(other, RerankedCollection)
    found = other.query.near_vector(
        vector(QUERY), limit=1, rerank=Rerank("body", QUERY, oversample=2)
    )
    assert isinstance(found, RerankedQueryReturn)
    asked = running.stand_in.searches[-1]
    assert asked.tenant == "one"
    assert asked.consistency_level == 3
    assert asked.limit == 2


class TestBySidecar:
    """What the module cannot do, and the client of a sidecar can."""

    async def test_several_properties_a_function_and_a_model(self, by_sidecar: Application) -> None:
        async def best(rerank: Rerank) -> Any:
            return await by_sidecar.ask("near_vector", vector(QUERY), limit=40, rerank=rerank)

        both = await best(Rerank(["title", "body"], QUERY))
        made = await best(Rerank(lambda row: "{title}\n{body}".format(**row.properties), QUERY))
        assert places(both) == places(made)
        assert both.response.model == "embedded"
        lexical = await best(Rerank("body", QUERY, model="lexical"))
        assert lexical.response.model == "lexical"
        assert rerank_scores(lexical) != rerank_scores(both)

    @pytest.mark.parametrize(
        "wanted", [False, [], "title", ["title"], [QueryNested(name="nested", properties="x")]]
    )
    async def test_the_text_is_asked_for_and_not_shown(
        self, by_sidecar: Application, wanted: Any
    ) -> None:
        found = await by_sidecar.ask(
            "near_vector",
            vector(QUERY),
            limit=3,
            rerank=Rerank(["body", "title"], QUERY, oversample=10),
            return_properties=wanted,
        )
        assert found.missing_texts == 0
        shown = {"title"} if wanted in ("title", ["title"]) else set()
        assert {name for each in found.objects for name in each.properties} == shown
        assert found.objects[0].uuid != found.objects[1].uuid

    async def test_fusing_with_the_stores_order(self, by_sidecar: Application) -> None:
        ranks = await by_sidecar.ask(
            "near_vector",
            vector(QUERY),
            limit=3,
            rerank=Rerank("body", QUERY, fuse="reciprocal_rank"),
        )
        assert rerank_scores(ranks)[0] <= 2 / 61
        asked = {"limit": 3, "return_metadata": MetadataQuery(distance=True)}
        plain = await by_sidecar.own("near_vector", vector(QUERY), **asked)
        stores = Rerank("body", QUERY, fuse=WeightedSum(0.0, "cosine_distance"))
        found = await by_sidecar.ask("near_vector", vector(QUERY), rerank=stores, **asked)
        assert places(found) == places(plain)
        first = found.objects[0].metadata
        assert first.rerank_score == pytest.approx(1 - first.distance / 2)

    async def test_fusing_needs_the_stores_score(self, by_sidecar: Application) -> None:
        stores = Rerank("body", QUERY, fuse=WeightedSum(0.5, "unit"))
        with pytest.raises(ValueError, match=r"metadata\.certainty or score, .* return_metadata"):
            await by_sidecar.ask("near_vector", vector(QUERY), limit=3, rerank=stores)
        found = await by_sidecar.ask(
            "bm25", QUERY, limit=3, rerank=stores, return_metadata=["score"]
        )
        assert len(found.objects) == 3

    async def test_groups_are_reordered_within(self, by_sidecar: Application) -> None:
        grouped = GroupBy(prop="kind", number_of_groups=2, objects_per_group=20)
        found = await by_sidecar.ask(
            "near_vector",
            vector(QUERIES[1][0]),
            limit=40,
            group_by=grouped,
            rerank=Rerank("body", QUERIES[1][0]),
            return_metadata=MetadataQuery(distance=True),
        )
        assert list(found.groups) == ["odd", "even"]
        assert places(found)[0] == 1
        for group in found.groups.values():
            scores = [each.metadata.rerank_score for each in group.objects]
            assert scores == sorted(scores, reverse=True)
            assert group.rerank_score == scores[0]
            assert all(isinstance(each.metadata, RerankedGroupByMetadata) for each in group.objects)
            assert all(each.metadata.distance is not None for each in group.objects)

    async def test_a_text_that_fails_alone(self, server: Server) -> None:
        rows = [*labelled()[:3], {"body": "long " * 50_000, "at": 99}]
        async with application(server, rows, by_sidecar=True) as app:
            found = await app.ask(
                "near_vector", vector("long"), limit=4, rerank=Rerank("body", QUERY)
            )
        assert places(found)[-1] == 99
        assert rerank_scores(found)[-1] == rerank_scores(found)[-2]
        [(uuid, error)] = found.failed.items()
        assert uuid == found.objects[-1].uuid
        assert error.reason == "LIMIT_EXCEEDED"


class TestFinishedQueries:
    """`rerank_query_return` beyond what holds of every Weaviate."""

    async def test_groups(self, by_module: Application) -> None:
        grouped = GroupBy(prop="kind", number_of_groups=2, objects_per_group=20)
        returned = await by_module.own("bm25", "the bread", limit=40, group_by=grouped)
        before = copy.deepcopy(returned)
        found = rerank_query_return(returned, Rerank("body", QUERY, top_n=1), by_module.sidecar)
        assert returned == before
        assert list(found.groups) == ["even"]
        assert places(found)[0] == 0

    async def test_what_was_never_found_is_not_asked(self, by_module: Application) -> None:
        returned = await by_module.own("bm25", "xylophone", limit=5)
        found = rerank_query_return(returned, Rerank("body", QUERY), by_module.sidecar)
        assert found.objects == []
        assert found.response is None

    async def test_what_is_not_a_query_or_not_over(self, by_module: Application) -> None:
        returned = await by_module.own("bm25", QUERY, limit=5)
        with pytest.raises(ValueError, match="oversample: the query is over"):
            rerank_query_return(returned, Rerank("body", QUERY, oversample=2), by_module.sidecar)
        with pytest.raises(ValueError, match="query: "):
            rerank_query_return(returned, Rerank("body"), by_module.sidecar)
        with pytest.raises(TypeError, match="not list"):
            rerank_query_return(returned.objects, Rerank("body", QUERY), by_module.sidecar)


class TestMany:
    """Many candidates, and many callers."""

    @pytest.mark.parametrize("kind", ["module", "sidecar"])
    async def test_two_thousand_candidates(
        self, running: Running, server: Server, kind: str
    ) -> None:
        rows = [{"body": f"{at} apples", "at": at} for at in range(2000)]
        rows[1234]["body"] = DOCUMENTS[0]
        async with application(server, rows, by_sidecar=kind == "sidecar") as app:
            wanted = Rerank("body", QUERY, oversample=200)
            asked = {"limit": 10, "return_properties": ["at"]}
            found = await app.ask("near_vector", vector("7 apples"), rerank=wanted, **asked)
        assert running.stand_in.searches[-1].limit == 2000
        assert places(found)[0] == 1234
        assert len(found.objects) == 10

    async def test_threads(self, server: Server) -> None:
        async with application(server, labelled()) as app:

            def ask(query: str) -> list[int]:
                wanted = Rerank("body", query, oversample=10)
                return places(app.reranked.query.near_vector(vector(query), limit=3, rerank=wanted))

            expected = [ask(query) for query, _ in QUERIES]
            with ThreadPoolExecutor(8) as threads:
                found = list(threads.map(ask, [query for query, _ in QUERIES] * 4))
        assert found == expected * 4

    async def test_tasks(self, server: Server) -> None:
        async with application(server, labelled(), is_async=True, by_sidecar=True) as app:

            async def ask(query: str) -> list[int]:
                wanted = Rerank("body", query, oversample=10)
                found = await app.ask("near_vector", vector(query), limit=3, rerank=wanted)
                return places(found)

            expected = [await ask(query) for query, _ in QUERIES]
            asked = [ask(query) for query, _ in QUERIES * 4]
            assert await asyncio.gather(*asked) == expected * 4
