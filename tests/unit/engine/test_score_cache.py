"""The score cache: what it finds again, what it must not, and how much it holds."""

import asyncio
import math
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from rerank_sidecar.engine.score_cache import ScoreCache, ScoreKeys
from rerank_sidecar.errors import BackendFailed
from rerank_sidecar.rerankers.base import Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    Normalization,
    RankedDocument,
    RerankOptions,
    Score,
    StreamSummary,
    Truncation,
    TruncationSide,
    Window,
)
from tests.unit.engine.toys import TOKENS_OF_DOCUMENT, Model, ask, engine_over

INFO = RerankerInfo("model", "1", "toy", ScoreKind.MAXSIM, "python", "test")


async def test_the_same_again_costs_nothing() -> None:
    model = Model()
    engine = engine_over(model)
    first = await engine.rerank(ask("a", "bb"))
    again = await engine.rerank(ask("bb", "a"))
    assert [each.index for each in again.results] == [1, 0]
    assert [each.score for each in again.results] == [each.score for each in first.results]
    assert len(model.calls) == 1
    usage = again.summary.usage
    assert (usage.tokens, usage.pairs, usage.cache_hits) == (0, 0, 2)
    assert first.summary.usage.cache_hits == 0


async def test_only_what_is_new_is_scored() -> None:
    model = Model()
    engine = engine_over(model)
    await engine.rerank(ask("a", "bb"))
    mixed = await engine.rerank(ask("ccc", "a", "dddd", "bb"))
    assert model.texts == ["a", "bb", "ccc", "dddd"]
    assert [each.index for each in mixed.results] == [1, 3, 0, 2]
    assert mixed.summary.usage.cache_hits == 2
    assert mixed.summary.usage.tokens == 2 * TOKENS_OF_DOCUMENT


async def test_what_becomes_of_a_score_afterwards_does_not_matter() -> None:
    model = Model()
    engine = engine_over(model)
    await engine.rerank(ask("a", "bb"))
    options = RerankOptions(
        top_n=1, normalization=Normalization.UNIT, score_threshold=0.1, priority=3, is_chunk=True
    )
    again = await engine.rerank(ask("a", "bb", options=options))
    assert len(model.calls) == 1
    assert [each.score for each in again.results] == [Score(0.75)]


@pytest.mark.parametrize(
    "options",
    [
        RerankOptions(truncation=Truncation(5)),
        RerankOptions(truncation=Truncation(side=TruncationSide.LEFT)),
        RerankOptions(long_document_policy=LongDocumentPolicy.CHUNK),
    ],
)
async def test_what_a_score_depends_on_does(options: RerankOptions) -> None:
    model = Model()
    engine = engine_over(model)
    await engine.rerank(ask("a"))
    await engine.rerank(ask("a", options=options))
    await engine.rerank(ask("a", query="another"))
    assert len(model.calls) == 3
    policy = RerankOptions(long_document_policy=LongDocumentPolicy.TRUNCATE)
    await engine.rerank(ask("a", options=policy))  # which is the model's own
    assert len(model.calls) == 3


def test_keys_tell_model_version_query_and_document_apart() -> None:
    def key(name: str, version: str, query: str, text: str) -> bytes:
        info = replace(INFO, name=name, version=version)
        return ScoreKeys(info, query, ScoreOptions()).of([text])[0]

    asked = [
        ("m", "1", "ab", "c"),
        ("m", "1", "a", "bc"),
        ("m", "1", "", "abc"),
        ("m", "1", "abc", ""),
        ("m", "12", "ab", "c"),
        ("m1", "", "ab", "c"),
        ("m', '1", "", "ab", "c"),
        ("m", "1", "ab", "\ud800"),
    ]
    keys = [key(*each) for each in asked]
    assert len(set(keys)) == len(asked)
    assert {len(each) for each in keys} == {16}
    assert key(*asked[0]) == keys[0]


@pytest.mark.parametrize("outcome", [BackendFailed("no"), Score(math.nan), Score(-math.inf)])
async def test_failures_are_not_kept(outcome: Outcome) -> None:
    model = Model()
    model.outcome = outcome
    engine = engine_over(model)
    await engine.rerank(ask("a"))
    model.outcome = None
    assert (await engine.rerank(ask("a"))).results[0].error is None
    assert len(model.calls) == 2


async def test_scores_for_a_cut_query_are_not_kept() -> None:
    engine = engine_over(Model())
    for _ in range(2):
        assert (await engine.rerank(ask("cut"))).summary.query_truncated


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (Model(comparable=False), {}),
        (Model(keep_scores=False), {}),
        (Model(), {"score_cache_bytes": 0}),
    ],
    ids=["scores that depend on their neighbours", "scores that cost nothing", "off"],
)
async def test_some_scores_are_never_kept(model: Model, settings: dict[str, object]) -> None:
    engine = engine_over(model, **settings)
    for _ in range(2):
        assert (await engine.rerank(ask("a"))).summary.usage.cache_hits == 0
    assert len(model.calls) == 2


