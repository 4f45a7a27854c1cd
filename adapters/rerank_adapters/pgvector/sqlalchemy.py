"""SQLAlchemy 2: `fetch` for its connections and sessions, `fetch_async` for those of asyncio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Unpack, cast

from rerank_adapters.candidates import (
    AsyncSidecar,
    Candidates,
    Sidecar,
    rerank_candidates,
    rerank_candidates_async,
)
from rerank_adapters.pgvector.index_settings import READ, IndexSettings, write
from rerank_adapters.pgvector.rows import FetchOptions, Plan, RerankedRows
from rerank_adapters.pgvector.search import Search
from rerank_adapters.pgvector.statement import Sql, written
from rerank_adapters.rerank import Rerank

try:
    from sqlalchemy import (
        BindParameter,
        Connection,
        Executable,
        GenerativeSelect,
        Row,
        TextClause,
        bindparam,
        inspect,
        text,
    )
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import InstanceState, Session
    from sqlalchemy.types import NULLTYPE
except ImportError as error:
    raise ImportError(
        "rerank_adapters.pgvector.sqlalchemy needs SQLAlchemy 2: "
        "pip install 'rerank-sidecar[pgvector]'"
    ) from error


def fetch(
    connection: Connection | Session,
    query: Executable | Search,
    params: Mapping[str, Any] | None = None,
    *,
    rerank: Rerank,
    sidecar: Sidecar,
    **options: Unpack[FetchOptions],
) -> RerankedRows[Any]:
    """Run a query that finds candidates, and rerank its rows.

    A `select()` of one entity gives entities, any other query gives SQLAlchemy's rows, and a
    connection knows no entities. The `limit` of a `select()` is raised to find `limit` + `offset`
    rows, or `oversample` times as many, from the first one on; the page is cut after reranking. A
    connection's query runs in a transaction of its own, or in a savepoint if one is open, which has
    ended before the sidecar is asked. That of a session runs in a savepoint, which flushes it first
    and leaves its transaction open, as any query of a session does.

    Raises:
        RerankCallError: the sidecar failed, and `on_error` is not `passthrough`.
        PgvectorError: the database's pgvector cannot find so many.
        sqlalchemy.exc.SQLAlchemyError: the query failed.
        TypeError: an argument is unknown, or there are `params` beside a `Search`.
        ValueError: `rerank` asks for what cannot be done; the message says what.
    """
    plan = Plan.of(rerank, query, params, options, _page(query, params))
    rows, candidates = _read(connection, query, params, plan)
    return plan.reranked(rows, rerank_candidates(sidecar, rerank, plan.text, candidates))


async def fetch_async(
    connection: AsyncConnection | AsyncSession,
    query: Executable | Search,
    params: Mapping[str, Any] | None = None,
    *,
    rerank: Rerank,
    sidecar: AsyncSidecar,
    **options: Unpack[FetchOptions],
) -> RerankedRows[Any]:
    """Run a query that finds candidates, and rerank its rows; as `fetch` does, for asyncio."""
    plan = Plan.of(rerank, query, params, options, _page(query, params))
    rows, candidates = await connection.run_sync(_read, query, params, plan)
    arrangement = await rerank_candidates_async(sidecar, rerank, plan.text, candidates)
    return plan.reranked(rows, arrangement)


def _read(
    connection: Connection | Session,
    query: Executable | Search,
    params: Mapping[str, Any] | None,
    plan: Plan,
) -> tuple[Sequence[Any], Candidates]:
    # The rows are read in here because an entity may have to ask the database for a column.
    statement = _asked(query, plan)
    with _transaction(connection, statement) as (core, is_open):
        raised: dict[str, str] = {}
        if plan.count is not None:
            found = IndexSettings.of(tuple(core.execute(_bound(READ)).one()))
            raised = found.raised(plan.count)
        if raised:
            core.execute(_bound(write(raised)))
        result = connection.execute(statement, params)
        columns = list(result.keys())
        entities = not isinstance(connection, Connection) and _is_entity(statement)
        rows = result.unique().scalars().all() if entities else result.all()
        candidates = plan.candidates(rows, _field, columns)
        if raised and is_open:
            core.execute(_bound(write(found.before(raised))))
        return rows, candidates


@contextmanager
def _transaction(
    connection: Connection | Session, statement: Executable
) -> Iterator[tuple[Connection, bool]]:
    """Open a transaction, or a savepoint in one that is open; tell where, and whether it was."""
    core = _core(connection, statement)
    if getattr(core.connection.dbapi_connection, "autocommit", False):
        with _explicit_transaction(core):
            yield core, False
    elif isinstance(connection, Connection) and not connection.in_transaction():
        with connection.begin():
            yield core, False
    else:
        with connection.begin_nested():
            # Asked again, because it is by this that a session opens the savepoint.
            yield _core(connection, statement), True


def _core(connection: Connection | Session, statement: Executable) -> Connection:
    """Give the connection that runs a statement: a session may have several databases."""
    if isinstance(connection, Connection):
        return connection
    arguments: dict[str, Any] = {"clause": statement}
    entities = [each.get("entity") for each in getattr(statement, "column_descriptions", [])]
    mapped = inspect(entities[0], False) if entities else None
    if mapped is not None:
        arguments["mapper"] = mapped.mapper
    return connection.connection(bind_arguments=arguments)


@contextmanager
def _explicit_transaction(connection: Connection) -> Iterator[None]:
    """Open a transaction where the driver has been told to open none (AUTOCOMMIT)."""
    with nullcontext() if connection.in_transaction() else connection.begin():
        connection.exec_driver_sql("BEGIN")
        try:
            yield
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


def _page(query: Executable | Search, params: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Give limit and offset of a select; None if it has no limit, or they are no plain numbers."""
    if not isinstance(query, GenerativeSelect):
        return None
    # SQLAlchemy has no public way to read them; dialects, third parties' too, do it like this.
    limit, offset = query._limit_clause, query._offset_clause
    numbers = _number(limit, params), 0 if offset is None else _number(offset, params)
    return None if numbers[0] is None or numbers[1] is None else (numbers[0], numbers[1])


