"""What becomes of a store's rows, whatever the sidecar says of them."""

import itertools
from collections.abc import Iterable
from typing import Unpack

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rerank_adapters import (
    Document,
    DocumentError,
    ReciprocalRank,
    Rerank,
    RerankOptions,
    RerankResponse,
    RerankResult,
    Timing,
    Unreachable,
    Usage,
    WeightedSum,
)
from rerank_adapters.candidates import (
    Arrangement,
    Candidates,
    arrange,
    rerank_candidates,
    rerank_candidates_async,
)
from rerank_adapters.rerank import Fuse, OnError
from rerank_adapters.transport.merging import passed_through
from rerank_sidecar.in_process import AsyncInProcessRerankClient, InProcessRerankClient
from rerank_sidecar.settings import Settings
from tests.unit.adapters.every_client import error_of_reason

FUSES: tuple[Fuse, ...] = (
    "none",
    "reciprocal_rank",
    ReciprocalRank(1),
    WeightedSum(0.5, "unit"),
    WeightedSum(1.0, "cosine"),
)


class Scripted:
    """A sidecar that gives each row the score it is told, None for one that fails alone."""

    def __init__(self, scores: list[float | None], *, lower_is_better: bool = False) -> None:
        self.scores = scores
        self.sign = 1 if lower_is_better else -1
        self.asked: list[tuple[str, list[str | Document], OnError | None, RerankOptions]] = []

    def rerank(
        self,
        query: str,
        documents: Iterable[str | Document],
        *,
        on_error: OnError | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankResponse:
        self.asked.append((query, list(documents), on_error, options))
        return self.response()

    def response(self) -> RerankResponse:
        scored = sorted(
            (self.sign * score, index)
            for index, score in enumerate(self.scores)
            if score is not None
        )
        failed = [index for index, score in enumerate(self.scores) if score is None]
        return RerankResponse(
            results=tuple(map(self.result, [*(index for _, index in scored), *failed])),
            model="m",
            model_version="1",
            score_kind="RANK" if self.sign == 1 else "COSINE",
            normalization="none",
            query_truncated=False,
            usage=Usage(0, 0, 0),
            timing=Timing(0, 0, 0, 0),
        )

    def result(self, index: int) -> RerankResult:
        score = self.scores[index]
        error = DocumentError("LIMIT_EXCEEDED", "too long") if score is None else None
        return RerankResult(index, None, score, error, None, False, 1, None)


def candidates(count: int, scores: tuple[float, ...] | None = None) -> Candidates:
    return Candidates(tuple(f"text {at}" for at in range(count)), scores)


def order(arrangement: Arrangement) -> list[int]:
    return [each.index for each in arrangement.rows]


SCORES = st.lists(st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30)


@given(SCORES, st.sampled_from(FUSES))
def test_every_row_comes_back_once_with_both_scores(scores: list[float | None], fuse: Fuse) -> None:
    stores = tuple(1 - at / len(scores) for at in range(len(scores)))
    arrangement = arrange(
        Rerank("body", fuse=fuse), candidates(len(scores), stores), Scripted(scores).response()
    )
    assert sorted(order(arrangement)) == list(range(len(scores)))
    for each in arrangement.rows:
        assert each.store_score == stores[each.index]
        assert (each.error is not None) == (scores[each.index] is None)
    standing = [each.score for each in arrangement.rows]
    assert standing == sorted(standing, key=lambda score: -(score or 0.0))
    failed = [each.index for each in arrangement.rows if each.error]
    assert order(arrangement)[len(scores) - len(failed) :] == sorted(failed)


@given(SCORES, st.sampled_from(FUSES))
def test_ties_are_in_store_order(scores: list[float | None], fuse: Fuse) -> None:
    level = tuple(0.5 for _ in scores)
    arrangement = arrange(
        Rerank("body", fuse=fuse), candidates(len(scores), level), Scripted(scores).response()
    )
    kept = [each for each in arrangement.rows if each.error is None]
    for one, other in itertools.pairwise(kept):
        if scores[one.index] == scores[other.index] or one.score == other.score:
            assert one.index < other.index


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_weights_of_one_and_none_are_one_order_alone(scores: list[float]) -> None:
    assume(len(set(scores)) == len(scores))
    stores = tuple(float(-at) for at in range(len(scores)))
    rows, response = candidates(len(scores), stores), Scripted([*scores]).response()
    best_first = sorted(range(len(scores)), key=lambda at: -scores[at])
    models = arrange(Rerank("body", fuse=WeightedSum(1.0, "logistic")), rows, response)
    assert order(models) == best_first
    stores_alone = arrange(Rerank("body", fuse=WeightedSum(0.0, "logistic")), rows, response)
    assert order(stores_alone) == list(range(len(scores)))


def test_reciprocal_ranks_are_cormacks() -> None:
    arrangement = arrange(
        Rerank("body", fuse="reciprocal_rank"), candidates(3), Scripted([0.1, 0.2, 0.9]).response()
    )
    assert {each.index: each.score for each in arrangement.rows} == {
        0: pytest.approx(1 / 61 + 1 / 63),
        1: pytest.approx(1 / 62 + 1 / 62),
        2: pytest.approx(1 / 63 + 1 / 61),
    }
    assert order(arrangement) == [0, 2, 1]


def test_a_weighted_sum_is_a_sum() -> None:
    arrangement = arrange(
        Rerank("body", fuse=WeightedSum(0.75, "cosine_distance")),
        candidates(2, (0.0, 2.0)),
        Scripted([0.2, 0.8]).response(),
    )
    assert [each.score for each in arrangement.rows] == pytest.approx([0.6, 0.4])
    assert order(arrangement) == [1, 0]


def test_a_weighted_sum_needs_scores_of_the_store() -> None:
    with pytest.raises(ValueError, match=r"^fuse: "):
        arrange(
            Rerank("body", fuse=WeightedSum(0.5, "unit")), candidates(1), Scripted([0.5]).response()
        )


def test_ranks_are_better_when_they_are_lower() -> None:
    response = Scripted([3.0, 1.0, 2.0, None], lower_is_better=True).response()
    arrangement = arrange(Rerank("body"), candidates(4), response)
    assert order(arrangement) == [1, 2, 0, 3]
    assert arrangement.rows[-1].score == 3.0
    fused = arrange(Rerank("body", fuse=ReciprocalRank(0)), candidates(4), response)
    assert order(fused)[0] == 1


@pytest.mark.parametrize("fuse", FUSES, ids=str)
def test_what_passes_through_is_the_stores_own(fuse: Fuse) -> None:
    error = error_of_reason("NOT_READY")
    rows = candidates(3, (0.9, 0.5, 0.1))
    response = passed_through(["a", "b", "c"], {}, error)
    arrangement = arrange(Rerank("body", fuse=fuse), rows, response)
    assert [(each.index, each.score, each.store_score) for each in arrangement.rows] == [
        (0, 0.9, 0.9),
        (1, 0.5, 0.5),
        (2, 0.1, 0.1),
    ]
    assert arrangement.passed_through is error


def test_rows_without_a_text_are_scored_as_empty_and_counted() -> None:
    rows = Candidates.of(
        [{"body": "a"}, {}, {"body": ""}], "body", dict.get, lambda row: float(len(row))
    )
    assert rows == Candidates(("a", None, ""), (1.0, 0.0, 1.0))
    sidecar = Scripted([0.1, 0.2, 0.3])
    arrangement = rerank_candidates(
        sidecar, Rerank("body", model="m", on_error="passthrough", top_n=1), "q", rows
    )
    assert arrangement.missing_texts == 1
    options: RerankOptions = {"model": "m", "normalization": None}
    assert sidecar.asked == [("q", ["a", "", ""], "passthrough", options)]


def test_fusing_by_weight_asks_for_scores_in_the_unit_interval() -> None:
    sidecar = Scripted([0.1])
    rerank_candidates(
        sidecar, Rerank("body", fuse=WeightedSum(0.5, "unit")), "q", candidates(1, (0.5,))
    )
    assert sidecar.asked[0][3]["normalization"] == "unit"


async def test_no_rows_ask_nobody() -> None:
    sidecar = Scripted([])
    arrangement = rerank_candidates(sidecar, Rerank("body"), "q", Candidates(()))
    assert arrangement == Arrangement(())
    assert arrangement.passed_through is None
    async with AsyncInProcessRerankClient(Settings(model="lexical")) as client:
        assert await rerank_candidates_async(client, Rerank("body"), "q", Candidates(())) == (
            Arrangement(())
        )
    assert not sidecar.asked


@pytest.mark.parametrize(
    ("limit", "offset", "top_n", "page"),
    [
        (None, 0, None, [4, 3, 2, 1, 0]),
        (2, 0, None, [4, 3]),
        (2, 1, None, [3, 2]),
        (4, 0, 2, [4, 3]),
        (2, 1, 4, [3, 2]),
        (None, 0, 1, [4]),
        (None, 2, None, [2, 1, 0]),
        (3, 9, None, []),
    ],
)
def test_pages(limit: int | None, offset: int, top_n: int | None, page: list[int]) -> None:
    rerank = Rerank("body", top_n=top_n)
    arrangement = arrange(rerank, candidates(5), Scripted([0.1, 0.2, 0.3, 0.4, 0.5]).response())
    assert [each.index for each in arrangement.page(rerank, limit, offset)] == page


async def test_both_ways_agree_with_a_real_sidecar() -> None:
    rows = Candidates(("green vegetable", "red fruit", None, "a red vegetable"))
    rerank = Rerank("body")
    with InProcessRerankClient(Settings(model="lexical")) as client:
        blocking = rerank_candidates(client, rerank, "red fruit", rows)
    async with AsyncInProcessRerankClient(Settings(model="lexical")) as awaited:
        waited = await rerank_candidates_async(awaited, rerank, "red fruit", rows)
    assert blocking.rows == waited.rows
    assert order(blocking)[:2] == [1, 3]
    assert blocking.missing_texts == 1


def test_an_error_is_raised_as_it_is() -> None:
    class Gone(Scripted):
        def response(self) -> RerankResponse:
            raise Unreachable(error_of_reason("NOT_READY").code, None, "gone")

    with pytest.raises(Unreachable):
        rerank_candidates(Gone([]), Rerank("body"), "q", candidates(1))
