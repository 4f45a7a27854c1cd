"""psycopg 3: `fetch` for its connections and cursors that block, `fetch_async` for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, LiteralString, Unpack, cast

from rerank_adapters.candidates import (
    AsyncSidecar,
    Sidecar,
    rerank_candidates,
    rerank_candidates_async,
)
from rerank_adapters.pgvector.index_settings import READ, IndexSettings, write
from rerank_adapters.pgvector.rows import FetchOptions, Plan, RerankedRows, Row, by_column
from rerank_adapters.pgvector.search import Search
from rerank_adapters.pgvector.statement import Sql, written
from rerank_adapters.rerank import Rerank

try:
    from psycopg import (
        AsyncConnection,
        AsyncCursor,
        AsyncRawCursor,
        Connection,
        Cursor,
        RawCursor,
    )
    from psycopg.pq import TransactionStatus
    from psycopg.rows import tuple_row
    from psycopg.sql import SQL, Composed
except ImportError as error:
    raise ImportError(
        "rerank_adapters.pgvector.psycopg needs psycopg 3: pip install 'rerank-sidecar[pgvector]'"
    ) from error

if TYPE_CHECKING:
    from psycopg.abc import Params

Query = LiteralString | bytes | SQL | Composed
"""psycopg's own, without the templates of Python 3.14, which bring their parameters."""


def fetch(
    connection: Connection[Row] | Cursor[Row],
    query: Query | Search,
    params: Params | None = None,
    *,
    rerank: Rerank,
    sidecar: Sidecar,
    **options: Unpack[FetchOptions],
) -> RerankedRows[Row]:
    """Run a query that finds candidates, and rerank its rows.

    The rows are made by the row factory of the connection, or of the cursor that is given in its
    place. The query runs in a transaction of its own, or in a savepoint if one is open, which has
    ended before the sidecar is asked.

    Raises:
        RerankCallError: the sidecar failed, and `on_error` is not `passthrough`.
        PgvectorError: the database's pgvector cannot find so many.
        psycopg.Error: the query failed.
        TypeError: an argument is unknown, or there are `params` beside a `Search`.
        ValueError: `rerank` asks for what cannot be done; the message says what.
    """
    plan = Plan.of(rerank, query, params, options)
    if isinstance(connection, Cursor):
        rows, columns = _read(connection, query, params, plan)
    else:
        with connection.cursor() as cursor:
            rows, columns = _read(cursor, query, params, plan)
    candidates = plan.candidates(rows, by_column(columns), columns)
    return plan.reranked(rows, rerank_candidates(sidecar, rerank, plan.text, candidates))


async def fetch_async(
    connection: AsyncConnection[Row] | AsyncCursor[Row],
    query: Query | Search,
    params: Params | None = None,
    *,
    rerank: Rerank,
    sidecar: AsyncSidecar,
    **options: Unpack[FetchOptions],
) -> RerankedRows[Row]:
    """Run a query that finds candidates, and rerank its rows; as `fetch` does, for asyncio."""
    plan = Plan.of(rerank, query, params, options)
    if isinstance(connection, AsyncCursor):
        rows, columns = await _read_async(connection, query, params, plan)
    else:
        async with connection.cursor() as cursor:
            rows, columns = await _read_async(cursor, query, params, plan)
    candidates = plan.candidates(rows, by_column(columns), columns)
    arrangement = await rerank_candidates_async(sidecar, rerank, plan.text, candidates)
    return plan.reranked(rows, arrangement)


def _read(
    cursor: Cursor[Row], query: Query | Search, params: Params | None, plan: Plan
) -> tuple[list[Row], list[str]]:
    connection = cursor.connection
    is_open = connection.info.transaction_status is not TransactionStatus.IDLE
    with connection.transaction(), Cursor(connection, row_factory=tuple_row) as settings:
        raised: dict[str, str] = {}
        if plan.count is not None:
            found = IndexSettings.of(settings.execute(*_bound(READ)).fetchall()[0])
            raised = found.raised(plan.count)
        if raised:
            settings.execute(*_bound(write(raised)))
        rows = cursor.execute(*_asked(cursor, query, params, plan)).fetchall()
        if raised and is_open:
            settings.execute(*_bound(write(found.before(raised))))
        return rows, _columns(cursor)


async def _read_async(
    cursor: AsyncCursor[Row], query: Query | Search, params: Params | None, plan: Plan
) -> tuple[list[Row], list[str]]:
    connection = cursor.connection
    is_open = connection.info.transaction_status is not TransactionStatus.IDLE
    async with connection.transaction(), AsyncCursor(connection, row_factory=tuple_row) as settings:
        raised: dict[str, str] = {}
        if plan.count is not None:
            await settings.execute(*_bound(READ))
            found = IndexSettings.of((await settings.fetchall())[0])
            raised = found.raised(plan.count)
        if raised:
            await settings.execute(*_bound(write(raised)))
        await cursor.execute(*_asked(cursor, query, params, plan))
        rows = await cursor.fetchall()
        if raised and is_open:
            await settings.execute(*_bound(write(found.before(raised))))
        return rows, _columns(cursor)


def _asked(
    cursor: object, query: Query | Search, params: Params | None, plan: Plan
) -> tuple[Query, Params | None]:
    if plan.sql is None:
        return cast("Query", query), params
    if isinstance(cursor, (RawCursor, AsyncRawCursor)):
        text, values = written(plan.sql, "${}".format)
        return text.encode(), values
    return _bound(plan.sql)


def _bound(sql: Sql) -> tuple[bytes, Sequence[object]]:
    text, values = written(sql, lambda _: "%s", lambda literal: literal.replace("%", "%%"))
    return text.encode(), values


def _columns(cursor: Cursor[Any] | AsyncCursor[Any]) -> list[str]:
    return [column.name for column in cursor.description or ()]
