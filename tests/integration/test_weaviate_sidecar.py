"""Collections without a module: the application asks the sidecar for what Weaviate found."""

import copy
from typing import Any, TypedDict

import pytest
from weaviate.classes.query import GroupBy, MetadataQuery, QueryNested

from examples.labelled_set import QUERIES, vector
from rerank_adapters.rerank import Rerank, WeightedSum
from rerank_adapters.weaviate import (
    RerankedGroupByMetadata,
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
from tests.integration.weaviate_servers import by_module, by_sidecar, running, server
from tests.integration.weaviate_suite import QUERY

__all__ = ["by_module", "by_sidecar", "running", "server"]


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

    async def test_properties_of_a_type(self, by_sidecar: Application) -> None:
        class Shown(TypedDict):
            body: str
            at: int

        found = await by_sidecar.ask(
            "near_vector",
            vector(QUERY),
            limit=3,
            rerank=Rerank("body", QUERY),
            return_properties=Shown,
        )
        assert found.missing_texts == 0
        assert set(found.objects[0].properties) == {"body", "at"}
        with pytest.raises(ValueError, match="return_properties: its type lacks 'title'"):
            await by_sidecar.ask(
                "bm25", QUERY, rerank=Rerank(["body", "title"]), return_properties=Shown
            )

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
        [(uuid, error)] = found.errors.items()
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
