"""The index gives as many candidates as are asked for, and no connection is left changed."""

import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from pgvector import Bit, HalfVector, SparseVector, Vector

from rerank_adapters import Rerank, RerankClient
from rerank_adapters.pgvector import Condition, PgvectorError, Search
from rerank_adapters.pgvector.psycopg import fetch
from rerank_adapters.pgvector.search import Metric
from rerank_adapters.pgvector.statement import written
from tests.contract.conftest import Running
from tests.contract.grpc_toy import serving
from tests.integration.pgvector_app import KINDS, Application, application, columns
from tests.integration.postgres import database

VECTOR = [1.0, 0.5, 0.25, 0.1, 0.1, 0.1, 0.1, 0.1]
SPIED = ["ef_search", "iterative_scan", "max_scan_tuples", "scan_mem_multiplier"]
SPY = Condition(
    " AND ".join(
        f"set_config('spy.{name}', current_setting('hnsw.{name}'), false) <> ''" for name in SPIED
    )
)
"""A condition that is always true, and remembers the settings under which it was asked."""

CREATE = """
CREATE TABLE points (id int PRIMARY KEY, body text, shard int, embedding vector(8));
SELECT setseed(0.5);
INSERT INTO points SELECT i, i::text, i % 100,
    array(SELECT random() - 0.5 FROM generate_series(1, 8) WHERE i > 0)::vector
    FROM generate_series(1, 20000) i;
CREATE INDEX ON points USING hnsw (embedding vector_cosine_ops);
"""


@pytest.fixture(scope="module")
def uri(postgres: str) -> Iterator[str]:
    with database(postgres, "points") as uri:
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(CREATE)
            connection.execute("VACUUM ANALYZE points")
        yield uri


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """A sidecar that scores a text by the number which it is."""
    async with serving() as served:
        yield served.target


@pytest.fixture(params=KINDS)
async def app(request: pytest.FixtureRequest, uri: str, target: str) -> AsyncIterator[Application]:
    async with application(request.param, uri, target) as opened:
        yield opened


def search(limit: int, **changes: Any) -> Search:
    return Search("points", ["id", "body"], "embedding", VECTOR, limit=limit, **changes)


def rerank(**changes: Any) -> Rerank:
    return Rerank(**{"prop": "body", "query": "query"} | changes)


async def current(app: Application, prefix: str = "hnsw") -> list[str]:
    settings = (f"current_setting('{prefix}.{name}') AS {name}" for name in SPIED)
    [row] = await app.execute(f"SELECT {', '.join(settings)}")
    return list(row)


async def load(app: Application) -> None:
    """Let the session load pgvector, and with it its settings."""
    await app.execute("SELECT CAST('[1]' AS vector)")
    await app.finish()


DEFAULTS = ["40", "off", "20000", "1"]


async def test_all_candidates_come_from_an_index_that_gives_forty(app: Application) -> None:
    found = await app.fetch(search(100), rerank=rerank())
    assert len(found) == 100
    ids = columns(found, "id")
    assert ids == sorted(ids, reverse=True)
    await load(app)
    assert await current(app) == DEFAULTS


async def test_settings_are_raised_while_the_query_runs(app: Application) -> None:
    await app.fetch(search(100, condition=SPY), rerank=rerank())
    assert await current(app, "spy") == ["100", "relaxed_order", "20000", "1"]
    assert await current(app) == DEFAULTS


async def test_settings_are_never_lowered(app: Application) -> None:
    await app.execute("SET hnsw.ef_search = 900")
    await app.execute("SET hnsw.max_scan_tuples = 900000")
    await app.execute("SET hnsw.scan_mem_multiplier = 90")
    await app.fetch(search(100, condition=SPY), rerank=rerank())
    assert await current(app, "spy") == ["900", "relaxed_order", "900000", "90"]
    await app.fetch(search(2000, condition=SPY), rerank=rerank())
    assert await current(app, "spy") == ["1000", "relaxed_order", "900000", "90"]
    assert await current(app) == ["900", "off", "900000", "90"]


