"""Every driver does the same over pgvector: its rows come back reranked, in its own types."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from rerank_adapters import Rerank, RerankClient, WeightedSum
from rerank_adapters.pgvector import Condition, Range, Search
from tests.contract.conftest import Running
from tests.integration.pgvector_app import KINDS, Application, application, column, columns
from tests.integration.postgres import database

QUERY = "a red fruit that grows on trees"
VECTOR = [1.0, 0.0, 0.0]

ARTICLES: list[tuple[int, str, str | None, str, int, str | None]] = [
    (1, "Sky", "The sky is blue on a clear day.", "en", 2020, "[1,0.1,0]"),
    (2, "Rails", "Trains run on rails of steel.", "en", 2021, "[1,0.2,0]"),
    (3, "Cherry", "The cherry is a small red fruit that grows on trees.", "en", 2022, "[1,0.3,0]"),
    (4, "Empty", None, "en", 2022, "[1,0.4,0]"),
    (5, "Meer", "Das Meer ist tief.", "de", 2023, "[1,0.5,0]"),
    (6, "Apple", "Apples are red fruit and grow on trees.", "en", 2023, "[1,0.6,0]"),
    (7, "Quote", "A ' quote; DROP TABLE articles; --", "xx'; --", 2024, "[1,0.7,0]"),
    (8, "Unfinished", "It has no embedding yet.", "en", 2024, None),
]
"""In the order of their distance from the vector."""

RAW = (
    "SELECT id, title, body, embedding <=> CAST(CAST({} AS text) AS vector) AS distance "
    "FROM articles WHERE embedding IS NOT NULL ORDER BY distance LIMIT {}"
)


@pytest.fixture(scope="module")
def uri(postgres: str) -> Iterator[str]:
    with database(postgres, "articles") as uri:
        with psycopg.connect(uri) as connection:
            connection.execute(
                "CREATE TABLE articles (id int PRIMARY KEY, title text, body text, lang text, "
                "year int, embedding vector(3))"
            )
            connection.cursor().executemany(
                "INSERT INTO articles VALUES (%s, %s, %s, %s, %s, %s)", ARTICLES
            )
        yield uri


@pytest.fixture(params=KINDS)
async def app(
    request: pytest.FixtureRequest, uri: str, sidecar: Running
) -> AsyncIterator[Application]:
    async with application(request.param, uri, f"127.0.0.1:{sidecar.grpc_port}") as opened:
        yield opened


@pytest.fixture(scope="module")
def scores(sidecar: Running) -> dict[int, float]:
    """The model's score of each article, by its id."""
    texts = [body or "" for _, _, body, *_ in ARTICLES]
    with RerankClient(f"127.0.0.1:{sidecar.grpc_port}") as client:
        response = client.rerank(QUERY, texts)
    return {each.index + 1: each.score for each in response.results if each.score is not None}


def search(**changes: Any) -> Search:
    given: dict[str, Any] = {"columns": ["id", "title", "body"], "limit": 7} | changes
    return Search("articles", embedding="embedding", vector=VECTOR, **given)


def rerank(**changes: Any) -> Rerank:
    return Rerank(**{"prop": "body", "query": QUERY} | changes)


def best(scores: dict[int, float], *ids: int) -> list[int]:
    return sorted(ids, key=lambda each: (-scores[each], each))


async def test_a_search_comes_back_reranked_with_both_scores(
    app: Application, scores: dict[int, float]
) -> None:
    found = await app.fetch(search(), rerank=rerank())
    assert columns(found, "id") == best(scores, 1, 2, 3, 4, 5, 6, 7)
    assert columns(found[:2], "title") == ["Cherry", "Apple"]  # the model has read them
    assert [each.score for each in found] == pytest.approx(
        [scores[column(each.row, "id")] for each in found]
    )
    by_distance = sorted(found, key=lambda each: each.store_score or 0.0)
    assert [column(each.row, "id") for each in by_distance] == [1, 2, 3, 4, 5, 6, 7]
    assert all(each.store_score == column(each.row, "distance") for each in found)
    assert found.missing_texts == 1
    assert found.passed_through is None
    assert found.response is not None


async def test_rows_without_an_embedding_are_not_found(app: Application) -> None:
    found = await app.fetch(search(limit=20), rerank=rerank())
    assert 8 not in columns(found, "id")
    assert len(found) == 7


async def test_a_query_of_the_callers_own_comes_back_reranked(
    app: Application, scores: dict[int, float]
) -> None:
    found = await app.fetch(RAW, "[1,0,0]", 4, rerank=rerank(), store_score="distance")
    assert columns(found, "id") == best(scores, 1, 2, 3, 4)
    assert columns(found, "title")[0] == "Cherry"
    assert all(each.store_score == column(each.row, "distance") for each in found)