def _number(clause: object, params: Mapping[str, Any] | None) -> int | None:
    if not isinstance(clause, BindParameter) or clause.key in (params or {}):
        return None
    value = clause.effective_value
    return value if isinstance(value, int) else None


def _asked(query: Executable | Search, plan: Plan) -> Executable:
    if plan.sql is not None:
        return _bound(plan.sql)
    if isinstance(query, GenerativeSelect) and plan.limit is not None:
        return query.limit(plan.rerank.candidates(plan.limit, plan.offset)).offset(None)
    return cast("Executable", query)


def _bound(sql: Sql) -> TextClause:
    written_text, values = written(sql, ":value_{}".format, lambda each: each.replace(":", "\\:"))
    # Without a type each value goes to the driver as it is, and PostgreSQL finds what it must be.
    binds = (
        bindparam(f"value_{number}", value, NULLTYPE) for number, value in enumerate(values, 1)
    )
    return text(written_text).bindparams(*binds)


def _is_entity(statement: Executable) -> bool:
    columns = getattr(statement, "column_descriptions", [])
    return len(columns) == 1 and columns[0]["expr"] is columns[0].get("entity")


def _field(row: Any, name: str) -> object:  # noqa: ANN401
    """Read a column of a row, or an attribute of an entity, be it the row or in it."""
    if not isinstance(row, Row):
        return getattr(row, name)
    if name in row._mapping:
        return row._mapping[name]
    entities = [each for each in row if isinstance(inspect(each, False), InstanceState)]
    for entity in entities:
        if hasattr(entity, name):
            return getattr(entity, name)
    raise LookupError(name)
