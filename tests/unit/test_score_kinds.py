"""UNIT lies in [0, 1], keeps the order and is the same whatever else was asked."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.score_kinds import SCORE_SCALES, ScoreKind, floor, to_logit, to_unit

RANGES = {
    ScoreKind.RAW_LOGIT: (-1e30, 1e30),
    ScoreKind.PROBABILITY: (0.0, 1.0),
    ScoreKind.MAXSIM: (-1.0, 1.0),
    ScoreKind.COSINE: (-1.0, 1.0),
    ScoreKind.LEXICAL: (0.0, 1e30),
}


def test_every_kind_has_a_scale() -> None:
    assert set(SCORE_SCALES) == set(ScoreKind)


@pytest.mark.parametrize("kind", RANGES)
@given(data=st.data())
def test_unit_is_monotone_and_bounded(kind: ScoreKind, data: st.DataObject) -> None:
    low, high = RANGES[kind]
    one, two = sorted((data.draw(st.floats(low, high)), data.draw(st.floats(low, high))))
    assert 0.0 <= to_unit(kind, one, 1) <= to_unit(kind, two, 1) <= 1.0


@pytest.mark.parametrize(
    ("kind", "score", "unit"),
    [
        (ScoreKind.RAW_LOGIT, 0.0, 0.5),
        (ScoreKind.RAW_LOGIT, math.log(3), 0.75),
        (ScoreKind.PROBABILITY, 0.3, 0.3),
        (ScoreKind.MAXSIM, 0.5, 0.75),
        (ScoreKind.COSINE, -1.0000001, 0.0),
        (ScoreKind.LEXICAL, 10.0, 0.5),
        (ScoreKind.RANK, 1.0, 1.0),
        (ScoreKind.RANK, 4.0, 0.25),
    ],
)
def test_unit_values(kind: ScoreKind, score: float, unit: float) -> None:
    assert to_unit(kind, score, 4) == pytest.approx(unit)


@given(st.floats(-700.0, 20.0))  # nearer to 1, probabilities do not tell logits apart
def test_a_probability_goes_back_to_its_logit(x: float) -> None:
    p = to_unit(ScoreKind.RAW_LOGIT, x, 1)
    assert to_logit(ScoreKind.PROBABILITY, p) == pytest.approx(x, abs=1e-6)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_logits_are_finite_and_keep_the_order(one: float, two: float) -> None:
    low, high = (to_logit(ScoreKind.PROBABILITY, p) for p in sorted((one, two)))
    assert floor(ScoreKind.RAW_LOGIT) < low <= high < math.inf


@pytest.mark.parametrize(("p", "logit"), [(0.0, -744.4), (0.25, -math.log(3)), (1.0, 36.74)])
def test_logit_values(p: float, logit: float) -> None:
    assert to_logit(ScoreKind.PROBABILITY, p) == pytest.approx(logit, abs=0.1)
    assert to_logit(ScoreKind.PROBABILITY, 0.5) == 0.0
    assert to_logit(ScoreKind.RANK, 3.0) == -3.0
    assert to_logit(ScoreKind.MAXSIM, 0.25) == 0.25


@pytest.mark.parametrize("kind", sorted(set(ScoreKind) - {ScoreKind.PROBABILITY, ScoreKind.RANK}))
@given(score=st.floats(allow_nan=False))
def test_every_other_kind_is_its_own_logit(kind: ScoreKind, score: float) -> None:
    assert to_logit(kind, score) == score


def test_floors_lie_below_every_score() -> None:
    bounded = {kind: low for kind, (low, _) in RANGES.items() if kind is not ScoreKind.RAW_LOGIT}
    assert all(floor(kind) <= low for kind, low in bounded.items())
    assert to_unit(ScoreKind.RAW_LOGIT, floor(ScoreKind.RAW_LOGIT), 1) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="RANK"):
        floor(ScoreKind.RANK)
