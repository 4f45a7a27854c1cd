"""Rows reranked by the vectors that PostgreSQL has of them, by every driver and in every type."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import numpy as np
import pgvector.asyncpg
import pgvector.psycopg
import psycopg
import pytest
import sqlalchemy
from pgvector.sqlalchemy import VECTOR
from psycopg.rows import dict_row
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from rerank_adapters import AsyncRerankClient, NotSupportedByModel, Rerank, RerankClient, Vectors
from rerank_adapters.candidates import MISSING_VECTORS
from rerank_adapters.pgvector import Search
from rerank_adapters.pgvector import asyncpg as on_asyncpg
from rerank_adapters.pgvector import psycopg as on_psycopg
from rerank_adapters.pgvector import sqlalchemy as on_sqlalchemy
from rerank_adapters.pgvector.vectors import vectors_of
from tests.integration.pgvector_app import KINDS, Application, application, columns
from tests.integration.postgres import database
from tests.unit.adapters.every_client import Sidecar, listening_beside
from tests.unit.adapters.toy_vectors import ToyMaxSim

TOKENS: dict[int, list[list[float]] | None] = {
    0: [[0.6, 0.8], [0.8, 0.6]],
    1: [[1.0, 0.1], [0.1, 1.0]],
    2: None,
    3: [[0.0, 1.0], [0.0, 0.5]],
    4: [[1.0, 0.0], [0.0, 1.0]],
}
"""The vectors of each row, in the order of the distance of their embeddings."""

BEST_FIRST = [4, 1, 0, 3, 2]
COLUMNS = {
    "of_vectors": "vector(2)[]",
    "of_halves": "halfvec(2)[]",
    "of_reals": "real[][]",
    "of_doubles": "float8[]",
}


@pytest.fixture(scope="module")
def uri(postgres: str) -> Iterator[str]:
    with database(postgres, "vectors") as uri:
        types = ", ".join(f"{name} {type_}" for name, type_ in COLUMNS.items())
        with psycopg.connect(uri) as connection:
            connection.execute(
                f"CREATE TABLE passages (id int PRIMARY KEY, {types}, ones real[], body text, "
                "embedding vector(2))".encode()
            )
            for at, tokens in TOKENS.items():
                texts = None if tokens is None else list(map(str, tokens))
                connection.execute(
                    "INSERT INTO passages VALUES (%s, %s::vector[], %s::halfvec[], %s, %s, %s, %s, "
                    "%s::vector)",
                    (
                        at,
                        texts,
                        texts,
                        tokens,
                        tokens,
                        [1.0, float(at)],
                        "[7]",
                        str([1.0, at / 10]),
                    ),
                )
        yield uri


@pytest.fixture(scope="module")
def toy() -> ToyMaxSim:
    return ToyMaxSim()


@pytest.fixture(scope="module")
def sidecar(toy: ToyMaxSim) -> Iterator[Sidecar]:
    with listening_beside(reranker=toy) as running:
        yield running


@pytest.fixture(params=KINDS)
async def app(
    request: pytest.FixtureRequest, uri: str, sidecar: Sidecar
) -> AsyncIterator[Application]:
    async with application(request.param, uri, sidecar.target) as opened:
        yield opened


def search(*names: str, **changes: Any) -> Search:
    given: dict[str, Any] = {"limit": 5} | changes
    return Search("passages", ["id", *names], "embedding", [1.0, 0.0], **given)


def by(name: str, **changes: Any) -> Rerank:
    return Rerank(**{"vectors": name, "query": "red fruit"} | changes)


def sent(toy: ToyMaxSim) -> list[list[list[float]]]:
    return [np.asarray(each).tolist() for each in toy.documents]


def float32(tokens: list[list[float]], kind: str) -> list[list[float]]:
    given = np.asarray(tokens, np.float16 if kind == "of_halves" else np.float32)
    rows: list[list[float]] = given.astype(np.float32).tolist()
    return rows


@pytest.mark.parametrize("name", COLUMNS)
async def test_every_type_of_column_arrives_as_it_is_stored(
    app: Application, toy: ToyMaxSim, name: str
) -> None:
    toy.documents.clear()
    found = await app.fetch(search(name), rerank=by(name))
    assert columns(found, "id") == BEST_FIRST
    assert sent(toy) == [float32(each, name) for each in TOKENS.values() if each is not None]
    assert [each.error for each in found] == [None] * 4 + [MISSING_VECTORS]
    assert (found.missing_vectors, found.missing_texts) == (1, 0)
    assert all(each.store_score is not None for each in found)


@pytest.mark.parametrize("name", ["ones", "embedding"])
async def test_one_vector_of_each_row(app: Application, name: str) -> None:
    found = await app.fetch(search(name), rerank=by(name, query="fruit"))
    assert columns(found, "id") == [4, 3, 2, 1, 0]
    assert found.missing_vectors == 0


async def test_more_rows_are_found_than_come_back(app: Application) -> None:
    found = await app.fetch(
        search("of_reals", limit=1), rerank=by("of_reals", oversample=5, query="red fruit")
    )
    assert columns(found, "id") == [4]
    assert found.missing_vectors == 1


async def test_vectors_of_the_query_and_sql_of_ones_own(app: Application, toy: ToyMaxSim) -> None:
    asked = by("tokens", query=None, query_vectors=[[0.0, 1.0]])
    found = await app.fetch(
        "SELECT id, of_vectors AS tokens FROM passages ORDER BY id", rerank=asked
    )
    assert columns(found, "id")[:2] == [3, 4]
    assert toy.queries[-1] is not None
    assert toy.queries[-1].tolist() == [[0.0, 1.0]]


async def test_what_cannot_be_reranked_by(app: Application) -> None:
    with pytest.raises(ValueError, match=r"^vectors: the rows have no column 'tokens'"):
        await app.fetch(search(), rerank=by("tokens"))
    twice = "SELECT id, ones, ones FROM passages"
    with pytest.raises(ValueError, match=r"^vectors: the rows have several columns 'ones'"):
        await app.fetch(twice, rerank=by("ones"))
    with pytest.raises(TypeError, match=r"^vectors: "):
        await app.fetch(search(), rerank=by("id"))
    with pytest.raises(NotSupportedByModel):
        await app.fetch(search("ones"), rerank=by("ones", model="lexical", on_error="passthrough"))


def test_values_of_pgvectors_own_types(uri: str, sidecar: Sidecar) -> None:
    with (
        RerankClient(sidecar.target) as client,
        psycopg.connect(uri, row_factory=dict_row) as connection,
    ):
        pgvector.psycopg.register_vector(connection)
        for name in ("of_vectors", "of_halves"):
            found = on_psycopg.fetch(connection, search(name), rerank=by(name), sidecar=client)
            assert [each.row["id"] for each in found] == BEST_FIRST
        fruit = by("embedding", query="fruit")
        found = on_psycopg.fetch(connection, search("embedding"), rerank=fruit, sidecar=client)
        assert [each.row["id"] for each in found] == [4, 3, 2, 1, 0]


async def test_values_of_pgvectors_own_types_by_asyncpg(uri: str, sidecar: Sidecar) -> None:
    connection = await asyncpg.connect(uri)
    await pgvector.asyncpg.register_vector(connection)
    async with AsyncRerankClient(sidecar.target) as client:
        for name in ("of_vectors", "of_halves"):
            found = await on_asyncpg.fetch(
                connection, search(name), rerank=by(name), sidecar=client
            )
            assert [each.row["id"] for each in found] == BEST_FIRST
    await connection.close()


class Base(DeclarativeBase):
    """What the entity is declared on."""


class Passage(Base):
    """A row as an entity."""

    __tablename__ = "passages"
    id: Mapped[int] = mapped_column(primary_key=True)
    of_vectors: Mapped[list[Any] | None] = mapped_column(ARRAY(VECTOR(2)))
    embedding: Mapped[list[float] | None] = mapped_column(VECTOR(2))


def registered(connection: Any, _record: object) -> None:
    """Tell a driver of pgvector, as its page has it for arrays of vectors in SQLAlchemy."""
    pgvector.psycopg.register_vector(connection)


def test_entities(uri: str, sidecar: Sidecar) -> None:
    engine = sqlalchemy.create_engine(uri.replace("postgresql:", "postgresql+psycopg:"))
    sqlalchemy.event.listen(engine, "connect", registered)
    nearest = select(Passage).order_by(Passage.embedding.cosine_distance([1.0, 0.0])).limit(1)
    with RerankClient(sidecar.target) as client, Session(engine) as session:
        for asked in (by("of_vectors", oversample=5), by("embedding", query="fruit", oversample=5)):
            found = on_sqlalchemy.fetch(session, nearest, rerank=asked, sidecar=client)
            assert [each.row.id for each in found] == [4]
    engine.dispose()


@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ("[1,2.5]", [[1, 2.5]]),
        ('{"[1,2e-1]","[-3,4]"}', [[1, 0.2], [-3, 4]]),
        ("{[1],[2]}", [[1], [2]]),
        (["[1,2]", "[3,4]"], [[1, 2], [3, 4]]),
        ([1, 2], [[1, 2]]),
        ([[1, 2]], [[1, 2]]),
    ],
)
def test_forms_of_a_value(value: object, rows: list[list[float]]) -> None:
    assert vectors_of(value) == Vectors.of(rows)


@pytest.mark.parametrize("value", [None, "{}", [], ()])
def test_values_without_a_vector(value: object) -> None:
    assert vectors_of(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "a secret",
        "[a secret]",
        "a secret [1]",
        "",
        "[]",
        "{1:1}/17",
        '{"[1]",NULL}',
        ["[1]", None],
        ["a secret"],
        [[1], None],
        {"secret": 1},
        b"secret",
    ],
    ids=str,
)
def test_what_is_no_vector_is_refused_and_not_shown(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^vectors: ") as caught:
        vectors_of(value)
    assert "secret" not in str(caught.value)
