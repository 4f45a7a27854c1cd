"""Applications on pgvector: one for each driver, asked in the same way."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import psycopg
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import rerank_adapters.pgvector.asyncpg as on_asyncpg
import rerank_adapters.pgvector.psycopg as on_psycopg
import rerank_adapters.pgvector.sqlalchemy as on_sqlalchemy
from rerank_adapters import AsyncRerankClient, Rerank, RerankClient
from rerank_adapters.pgvector import RerankedRow, RerankedRows

KINDS = [
    "psycopg",
    "psycopg async",
    "asyncpg",
    "sqlalchemy",
    "sqlalchemy async",
    "session",
    "session async",
]


@dataclass
class Application:
    """A connection of one driver, a client of a sidecar, and how they are asked.

    Statements have `{}` for each of their values.
    """

    kind: str
    connection: Any
    client: Any

    async def fetch(
        self, query: Any, *values: object, rerank: Rerank, **options: Any
    ) -> RerankedRows[Any]:
        """Fetch as the driver's applications do; only a text has values."""
        asked = self._asked(query, values) if isinstance(query, str) else (query,)
        options = {"rerank": rerank, "sidecar": self.client, **options}
        if self.kind == "psycopg":
            return await asyncio.to_thread(on_psycopg.fetch, self.connection, *asked, **options)
        if self.kind == "psycopg async":
            return await on_psycopg.fetch_async(self.connection, *asked, **options)
        if self.kind == "asyncpg":
            return await on_asyncpg.fetch(self.connection, *asked, **options)
        if self.kind.endswith("async"):
            return await on_sqlalchemy.fetch_async(self.connection, *asked, **options)
        return await asyncio.to_thread(on_sqlalchemy.fetch, self.connection, *asked, **options)

    async def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement on the connection itself, as the driver's applications do."""
        asked = self._asked(statement, values)
        if self.kind == "asyncpg":
            statement, given = asked
            return [tuple(row) for row in await self.connection.fetch(statement, *given)]
        if self.kind.endswith("async"):
            found = await self.connection.execute(*asked)
        else:
            found = await asyncio.to_thread(self.connection.execute, *asked)
        if not self.kind.startswith("psycopg"):
            return [tuple(row) for row in found] if found.returns_rows else []
        rows = found.fetchall() if found.description else []
        rows = await rows if asyncio.iscoroutine(rows) else rows
        return [tuple(row.values()) for row in rows]

    async def value(self, statement: str, *values: object) -> Any:
        [[value]] = await self.execute(statement, *values)
        return value

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Keep a transaction open."""
        if self.kind == "asyncpg":
            async with self.connection.transaction():
                yield
            return
        await self.execute("SELECT 1")  # opens one in all the others
        try:
            yield
        finally:
            await self.finish()

    async def finish(self) -> None:
        """End a transaction, if the driver has opened one."""
        if self.kind in {"psycopg async", "sqlalchemy async", "session async"}:
            await self.connection.rollback()
        elif self.kind != "asyncpg":
            await asyncio.to_thread(self.connection.rollback)

    def is_open(self) -> bool:
        """Tell whether the application has a transaction open."""
        if self.kind.startswith("psycopg"):
            return bool(self.connection.info.transaction_status)
        if self.kind == "asyncpg":
            return bool(self.connection.is_in_transaction())
        return bool(self.connection.in_transaction())

    def _asked(self, statement: str, values: Sequence[object]) -> tuple[Any, Any]:
        if self.kind.startswith("psycopg"):
            return statement.format(*["%s"] * len(values)), values
        if self.kind == "asyncpg":
            return statement.format(*(f"${at}" for at in range(1, len(values) + 1))), values
        names = [f"p{at}" for at in range(len(values))]
        text = statement.format(*(f":{name}" for name in names))
        return sqlalchemy.text(text), dict(zip(names, values, strict=True))


@asynccontextmanager
async def application(
    kind: str, uri: str, target: str, **policy: Any
) -> AsyncIterator[Application]:
    """Open an application on a database and a sidecar, and close it."""
    async with AsyncExitStack() as stack:
        client: Any
        if kind in {"psycopg", "sqlalchemy", "session"}:
            client = stack.enter_context(RerankClient(target, 20.0, **policy))
        else:
            client = await stack.enter_async_context(AsyncRerankClient(target, 20.0, **policy))
        connection = await _opened(stack, kind, uri)
        yield Application(kind, connection, client)


async def _opened(stack: AsyncExitStack, kind: str, uri: str) -> Any:
    if kind == "psycopg":
        return stack.enter_context(psycopg.connect(uri, row_factory=dict_row))
    if kind == "psycopg async":
        connecting = psycopg.AsyncConnection.connect(uri, row_factory=dict_row)
        return await stack.enter_async_context(await connecting)
    if kind == "asyncpg":
        connection = await asyncpg.connect(uri)
        stack.push_async_callback(connection.close)
        return connection
    if kind in {"sqlalchemy", "session"}:
        engine = sqlalchemy.create_engine(uri.replace("postgresql:", "postgresql+psycopg:"))
        stack.callback(engine.dispose)
        opened: Any = engine.connect() if kind == "sqlalchemy" else Session(engine)
        return stack.enter_context(opened)
    driver = "psycopg" if kind == "sqlalchemy async" else "asyncpg"
    async_engine = create_async_engine(uri.replace("postgresql:", f"postgresql+{driver}:"))
    stack.push_async_callback(async_engine.dispose)
    async_opened: AsyncConnection | AsyncSession = (
        async_engine.connect() if kind == "sqlalchemy async" else AsyncSession(async_engine)
    )
    return await stack.enter_async_context(async_opened)


def column(row: Any, name: str) -> Any:
    """Read a column of a row as the driver's applications do."""
    if isinstance(row, (Mapping, asyncpg.Record)):
        return row[name]
    return getattr(row, name)


def columns(rows: Iterable[RerankedRow[Any]], name: str) -> list[Any]:
    return [column(each.row, name) for each in rows]