async def test_a_query_that_finds_nothing_asks_nobody(app: Application) -> None:
    found = await app.fetch(search(filters={"lang": "fr"}), rerank=rerank())
    assert (len(found), found.response, found.passed_through) == (0, None, None)


NAMES = ["id", "title", "body", "distance"]


async def test_the_rows_are_those_that_the_driver_gives(app: Application) -> None:
    found = await app.fetch(RAW, "[1,0,0]", 7, rerank=rerank())
    plain = await app.execute(RAW, "[1,0,0]", 7)
    rows = [tuple(column(each.row, name) for name in NAMES) for each in found]
    assert sorted(rows) == sorted(plain)
    assert {each.store_score for each in found} == {None}


async def test_oversampling_finds_what_the_store_ranks_low(app: Application) -> None:
    few = await app.fetch(search(limit=2), rerank=rerank())
    assert set(columns(few, "id")) == {1, 2}
    more = await app.fetch(search(limit=2), rerank=rerank(oversample=3))
    assert columns(more, "title") == ["Cherry", "Apple"]


async def test_pages_of_the_same_candidates_follow_each_other(
    app: Application, scores: dict[int, float]
) -> None:
    first = await app.fetch(search(limit=2), rerank=rerank(oversample=4))
    second = await app.fetch(search(limit=2, offset=2), rerank=rerank(oversample=2))
    third = await app.fetch(search(limit=5, offset=4), rerank=rerank())
    every = best(scores, 1, 2, 3, 4, 5, 6, 7)
    assert [*columns(first, "id"), *columns(second, "id"), *columns(third, "id")] == every


async def test_top_n_cuts_what_comes_back(app: Application) -> None:
    found = await app.fetch(RAW, "[1,0,0]", 7, rerank=rerank(top_n=1))
    assert columns(found, "title") == ["Cherry"]


async def test_several_columns_and_functions_make_the_text(app: Application) -> None:
    joined = await app.fetch(search(), rerank=rerank(prop=["title", "body"]))
    made = await app.fetch(
        search(),
        rerank=rerank(
            prop=lambda row: "\n".join(filter(None, [column(row, "title"), column(row, "body")]))
        ),
    )
    assert columns(joined, "id") == columns(made, "id")
    assert [each.score for each in joined] == [each.score for each in made]
    assert joined.missing_texts == 0


async def test_scores_are_fused_on_the_scale_of_the_metric(app: Application) -> None:
    fuse = WeightedSum(0.0, "cosine_distance")
    found = await app.fetch(search(limit=3), rerank=rerank(fuse=fuse))
    assert columns(found, "id") == [1, 2, 3]
    assert [each.score for each in found] == [1 - (each.store_score or 0.0) / 2 for each in found]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"lang": "de"}, {5}),
        ({"lang": "en", "year": 2022}, {3, 4}),
        ({"body": None}, {4}),
        ({"lang": ["de", "xx'; --"]}, {5, 7}),
        ({"body": ["Das Meer ist tief.", None]}, {4, 5}),
        ({"body": [None]}, {4}),
        ({"lang": []}, set()),
        ({"year": Range(gte=2022, lt=2024)}, {3, 4, 5, 6}),
        ({"year": Range(gt=2023)}, {7}),
        ({"year": Range(lte=2020), "lang": ("en",)}, {1}),
        ({"title": "'; DROP TABLE articles; --"}, set()),
        ({"title": "%s {} $1 :p1"}, set()),
    ],
)
async def test_filters_hold(app: Application, filters: dict[str, object], ids: set[int]) -> None:
    found = await app.fetch(search(filters=filters), rerank=rerank())
    assert set(columns(found, "id")) == ids


async def test_conditions_say_what_filters_cannot(app: Application) -> None:
    condition = Condition(
        "title LIKE %s OR lower(title) = ANY(CAST(%s AS text[]))", ["Ch%", ["sky"]]
    )
    found = await app.fetch(search(condition=condition, filters={"year": 2020}), rerank=rerank())
    assert columns(found, "id") == [1]
    literal = Condition("title LIKE 'Ch%%' AND ':value_1 $1 \\:'::text <> %s", ["x"])
    found = await app.fetch(search(condition=literal), rerank=rerank())
    assert columns(found, "id") == [3]
    commented = Condition("id = %s -- the sixth", [6])
    found = await app.fetch(search(condition=commented), rerank=rerank())
    assert columns(found, "id") == [6]