SCORES = [Score(0.25), Score(-1.5, Window(3, 90_000), True, 16), Score(0.0, None, True)]


@pytest.mark.parametrize("score", SCORES)
def test_a_score_comes_back_whole(score: Score) -> None:
    cache = ScoreCache(10_000)
    cache.put(b"key", score)
    assert cache.get(b"key") == score


def test_the_longest_unused_goes_first() -> None:
    cache = ScoreCache(8_000)
    keys = [number.to_bytes(16, "big") for number in range(200)]
    for key in keys:
        cache.put(key, Score(1.0))
        cache.get(keys[0])
    assert cache.get(keys[0]) == Score(1.0)
    assert cache.get(keys[-1]) == Score(1.0)
    assert cache.get(keys[1]) is None
    assert cache.size_bytes <= 8_000


def test_a_score_that_is_put_again_counts_once() -> None:
    cache = ScoreCache(10_000)
    cache.put(b"key", SCORES[1])
    size = cache.size_bytes
    for score in (*SCORES, SCORES[1]):
        cache.put(b"key", score)
    assert cache.size_bytes == size


@pytest.mark.parametrize("score", SCORES)
def test_bytes_are_those_of_the_process(score: Score) -> None:
    tracemalloc.start()
    try:
        cache = ScoreCache(2_000_000)
        for number in range(40_000):
            window = score.best_window and Window(1000 + number, 2000 + number)
            own = Score(score.value + number, window, score.truncated, score.window_count)
            cache.put(number.to_bytes(16, "big"), own)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.size_bytes <= 2_000_000
    # The table is counted as if it had just grown, and small integers, which Python has only once,
    # each time.
    assert 0.4 * cache.size_bytes < used < 1.05 * cache.size_bytes


def test_a_full_cache_forgets_no_more_than_it_learns() -> None:
    cache = ScoreCache(400_000)
    keys = [number.to_bytes(16, "big") for number in range(8000)]
    for number, key in enumerate(keys):
        cache.put(key, Score(1.0))
        assert number < 2000 or 399_000 < cache.size_bytes <= 400_000
    kept = [key for key in keys if cache.get(key) is not None]
    assert 1000 < len(kept) < 2000
    assert kept == keys[-len(kept) :]


def test_a_cache_too_small_for_one_score_holds_none() -> None:
    cache = ScoreCache(1)
    cache.put(b"key", Score(1.0))
    assert cache.get(b"key") is None
    assert cache.size_bytes < 500


async def test_lookups_are_counted() -> None:
    def counted(result: str) -> float:
        labels = {"cache": "score", "result": result}
        return REGISTRY.get_sample_value("rerank_sidecar_cache_lookups_total", labels) or 0.0

    engine = engine_over(Model())
    hits, misses = counted("hit"), counted("miss")
    await engine.rerank(ask("a", "bb"))
    await engine.rerank(ask("a", "ccc"))
    assert (counted("hit") - hits, counted("miss") - misses) == (1, 3)
    held = REGISTRY.get_sample_value("rerank_sidecar_cache_bytes", {"cache": "score"})
    assert held is not None
    assert held > 0


async def test_large_documents_are_found_again() -> None:
    model = Model()
    engine = engine_over(model)
    texts = ["long " * 30_000, "more " * 30_000]
    await engine.rerank(ask(*texts))
    assert (await engine.rerank(ask(*texts))).summary.usage.cache_hits == 2


async def test_a_client_that_waits_for_each_answer_gets_it() -> None:
    """Hits and refused documents come back at once, though the model has nothing to tell."""
    model = Model()
    engine = engine_over(model, max_document_bytes=8)
    await engine.rerank(ask("known"))
    answered = asyncio.Event()

    async def documents() -> AsyncIterator[Sequence[Document]]:
        for text in ("new", "much too long", "known", "newer", "much too long", "known"):
            yield [Document(text)]
            await answered.wait()
            answered.clear()

    seen = []
    async with asyncio.timeout(10):
        async for event in engine.stream("query", RerankOptions(), documents()):
            if isinstance(event, RankedDocument):
                seen.append((event.index, event.error is None))
                answered.set()
            else:
                assert isinstance(event, StreamSummary)
                assert event.summary.usage.cache_hits == 2
    assert seen == [(0, True), (1, False), (2, True), (3, True), (4, False), (5, True)]


async def test_a_stream_of_known_documents_never_wakes_the_model() -> None:
    model = Model()
    engine = engine_over(model)
    await engine.rerank(ask("a", "bb"))

    async def documents() -> AsyncIterator[Sequence[Document]]:
        for text in ("a", "bb", "a"):
            yield [Document(text)]

    events = [event async for event in engine.stream("query", RerankOptions(), documents())]
    assert len(events) == 4
    assert len(model.calls) == 1
