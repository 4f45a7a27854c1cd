"""Weaviate's collections with our `rerank`, on the stand-in."""

import copy
import subprocess
import sys
from typing import Any

import pytest
from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.query import Filter, GroupBy, HybridFusion, MetadataQuery, Move
from weaviate.classes.query import Rerank as WeaviateRerank
from weaviate.proto.v1 import search_get_pb2

from examples.labelled_set import vector
from rerank_adapters.rerank import Rerank
from rerank_adapters.weaviate import (
    RerankedCollection,
    RerankedQueryReturn,
)
from tests.integration.weaviate_app import (
    Application,
    places,
    rerank_scores,
)
from tests.integration.weaviate_servers import by_module, running, server
from tests.integration.weaviate_stand_in import Running
from tests.integration.weaviate_suite import QUERY, WeaviateSuite, first_arguments

__all__ = ["by_module", "running", "server"]


class TestStandIn(WeaviateSuite):
    """The stand-in passes what a server passes."""


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


def test_a_missing_client_is_told_of() -> None:
    program = "import sys; sys.modules['weaviate'] = None; import rerank_adapters.weaviate"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "pip install 'rerank-sidecar[weaviate]'" in ran.stderr
