"""`Rerank`: what it refuses, what it asks the store for, what it reads of a row."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_adapters import ReciprocalRank, Rerank, WeightedSum
from rerank_adapters.rerank import STORE_SCALES, render, store_score_to_unit


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"prop": ""}, "prop"),
        ({"prop": []}, "prop"),
        ({"top_n": 0}, "top_n"),
        ({"oversample": 0.9}, "oversample"),
        ({"oversample": math.inf}, "oversample"),
        ({"oversample": math.nan}, "oversample"),
        ({"on_error": "ignore"}, "on_error"),
        ({"fuse": "max"}, "fuse"),
        ({"fuse": None}, "fuse"),
        ({"fuse": 0.5}, "fuse"),
        ({"fuse": WeightedSum}, "fuse"),
        ({"prop": 3}, "prop"),
        ({"prop": ["body", 3]}, "prop"),
        ({"prop": ["body", ""]}, "prop"),
    ],
    ids=str,
)
def test_values_out_of_range_are_named(given: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        Rerank(**{"prop": "body", **given})


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_a_weight_is_a_share(weight: float) -> None:
    with pytest.raises(ValueError, match=r"^weight: "):
        WeightedSum(weight, "cosine")


def test_scales_and_ks_that_do_not_exist_are_named() -> None:
    with pytest.raises(ValueError, match=r"^store_scale: .*cosine_distance"):
        WeightedSum(0.5, "euclid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^k: "):
        ReciprocalRank(-1)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(1, 100))
@example(10, 0, 1.1)
def test_the_store_is_asked_for_enough(limit: int, offset: int, oversample: float) -> None:
    count = Rerank("body", oversample=oversample).candidates(limit, offset)
    exact = (limit + offset) * oversample
    assert math.floor(exact) <= count <= math.ceil(exact)
    assert count >= limit + offset


def test_tenths_are_not_rounded_up() -> None:
    assert Rerank("body", oversample=1.1).candidates(10) == 11
    assert Rerank("body", oversample=10).candidates(10, 20) == 300
    assert Rerank("body").candidates(10, 20) == 30


def test_the_query_is_rerank_s_own_or_else_the_store_s() -> None:
    assert Rerank("body", "mine").query_text("store's") == "mine"
    assert Rerank("body").query_text("store's") == "store's"
    assert Rerank("body", "").query_text("store's") == ""
    with pytest.raises(ValueError, match=r"^query: "):
        Rerank("body").query_text()


def field(row: Mapping[str, object], name: str) -> object:
    return row.get(name)


@pytest.mark.parametrize(
    ("prop", "text"),
    [
        ("title", "A"),
        (["title", "body"], "A\nB"),
        (("body", "none", "title"), "B\nA"),
        (["title", "year"], "A"),
        ("none", None),
        ("year", None),
        ("empty", ""),
        (["none", "year"], None),
        (lambda row: f"{row['title']} of {row['year']}", "A of 1999"),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_what_is_read_of_a_row(prop: Any, text: str | None) -> None:
    row = {"title": "A", "body": "B", "year": 1999, "empty": ""}
    assert render(prop, row, field) == text


@given(st.sampled_from(sorted(STORE_SCALES)), st.floats(), st.floats())
def test_every_scale_ends_in_the_unit_interval_and_keeps_the_order(
    scale: str, one: float, other: float
) -> None:
    if scale in {"distance", "cosine_distance"}:
        one, other = abs(one), abs(other)
    units = store_score_to_unit(scale, one), store_score_to_unit(scale, other)
    assert all(0 <= unit <= 1 for unit in units)
    if not (math.isnan(one) or math.isnan(other)):
        is_distance = scale.endswith("distance")
        better, worse = sorted(units, reverse=one >= other if not is_distance else one <= other)
        assert (better, worse) == units or better == worse


@pytest.mark.parametrize(
    ("scale", "score", "unit"),
    [
        ("unit", 0.3, 0.3),
        ("cosine", -1.0, 0.0),
        ("cosine", 1.0000001, 1.0),
        ("cosine_distance", 0.0, 1.0),
        ("cosine_distance", 2.0, 0.0),
        ("distance", 0.0, 1.0),
        ("distance", 1.0, 0.5),
        ("distance", math.inf, 0.0),
        ("logistic", 0.0, 0.5),
        ("logistic", -1e9, 0.0),
        ("cosine_distance", math.nan, 0.0),
    ],
)
def test_scales(scale: str, score: float, unit: float) -> None:
    assert store_score_to_unit(scale, score) == pytest.approx(unit)


def test_a_value_can_be_compared_and_not_changed() -> None:
    assert Rerank("body", fuse=ReciprocalRank()) == Rerank("body", fuse=ReciprocalRank(60))
    with pytest.raises(AttributeError):
        Rerank("body").prop = "title"  # type: ignore[misc]