async def test_a_transaction_keeps_the_settings_it_had(app: Application) -> None:
    async with app.transaction():
        await app.execute("SELECT set_config('hnsw.ef_search', '60', true)")
        await app.fetch(search(2000, condition=SPY), rerank=rerank())
        assert await current(app, "spy") == ["1000", "relaxed_order", "40000", "2"]
        assert await current(app) == ["60", *DEFAULTS[1:]]
        assert app.is_open()
    assert await current(app) == DEFAULTS


async def test_a_connection_is_as_idle_as_it_was(app: Application) -> None:
    await app.fetch(search(10), rerank=rerank())
    await app.fetch("SELECT id, body FROM points LIMIT {}", 3, rerank=rerank())
    # A session keeps its transaction, in which its objects live, whatever it is asked.
    assert app.is_open() == app.kind.startswith("session")


async def test_a_query_that_fails_spares_the_callers_transaction(app: Application) -> None:
    async with app.transaction():
        await app.execute("CREATE TEMPORARY TABLE written (id int)")
        await app.execute("INSERT INTO written VALUES (1)")
        with pytest.raises(Exception, match="no_such_column"):
            await app.fetch(search(10, filters={"no_such_column": 1}), rerank=rerank())
        with pytest.raises(Exception, match="no_such_table"):
            await app.fetch("SELECT * FROM no_such_table", rerank=rerank())
        await app.fetch(search(10), rerank=rerank())
        assert await app.value("SELECT count(*) FROM written") == 1


async def test_two_thousand_candidates(app: Application) -> None:
    found = await app.fetch(search(2000), rerank=rerank())
    assert len(found) == 2000
    ids = columns(found, "id")
    assert ids == sorted(ids, reverse=True)
    await app.execute("SET enable_indexscan = off")
    exact = await app.fetch(search(2000), rerank=rerank())
    assert len(set(ids) & set(columns(exact, "id"))) > 0.95 * 2000


async def test_oversampling_counts_as_candidates(app: Application) -> None:
    found = await app.fetch(search(10, offset=10), rerank=rerank(oversample=100))
    every = await app.fetch(search(2000), rerank=rerank())
    assert columns(found, "id") == columns(every, "id")[10:20]


async def test_ties_are_in_the_stores_order(app: Application) -> None:
    found = await app.fetch(search(2000), rerank=rerank(prop=lambda row: "0"))
    distances = [each.store_score or 0.0 for each in found]
    assert distances == sorted(distances)


async def test_sql_of_the_callers_own_says_how_many_it_wants(app: Application) -> None:
    statement = (
        "SELECT id, body FROM points ORDER BY embedding <=> CAST(CAST({} AS text) AS vector) "
        "LIMIT {}"
    )
    few = await app.fetch(statement, str(VECTOR), 100, rerank=rerank())
    assert len(few) == 40
    every = await app.fetch(statement, str(VECTOR), 100, rerank=rerank(), candidates=100)
    assert len(every) == 100
    many = await app.fetch(statement, str(VECTOR), 2000, rerank=rerank(), candidates=2000)
    assert len(many) == 2000
    assert await current(app) == DEFAULTS


async def test_filters_do_not_leave_too_few(app: Application) -> None:
    await app.execute("SET enable_seqscan = off")  # a filter that leaves so few is quicker alone
    found = await app.fetch(search(50, filters={"shard": 7}), rerank=rerank())
    assert len(found) == 50
    assert all(each % 100 == 7 for each in columns(found, "id"))


async def test_old_versions_of_pgvector_refuse_more_than_their_index_gives(
    app: Application,
) -> None:
    version = "UPDATE pg_extension SET extversion = '{}' WHERE extname = 'vector'"
    async with app.transaction():
        await app.execute(version.format("0.7.4"))
        with pytest.raises(PgvectorError, match=r"2000 candidates need pgvector 0\.8.*0\.7\.4"):
            await app.fetch(search(2000), rerank=rerank())
        found = await app.fetch(search(1000), rerank=rerank())
        assert len(found) == 1000
        await app.execute(version.format("0.8.5"))


