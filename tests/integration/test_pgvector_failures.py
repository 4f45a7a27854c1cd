"""A sidecar that fails, and many callers at once."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import rerank_adapters.pgvector.asyncpg as on_asyncpg
import rerank_adapters.pgvector.psycopg as on_psycopg
import rerank_adapters.pgvector.sqlalchemy as on_sqlalchemy
from rerank_adapters import (
    AsyncRerankClient,
    ModelNotFound,
    Rerank,
    RerankCallError,
    RerankClient,
    Unavailable,
)
from rerank_adapters.pgvector import Search
from rerank_adapters.rerank import OnError
from tests.contract.conftest import Running
from tests.contract.grpc_toy import Served, happened, serving
from tests.contract.running import running_sidecar
from tests.integration.pgvector_app import KINDS, Application, application, columns
from tests.integration.postgres import database

ROWS = 20


@pytest.fixture(scope="module")
def uri(postgres: str) -> Iterator[str]:
    with database(postgres, "failures") as uri:
        with psycopg.connect(uri) as connection:
            connection.execute("CREATE TABLE rows (id int, body text, embedding vector(2))")
            connection.execute(
                "INSERT INTO rows SELECT i, i::text, array[1, i]::vector "
                "FROM generate_series(1, %s) i",
                [ROWS],
            )
        yield uri


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A sidecar that scores a text by the number which it is, and waits at "wait"."""
    async with serving(unknown_model="error") as running:
        yield running


@pytest.fixture(params=KINDS)
async def app(
    request: pytest.FixtureRequest, uri: str, served: Served
) -> AsyncIterator[Application]:
    async with application(request.param, uri, served.target) as opened:
        yield opened


def search(limit: int = ROWS, **changes: Any) -> Search:
    return Search("rows", ["id", "body"], "embedding", [1, 0], limit=limit, **changes)


def rerank(**changes: Any) -> Rerank:
    return Rerank(**{"prop": "body", "query": "query"} | changes)


async def killed(app: Application, served: Served, on_error: OnError, **options: Any) -> Any:
    """Fetch, and end the sidecar while it scores."""
    waiting = rerank(prop=lambda row: "wait", on_error=on_error, **options)
    fetching = asyncio.create_task(app.fetch(search(3, offset=1), rerank=waiting))
    await happened(served.toy.began)
    await served.server.stop(0)
    return await fetching


async def test_a_sidecar_killed_in_a_call_raises(app: Application, served: Served) -> None:
    with pytest.raises(RerankCallError) as caught:
        await killed(app, served, "raise")
    assert "wait" not in str(caught.value)
    assert await app.value("SELECT 1") == 1


async def test_a_sidecar_killed_in_a_call_passes_the_stores_page_through(
    app: Application, served: Served
) -> None:
    found = await killed(app, served, "passthrough", oversample=2)
    assert columns(found, "id") == [2, 3, 4]
    assert [each.score for each in found] == columns(found, "distance")
    assert [each.store_score for each in found] == columns(found, "distance")
    assert isinstance(found.passed_through, RerankCallError)
    assert app.client.passthrough_count == 1
    assert await app.value("SELECT 1") == 1


async def test_the_callers_own_mistakes_are_raised_even_so(app: Application) -> None:
    with pytest.raises(ModelNotFound):
        await app.fetch(search(), rerank=rerank(model="none", on_error="passthrough"))
    assert app.client.passthrough_count == 0


def test_a_process_killed_between_database_and_sidecar(uri: str) -> None:
    with (
        running_sidecar("--model", "lexical") as sidecar,
        RerankClient(f"127.0.0.1:{sidecar.grpc_port}", 20.0) as client,
        psycopg.connect(uri) as connection,
    ):

        def kill(row: tuple[Any, ...]) -> str:
            sidecar.process.kill()
            sidecar.process.wait()
            return str(row[1])

        def ask(chosen: Rerank) -> Any:
            return on_psycopg.fetch(connection, search(3), rerank=chosen, sidecar=client)

        assert ask(rerank()).passed_through is None
        found = ask(rerank(prop=kill, on_error="passthrough"))
        assert isinstance(found.passed_through, Unavailable)
        assert [each.row[0] for each in found] == [1, 2, 3]
        with pytest.raises(Unavailable):
            ask(rerank())


