from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import LimitExceeded, ModelNotServable, NonFiniteScore
from rerank_sidecar.rerankers.base import Outcome, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import LongDocumentPolicy, Score, Truncation, TruncationSide
from tests.unit.rerankers.toy_models import ToyEncoder, bert_tokenizer, outcomes_of, running

INFO = RerankerInfo(
    name="toy",
    version="1",
    family="late_interaction",
    score_kind=ScoreKind.MAXSIM,
    engine="toy",
    source="tests",
    default_long_document_policy=LongDocumentPolicy.CHUNK,
)
CONFIG = LateInteractionConfig(WindowLimits(32, overlap_tokens=4, max_windows=4))
QUERY = "capital of france"
DOCUMENTS = ["paris is the capital of france", "bread", "", "a river is the sea of a city"]
LONG = f"{'bread ' * 40}paris is the capital of france{' river' * 30}"


async def score(
    *groups: list[str],
    query: str = QUERY,
    config: LateInteractionConfig = CONFIG,
    options: ScoreOptions | None = None,
    encoder: ToyEncoder | None = None,
    max_batch_size: int = 8,
) -> list[Outcome]:
    async with running(encoder or ToyEncoder(), max_batch_size) as scheduler:
        reranker = LateInteractionReranker(INFO, TextTokenizer(bert_tokenizer()), scheduler, config)
        return await outcomes_of(reranker, query, *groups, options=options)


async def score_one(document: str, **how: object) -> Score:
    [outcome] = await score([document], **how)  # type: ignore[arg-type]
    assert isinstance(outcome, Score)
    return outcome


def hidden_states(text: str) -> npt.NDArray[np.float32]:
    sequence = TextTokenizer(bert_tokenizer())
    return ToyEncoder().compute(sequence.single.wrap(sequence.encode([text])[0].token_ids))


def cosine(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def maxsim(query: npt.NDArray[np.float32], document: npt.NDArray[np.float32]) -> float:
    return math.fsum(max(cosine(q, d) for d in document) for q in query) / len(query)


@pytest.mark.parametrize("keep_query", [True, False])
@pytest.mark.parametrize("keep_document", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.5])
async def test_the_score_is_mean_maxsim(
    keep_query: bool, keep_document: bool, weight: float
) -> None:
    config = LateInteractionConfig(CONFIG.limits, keep_query, keep_document, weight)
    query, document = hidden_states(QUERY), hidden_states(DOCUMENTS[0])
    expected = maxsim(
        query if keep_query else query[1:-1], document if keep_document else document[1:-1]
    )
    pooled = cosine(query.mean(axis=0), document.mean(axis=0))
    actual = await score_one(DOCUMENTS[0], config=config)
    assert actual.value == pytest.approx((expected + weight * pooled) / (1 + weight), abs=1e-3)


async def test_long_queries_meet_every_token_of_long_documents() -> None:
    config = LateInteractionConfig(WindowLimits(512))
    query, document = "a city is the sea " * 50, f"{'bread river ' * 120}{QUERY}"
    outcome = await score_one(document, query=query, config=config)
    expected = maxsim(hidden_states(query), hidden_states(document))
    assert outcome.value == pytest.approx(expected, abs=1e-3)


async def test_a_document_that_fits_is_read_whole() -> None:
    outcome = await score_one(DOCUMENTS[0])
    assert (outcome.best_window, outcome.truncated, outcome.window_count) == (None, False, 1)


async def test_the_query_itself_scores_one() -> None:
    assert (await score_one(QUERY)).value == pytest.approx(1.0, abs=1e-4)


async def test_scores_do_not_depend_on_how_the_request_was_cut() -> None:
    documents = [*DOCUMENTS, LONG, *DOCUMENTS]
    alone = [await score_one(document) for document in documents]
    assert await score(documents) == alone
    assert await score(documents[:2], documents[2:3], documents[3:]) == alone
    assert await score(documents, max_batch_size=1) == alone


async def test_the_query_is_encoded_once_and_first() -> None:
    encoder = ToyEncoder()
    # No two are the same, for a sequence that is still waiting is run once for all who bring it.
    await score(DOCUMENTS, [f"{each} city" for each in DOCUMENTS], encoder=encoder)
    assert len(encoder.ran) == 1 + 2 * len(DOCUMENTS)
    tokenizer = TextTokenizer(bert_tokenizer())
    query = tokenizer.single.wrap(tokenizer.encode([QUERY])[0].token_ids)
    assert encoder.ran[0].token_ids.tolist() == query.token_ids.tolist()


async def test_the_best_window_of_a_long_document_is_told() -> None:
    outcome = await score_one(LONG)
    window = outcome.best_window
    assert window is not None
    assert "capital of france" in LONG[window.start : window.end]
    assert LONG[window.start : window.end] == LONG[window.start : window.end].strip()
    assert not outcome.truncated
    assert outcome.window_count == 3
    passage = await score_one(LONG[window.start : window.end])
    assert outcome.value == pytest.approx(passage.value, abs=1e-6)


