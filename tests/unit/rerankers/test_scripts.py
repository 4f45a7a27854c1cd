from __future__ import annotations

import pytest

from rerank_sidecar.rerankers.scripts import reads_query

LATIN = frozenset({"Latin"})


@pytest.mark.parametrize(
    "query",
    [
        "what is the capital of France?",
        "naïve Ünïcödé Đặng",
        "BERT로 검색",  # 4 letters against 3
        "2024?",
        "😀 !",
        "",
        "ー",  # a letter that several scripts share
        "µ",
    ],
)
def test_a_latin_model_reads(query: str) -> None:
    assert reads_query(query, LATIN)


@pytest.mark.parametrize(
    "query",
    [
        "딥러닝 기반 추천 시스템 최신 연구",
        "abc 가나다",  # exactly half
        "如何泡绿茶",
        "столица России",
        "ما هي عاصمة مصر",
        "भारत की राजधानी",
        "πρωτεύουσα",
        "ค",
    ],
)
def test_a_latin_model_does_not_read(query: str) -> None:
    assert not reads_query(query, LATIN)


def test_a_model_may_read_several_scripts() -> None:
    scripts = frozenset({"Hangul", "Latin"})
    assert reads_query("딥러닝 recommender", scripts)
    assert not reads_query("столица", scripts)


def test_a_model_of_all_scripts_reads_everything() -> None:
    assert reads_query("столица", None)
