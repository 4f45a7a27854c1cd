"""psycopg: rows of every row factory, cursors, autocommit, and vectors as plain lists."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from pgvector.psycopg import register_vector
from psycopg import rows, sql
from psycopg.pq import TransactionStatus

from rerank_adapters import AsyncRerankClient, Rerank, RerankClient
from rerank_adapters.pgvector import Search
from rerank_adapters.pgvector.psycopg import fetch, fetch_async
from tests.contract.conftest import Running
from tests.integration.postgres import database

RERANK = Rerank("body", "red fruit")


@pytest.fixture(scope="module")
def uri(postgres: str) -> Iterator[str]:
    with database(postgres, "psycopg") as uri:
        with psycopg.connect(uri) as connection:
            connection.execute("CREATE TABLE docs (count int, body text, embedding vector(2))")
            connection.execute(
                "INSERT INTO docs VALUES (1, 'the sky', '[1,0]'), (2, 'a red fruit', '[1,1]')"
            )
        yield uri


@pytest.fixture
def connection(uri: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(uri) as connection:
        yield connection


@pytest.fixture
def sidecar_client(sidecar: Running) -> Iterator[RerankClient]:
    with RerankClient(f"127.0.0.1:{sidecar.grpc_port}") as client:
        yield client


@dataclass
class Doc:
    count: int
    body: str
    distance: float


def as_list(cursor: psycopg.Cursor[Any]) -> rows.RowMaker[list[Any]]:
    return list


SEARCH = Search("docs", ["count", "body"], "embedding", [1, 0], "l2")
FACTORIES: list[tuple[Any, Any]] = [
    (rows.tuple_row, (2, "a red fruit", 1.0)),
    (rows.dict_row, {"count": 2, "body": "a red fruit", "distance": 1.0}),
    (rows.namedtuple_row, (2, "a red fruit", 1.0)),
    (rows.class_row(Doc), Doc(2, "a red fruit", 1.0)),
    (rows.args_row(Doc), Doc(2, "a red fruit", 1.0)),
    (rows.kwargs_row(Doc), Doc(2, "a red fruit", 1.0)),
    (as_list, [2, "a red fruit", 1.0]),
]


@pytest.mark.parametrize(("factory", "row"), FACTORIES)
def test_rows_of_every_factory(
    uri: str, sidecar_client: RerankClient, factory: Any, row: Any
) -> None:
    with psycopg.connect(uri, row_factory=factory) as connection:
        first, _ = fetch(connection, SEARCH, rerank=RERANK, sidecar=sidecar_client)
    assert first.row == row
    assert first.store_score == 1.0


def test_a_cursor_brings_its_own_factory(
    connection: psycopg.Connection[Any], sidecar_client: RerankClient
) -> None:
    with connection.cursor(row_factory=rows.class_row(Doc)) as cursor:
        found = fetch(cursor, SEARCH, rerank=RERANK, sidecar=sidecar_client)
    assert found[0].row.body == "a red fruit"


def test_a_column_is_found_by_its_name_though_tuples_have_methods(
    connection: psycopg.Connection[Any], sidecar_client: RerankClient
) -> None:
    found = fetch(connection, SEARCH, rerank=RERANK, sidecar=sidecar_client, store_score="count")
    assert [each.store_score for each in found] == [2.0, 1.0]


def test_rows_that_have_no_columns_are_read_by_functions(
    connection: psycopg.Connection[Any], sidecar_client: RerankClient
) -> None:
    with connection.cursor(row_factory=rows.scalar_row) as cursor:
        found = fetch(
            cursor,
            "SELECT body FROM docs",
            rerank=Rerank(lambda row: row, "red fruit"),
            sidecar=sidecar_client,
        )
    assert [each.row for each in found] == ["a red fruit", "the sky"]


def test_a_method_of_a_text_is_not_taken_for_a_column(
    connection: psycopg.Connection[Any], sidecar_client: RerankClient
) -> None:
    query, titled = "SELECT body AS title FROM docs", Rerank("title", "red fruit")
    with (
        connection.cursor(row_factory=rows.scalar_row) as cursor,
        pytest.raises(ValueError, match="prop: the rows have no column 'title'"),
    ):
        fetch(cursor, query, rerank=titled, sidecar=sidecar_client)


@pytest.mark.parametrize("is_registered", [True, False])
def test_queries_in_every_form(
    connection: psycopg.Connection[Any], sidecar_client: RerankClient, *, is_registered: bool
) -> None:
    if is_registered:
        register_vector(connection)
    text = "SELECT body FROM docs ORDER BY embedding <=> %(vector)s::vector LIMIT %(limit)s"
    composed = sql.SQL("SELECT body FROM {} ORDER BY embedding <=> %(vector)s::vector").format(
        sql.Identifier("docs")
    )
    params = {"vector": [1.0, 0.0], "limit": 2}
    for query in (text, text.encode(), sql.SQL(text), composed):
        found = fetch(connection, query, params, rerank=RERANK, sidecar=sidecar_client)
        assert [each.row for each in found] == [("a red fruit",), ("the sky",)]
    found = fetch(connection, SEARCH, rerank=RERANK, sidecar=sidecar_client)
    assert [each.row[0] for each in found] == [2, 1]


async def test_autocommit_stays_and_nothing_is_open(
    uri: str, sidecar_client: RerankClient, sidecar: Running
) -> None:
    async with (
        AsyncRerankClient(f"127.0.0.1:{sidecar.grpc_port}") as client,
        await psycopg.AsyncConnection.connect(uri, autocommit=True) as connection,
    ):
        await fetch_async(connection, SEARCH, rerank=RERANK, sidecar=client)
        assert connection.autocommit
        assert connection.info.transaction_status is TransactionStatus.IDLE
    with psycopg.connect(uri, autocommit=True) as blocking:
        fetch(blocking, SEARCH, rerank=RERANK, sidecar=sidecar_client)
        assert blocking.autocommit
        assert blocking.info.transaction_status is TransactionStatus.IDLE


@pytest.mark.parametrize("factory", [psycopg.ClientCursor, psycopg.RawCursor])
def test_other_kinds_of_cursors(
    uri: str, sidecar_client: RerankClient, factory: type[psycopg.Cursor[Any]]
) -> None:
    with psycopg.connect(uri, cursor_factory=factory) as connection:
        found = fetch(connection, SEARCH, rerank=RERANK, sidecar=sidecar_client)
    assert [each.row[0] for each in found] == [2, 1]


def test_a_search_takes_no_parameters(
    connection: psycopg.Connection[Any], sidecar_client: RerankClient
) -> None:
    with pytest.raises(TypeError, match="params"):
        fetch(connection, SEARCH, [1], rerank=RERANK, sidecar=sidecar_client)