def test_a_text_that_fails_alone_comes_last(uri: str, sidecar: Running) -> None:
    statement = "SELECT repeat('x', 300000) AS body UNION ALL SELECT 'red fruit' ORDER BY 1 DESC"
    with (
        RerankClient(f"127.0.0.1:{sidecar.grpc_port}") as client,
        psycopg.connect(uri) as connection,
    ):
        found = on_psycopg.fetch(connection, statement, rerank=rerank(), sidecar=client)
    assert [each.row[0][:3] for each in found] == ["red", "xxx"]
    assert found[0].error is None
    assert found[1].error is not None
    assert found[1].score == found[0].score


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind == "asyncpg" or "async" in kind])
async def test_a_cancelled_call_leaves_its_connection_usable(
    kind: str, uri: str, served: Served
) -> None:
    async with application(kind, uri, served.target) as app:
        waiting = rerank(prop=lambda row: "wait")
        fetching = asyncio.create_task(app.fetch(search(), rerank=waiting))
        await happened(served.toy.began)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert app.is_open() == (kind == "session async")
        found = await app.fetch(search(), rerank=rerank(top_n=1))
        assert columns(found, "id") == [ROWS]


async def test_a_pools_connection_is_back_before_the_sidecar_answers(
    uri: str, served: Served
) -> None:
    async with (
        AsyncRerankClient(served.target) as client,
        asyncpg.create_pool(uri, min_size=1, max_size=1) as pool,
    ):
        waiting = rerank(prop=lambda row: "wait")
        fetching = asyncio.create_task(
            on_asyncpg.fetch(pool, search(), rerank=waiting, sidecar=client)
        )
        await happened(served.toy.began)
        assert await pool.fetchval("SELECT 1") == 1
        served.toy.release.set()
        assert len(await fetching) == ROWS


def expected(at: int) -> list[int]:
    return list(range(at, 0, -1))[:3]


async def test_tasks_share_a_pool_and_a_client(uri: str, served: Served) -> None:
    async with (
        AsyncRerankClient(served.target) as client,
        asyncpg.create_pool(uri, min_size=1, max_size=3) as pool,
        AsyncConnectionPool(uri, min_size=1, max_size=3, open=False) as psycopg_pool,
    ):

        async def on_psycopg_pool(at: int) -> list[int]:
            async with psycopg_pool.connection() as connection:
                found = await on_psycopg.fetch_async(
                    connection, search(at), rerank=rerank(top_n=3), sidecar=client
                )
            return [each.row[0] for each in found]

        async def on_asyncpg_pool(at: int) -> list[int]:
            found = await on_asyncpg.fetch(pool, search(at), rerank=rerank(top_n=3), sidecar=client)
            return columns(found, "id")

        calls = [
            each(at) for at in range(1, ROWS + 1) for each in (on_psycopg_pool, on_asyncpg_pool)
        ]
        found = await asyncio.gather(*calls)
    assert found == [expected(at) for at in range(1, ROWS + 1) for _ in range(2)]


async def test_threads_share_a_pool_and_a_client(uri: str, served: Served) -> None:
    engine = sqlalchemy.create_engine(uri.replace("postgresql:", "postgresql+psycopg:"))
    started = threading.Barrier(8)

    def work(client: RerankClient, pool: ConnectionPool, at: int) -> list[list[int]]:
        if at <= 8:
            started.wait(20)
        with pool.connection() as connection:
            first = on_psycopg.fetch(connection, search(at), rerank=rerank(top_n=3), sidecar=client)
        with engine.connect() as opened:
            second = on_sqlalchemy.fetch(opened, search(at), rerank=rerank(top_n=3), sidecar=client)
        return [[each.row[0] for each in first], columns(second, "id")]

    def run() -> list[list[list[int]]]:
        with (
            RerankClient(served.target) as client,
            ConnectionPool(uri, min_size=1, max_size=3, open=False) as pool,
            ThreadPoolExecutor(8) as threads,
        ):
            return list(threads.map(lambda at: work(client, pool, at), range(1, ROWS + 1)))

    found = await asyncio.to_thread(run)
    engine.dispose()
    assert found == [[expected(at)] * 2 for at in range(1, ROWS + 1)]
