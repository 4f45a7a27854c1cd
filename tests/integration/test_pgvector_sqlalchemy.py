"""SQLAlchemy: entities and rows, selects whose limit is raised, sessions, and AUTOCOMMIT."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import ForeignKey, bindparam, func, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    mapped_column,
    relationship,
)

from rerank_adapters import AsyncRerankClient, Rerank, RerankClient
from rerank_adapters.pgvector import Search
from rerank_adapters.pgvector.sqlalchemy import fetch, fetch_async
from tests.contract.grpc_toy import serving
from tests.integration.postgres import database

ROWS = 3000
POINT = [1.0, 0.0]


class Base(DeclarativeBase):
    """The tables."""


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    note: Mapped[str]


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str | None]
    embedding: Mapped[Any] = mapped_column(VECTOR(2))
    later: Mapped[str] = mapped_column(server_default="later", deferred=True)
    notes: Mapped[list[Note]] = relationship()


DISTANCE = Item.embedding.cosine_distance(POINT).label("distance")
NEAREST = select(Item).order_by(DISTANCE)


@pytest.fixture(scope="module")
def uri(postgres: str) -> Iterator[str]:
    with database(postgres, "items") as uri:
        engine = sqlalchemy.create_engine(uri.replace("postgresql:", "postgresql+psycopg:"))
        Base.metadata.create_all(engine)
        engine.dispose()
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO items SELECT i, i::text, array[1, i / 1000.0]::vector "
                "FROM generate_series(1, %s) i",
                [ROWS],
            )
            connection.execute(
                "INSERT INTO notes SELECT i, i % 3 + 1, 'note' FROM generate_series(1, 9) i"
            )
            connection.execute("CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops)")
            connection.execute("ANALYZE items")
        yield uri


@pytest.fixture
async def target() -> AsyncIterator[str]:
    """A sidecar that scores a text by the number which it is."""
    async with serving() as served:
        yield served.target


class Database:
    """An application with an engine, asked in a thread: the sidecar runs in this one's loop."""

    def __init__(self, uri: str, target: str, **engine: Any) -> None:
        self.engine = sqlalchemy.create_engine(
            uri.replace("postgresql:", "postgresql+psycopg:"), **engine
        )
        self.client = RerankClient(target, 20.0)

    def fetch(self, opened: Any, query: Any, params: Any = None, **options: Any) -> Any:
        rerank = Rerank(**{"prop": "body", "query": "query"} | options.pop("rerank", {}))
        return fetch(opened, query, params, rerank=rerank, sidecar=self.client, **options)

    async def in_session(self, query: Any, params: Any = None, **options: Any) -> Any:
        def work() -> Any:
            with Session(self.engine) as session:
                return self.fetch(session, query, params, **options)

        return await asyncio.to_thread(work)

    async def on_connection(self, query: Any, params: Any = None, **options: Any) -> Any:
        def work() -> Any:
            with self.engine.connect() as connection:
                return self.fetch(connection, query, params, **options)

        return await asyncio.to_thread(work)

    def close(self) -> None:
        self.client.close()
        self.engine.dispose()


@pytest.fixture
def items(uri: str, target: str) -> Iterator[Database]:
    opened = Database(uri, target)
    yield opened
    opened.close()


async def test_one_entity_comes_back_as_itself(items: Database) -> None:
    found = await items.in_session(NEAREST.limit(3))
    assert [each.row.id for each in found] == [3, 2, 1]
    assert all(isinstance(each.row, Item) for each in found)
    other = aliased(Item)
    found = await items.in_session(select(other).order_by(other.id).limit(2))
    assert [each.row.id for each in found] == [2, 1]


async def test_entities_beside_columns_come_back_as_rows(items: Database) -> None:
    query = select(Item, DISTANCE).order_by(DISTANCE).limit(3)
    found = await items.in_session(query, store_score="distance")
    assert [each.row.Item.id for each in found] == [3, 2, 1]
    assert [each.store_score for each in found] == [each.row.distance for each in found]


async def test_columns_come_back_as_rows(items: Database) -> None:
    query = select(Item.id, Item.body).order_by(DISTANCE).limit(2)
    for found in (await items.in_session(query), await items.on_connection(query)):
        assert [tuple(each.row) for each in found] == [(2, "2"), (1, "1")]
    found = await items.on_connection(NEAREST.limit(2))  # a connection knows no entities
    assert [(each.row.id, each.row.body) for each in found] == [(2, "2"), (1, "1")]


