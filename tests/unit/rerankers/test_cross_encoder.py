from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.batching.windows import longest_first
from rerank_sidecar.errors import LimitExceeded, ModelNotServable, NonFiniteScore
from rerank_sidecar.rerankers.base import Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.cross_encoder import (
    Activation,
    CrossEncoderConfig,
    CrossEncoderReranker,
)
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, LongDocumentPolicy, Score, Truncation, TruncationSide
from tests.unit.rerankers.toy_models import (
    TOKENIZERS,
    ToyClassifier,
    bert_tokenizer,
    outcomes_of,
    running,
)

INFO = RerankerInfo(
    name="toy",
    version="1",
    family="cross_encoder",
    score_kind=ScoreKind.RAW_LOGIT,
    engine="toy",
    source="tests",
)
LIMITS = WindowLimits(24, overlap_tokens=4, max_windows=4)
SEPARATOR = 3
QUERY = "capital of france"
CHUNK = ScoreOptions(long_document_policy=LongDocumentPolicy.CHUNK)
REJECT = ScoreOptions(long_document_policy=LongDocumentPolicy.REJECT)
CUTTING = [LongDocumentPolicy.CHUNK, LongDocumentPolicy.TRUNCATE]
LENGTHS = [0, 1, 9, 10, 11, 12, 20, 21, 22, 40]


async def score(
    *groups: list[str],
    query: str = QUERY,
    activation: Activation = "identity",
    options: ScoreOptions | None = None,
    classifier: ToyClassifier | None = None,
    tokenizer: Tokenizer | None = None,
) -> list[Outcome]:
    async with running(classifier or ToyClassifier(SEPARATOR)) as scheduler:
        reranker = CrossEncoderReranker(
            INFO,
            TextTokenizer(tokenizer or bert_tokenizer()),
            scheduler,
            CrossEncoderConfig(LIMITS, activation),
        )
        return await outcomes_of(reranker, query, *groups, options=options)


async def score_one(document: str, **how: Any) -> Score:
    [outcome] = await score([document], **how)
    assert isinstance(outcome, Score)
    return outcome


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("query_length", LENGTHS)
async def test_truncated_pairs_are_those_of_hugging_face(
    make: Callable[[], Tokenizer], query_length: int
) -> None:
    query, documents = "the " * query_length, ["sea " * length for length in LENGTHS]
    classifier = ToyClassifier(SEPARATOR)
    await score(documents, query=query, classifier=classifier, tokenizer=make())
    expected = PreTrainedTokenizerFast(tokenizer_object=make())(
        [query] * len(documents),
        documents,
        truncation="longest_first",
        max_length=LIMITS.max_tokens,
        return_token_type_ids=True,
    )
    # As sets, because a sequence that several documents come to is run once.
    assert {
        (tuple(one.token_ids.tolist()), tuple(one.type_ids.tolist())) for one in classifier.ran
    } == set(
        zip(*(map(tuple, expected[name]) for name in ("input_ids", "token_type_ids")), strict=True)
    )


@pytest.mark.parametrize("query", ["the", QUERY, "the " * 12, "the " * 60])
async def test_of_long_documents_only_what_is_read_is_tokenised(query: str) -> None:
    documents = ["sea bread " * count for count in (100, 300, 3_000)]
    for policy in CUTTING:
        for side in TruncationSide:
            options = ScoreOptions(Truncation(side=side), policy)
            [short, *long] = await score(documents, query=query, options=options)
            assert isinstance(short, Score)
            for outcome in long:
                assert isinstance(outcome, Score)
                assert outcome.value == short.value
                assert outcome.truncated
                assert outcome.window_count == short.window_count
                if side is TruncationSide.RIGHT:
                    assert outcome == short


@pytest.mark.parametrize(
    ("query_length", "document_length", "query_truncated", "truncated"),
    [(10, 11, False, False), (10, 12, False, True), (12, 10, True, False), (40, 40, True, True)],
)
async def test_what_was_cut_is_flagged(
    query_length: int, document_length: int, query_truncated: bool, truncated: bool
) -> None:
    options = ScoreOptions()
    outcome = await score_one("sea " * document_length, query="a " * query_length, options=options)
    assert options.meter.query_truncated == query_truncated
    assert outcome.truncated == truncated
    assert (outcome.best_window is not None) == truncated


async def test_the_logit_is_the_score() -> None:
    assert (await score_one("france city")).value == 0.0
    assert (await score_one("france")).value == 5.0


async def test_sigmoid_makes_it_a_probability() -> None:
    outcome = await score_one("france", activation="sigmoid")
    assert outcome.value == pytest.approx(1 / (1 + math.exp(-5)))
    outcome = await score_one("sea", activation="sigmoid")
    assert outcome.value == pytest.approx(1 / (1 + math.exp(5)))


async def test_chunk_scores_every_window_with_the_whole_query() -> None:
    document = f"{'bread ' * 30}{QUERY} {QUERY} {QUERY} {QUERY} {QUERY} {QUERY}{' sea' * 20}"
    classifier = ToyClassifier(SEPARATOR)
    outcome = await score_one(document, options=CHUNK, classifier=classifier)
    window = outcome.best_window
    assert window is not None
    assert QUERY in document[window.start : window.end]
    assert outcome.window_count == len(classifier.ran) == 4
    assert outcome.value == max(float(classifier.compute(one)[0]) for one in classifier.ran) > 0
    query = TextTokenizer(bert_tokenizer()).encode([QUERY])[0].token_ids.tolist()
    assert all(one.token_ids.tolist()[1 : 1 + len(query)] == query for one in classifier.ran)
    assert all(len(one) <= LIMITS.max_tokens for one in classifier.ran)


