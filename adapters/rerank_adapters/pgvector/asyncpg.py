"""asyncpg: `fetch` for its connections and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from rerank_adapters.candidates import AsyncSidecar, rerank_candidates_async
from rerank_adapters.pgvector.index_settings import READ, IndexSettings, write
from rerank_adapters.pgvector.rows import FetchOptions, Plan, RerankedRows
from rerank_adapters.pgvector.search import Search
from rerank_adapters.pgvector.statement import Sql, written
from rerank_adapters.rerank import Rerank

try:
    from asyncpg import Connection, Pool, Record
except ImportError as error:
    raise ImportError(
        "rerank_adapters.pgvector.asyncpg needs asyncpg: pip install 'rerank-sidecar[pgvector]'"
    ) from error


async def fetch(
    connection: Connection | Pool,
    query: str | Search,
    params: Sequence[object] = (),
    *,
    rerank: Rerank,
    sidecar: AsyncSidecar,
    **options: Unpack[FetchOptions],
) -> RerankedRows[Record]:
    """Run a query that finds candidates, and rerank its rows, which are asyncpg's records.

    The query runs in a transaction of its own, or in a savepoint if one is open, which has ended
    before the sidecar is asked; a connection of a pool is back in it by then.

    Raises:
        RerankCallError: the sidecar failed, and `on_error` is not `passthrough`.
        PgvectorError: the database's pgvector cannot find so many.
        asyncpg.PostgresError: the query failed.
        TypeError: an argument is unknown, or there are `params` beside a `Search`.
        ValueError: `rerank` asks for what cannot be done; the message says what.
    """
    plan = Plan.of(rerank, query, params, options)
    if isinstance(connection, Pool):
        async with connection.acquire() as acquired:
            rows = await _read(acquired, query, params, plan)
    else:
        rows = await _read(connection, query, params, plan)
    columns = list(rows[0].keys()) if rows else []
    candidates = plan.candidates(rows, lambda row, name: row[name], columns)
    arrangement = await rerank_candidates_async(sidecar, rerank, plan.text, candidates)
    return plan.reranked(rows, arrangement)


async def _read(
    connection: Connection, query: str | Search, params: Sequence[object], plan: Plan
) -> list[Record]:
    is_open = connection.is_in_transaction()
    async with connection.transaction():
        raised: dict[str, str] = {}
        if plan.count is not None:
            found = IndexSettings.of(tuple(await connection.fetchrow(*_bound(READ))))
            raised = found.raised(plan.count)
        if raised:
            await connection.execute(*_bound(write(raised)))
        asked = (query, *params) if plan.sql is None else _bound(plan.sql)
        rows: list[Record] = await connection.fetch(*asked)
        if raised and is_open:
            await connection.execute(*_bound(write(found.before(raised))))
        return rows


def _bound(sql: Sql) -> tuple[Any, ...]:
    text, values = written(sql, lambda number: f"${number}")
    return text, *values
