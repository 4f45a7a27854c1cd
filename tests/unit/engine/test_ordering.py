"""Ordering as a law: for any scores, nothing is lost, doubled or out of place."""

from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.engine.ordering import order
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Normalization, RerankOptions

SCORES = st.lists(st.sampled_from([-1.5, -0.0, 0.0, 0.25, 2.0]) | st.floats(-1e9, 1e9), max_size=40)


@given(scores=SCORES, seed=st.randoms())
def test_order_is_the_stable_sort_of_the_input(scores: list[float], seed: object) -> None:
    arrived = list(enumerate(scores))
    seed.shuffle(arrived)  # type: ignore[attr-defined]
    want = sorted(range(len(scores)), key=lambda index: -scores[index])
    assert order(arrived, RerankOptions(), ScoreKind.COSINE) == tuple(want)


@given(scores=SCORES, top_n=st.integers(1, 50), threshold=st.floats(-2, 2))
def test_top_n_and_threshold_cut_the_end(scores: list[float], top_n: int, threshold: float) -> None:
    options = RerankOptions(top_n=top_n, score_threshold=threshold)
    whole = order(enumerate(scores), RerankOptions(), ScoreKind.COSINE)
    kept = tuple(index for index in whole if scores[index] >= threshold)[:top_n]
    assert order(enumerate(scores), options, ScoreKind.COSINE) == kept


def test_ranks_are_better_when_lower_until_they_are_normalised() -> None:
    ranks = [(0, 3.0), (1, 1.0), (2, 2.0)]
    assert order(ranks, RerankOptions(), ScoreKind.RANK) == (1, 2, 0)
    assert order(ranks, RerankOptions(score_threshold=2.0), ScoreKind.RANK) == (1, 2)
    for normalization in (Normalization.LOGIT, Normalization.UNIT):
        turned = RerankOptions(normalization=normalization)
        assert order(ranks, turned, ScoreKind.RANK) == (0, 2, 1)