async def test_under_chunk_a_query_of_more_than_half_the_model_is_cut_and_flagged() -> None:
    options = ScoreOptions(long_document_policy=LongDocumentPolicy.CHUNK)
    classifier = ToyClassifier(SEPARATOR)
    await score(["sea " * 100, "sea"], query="a " * 13, options=options, classifier=classifier)
    assert options.meter.query_truncated
    assert {one.token_ids.tolist().index(SEPARATOR) for one in classifier.ran} == {13}


async def test_the_left_side_is_cut_when_asked_for() -> None:
    options = ScoreOptions(Truncation(side=TruncationSide.LEFT))
    outcome = await score_one(f"{'sea ' * 40}france", options=options)
    assert outcome.truncated
    assert outcome.value > -5


async def test_max_tokens_per_document_cuts_before_the_pair_is_cut() -> None:
    options = ScoreOptions(Truncation(max_tokens_per_document=2))
    classifier = ToyClassifier(SEPARATOR)
    outcome = await score_one("sea " * 40, query="a " * 19, options=options, classifier=classifier)
    assert outcome.truncated
    assert not options.meter.query_truncated
    assert [len(one) for one in classifier.ran] == [24]


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("query_length", LENGTHS)
async def test_reject_reads_the_pairs_that_longest_first_leaves_whole(
    make: Callable[[], Tokenizer], query_length: int
) -> None:
    tokenizer = TextTokenizer(make())
    query, documents = "the " * query_length, ["sea " * length for length in LENGTHS]
    [query_tokens, *tokens] = map(len, tokenizer.encode([query, *documents]))
    budget = LIMITS.max_tokens - tokenizer.pair.count
    if query_tokens > budget:  # it fits beside no document at all
        with pytest.raises(LimitExceeded) as raised:
            await score(documents, query=query, options=REJECT, tokenizer=make())
        words = f"query: {query_tokens} tokens long, and the model reads at most {budget}"
        assert (raised.value.field, raised.value.message) == ("query", words)
        return
    outcomes = await score(documents, query=query, options=REJECT, tokenizer=make())
    truncated = await score(documents, query=query, tokenizer=make())
    for index, count in enumerate(tokens):
        outcome, is_whole = outcomes[index], longest_first(query_tokens, count, budget)
        if is_whole == (query_tokens, count):
            assert outcome == truncated[index]
            continue
        assert isinstance(outcome, LimitExceeded)
        assert outcome.field == f"documents[{index}]"
        assert outcome.message == (
            f"documents[{index}]: {count} tokens long, "
            f"and the model reads at most {budget - query_tokens}"
        )


async def test_under_reject_only_what_was_asked_for_is_cut() -> None:
    options = ScoreOptions(Truncation(max_tokens_per_document=2), LongDocumentPolicy.REJECT)
    assert (await score_one("sea " * 40, query="a " * 19, options=options)).truncated
    assert not options.meter.query_truncated
    [outcome] = await score(["sea " * 40], query="a " * 20, options=options)
    assert isinstance(outcome, LimitExceeded)
    assert outcome.message.startswith("documents[0]: 2 tokens")


async def test_a_logit_that_is_not_finite_fails_its_document_alone() -> None:
    sea = bert_tokenizer().token_to_id("sea")
    good, bad = await score(["france", "sea"], classifier=ToyClassifier(SEPARATOR, None, sea))
    assert isinstance(good, Score)
    assert isinstance(bad, NonFiniteScore)


async def test_a_model_that_reads_too_little_is_refused() -> None:
    async with running(ToyClassifier(SEPARATOR)) as scheduler:
        with pytest.raises(ModelNotServable, match="reads 6 tokens"):
            CrossEncoderReranker(
                INFO,
                TextTokenizer(bert_tokenizer()),
                scheduler,
                CrossEncoderConfig(WindowLimits(6)),
            )


@pytest.mark.parametrize("policy", CUTTING)
async def test_the_estimate_is_what_is_read(policy: LongDocumentPolicy) -> None:
    texts = ["paris is the capital of france " * count for count in range(1, 40)]
    options = ScoreOptions(long_document_policy=policy)
    async with running(ToyClassifier(SEPARATOR)) as scheduler:
        tokenizer = TextTokenizer(bert_tokenizer())
        reranker = CrossEncoderReranker(INFO, tokenizer, scheduler, CrossEncoderConfig(LIMITS))
        # It learns from what it reads.
        await outcomes_of(reranker, QUERY, ["capital of france is the paris " * 40] * 200)
        estimate = reranker.estimate_tokens(QUERY, list(map(Document, texts)), options)
        await outcomes_of(reranker, QUERY, texts, options=options)
        assert estimate == pytest.approx(options.meter.tokens, rel=0.1)
        assert reranker.estimate_tokens(QUERY, [], options) == 0
        assert reranker.tokens_per_s == scheduler.tokens_per_s > 0


@pytest.mark.parametrize("query", ["the", "the " * 60])
async def test_under_reject_the_estimate_is_that_of_one_window(query: str) -> None:
    documents = [Document("sea " * length) for length in (1, 10, 1000)]
    truncate = ScoreOptions(long_document_policy=LongDocumentPolicy.TRUNCATE)
    async with running(ToyClassifier(SEPARATOR)) as scheduler:
        tokenizer = TextTokenizer(bert_tokenizer())
        reranker = CrossEncoderReranker(INFO, tokenizer, scheduler, CrossEncoderConfig(LIMITS))
        assert reranker.estimate_tokens(query, documents, REJECT) == reranker.estimate_tokens(
            query, documents, truncate
        )