async def test_windows_beyond_the_most_are_not_read() -> None:
    outcome = await score_one("bread " * 200 + QUERY)
    assert outcome.truncated
    assert outcome.window_count == 4
    assert outcome.value == pytest.approx((await score_one("bread " * 30)).value, abs=1e-6)


@pytest.mark.parametrize("side", list(TruncationSide))
async def test_truncate_reads_one_end(side: TruncationSide) -> None:
    options = ScoreOptions(Truncation(side=side), LongDocumentPolicy.TRUNCATE)
    document = f"{QUERY} {'bread ' * 60}paris"
    outcome = await score_one(document, options=options)
    window = outcome.best_window
    assert window is not None
    assert outcome.truncated
    assert outcome.window_count == 1
    read = document[window.start : window.end]
    assert read == (
        document[: len(read)] if side is TruncationSide.RIGHT else document[-len(read) :]
    )
    assert len(read.split()) == 30


async def test_max_tokens_per_document_cuts_and_says_so() -> None:
    options = ScoreOptions(Truncation(max_tokens_per_document=2))
    outcome = await score_one("paris city river", options=options)
    assert outcome.truncated
    assert outcome.best_window is not None
    assert (outcome.best_window.start, outcome.best_window.end) == (0, len("paris city"))
    assert outcome.value == (await score_one("paris city")).value


REJECT = ScoreOptions(long_document_policy=LongDocumentPolicy.REJECT)


async def test_under_reject_a_document_that_does_not_fit_fails_alone() -> None:
    documents = ["bread " * length for length in (30, 31, 3000)]
    whole, *others = await score(documents, ["paris"], options=REJECT)
    assert whole == await score_one(documents[0])
    assert others.pop() == await score_one("paris")
    for index, outcome in enumerate(others, 1):
        assert isinstance(outcome, LimitExceeded)
        assert outcome.field == f"documents[{index}]"
        length = 3000 if index == 2 else 31
        assert outcome.message == (
            f"documents[{index}]: {length} tokens long, and the model reads at most 30"
        )


async def test_under_reject_only_what_was_asked_for_is_cut() -> None:
    options = ScoreOptions(Truncation(max_tokens_per_document=2), LongDocumentPolicy.REJECT)
    outcome = await score_one(f"paris city {'river ' * 100}", options=options)
    assert outcome.truncated
    assert outcome.value == (await score_one("paris city")).value


@pytest.mark.parametrize("documents", [["paris"], ["bread " * 31]])
async def test_under_reject_a_query_that_would_be_cut_is_refused(documents: list[str]) -> None:
    assert await score(documents, query="sea " * 16, options=REJECT)
    with pytest.raises(LimitExceeded) as raised:
        await score(documents, query="sea " * 17, options=REJECT)
    assert raised.value.field == "query"
    assert raised.value.message == "query: 17 tokens long, and the model reads at most 16"


async def test_a_query_of_more_than_half_the_model_is_cut_and_flagged() -> None:
    options = ScoreOptions()
    outcome = await score_one(QUERY, query=f"{'sea ' * 16}{QUERY}", options=options)
    assert options.meter.query_truncated
    assert outcome.value == (await score_one(QUERY, query="sea " * 16)).value


async def test_a_query_of_half_the_model_is_read_whole() -> None:
    options = ScoreOptions()
    await score_one(QUERY, query="sea " * 16, options=options)
    assert not options.meter.query_truncated


async def test_a_document_whose_vectors_are_not_finite_fails_alone() -> None:
    sea = bert_tokenizer().token_to_id("sea")
    good, bad, other = await score(["paris", "sea", "bread"], encoder=ToyEncoder(broken_token=sea))
    assert isinstance(bad, NonFiniteScore)
    assert [good, other] == await score(["paris", "bread"])


async def test_a_query_whose_vectors_are_not_finite_fails_the_request() -> None:
    sea = bert_tokenizer().token_to_id("sea")
    with pytest.raises(NonFiniteScore):
        await score(["paris"], query="sea", encoder=ToyEncoder(broken_token=sea))


@pytest.mark.parametrize("query", ["", " ", QUERY])
async def test_empty_texts_score(query: str) -> None:
    config = replace(CONFIG, keep_query_special_tokens=False, keep_document_special_tokens=False)
    for outcome in await score(["", " ", "paris"], query=query, config=config):
        assert isinstance(outcome, Score)
        assert -1.0 <= outcome.value <= 1.0


async def test_a_model_that_reads_too_little_is_refused() -> None:
    async with running(ToyEncoder()) as scheduler:
        with pytest.raises(ModelNotServable, match="reads 4 tokens"):
            LateInteractionReranker(
                INFO,
                TextTokenizer(bert_tokenizer()),
                scheduler,
                LateInteractionConfig(WindowLimits(4)),
            )
