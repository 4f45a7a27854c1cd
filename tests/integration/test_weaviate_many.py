"""Many candidates of one search, and many callers at once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from examples.labelled_set import DOCUMENTS, QUERIES, vector
from rerank_adapters.rerank import Rerank
from tests.integration.weaviate_app import (
    Server,
    application,
    labelled,
    places,
)
from tests.integration.weaviate_servers import running, server
from tests.integration.weaviate_stand_in import Running
from tests.integration.weaviate_suite import QUERY

__all__ = ["running", "server"]


@pytest.mark.parametrize("kind", ["module", "sidecar"])
async def test_two_thousand_candidates(running: Running, server: Server, kind: str) -> None:
    rows = [{"body": f"{at} apples", "at": at} for at in range(2000)]
    rows[1234]["body"] = DOCUMENTS[0]
    async with application(server, rows, by_sidecar=kind == "sidecar") as app:
        wanted = Rerank("body", QUERY, oversample=200)
        asked = {"limit": 10, "return_properties": ["at"]}
        found = await app.ask("near_vector", vector("7 apples"), rerank=wanted, **asked)
    assert running.stand_in.searches[-1].limit == 2000
    assert places(found)[0] == 1234
    assert len(found.objects) == 10


async def test_threads(server: Server) -> None:
    async with application(server, labelled()) as app:

        def ask(query: str) -> list[int]:
            wanted = Rerank("body", query, oversample=10)
            return places(app.reranked.query.near_vector(vector(query), limit=3, rerank=wanted))

        expected = [ask(query) for query, _ in QUERIES]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(ask, [query for query, _ in QUERIES] * 4))
    assert found == expected * 4


async def test_tasks(server: Server) -> None:
    async with application(server, labelled(), is_async=True, by_sidecar=True) as app:

        async def ask(query: str) -> list[int]:
            wanted = Rerank("body", query, oversample=10)
            found = await app.ask("near_vector", vector(query), limit=3, rerank=wanted)
            return places(found)

        expected = [await ask(query) for query, _ in QUERIES]
        asked = [ask(query) for query, _ in QUERIES * 4]
        assert await asyncio.gather(*asked) == expected * 4
