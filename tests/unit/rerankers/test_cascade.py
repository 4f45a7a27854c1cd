"""A cascade hands the best on, keeps the order of the rest, and says places."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_sidecar.errors import BackendFailed, ModelNotServable, RemoteFailed
from rerank_sidecar.rerankers.base import Outcome, Reranker, ScoreOptions
from rerank_sidecar.rerankers.cascade import CascadeReranker
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.rerankers.members import joint_info
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, LongDocumentPolicy, Score, Window
from tests.unit.rerankers.toy_members import BROKEN, ToyMember, number
from tests.unit.rerankers.toy_models import outcomes_of


def cascade(*stages: Reranker, keep: tuple[int, ...] = (3,)) -> CascadeReranker:
    return CascadeReranker(joint_info("two", "cascade", stages, keep), stages, keep)


def places(outcomes: list[Outcome]) -> list[float]:
    return [each.value for each in outcomes if isinstance(each, Score)]


def backwards(text: str) -> float:
    return -number(text)


async def test_the_dear_model_orders_the_best_and_the_rest_keep_their_order() -> None:
    cheap, dear = ToyMember(), ToyMember("dear", backwards)
    found = await outcomes_of(cascade(cheap, dear), "q", ["5 e", "1 a", "4 d"], ["2 b", "3 c"])
    assert cheap.asked == [["5 e", "1 a", "4 d", "2 b", "3 c"]]
    assert dear.asked == [["5 e", "4 d", "3 c"]]
    assert places(found) == [3, 5, 2, 4, 1]


async def test_three_stages() -> None:
    one, two, three = ToyMember(), ToyMember("two", backwards), ToyMember("three")
    reranker = cascade(one, two, three, keep=(4, 2))
    found = await outcomes_of(reranker, "q", ["1", "2", "3", "4", "5", "6"])
    assert two.asked == [["6", "5", "4", "3"]]
    assert three.asked == [["3", "4"]]
    assert places(found) == [6, 5, 2, 1, 3, 4]


async def test_where_all_are_kept_the_order_is_the_dear_models() -> None:
    texts = ["a river of bread", "the capital of france is paris", "bread"]
    alone = await outcomes_of(LexicalReranker(), "capital of france", texts)
    together = await outcomes_of(
        cascade(ToyMember(scored=len), LexicalReranker(), keep=(99,)), "capital of france", texts
    )
    by_score = sorted(places(alone), reverse=True)
    assert places(together) == [by_score.index(value) + 1 for value in places(alone)]


async def test_ranks_of_members_are_better_when_lower() -> None:
    cheap, dear = ToyMember(kind=ScoreKind.RANK), ToyMember("dear", kind=ScoreKind.RANK)
    found = await outcomes_of(cascade(cheap, dear, keep=(2,)), "q", ["1", "3", "2", "4"])
    assert dear.asked == [["4", "3"]]
    assert places(found) == [4, 2, 3, 1]


async def test_equals_keep_the_order_in_which_they_came() -> None:
    cheap, dear = ToyMember(scored=lambda _: 1.0), ToyMember("dear", lambda _: 1.0)
    found = await outcomes_of(cascade(cheap, dear, keep=(2,)), "q", ["1", "2", "3", "4"])
    assert places(found) == [1, 2, 3, 4]


async def test_a_document_that_fails_in_a_stage_fails_alone() -> None:
    cheap, dear = ToyMember(), ToyMember("dear", backwards, broken="4")
    found = await outcomes_of(cascade(cheap, dear), "q", ["1", BROKEN, "4", "3", "2"])
    assert [isinstance(each, BackendFailed) for each in found] == [False, True, True, False, False]
    assert places(found) == [3, 2, 1]


async def test_a_stage_that_fails_fails_the_request() -> None:
    dear = ToyMember("dear", error=RemoteFailed("down"))
    with pytest.raises(RemoteFailed):
        await outcomes_of(cascade(ToyMember(), dear), "q", ["1", "2"])


@given(
    scores=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=12),
    keep=st.lists(st.integers(1, 14), min_size=1, max_size=3),
    broken=st.sets(st.integers(0, 11), max_size=3),
)
@settings(deadline=None)
async def test_every_document_has_one_outcome_and_every_place_is_taken_once(
    scores: list[tuple[int, int]], keep: list[int], broken: set[int]
) -> None:
    def second(text: str) -> float:
        return float(text.split()[1])

    texts = [BROKEN if at in broken else f"{a} {b}" for at, (a, b) in enumerate(scores)]
    stages = [ToyMember(str(at), second if at % 2 else number) for at in range(len(keep) + 1)]
    found = await outcomes_of(cascade(*stages, keep=tuple(keep)), "q", texts)
    assert sorted(places(found)) == list(range(1, len(texts) - texts.count(BROKEN) + 1))
    reached = [len(stage.asked[0]) for stage in stages]
    assert all(more >= fewer for more, fewer in pairwise(reached))
    assert all(count <= kept for count, kept in zip(reached[1:], keep, strict=True))


async def test_what_each_stage_says_of_a_document_is_kept() -> None:
    class Cutting(ToyMember):
        def _score(self, text: str) -> Outcome:
            return Score(number(text), Window(0, 1), truncated=True, window_count=2)

    found = await outcomes_of(cascade(Cutting(), ToyMember("dear"), keep=(1,)), "q", ["1", "2"])
    assert found == [Score(2.0, Window(0, 1), truncated=True, window_count=2), Score(1.0)]


async def test_costs_are_summed_and_options_are_passed_on() -> None:
    cheap, dear = ToyMember(), ToyMember("dear")
    options = ScoreOptions(priority=7, deadline=1e12)
    await outcomes_of(cascade(cheap, dear), "q", ["1", "2", "3", "4", "5"], options=options)
    assert (options.meter.tokens, options.meter.pairs) == (800, 8)
    assert [(each.priority, each.deadline) for each in (*cheap.told, *dear.told)] == [(7, 1e12)] * 2


@pytest.mark.parametrize(
    ("rates", "rate", "tokens"),
    [
        ((2000.0, 1000.0), 1000.0, 500 + 300),
        ((1000.0, 4000.0), 1000.0, 1000 + 75),
        ((math.inf, 1000.0), 1000.0, 300),
        ((1000.0, math.inf), 1000.0, 1000),
        ((math.inf, math.inf), math.inf, 0),
    ],
)
def test_estimates_are_told_in_the_tokens_of_the_slowest(
    rates: tuple[float, float], rate: float, tokens: int
) -> None:
    reranker = cascade(*(ToyMember(str(each), rate=each) for each in rates))
    assert reranker.tokens_per_s == rate
    documents = [Document("1")] * 10
    assert reranker.estimate_tokens("q", documents, ScoreOptions()) == tokens
    assert reranker.estimate_tokens("q", [], ScoreOptions()) == 0


def test_it_says_that_its_scores_are_places_of_one_request() -> None:
    cheap = ToyMember(described={"max_tokens": 512, "scripts": frozenset({"Latin", "Greek"})})
    dear = ToyMember("dear", described={"max_tokens": 256, "scripts": frozenset({"Latin"})})
    info = cascade(cheap, dear).info
    assert info.score_kind is ScoreKind.RANK
    assert not info.comparable_across_requests
    assert not info.keep_scores
    assert info.max_tokens == 256
    assert info.scripts == frozenset({"Latin"})
    assert "toy, dear" in info.source


def test_its_version_changes_with_its_members_and_options() -> None:
    newer = ToyMember("dear", described={"version": "2"})
    others = [
        cascade(ToyMember(), ToyMember("dear"), keep=(4,)),
        cascade(ToyMember("dear"), ToyMember()),
        cascade(ToyMember(), newer),
    ]
    versions = {each.info.version for each in (cascade(ToyMember(), ToyMember("dear")), *others)}
    assert len(versions) == 4


def test_policies_that_differ_are_the_last_members() -> None:
    chunks = ToyMember(described={"default_long_document_policy": LongDocumentPolicy.CHUNK})
    both = cascade(chunks, ToyMember("dear")).info.default_long_document_policy
    assert both is LongDocumentPolicy.TRUNCATE
    same = cascade(chunks, chunks).info.default_long_document_policy
    assert same is LongDocumentPolicy.CHUNK


def test_members_without_a_script_in_common_cannot_be_combined() -> None:
    greek = ToyMember(described={"scripts": frozenset({"Greek"})})
    latin = ToyMember(described={"scripts": frozenset({"Latin"})})
    with pytest.raises(ModelNotServable, match="script"):
        cascade(greek, latin)
