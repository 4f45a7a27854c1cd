"""The tokens that are told of each document are those that are read for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.rerankers.base import (
    Meter,
    Reranker,
    RerankerInfo,
    ScoreOptions,
    TokenCounter,
)
from rerank_sidecar.rerankers.cross_encoder import CrossEncoderConfig, CrossEncoderReranker
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, LongDocumentPolicy, Score, Truncation
from tests.unit.rerankers.toy_models import (
    ToyClassifier,
    ToyEncoder,
    bert_tokenizer,
    outcomes_of,
    running,
)

LIMITS = WindowLimits(24, overlap_tokens=4, max_windows=4)
QUERY = "capital of france"
DOCUMENTS = ["", "paris", "the sea " * 8, "bread " * 100]
SEPARATOR = 3


def info(kind: ScoreKind) -> RerankerInfo:
    return RerankerInfo("toy", "1", "toy", kind, "toy", "tests")


def cross_encoder(scheduler: Scheduler) -> CrossEncoderReranker:
    tokenizer = TextTokenizer(bert_tokenizer())
    config = CrossEncoderConfig(LIMITS)
    return CrossEncoderReranker(info(ScoreKind.RAW_LOGIT), tokenizer, scheduler, config)


def late_interaction(scheduler: Scheduler) -> LateInteractionReranker:
    tokenizer = TextTokenizer(bert_tokenizer())
    config = LateInteractionConfig(LIMITS)
    return LateInteractionReranker(info(ScoreKind.MAXSIM), tokenizer, scheduler, config)


async def tokens_read(reranker: Reranker, document: str, how: ScoreOptions) -> int:
    """Score a document by itself; one that is refused has cost nothing."""
    options = replace(how, meter=Meter())
    [outcome] = await outcomes_of(reranker, QUERY, [document], options=options)
    return options.meter.tokens if isinstance(outcome, Score) else 0


HOW = [
    *(ScoreOptions(long_document_policy=policy) for policy in LongDocumentPolicy),
    ScoreOptions(Truncation(max_tokens_per_document=5)),
]


@pytest.mark.parametrize("how", HOW, ids=str)
async def test_a_cross_encoder_counts_pairs(how: ScoreOptions) -> None:
    async with running(ToyClassifier(SEPARATOR)) as scheduler:
        reranker = cross_encoder(scheduler)
        assert isinstance(reranker, TokenCounter)
        counts = reranker.count_tokens(QUERY, [Document(each) for each in DOCUMENTS], how)
        assert counts == [await tokens_read(reranker, each, how) for each in DOCUMENTS]


@pytest.mark.parametrize("how", HOW, ids=str)
async def test_late_interaction_counts_documents(how: ScoreOptions) -> None:
    async with running(ToyEncoder()) as scheduler:
        reranker = late_interaction(scheduler)
        assert isinstance(reranker, TokenCounter)
        counts = reranker.count_tokens(QUERY, [Document(each) for each in DOCUMENTS], how)
        read = [await tokens_read(reranker, each, how) for each in DOCUMENTS]
        of_query = read[0] - counts[0]
        assert of_query == 5  # three words between two special tokens
        assert counts == [max(0, each - of_query) for each in read]


@pytest.mark.parametrize("how", HOW, ids=str)
async def test_lexical_matching_counts_words(how: ScoreOptions) -> None:
    reranker = LexicalReranker()
    assert isinstance(reranker, TokenCounter)
    counts = reranker.count_tokens(QUERY, [Document(each) for each in DOCUMENTS], how)
    read = [await tokens_read(reranker, each, how) for each in DOCUMENTS]
    assert counts == [each - 3 for each in read]