async def test_what_users_type_stays_a_value(app: Application) -> None:
    for typed in ["x' OR true --", "'; DROP TABLE articles; --", "\\'; SELECT 1", '" OR ""="']:
        for condition in [None, Condition("title = %s", [typed])]:
            filters = {"title": typed} if condition is None else {}
            found = await app.fetch(
                search(filters=filters, condition=condition), rerank=rerank(query=typed)
            )
            assert not found
    assert await app.value("SELECT count(*) FROM articles") == len(ARTICLES)


async def test_names_stay_names(app: Application, uri: str) -> None:
    odd = "a\"; DROP TABLE articles; --%s:p1$1\\'"
    name, text = sql.Identifier(odd), sql.Identifier(odd + " text")
    create = sql.SQL("CREATE SCHEMA {0} CREATE TABLE {0} ({0} vector(3), {1} text)")
    insert = sql.SQL("INSERT INTO {0}.{0} VALUES ('[1,2,3]', 'a red fruit')")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(create.format(name, text))
        connection.execute(insert.format(name))
        try:
            found = await app.fetch(
                Search((odd, odd), [odd + " text"], odd, VECTOR, distance=odd + " distance"),
                rerank=rerank(prop=lambda row: "found"),
            )
        finally:
            await app.finish()
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(name))
    assert len(found) == 1
    assert await app.value("SELECT count(*) FROM articles") == len(ARTICLES)


async def test_a_query_without_a_text_is_refused_before_the_database_is_asked(
    app: Application,
) -> None:
    with pytest.raises(ValueError, match="query"):
        await app.fetch(search(), rerank=Rerank("body"))
    with pytest.raises(ValueError, match="query"):
        await app.fetch("not even SQL", rerank=Rerank("body"))
    assert not app.is_open()


async def test_oversampling_of_unknown_limits_is_refused(app: Application) -> None:
    with pytest.raises(ValueError, match="oversample"):
        await app.fetch(RAW, "[1,0,0]", 7, rerank=rerank(oversample=2))
    assert not app.is_open()


async def test_wrong_arguments_are_refused(app: Application) -> None:
    with pytest.raises(ValueError, match="store_score"):
        await app.fetch(RAW, "[1,0,0]", 7, rerank=rerank(fuse=WeightedSum(0.5, "unit")))
    with pytest.raises(ValueError, match="candidates"):
        await app.fetch(search(), rerank=rerank(), candidates=10)
    with pytest.raises(ValueError, match="candidates"):
        await app.fetch(RAW, "[1,0,0]", 7, rerank=rerank(), candidates=0)
    with pytest.raises(TypeError, match="candidates: must be an int, not float"):
        await app.fetch(RAW, "[1,0,0]", 7, rerank=rerank(), candidates=1e3)
    with pytest.raises(TypeError, match="orderly"):
        await app.fetch(search(), rerank=rerank(), orderly=True)
    with pytest.raises(ValueError, match=r"prop: .* no column 'boby'"):
        await app.fetch(search(), rerank=rerank(prop="boby"))
    with pytest.raises(ValueError, match=r"store_score: .* no column 'far'"):
        await app.fetch(search(), rerank=rerank(), store_score="far")


async def test_columns_of_one_name_are_not_confused(app: Application) -> None:
    twice = "SELECT id, body, title AS body, 1 AS far, 2 AS far FROM articles WHERE id < {}"
    with pytest.raises(ValueError, match="prop: the rows have several columns 'body'"):
        await app.fetch(twice, 4, rerank=rerank())
    by_id = rerank(prop=lambda row: str(column(row, "id")))
    with pytest.raises(ValueError, match="store_score: the rows have several columns 'far'"):
        await app.fetch(twice, 4, rerank=by_id, store_score="far")
    assert len(await app.fetch(twice, 4, rerank=by_id, store_score="id")) == 3


async def test_a_score_that_is_a_text_is_refused_without_telling_it(app: Application) -> None:
    with pytest.raises(ValueError, match="store_score: must be a number, not str") as caught:
        await app.fetch(search(limit=1), rerank=rerank(), store_score="body")
    assert "sky" not in str(caught.value)


async def test_a_score_that_is_null_is_none(app: Application) -> None:
    statement = RAW.replace("embedding IS NOT NULL", "id > 6")
    found = await app.fetch(statement, "[1,0,0]", 7, rerank=rerank(), store_score="distance")
    by_id = {column(each.row, "id"): each.store_score for each in found}
    assert by_id[8] is None
    assert by_id[7] is not None


async def test_a_score_may_be_computed(app: Application) -> None:
    found = await app.fetch(
        search(), rerank=rerank(), store_score=lambda row: 1 - column(row, "distance")
    )
    assert [each.store_score for each in found] == [1 - each for each in columns(found, "distance")]
