"""Late interaction with a cache: the same scores to the last bit, fewer forward passes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import DeadlineExceeded, LimitExceeded, NonFiniteScore
from rerank_sidecar.rerankers.base import Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.rerankers.matrix_disk import DiskMatrices
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, LongDocumentPolicy, Score, Truncation
from tests.unit.rerankers.toy_models import ToyEncoder, bert_tokenizer, outcomes_of, running

MEGABYTE = 1 << 20
INFO = RerankerInfo(
    name="toy",
    version="1",
    family="late_interaction",
    score_kind=ScoreKind.MAXSIM,
    engine="toy",
    source="tests",
    default_long_document_policy=LongDocumentPolicy.CHUNK,
)
LIMITS = WindowLimits(32, overlap_tokens=4, max_windows=4)
CONFIG = LateInteractionConfig(LIMITS, cosine_weight=0.5)
QUERY = "capital of france"
LONG = f"{'bread ' * 40}paris is the capital of france{' river' * 30}"
CUT = f"{'sea bread ' * 200}"
DOCUMENTS = ["paris is the capital of france", "bread", "", LONG, "a river is the sea", CUT, "東京"]


@asynccontextmanager
async def reranker_with(
    cache: TokenMatrixCache | None,
    encoder: ToyEncoder | None = None,
    info: RerankerInfo = INFO,
    config: LateInteractionConfig = CONFIG,
) -> AsyncIterator[LateInteractionReranker]:
    async with running(encoder or ToyEncoder()) as scheduler:
        tokenizer = TextTokenizer(bert_tokenizer())
        yield LateInteractionReranker(info, tokenizer, scheduler, config, cache=cache)


async def without_cache(*documents: str) -> list[Outcome]:
    async with reranker_with(None) as reranker:
        return await outcomes_of(reranker, QUERY, documents)


async def test_a_score_has_the_same_bits_cold_warm_and_without_a_cache() -> None:
    encoder, options = ToyEncoder(), ScoreOptions()
    expected = await without_cache(*DOCUMENTS)
    async with reranker_with(TokenMatrixCache(MEGABYTE), encoder) as reranker:
        cold = await outcomes_of(reranker, QUERY, DOCUMENTS)
        passes = len(encoder.ran)
        warm = await outcomes_of(reranker, QUERY, DOCUMENTS, options=options)
    assert cold == warm == expected
    assert len(encoder.ran) == passes + 1  # the query
    windows = sum(score.window_count for score in warm if isinstance(score, Score))
    meter = options.meter
    assert (meter.matrix_hits, meter.pairs, meter.cache_hits) == (len(DOCUMENTS), windows, 0)
    assert meter.tokens == len(encoder.ran[-1])


async def test_hits_and_misses_meet_in_one_request() -> None:
    encoder, options = ToyEncoder(), ScoreOptions()
    expected = await without_cache(*DOCUMENTS, *DOCUMENTS)
    async with reranker_with(TokenMatrixCache(MEGABYTE), encoder) as reranker:
        await outcomes_of(reranker, QUERY, DOCUMENTS[::2])
        passes = len(encoder.ran)
        mixed = await outcomes_of(reranker, QUERY, DOCUMENTS * 2, options=options)
        assert len(encoder.ran) > passes + 1
    assert mixed == expected
    assert options.meter.matrix_hits == 2 * len(DOCUMENTS[::2])


async def test_more_documents_than_are_recalled_at_once() -> None:
    documents = [f"paris {'a ' * (number % 90)}{number}" for number in range(300)]
    async with reranker_with(TokenMatrixCache(16 * MEGABYTE)) as reranker:
        cold = await outcomes_of(reranker, QUERY, documents)
        assert await outcomes_of(reranker, QUERY, documents[:7], documents[7:]) == cold


async def test_other_rules_are_other_windows() -> None:
    truncated = ScoreOptions(long_document_policy=LongDocumentPolicy.TRUNCATE)
    shorter = ScoreOptions(Truncation(max_tokens_per_document=3))
    async with reranker_with(None) as reranker:
        expected = [
            await outcomes_of(reranker, QUERY, DOCUMENTS, options=options)
            for options in (ScoreOptions(), truncated, shorter)
        ]
    async with reranker_with(TokenMatrixCache(MEGABYTE)) as reranker:
        for _ in range(2):
            for options, scores in zip((ScoreOptions(), truncated, shorter), expected, strict=True):
                assert await outcomes_of(reranker, QUERY, DOCUMENTS, options=options) == scores


@pytest.mark.parametrize("first", LongDocumentPolicy)
@pytest.mark.parametrize("then", LongDocumentPolicy)
async def test_what_one_policy_kept_does_not_answer_for_another(
    first: LongDocumentPolicy, then: LongDocumentPolicy
) -> None:
    expected = await policy_without_cache(then)
    async with reranker_with(TokenMatrixCache(MEGABYTE)) as reranker:
        for policy in (first, then, first, then):
            options = ScoreOptions(long_document_policy=policy)
            outcomes = await outcomes_of(reranker, QUERY, DOCUMENTS, options=options)
    assert list(map(comparable, outcomes)) == expected
    refused = [isinstance(outcome, LimitExceeded) for outcome in outcomes]
    assert refused == [
        then is LongDocumentPolicy.REJECT and text in {LONG, CUT} for text in DOCUMENTS
    ]


async def policy_without_cache(policy: LongDocumentPolicy) -> list[object]:
    options = ScoreOptions(long_document_policy=policy)
    async with reranker_with(None) as reranker:
        return [
            comparable(each)
            for each in await outcomes_of(reranker, QUERY, DOCUMENTS, options=options)
        ]


def comparable(outcome: Outcome) -> object:
    return str(outcome) if isinstance(outcome, LimitExceeded) else outcome


async def test_under_reject_a_query_that_is_too_long_is_refused_for_kept_documents_too() -> None:
    reject = ScoreOptions(long_document_policy=LongDocumentPolicy.REJECT)
    async with reranker_with(TokenMatrixCache(MEGABYTE)) as reranker:
        assert await outcomes_of(reranker, QUERY, ["paris"], options=reject)
        with pytest.raises(LimitExceeded, match="query: 17 tokens"):
            await outcomes_of(reranker, "sea " * 17, ["paris"], options=reject)


async def test_of_long_documents_only_what_is_read_is_tokenised() -> None:
    documents = [f"paris {'sea bread river ' * count}" for count in (60, 600, 6_000)]
    short, *long = await without_cache(*documents)
    assert isinstance(short, Score)
    assert short.truncated
    assert long == [short, short]


@pytest.mark.parametrize(
    ("info", "config"),
    [
        (replace(INFO, version="2"), CONFIG),
        (replace(INFO, engine="toy bf16"), CONFIG),
        (INFO, replace(CONFIG, cosine_weight=0.0)),
        (INFO, replace(CONFIG, limits=WindowLimits(64))),
    ],
)
async def test_another_model_finds_nothing(
    info: RerankerInfo, config: LateInteractionConfig
) -> None:
    cache, options = TokenMatrixCache(MEGABYTE), ScoreOptions()
    async with reranker_with(cache) as reranker:
        await outcomes_of(reranker, QUERY, DOCUMENTS)
    async with reranker_with(cache, info=info, config=config) as reranker:
        await outcomes_of(reranker, QUERY, DOCUMENTS, options=options)
    assert options.meter.matrix_hits == 0


async def test_a_restart_stays_warm(tmp_path: Path) -> None:
    expected = await without_cache(*DOCUMENTS)
    for is_first in (True, False):
        cache = TokenMatrixCache(0, DiskMatrices(tmp_path, 16 * MEGABYTE))
        encoder, options = ToyEncoder(), ScoreOptions()
        async with reranker_with(cache, encoder) as reranker:
            assert await outcomes_of(reranker, QUERY, DOCUMENTS, options=options) == expected
        cache.close()
        assert options.meter.matrix_hits == (0 if is_first else len(DOCUMENTS))
        assert (len(encoder.ran) == 1) is not is_first


async def test_a_document_that_failed_is_not_kept() -> None:
    sea = bert_tokenizer().token_to_id("sea")
    cache, encoder = TokenMatrixCache(MEGABYTE), ToyEncoder(broken_token=sea)
    async with reranker_with(cache, encoder) as reranker:
        for _ in range(2):
            good, bad = await outcomes_of(reranker, QUERY, ["paris", f"{'a ' * 50}sea"])
            assert isinstance(good, Score)
            assert isinstance(bad, NonFiniteScore)
    assert len(cache) == 1


async def test_a_deadline_holds_for_what_is_kept_too() -> None:
    async with reranker_with(TokenMatrixCache(MEGABYTE)) as reranker:
        await outcomes_of(reranker, QUERY, DOCUMENTS)
        too_late = ScoreOptions(deadline=time.monotonic() - 1)
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, QUERY, DOCUMENTS, options=too_late)


async def test_requests_at_the_same_time_share_their_query() -> None:
    encoder = ToyEncoder()
    expected = await without_cache(*DOCUMENTS)
    options = [ScoreOptions() for _ in range(4)]
    async with reranker_with(None, encoder) as reranker:
        together = await asyncio.gather(
            *(outcomes_of(reranker, QUERY, DOCUMENTS, options=each) for each in options)
        )
    assert together == [expected] * 4
    assert count_of(encoder.ran, QUERY) == 1
    assert len({each.meter.tokens for each in options}) == 1
    once = sum(each.meter.tokens - each.meter.shared_tokens for each in options)
    assert once == sum(map(len, encoder.ran))


def count_of(ran: list[TokenSequence], text: str) -> int:
    tokenizer = TextTokenizer(bert_tokenizer())
    wanted = tokenizer.single.wrap(tokenizer.encode([text])[0].token_ids).token_ids.tolist()
    return sum(sequence.token_ids.tolist() == wanted for sequence in ran)


async def test_the_estimate_is_what_is_read() -> None:
    documents = [Document("paris is the capital of france " * count) for count in range(1, 60)]
    options = ScoreOptions()
    async with reranker_with(TokenMatrixCache(MEGABYTE)) as reranker:
        # It learns from what it reads.
        await outcomes_of(reranker, QUERY, ["capital of france is the paris " * 40] * 200)
        estimate = reranker.estimate_tokens(QUERY, documents, options)
        await outcomes_of(reranker, QUERY, [each.text for each in documents], options=options)
        assert estimate == pytest.approx(options.meter.tokens, rel=0.1)
        of_query = reranker.estimate_tokens(QUERY, [], options)
        assert of_query < 8
        of_kept = reranker.estimate_tokens(QUERY, documents, options) - of_query
        assert of_kept == pytest.approx(estimate / 32, rel=0.1)  # far less, but not nothing
        assert reranker.tokens_per_s > 0