METRICS: list[tuple[Metric, str, str, object, float]] = [
    ("cosine", "vector(3)", "vector_cosine_ops", [3.0, 4.0, 0.0], 1 - 0.6),
    ("l2", "vector(3)", "vector_l2_ops", (3, 4, 0), math.sqrt(4 + 16)),
    ("inner_product", "vector(3)", "vector_ip_ops", Vector([3, 4, 0]), 3.0),
    ("l1", "vector(3)", "vector_l1_ops", "[3,4,0]", 6.0),
    ("cosine", "halfvec(3)", "halfvec_cosine_ops", HalfVector([3, 4, 0]), 1 - 0.6),
    ("l2", "halfvec(3)", "halfvec_l2_ops", [3, 4, 0], math.sqrt(4 + 16)),
    ("inner_product", "sparsevec(3)", "sparsevec_ip_ops", SparseVector([3, 4, 0]), 3.0),
    ("l2", "sparsevec(3)", "sparsevec_l2_ops", [3, 4, 0], math.sqrt(4 + 16)),
    ("hamming", "bit(3)", "bit_hamming_ops", [True, True, False], 1.0),
    ("jaccard", "bit(3)", "bit_jaccard_ops", Bit("110"), 0.5),
]


@pytest.mark.parametrize(("metric", "kind", "operators", "vector", "score"), METRICS)
def test_every_metric_uses_its_index_and_gives_its_score(  # noqa: PLR0917
    uri: str,
    sidecar: Running,
    metric: Metric,
    kind: str,
    operators: str,
    vector: object,
    score: float,
) -> None:
    row = {"v": "[1,0,0]", "h": "[1,0,0]", "s": "{1:1}/3", "b": "100"}[kind[0]]
    asked = Search("kinds", ["body"], "embedding", vector, metric)
    with blocking(sidecar) as client, psycopg.connect(uri) as connection:
        connection.execute(f"CREATE TABLE kinds (body text, embedding {kind})".encode())
        connection.execute("INSERT INTO kinds VALUES ('near', %s), ('lost', NULL)", [row])
        connection.execute(f"CREATE INDEX ON kinds USING hnsw (embedding {operators})".encode())
        connection.execute("SET LOCAL enable_seqscan = off")
        assert "Index Scan using kinds_embedding_idx" in explained(connection, asked)
        [found] = fetch(connection, asked, rerank=rerank(), sidecar=client)
        connection.rollback()
    assert found.store_score == pytest.approx(score)


def explained(connection: psycopg.Connection[Any], asked: Search) -> str:
    text, values = written(
        asked.sql(asked.limit), lambda _: "%s", lambda each: each.replace("%", "%%")
    )
    return str(connection.execute(f"EXPLAIN {text}".encode(), values).fetchall())


def blocking(sidecar: Running) -> RerankClient:
    return RerankClient(f"127.0.0.1:{sidecar.grpc_port}")


def test_the_planner_chooses_the_index_by_itself(uri: str) -> None:
    with psycopg.connect(uri) as connection:
        for limit in (100, 1000, 2000):
            plan = explained(connection, search(limit))
            assert "Index Scan using points_embedding_idx" in plan


def test_two_thousand_candidates_on_a_model(uri: str, sidecar: Running) -> None:
    chosen = rerank(prop=lambda row: f"number {row[0]}", query="number 4711")
    with blocking(sidecar) as client, psycopg.connect(uri) as connection:
        found = fetch(connection, search(2000), rerank=chosen, sidecar=client)
        texts = [f"number {each.row[0]}" for each in found[:3]]
        again = client.rerank("number 4711", texts)
    assert len(found) == 2000
    assert [each.score for each in again.results] == [each.score for each in found[:3]]
