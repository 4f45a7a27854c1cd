"""An ensemble adds up the places of its members by weight."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_sidecar.errors import BackendFailed, RemoteFailed
from rerank_sidecar.rerankers.base import Outcome, Reranker, ScoreOptions
from rerank_sidecar.rerankers.ensemble import EnsembleConfig, EnsembleReranker, Fusion
from rerank_sidecar.rerankers.members import joint_info
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, Score
from tests.unit.rerankers.toy_members import BROKEN, ToyMember, number
from tests.unit.rerankers.toy_models import outcomes_of


def ensemble(*members: Reranker, config: EnsembleConfig | None = None) -> EnsembleReranker:
    config = config or EnsembleConfig([1.0] * len(members))
    return EnsembleReranker(joint_info("all", "ensemble", members), members, config)


def places(outcomes: list[Outcome]) -> list[float]:
    return [each.value for each in outcomes if isinstance(each, Score)]


def second(text: str) -> float:
    return float(text.split()[1])


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        # Places of the texts: 1 and 4, 2 and 2, 3 and 3, 4 and 1.
        # 1/(1+1) + 1/(1+4) = 0.7, 2/(1+2) = 0.667, 2/(1+3) = 0.5, 0.7
        (Fusion.RECIPROCAL_RANK, [1, 3, 4, 2]),
        # 5, 4, 6, 5
        (Fusion.RANK, [2, 1, 4, 3]),
    ],
)
async def test_places_are_added_up(fusion: Fusion, expected: list[float]) -> None:
    config = EnsembleConfig([1.0, 1.0], fusion, rank_constant=1)
    reranker = ensemble(ToyMember(), ToyMember("other", second), config=config)
    assert places(await outcomes_of(reranker, "q", ["9 1", "8 3", "7 2", "6 4"])) == expected


async def test_weights_decide() -> None:
    members = ToyMember(), ToyMember("other", second)
    texts = ["3 1", "2 2", "1 3"]
    for weights, expected in (([3.0, 1.0], [1, 2, 3]), ([1.0, 3.0], [3, 2, 1])):
        reranker = ensemble(*members, config=EnsembleConfig(weights))
        assert places(await outcomes_of(reranker, "q", texts)) == expected


async def test_equal_scores_share_the_best_place() -> None:
    # The first member calls all equal, so that only the second one counts.
    reranker = ensemble(ToyMember(scored=lambda _: 0.0), ToyMember("other"))
    assert places(await outcomes_of(reranker, "q", ["1", "2", "3"])) == [3, 2, 1]


async def test_equal_sums_keep_the_order_in_which_they_came() -> None:
    reranker = ensemble(ToyMember(), ToyMember("other", second))
    assert places(await outcomes_of(reranker, "q", ["2 1", "1 2"])) == [1, 2]


async def test_ranks_of_members_are_better_when_lower() -> None:
    reranker = ensemble(ToyMember(kind=ScoreKind.RANK), ToyMember("other", kind=ScoreKind.RANK))
    assert places(await outcomes_of(reranker, "q", ["1", "2", "3"])) == [3, 2, 1]


async def test_a_document_that_fails_with_one_member_fails_alone() -> None:
    reranker = ensemble(ToyMember(), ToyMember("other", broken="2"))
    found = await outcomes_of(reranker, "q", ["1", "2", BROKEN, "3"])
    assert [isinstance(each, BackendFailed) for each in found] == [False, True, True, False]
    assert places(found) == [2, 1]


async def test_members_are_asked_at_once_and_given_up_when_one_fails() -> None:
    gate = asyncio.Event()
    waiting, failing = ToyMember(gate=gate), ToyMember("bad", error=RemoteFailed("down"))
    with pytest.raises(RemoteFailed):
        await outcomes_of(ensemble(waiting, failing), "q", ["1", "2"])
    assert (len(waiting.asked), waiting.closed) == (1, 1)


async def test_costs_are_summed() -> None:
    options = ScoreOptions()
    await outcomes_of(ensemble(ToyMember(), ToyMember("b")), "q", ["1", "2"], options=options)
    assert (options.meter.tokens, options.meter.pairs) == (400, 4)


def test_estimates_are_told_in_the_tokens_of_the_slowest() -> None:
    reranker = ensemble(ToyMember(rate=4000.0), ToyMember("b", rate=1000.0), ToyMember("c"))
    assert reranker.tokens_per_s == 1000.0
    assert reranker.estimate_tokens("q", [Document("1")] * 10, ScoreOptions()) == 1250


@given(
    scores=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=10),
    weights=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    fusion=st.sampled_from(Fusion),
    broken=st.sets(st.integers(0, 9), max_size=3),
)
@settings(deadline=None)
async def test_every_document_has_one_outcome_and_nobody_is_put_below_who_is_worse_for_all(
    scores: list[tuple[int, int]],
    weights: tuple[float, float],
    fusion: Fusion,
    broken: set[int],
) -> None:
    texts = [BROKEN if at in broken else f"{a} {b}" for at, (a, b) in enumerate(scores)]
    config = EnsembleConfig(weights, fusion)
    reranker = ensemble(ToyMember(), ToyMember("other", second), config=config)
    found = await outcomes_of(reranker, "q", texts)
    scored = [at for at, each in enumerate(found) if isinstance(each, Score)]
    assert len(scored) == len(texts) - texts.count(BROKEN)
    place = dict(zip(scored, places(found), strict=True))
    assert sorted(place.values()) == list(range(1, len(scored) + 1))
    for one in scored:
        for other in scored:
            if number(texts[one]) > number(texts[other]) and second(texts[one]) > second(
                texts[other]
            ):
                assert place[one] < place[other]