async def test_the_core_has_tables(items: Database) -> None:
    table = sqlalchemy.Table("items", sqlalchemy.MetaData(), autoload_with=items.engine)
    query = select(table.c.id, table.c.body).order_by(table.c.embedding.cosine_distance(POINT))
    found = await items.on_connection(query.limit(2), rerank={"oversample": 5})
    assert [each.row.id for each in found] == [10, 9]


async def test_limits_are_raised_and_offsets_honoured(items: Database) -> None:
    page = NEAREST.limit(2).offset(2)
    found = await items.in_session(page, rerank={"oversample": 5})
    assert [each.row.id for each in found] == [18, 17]
    found = await items.in_session(page)
    assert [each.row.id for each in found] == [2, 1]
    found = await items.in_session(NEAREST.slice(0, 2), rerank={"oversample": 3})
    assert [each.row.id for each in found] == [6, 5]
    found = await items.in_session(NEAREST.limit(10), rerank={"top_n": 1})
    assert [each.row.id for each in found] == [10]


async def test_the_index_gives_as_many_as_a_limit_wants(items: Database) -> None:
    found = await items.in_session(NEAREST.limit(100))
    assert len(found) == 100
    found = await items.in_session(NEAREST.limit(20), rerank={"oversample": 100})
    assert [each.row.id for each in found] == list(range(2000, 1980, -1))


async def test_a_union_has_a_limit_too(items: Database) -> None:
    some = [select(Item.id, Item.body).where(Item.id == at) for at in (1, 2, 3)]
    query = union_all(*some).order_by("id").limit(1)
    found = await items.on_connection(query, rerank={"oversample": 2})
    assert [each.row.id for each in found] == [2]


@pytest.mark.parametrize(
    "query",
    [
        text("SELECT id, body FROM items LIMIT 3"),
        NEAREST,
        NEAREST.limit(func.least(3, 4)),
        NEAREST.limit(3).offset(func.least(3, 4)),
        NEAREST.fetch(3),
        NEAREST.limit(bindparam("count")),
        select(Item).from_statement(text("SELECT * FROM items LIMIT 3")),
    ],
)
async def test_limits_that_are_not_plain_are_not_raised(items: Database, query: Any) -> None:
    with pytest.raises(ValueError, match="oversample"):
        await items.in_session(query, {"count": 3}, rerank={"oversample": 2})


async def test_a_query_without_a_plain_limit_runs_as_it_is(items: Database) -> None:
    found = await items.in_session(NEAREST.limit(bindparam("count")), {"count": 3})
    assert [each.row.id for each in found] == [3, 2, 1]
    found = await items.in_session(NEAREST.limit(bindparam("count", 5)), {"count": 3})
    assert [each.row.id for each in found] == [3, 2, 1]
    statement = select(Item).from_statement(text("SELECT * FROM items ORDER BY id LIMIT 2"))
    found = await items.in_session(statement)
    assert [each.row.id for each in found] == [2, 1]


async def test_collections_may_be_loaded_with_their_entities(items: Database) -> None:
    query = NEAREST.options(joinedload(Item.notes)).limit(3)
    found = await items.in_session(query)
    assert [(each.row.id, len(each.row.notes)) for each in found] == [(3, 3), (2, 3), (1, 3)]


async def test_a_sessions_own_changes_are_found_and_kept(items: Database) -> None:
    def work() -> None:
        with Session(items.engine) as session:
            item = session.get_one(Item, 1)
            item.body = "5000"
            session.add(Item(id=ROWS + 1, body=None, embedding=POINT))
            found = items.fetch(session, NEAREST.limit(10))
            assert [each.row.id for each in found][:2] == [1, 9]
            assert found.missing_texts == 1
            assert found[0].row is item
            with pytest.raises(sqlalchemy.exc.ProgrammingError):
                items.fetch(session, text("SELECT * FROM no_such_table"))
            assert session.in_transaction()
            assert session.get_one(Item, 1).body == "5000"
            assert session.scalar(select(func.count(Item.id))) == ROWS + 1
            session.rollback()

    await asyncio.to_thread(work)


