"""Rows with queries of their own: one request for each query, one answer for all of them."""

import asyncio
import math
from collections.abc import Sequence

import pytest

from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.pairs import Part, rerank_pairs, rerank_parts
from rerank_sidecar.engine.registry import Registry
from rerank_sidecar.errors import (
    BackendFailed,
    DeadlineExceeded,
    InternalError,
    LimitExceeded,
    NotSupportedByModel,
)
from rerank_sidecar.rerankers.base import RerankerInfo
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    Document,
    Normalization,
    PairRequest,
    RerankOptions,
    RerankRequest,
    RerankResult,
)
from tests.unit.api.toy_engine import CRASHES, FAILS, WAITS, Toy, engine_with, unready_engine

RAW = RerankOptions()


def pairs(
    queries: Sequence[str], texts: Sequence[str], options: RerankOptions = RAW
) -> PairRequest:
    return PairRequest(tuple(queries), tuple(map(Document, texts)), options)


def rows(result: RerankResult) -> list[tuple[int, float | None]]:
    return [(each.index, each.score.value if each.score else None) for each in result.results]


async def test_rows_are_scored_against_their_own_query_best_first() -> None:
    toy = Toy()
    result = await rerank_pairs(engine_with(toy), pairs("abab", ["1", "3", "2", "3"]))
    assert rows(result) == [(1, 3), (3, 3), (2, 2), (0, 1)]
    assert sorted(toy.queries) == ["a", "b"]


async def test_rows_of_one_query_are_one_request() -> None:
    toy = Toy()
    await rerank_pairs(engine_with(toy), pairs("aaa", ["1", "3", "2"]))
    assert (toy.queries, toy.texts) == (["a"], ["1", "3", "2"])


async def test_no_rows_are_no_results() -> None:
    result = await rerank_pairs(engine_with(Toy()), pairs([], []))
    assert (result.results, result.summary.model.name) == ((), "toy")


async def test_hundreds_of_queries_are_answered() -> None:
    queries = [f"query {row}" for row in range(300)]
    texts = [str(row % 7) for row in range(300)]
    result = await rerank_pairs(engine_with(Toy()), pairs(queries, texts))
    assert dict(rows(result)) == {row: row % 7 for row in range(300)}


async def test_a_row_that_fails_alone_comes_last_under_its_own_number() -> None:
    engine = engine_with(Toy(), max_document_bytes=10)
    result = await rerank_pairs(engine, pairs("abab", ["x" * 11, FAILS, "1", "x" * 11]))
    assert [each.index for each in result.results] == [2, 0, 1, 3]
    _, first, second, third = result.results
    assert isinstance(first.error, LimitExceeded)
    assert isinstance(second.error, BackendFailed)
    assert isinstance(third.error, LimitExceeded)
    assert third.error.field == "documents[3]"
    assert third.error.message == "documents[3]: over 10 bytes"


async def test_rows_are_counted_together() -> None:
    with pytest.raises(LimitExceeded):
        await rerank_pairs(engine_with(Toy(), max_documents=2), pairs("abc", "123"))


async def test_totals_are_those_of_all_queries() -> None:
    options = RerankOptions(normalization=Normalization.UNIT)
    result = await rerank_pairs(engine_with(Toy()), pairs("ab", "12", options))
    assert result.summary.normalization is Normalization.UNIT
    assert result.summary.timing.total_us > 0


async def test_one_query_that_fails_ends_the_others() -> None:
    toy = Toy()
    with pytest.raises(InternalError):
        await rerank_pairs(engine_with(toy), pairs("ab", [WAITS, CRASHES]))
    assert toy.abandoned.is_set()


async def test_who_goes_away_ends_all_queries() -> None:
    toy = Toy()
    call = asyncio.create_task(rerank_pairs(engine_with(toy), pairs("ab", [WAITS, "1"])))
    await toy.waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert toy.abandoned.is_set()


async def test_the_time_limit_is_that_of_the_whole_call() -> None:
    toy = Toy()
    queries = [str(row) for row in range(200)]  # more than run at once
    options = RerankOptions(timeout_s=0.05)
    with pytest.raises(DeadlineExceeded):
        await rerank_pairs(engine_with(toy), pairs(queries, [WAITS] * 200, options))
    assert len(toy.queries) < 200


async def test_parts_may_differ_in_their_options() -> None:
    toy = Toy()
    parts = [
        Part(RerankRequest("a", (Document("1"),), RerankOptions(priority=1)), [1]),
        Part(RerankRequest("a", (Document("2"),), RerankOptions(priority=2)), [0]),
    ]
    result = await rerank_parts(engine_with(toy), parts)
    assert rows(result) == [(0, 2), (1, 1)]
    assert sorted(each.priority for each in toy.options) == [1, 2]


class Latin(Toy):
    """Reads Latin script alone."""

    def __init__(self) -> None:
        super().__init__(ScoreKind.MAXSIM)
        self.info = RerankerInfo(
            "latin", "1", "toy", ScoreKind.MAXSIM, "python", "test", scripts=frozenset({"Latin"})
        )


def engine_of_two_scripts() -> Engine:
    engine = unready_engine()
    engine.open(Registry([Latin()], any_script=Toy(ScoreKind.LEXICAL)))
    return engine


async def test_models_of_different_scripts_meet_in_0_to_1_only() -> None:
    engine, queries = engine_of_two_scripts(), ["red fruit", "красный фрукт"]
    unit = RerankOptions(normalization=Normalization.UNIT)
    result = await rerank_pairs(engine, pairs(queries, ["0.5", "10"], unit))
    assert dict(rows(result)) == {0: 0.75, 1: 0.5}
    for normalization in (Normalization.NONE, Normalization.LOGIT):
        options = RerankOptions(normalization=normalization)
        with pytest.raises(NotSupportedByModel):
            await rerank_pairs(engine, pairs(queries, ["0.5", "10"], options))
        same_script = await rerank_pairs(engine, pairs(["a", "b"], ["0.5", "0.1"], options))
        assert all(math.isfinite(score or 0) for _, score in rows(same_script))


async def test_places_among_the_documents_of_several_queries_are_refused() -> None:
    for normalization in Normalization:
        options, engine = (
            RerankOptions(normalization=normalization),
            engine_with(Toy(ScoreKind.RANK)),
        )
        with pytest.raises(NotSupportedByModel, match="several queries"):
            await rerank_pairs(engine, pairs("ab", "12", options))
        assert len(rows(await rerank_pairs(engine, pairs("aa", "12", options)))) == 2
