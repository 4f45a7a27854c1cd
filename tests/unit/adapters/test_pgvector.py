"""pgvector without a database: what is asked of an index, and what a query cannot be made of."""

import subprocess
import sys
from typing import Any

import pytest

from rerank_adapters.pgvector import (
    Condition,
    PgvectorError,
    Range,
    RerankedRow,
    RerankedRows,
    Search,
)
from rerank_adapters.pgvector.index_settings import DEFAULTS, IndexSettings
from rerank_adapters.pgvector.statement import written


def settings(version: str | None = "0.8.0", **values: str) -> IndexSettings:
    given = {f"hnsw.{name}": value for name, value in values.items()}
    return IndexSettings(version, {**DEFAULTS, **given})


def raised(count: int, found: IndexSettings) -> dict[str, str]:
    return {name.removeprefix("hnsw."): value for name, value in found.raised(count).items()}


@pytest.mark.parametrize(
    ("count", "found", "expected"),
    [
        (40, settings(), {"iterative_scan": "relaxed_order"}),
        (41, settings(), {"ef_search": "41", "iterative_scan": "relaxed_order"}),
        (41, settings("0.7.4"), {"ef_search": "41"}),
        (20, settings("0.7.4", ef_search="10"), {"ef_search": "20"}),
        (1000, settings("0.7.4"), {"ef_search": "1000"}),
        (41, settings(None), {}),
        (2000, settings(None), {}),
        (30, settings(iterative_scan="strict_order"), {}),
        (
            1001,
            settings(ef_search="1000", iterative_scan="strict_order", scan_mem_multiplier="2.5"),
            {"iterative_scan": "relaxed_order", "max_scan_tuples": "20020"},
        ),
        (
            10_000,
            settings("0.10.1"),
            {
                "ef_search": "1000",
                "iterative_scan": "relaxed_order",
                "max_scan_tuples": "200000",
                "scan_mem_multiplier": "10",
            },
        ),
        (
            200_000_000,
            settings(),
            {
                "ef_search": "1000",
                "iterative_scan": "relaxed_order",
                "max_scan_tuples": "2147483647",
                "scan_mem_multiplier": "1000",
            },
        ),
    ],
)
def test_settings_are_raised_as_far_as_they_must(
    count: int, found: IndexSettings, expected: dict[str, str]
) -> None:
    assert raised(count, found) == expected


@pytest.mark.parametrize("version", ["0.7.4", "0.5", "0.7"])
def test_an_old_index_gives_a_thousand(version: str) -> None:
    with pytest.raises(PgvectorError, match="1001 candidates"):
        settings(version).raised(1001)


def test_settings_of_a_session_that_has_not_loaded_pgvector_are_the_defaults() -> None:
    found = IndexSettings.of(("0.8.5", None, "", "30000", None))
    assert found.values == {**DEFAULTS, "hnsw.max_scan_tuples": "30000"}


def search(**changes: Any) -> Search:
    given: dict[str, Any] = {
        "table": "items",
        "columns": ["id"],
        "embedding": "embedding",
        "vector": [1.0],
    }
    return Search(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "euclid"}, "metric"),
        ({"limit": 0}, "limit"),
        ({"offset": -1}, "offset"),
        ({"columns": ["id", "id"]}, "columns"),
        ({"columns": []}, "columns"),
        ({"metric": "hamming", "vector": [0.5, 0.25]}, "vector: .* 0 or 1"),
        ({"columns": ["distance"]}, "columns"),
        ({"columns": [""]}, "must not be empty"),
        ({"table": "a\0b"}, "NUL"),
        ({"table": ("a", "b", "c")}, "table"),
    ],
)
def test_searches_that_cannot_be_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": "id"},
        {"columns": [1]},
        {"limit": 2.5},
        {"offset": "1"},
        {"embedding": None},
        {"vector": 1.0},
        {"vector": (each for each in [1.0, 2.0])},
    ],
)
def test_searches_of_wrong_types(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        search(**changes)


def test_a_search_keeps_texts_and_vectors_out_of_its_repr() -> None:
    shown = repr(
        search(filters={"title": "secret"}, vector=[0.625], condition=Condition("%s", ["secret"]))
    )
    assert "secret" not in shown
    assert "0.625" not in shown


def test_every_value_is_a_parameter() -> None:
    made = search(
        filters={"a": "x", "b": [1, None, 2], "c": Range(gt=3, lte=4), "d": None, "e": []},
        condition=Condition("f LIKE %s AND g %% 2 = %s", ["y", 0]),
    )
    text, values = written(made.sql(7), "${}".format)
    assert values == ["[1.0]", "x", 1, 2, 3, 4, "y", 0, 7]
    where = text[text.index(" WHERE ") : text.index(" ORDER BY ")]
    assert where == (
        ' WHERE "embedding" IS NOT NULL AND "a" = $2 AND ("b" IS NULL OR "b" IN ($3, $4))'
        ' AND "c" > $5 AND "c" <= $6 AND "d" IS NULL AND (FALSE)'
        " AND (f LIKE $7 AND g % 2 = $8\n)"
    )


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("a = %s", []),
        ("a = 1", [1]),
        ("a = %s", [1, 2]),
        ("a % 2", []),
        ("a = %(b)s", [1]),
        ("%", []),
    ],
)
def test_conditions_whose_places_do_not_fit(sql: str, parameters: list[object]) -> None:
    with pytest.raises(ValueError, match="condition"):
        Condition(sql, parameters)


def test_a_range_has_a_bound() -> None:
    with pytest.raises(ValueError, match="bound"):
        Range()
    assert Range(gte=0).bounds == {">=": 0}


def test_reranked_rows_are_a_sequence() -> None:
    rows = RerankedRows(tuple(RerankedRow(at, float(at)) for at in (3, 2, 1)))
    assert len(rows) == 3
    assert rows[0].row == 3
    assert [each.row for each in rows[1:]] == [2, 1]
    assert [each.row for each in reversed(rows)] == [1, 2, 3]
    assert rows[2] in rows
    assert rows.passed_through is None


def test_without_drivers_the_package_is_there_and_its_modules_say_what_to_install() -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(["psycopg", "asyncpg", "sqlalchemy", "pgvector"]))
import importlib
import rerank_adapters.pgvector
for driver in ("psycopg", "asyncpg", "sqlalchemy"):
    try:
        importlib.import_module(f"rerank_adapters.pgvector.{driver}")
    except ImportError as error:
        assert "pip install 'rerank-sidecar[pgvector]'" in str(error), error
    else:
        raise AssertionError(driver)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