@pytest.mark.parametrize(
    "query",
    [
        NEAREST.limit(100),
        select(aliased(Item)).limit(100),
        select(Item.body).order_by(DISTANCE).limit(100),
    ],
)
async def test_a_session_of_several_databases(
    postgres: str, uri: str, target: str, query: Any
) -> None:
    items, elsewhere = Database(uri, target), Database(postgres.format("postgres"), target)

    def work() -> None:
        class Routing(Session):
            def get_bind(self, mapper: Any = None, **others: Any) -> Any:
                is_item = mapper is not None and issubclass(mapper.class_, Item)
                return (items if is_item else elsewhere).engine

        for session in (Session(elsewhere.engine, binds={Item: items.engine}), Routing()):
            with session:
                opened = session.connection(bind_arguments={"mapper": Item.__mapper__})
                opened.execute(text("SET LOCAL hnsw.ef_search = 50"))
                assert len(items.fetch(session, query)) == 100
                wrong = select(Item.id, (1 / (Item.id - Item.id)).label("body")).limit(100)
                with pytest.raises(sqlalchemy.exc.DataError):
                    items.fetch(session, wrong)
                assert opened.scalar(text("SHOW hnsw.ef_search")) == "50"

    await asyncio.to_thread(work)
    items.close()
    elsewhere.close()


async def test_autocommit(uri: str, target: str) -> None:
    items = Database(uri, target, isolation_level="AUTOCOMMIT")

    def work() -> None:
        seen = text("SELECT current_setting('hnsw.ef_search'), now() = statement_timestamp()")
        with items.engine.connect() as connection:
            found = items.fetch(connection, NEAREST.limit(100))
            assert len(found) == 100
            assert not connection.in_transaction()
            assert tuple(connection.execute(seen).one()) == ("40", True)
            with pytest.raises(sqlalchemy.exc.ProgrammingError):
                items.fetch(connection, text("SELECT * FROM no_such_table"))
            assert tuple(connection.execute(seen).one()) == ("40", True)
        with Session(items.engine) as session:
            assert len(items.fetch(session, NEAREST.limit(100))) == 100
            assert tuple(session.execute(seen).one()) == ("40", True)

    await asyncio.to_thread(work)
    items.close()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "READ COMMITTED", "SERIALIZABLE"])
async def test_asyncio_on_both_drivers(uri: str, target: str, driver: str, isolation: Any) -> None:
    engine = create_async_engine(
        uri.replace("postgresql:", f"postgresql+{driver}:"), isolation_level=isolation
    )
    search = Search("items", ["id", "body"], "embedding", POINT, limit=100)
    rerank = Rerank(lambda row: row.body, "query")
    ids = list(range(100, 0, -1))
    async with AsyncRerankClient(target, 20.0) as client:
        async with engine.connect() as connection:
            for query in (search, NEAREST.limit(100)):
                found = await fetch_async(connection, query, rerank=rerank, sidecar=client)
                assert [each.row.id for each in found] == ids
                assert not connection.in_transaction()
            setting = await connection.scalar(text("SELECT current_setting('hnsw.ef_search')"))
            assert setting == "40"
        async with AsyncSession(engine) as session:
            for query in (search, NEAREST.limit(100)):
                found = await fetch_async(session, query, rerank=rerank, sidecar=client)
                assert [each.row.id for each in found] == ids
    await engine.dispose()


async def test_a_column_that_is_loaded_late_can_be_read(uri: str, target: str) -> None:
    engine = create_async_engine(uri.replace("postgresql:", "postgresql+asyncpg:"))
    rerank = Rerank(lambda item: str(len(item.later)), "query")
    async with AsyncRerankClient(target) as client, AsyncSession(engine) as session:
        found = await fetch_async(session, NEAREST.limit(3), rerank=rerank, sidecar=client)
        assert [each.row.later for each in found] == ["later"] * 3
    await engine.dispose()


async def test_a_database_without_pgvector_is_asked_as_it_is(postgres: str, target: str) -> None:
    with database(postgres, "plain") as uri:
        items = Database(uri, target)
        with items.engine.begin() as connection:
            connection.execute(text("DROP EXTENSION vector"))
        number = func.generate_series(1, 9).column_valued("number")
        query = select(sqlalchemy.cast(number, sqlalchemy.Text).label("body"))
        found = await items.on_connection(query.limit(3), rerank={"oversample": 3})
        items.close()
    assert [each.row.body for each in found] == ["9", "8", "7"]
