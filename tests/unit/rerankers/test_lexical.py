from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.errors import DeadlineExceeded
from rerank_sidecar.rerankers.base import IndexedDocuments, ScoreOptions
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    Score,
    Truncation,
    TruncationSide,
)
from tests.unit.rerankers.toy_models import arriving, outcomes_of


async def scores(
    query: str, *groups: list[str], options: ScoreOptions | None = None
) -> list[Score]:
    outcomes = await outcomes_of(LexicalReranker(), query, *groups, options=options)
    return [outcome for outcome in outcomes if isinstance(outcome, Score)]


async def values(query: str, *groups: list[str]) -> list[float]:
    return [score.value for score in await scores(query, *groups)]


@pytest.mark.parametrize(
    ("query", "best_first"),
    [
        pytest.param(
            "딥러닝 기반 추천 시스템 최신 연구",
            [
                "딥러닝을 활용한 최신 추천 시스템 연구가 등장했다",
                "김oo 교수가 최근에 발표한 BERT를 활용한 자연어 처리 연구",
                "배고플 때 먹을 수 있는 간단한 음식",
            ],
            id="Korean",
        ),
        pytest.param(
            "如何泡绿茶",
            ["绿茶应该用80度的水冲泡两到三分钟。", "红茶是全发酵的茶叶。", "北京是首都。"],
            id="Chinese",
        ),
        pytest.param("茶", ["他喜欢喝绿茶。", "北京是首都。"], id="one ideograph"),
        pytest.param(
            "日本で一番高い山",
            ["富士山は日本で最も高い山です。", "琵琶湖は日本最大の湖です。", "寿司の作り方"],
            id="Japanese",
        ),
        pytest.param(
            "วิธีทำข้าวผัด",
            ["ข้าวผัดกุ้งและวิธีทำง่ายๆ", "ข้าวเหนียวมะม่วง", "กรุงเทพ"],
            id="Thai",
        ),
        pytest.param(
            "ما هي عاصمة مصر",
            ["القاهرة هي عاصمة جمهورية مصر العربية", "الرياض عاصمة السعودية", "وصفة كعك"],
            id="Arabic",
        ),
        pytest.param(
            "столица России",
            ["МОСКВА — СТОЛИЦА РОССИЙСКОЙ ФЕДЕРАЦИИ.", "Париж — столица Франции.", "Рецепт щей"],
            id="Russian",
        ),
        pytest.param(
            "πρωτεύουσα της Ελλάδας",
            ["Η πρωτεύουσα της Ελλάδας είναι η Αθήνα", "Το Παρίσι είναι πρωτεύουσα", "ψωμί"],
            id="Greek",
        ),
        pytest.param(
            "भारत की राजधानी",
            ["नई दिल्ली भारत की राजधानी है।", "पेरिस फ्रांस की राजधानी है।", "आलू"],
            id="Hindi",
        ),
        pytest.param(
            "capital of France",
            ["Paris is the capital of France.", "Rome is the capital of Italy.", "Bread."],
            id="English",
        ),
    ],
)
async def test_documents_are_ordered_in_every_script(query: str, best_first: list[str]) -> None:
    found = await values(query, best_first)
    assert found == sorted(set(found), reverse=True)


async def test_the_score_is_bm25() -> None:
    # "ab" is one word of two letters and one bigram, each twice in a document of four letters.
    saturation = 1.2 * (0.25 + 0.75 * 4 / 600)
    expected = (2 * 0.25 + 0.5) * 2 * 2.2 / (2 + saturation)
    assert await values("ab ab", ["ab ab"]) == [pytest.approx(expected)]


async def test_texts_are_compared_after_folding() -> None:
    folded, plain = await values("Straße ＡＢＣ", ["STRASSE abc", "strasse abc"])
    assert folded == plain > 0


async def test_words_count_more_than_their_letters() -> None:
    whole, parts = await values("sunflower", ["a sunflower", "sun in flower"])
    assert whole > parts > 0


async def test_a_longer_document_scores_less_for_the_same_match() -> None:
    short, long = await values("paris", ["paris", f"paris {'bread ' * 200}"])
    assert short > long > 0


async def test_scores_do_not_depend_on_how_the_request_was_cut() -> None:
    documents = ["paris city", "", "bread", "a city", "paris city"] * 20
    alone = [(await values("paris city", [document]))[0] for document in documents[:5]] * 20
    assert await values("paris city", documents) == alone
    assert await values("paris city", documents[:7], documents[7:]) == alone


@given(query=st.text(max_size=30), document=st.text(max_size=60))
async def test_scores_are_finite_and_never_negative(query: str, document: str) -> None:
    for value in await values(query, [document, query]):
        assert math.isfinite(value)
        assert value >= 0


@pytest.mark.parametrize("policy", LongDocumentPolicy)
async def test_long_documents_are_read_whole(policy: LongDocumentPolicy) -> None:
    options = ScoreOptions(long_document_policy=policy)
    [score] = await scores("needle", [f"{'hay ' * 50_000}needle"], options=options)
    assert score.value > 0
    assert (score.best_window, score.truncated, score.window_count) == (None, False, 1)


@pytest.mark.parametrize(
    ("side", "read"), [(TruncationSide.RIGHT, "One, two"), (TruncationSide.LEFT, "three_four")]
)
async def test_max_tokens_per_document_counts_words(side: TruncationSide, read: str) -> None:
    document = "One, two... three_four!"
    options = ScoreOptions(Truncation(2, side))
    for query in ("one", "four"):
        [score] = await scores(query, [document], options=options)
        assert score.truncated
        assert score.best_window is not None
        assert document[score.best_window.start : score.best_window.end] == read
        assert (score.value > 0) == (query in read.casefold())


async def test_a_document_within_max_tokens_is_not_flagged() -> None:
    [score] = await scores("one", ["one two"], options=ScoreOptions(Truncation(2)))
    assert not score.truncated


async def test_a_deadline_that_has_passed_fails_the_request() -> None:
    options = ScoreOptions(deadline=time.monotonic() - 1)
    with pytest.raises(DeadlineExceeded):
        await scores("paris", ["paris"], options=options)


async def test_the_documents_are_closed_when_the_consumer_stops() -> None:
    closed = False

    async def documents() -> AsyncIterator[IndexedDocuments]:
        nonlocal closed
        try:
            async for group in arriving(["paris"], ["city"]):
                yield group
        finally:
            closed = True

    scoring = LexicalReranker().score("paris", documents(), ScoreOptions())
    async with aclosing(scoring) as outcomes:
        assert (await anext(outcomes))[0] == 0
    assert closed


async def test_the_request_is_metered() -> None:
    options = ScoreOptions()
    await scores("paris city", ["a city", "bread"], options=options)
    assert (options.meter.tokens, options.meter.pairs) == (5, 2)
    assert options.meter.infer_s > 0


def test_it_says_what_its_scores_mean() -> None:
    info = LexicalReranker().info
    assert info.score_kind is ScoreKind.LEXICAL
    assert info.comparable_across_requests
    assert info.scripts is None


def test_no_forward_pass_is_estimated() -> None:
    reranker = LexicalReranker()
    assert reranker.estimate_tokens("a", [Document("b " * 100)], ScoreOptions()) == 0
    assert reranker.tokens_per_s == math.inf
