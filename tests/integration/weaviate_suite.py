"""What holds of every Weaviate: run against the stand-in always, and against a server if given."""

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
from weaviate.classes.query import Filter, GroupBy, MetadataQuery
from weaviate.outputs.query import GroupByReturn, QueryReturn

from examples.labelled_set import DOCUMENTS, QUERIES, precision_at_1, vector
from rerank_adapters.rerank import Rerank
from rerank_adapters.weaviate import (
    RerankedGroupByReturn,
    RerankedQueryReturn,
    check_weaviate,
    check_weaviate_async,
    rerank_query_return,
    rerank_query_return_async,
)
from tests.integration.weaviate_app import (
    Application,
    Server,
    application,
    labelled,
    places,
    rerank_scores,
)

QUERY = QUERIES[0][0]
ALL = len(DOCUMENTS)


class WeaviateSuite:
    """A subclass has the fixture `server`."""

    @pytest.fixture(params=["module", "sidecar"])
    def by_sidecar(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param == "sidecar")

    @pytest.fixture(params=["sync", "async"])
    def is_async(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param == "async")

    @pytest.fixture
    async def app(
        self, server: Server, is_async: bool, by_sidecar: bool
    ) -> AsyncIterator[Application]:
        async with application(
            server, labelled(), is_async=is_async, by_sidecar=by_sidecar
        ) as running:
            yield running

    async def test_oversampling_finds_what_the_first_page_lacks(self, app: Application) -> None:
        before, after = [], []
        for query, _ in QUERIES:
            asked = {"limit": 1, "return_metadata": MetadataQuery(distance=True)}
            before += places(await app.own("near_vector", vector(query), **asked))
            wanted = Rerank("body", query, oversample=20)
            found = await app.ask("near_vector", vector(query), rerank=wanted, **asked)
            after += places(found)
            assert found.objects[0].metadata.distance is not None
            assert found.passed_through is None
        assert precision_at_1(before) < 0.5
        assert precision_at_1(after) > 0.8

    async def test_scores_are_the_models(self, app: Application) -> None:
        wanted = Rerank("body", QUERY, oversample=ALL / 5)
        found = await app.ask("near_vector", vector(QUERY), limit=5, rerank=wanted)
        assert type(found) is RerankedQueryReturn
        assert isinstance(found, QueryReturn)
        response = await app.call(app.sidecar.rerank, QUERY, DOCUMENTS)
        best = response.results[:5]
        assert places(found) == [each.index for each in best]
        assert rerank_scores(found) == pytest.approx([each.score for each in best], abs=1e-6)

    @pytest.mark.parametrize("search", ["bm25", "hybrid", "near_vector", "near_object"])
    async def test_pages_count_in_the_new_order(self, app: Application, search: str) -> None:
        positional, arguments = await first_arguments(app, search)
        arguments["filters"] = Filter.by_property("kind").equal("even")
        whole = await app.ask(
            search, *positional, limit=6, rerank=Rerank("body", QUERY, oversample=2), **arguments
        )
        found = rerank_scores(whole)
        assert found == sorted(found, reverse=True)
        for offset in (0, 2, 4):
            page = await app.ask(
                search,
                *positional,
                limit=2,
                offset=offset,
                rerank=Rerank("body", QUERY, oversample=12 / (2 + offset)),
                **arguments,
            )
            assert places(page) == places(whole)[offset : offset + 2]
        first = await app.ask(
            search,
            *positional,
            limit=6,
            rerank=Rerank("body", QUERY, oversample=2, top_n=1),
            **arguments,
        )
        assert places(first) == places(whole)[:1]
        assert all(at % 2 == 0 for at in places(whole))

    @pytest.mark.parametrize("search", ["bm25", "hybrid"])
    async def test_the_searchs_text_is_the_query(self, app: Application, search: str) -> None:
        positional, arguments = await first_arguments(app, search)
        found = await app.ask(search, *positional, limit=3, rerank=Rerank("body"), **arguments)
        explicit = await app.ask(
            search, *positional, limit=3, rerank=Rerank("body", QUERY), **arguments
        )
        assert rerank_scores(found) == pytest.approx(rerank_scores(explicit), abs=1e-6)

    async def test_groups(self, app: Application) -> None:
        grouped = GroupBy(prop="kind", number_of_groups=1, objects_per_group=4)
        wanted = Rerank("body", QUERY, oversample=5)
        found = await app.ask(
            "near_vector", vector(QUERY), limit=8, group_by=grouped, rerank=wanted
        )
        assert type(found) is RerankedGroupByReturn
        assert isinstance(found, GroupByReturn)
        assert list(found.groups) == ["even"]
        assert 0 in places(found)
        assert found.objects == found.groups["even"].objects
        assert found.groups["even"].rerank_score is not None

    async def test_objects_without_the_property_are_scored_as_empty(
        self, server: Server, is_async: bool, by_sidecar: bool
    ) -> None:
        rows = [*labelled(), {"title": "no body", "at": ALL}]
        async with application(server, rows, is_async=is_async, by_sidecar=by_sidecar) as app:
            wanted = Rerank("body", QUERY, oversample=2)
            found = await app.ask("near_vector", vector(QUERY), limit=ALL, rerank=wanted)
            response = await app.call(app.sidecar.rerank, QUERY, [""])
            [empty] = [each for each in found.objects if each.properties["at"] == ALL]
            score = response.results[0].score
            assert empty.metadata.rerank_score == pytest.approx(score, abs=1e-6)
            assert found.missing_texts == (1 if by_sidecar else None)

    async def test_a_finished_query(self, server: Server, is_async: bool) -> None:
        async with application(server, labelled(), is_async=is_async) as app:
            asked: dict[str, Any] = {"return_metadata": MetadataQuery(score=True)}
            returned = await app.own("bm25", "the bread and the kettle", limit=20, **asked)
            before = copy.deepcopy(returned)
            rerank = rerank_query_return_async if is_async else rerank_query_return
            found = await app.call(rerank, returned, Rerank("body", QUERY, top_n=3), app.sidecar)
            assert returned == before
            assert isinstance(found, RerankedQueryReturn)
            assert places(found)[0] == 0
            scores = {each.uuid: each.metadata.score for each in returned.objects}
            for each in found.objects:
                assert each.metadata.score == scores[each.uuid]
            assert rerank_scores(found) == sorted(rerank_scores(found), reverse=True)
            assert len(found.objects) == 3
            assert found.missing_texts == 0
            assert found.response is not None

    async def test_the_check_finds_nothing(self, server: Server, is_async: bool) -> None:
        if is_async:
            async with server.connect_async() as client:
                await check_weaviate_async(client, server.sidecar_url)
        else:
            with server.connect() as blocking:
                check_weaviate(blocking, server.sidecar_url)


async def first_arguments(app: Application, search: str) -> tuple[list[Any], dict[str, Any]]:
    """Arguments with which a search finds most documents."""
    if search == "near_vector":
        return [vector(QUERY)], {}
    if search == "near_object":
        found = await app.own("near_vector", vector(DOCUMENTS[0]), limit=1)
        return [found.objects[0].uuid], {}
    return [QUERY], {"vector": vector(QUERY)} if search == "hybrid" else {}
