"""Vectors that callers send score as the texts that they were made of; no forward pass is run."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import InvalidField
from rerank_sidecar.models.encoder import Expansion
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, Reranker, ScoreOptions
from rerank_sidecar.rerankers.bi_encoder import BiEncoderReranker
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.matrix_cache import TokenMatrixCache
from rerank_sidecar.types import Document, Score
from tests.unit.rerankers.test_late_interaction import CONFIG, DOCUMENTS, INFO, QUERY
from tests.unit.rerankers.toy_models import (
    Array,
    ToyEncoder,
    bert_tokenizer,
    outcomes_of,
    running,
)

MEGABYTE = 1 << 20


class ToyPooled(ToyEncoder):
    """One vector for a text: the mean of its tokens'."""

    def compute(self, sequence: object) -> Array:
        pooled: Array = super().compute(sequence).mean(axis=0)  # type: ignore[arg-type]
        return pooled


@asynccontextmanager
async def reranker_over(
    encoder: ToyEncoder,
    config: LateInteractionConfig = CONFIG,
    cache: TokenMatrixCache | None = None,
    prompts: tuple[str, str] = ("", ""),
) -> AsyncIterator[LateInteractionReranker]:
    of_query, of_document = (TextTokenizer(bert_tokenizer(), prompt) for prompt in prompts)
    make = BiEncoderReranker if isinstance(encoder, ToyPooled) else LateInteractionReranker
    async with running(encoder) as scheduler:
        yield make(INFO, of_document, scheduler, config, cache=cache, query_tokenizer=of_query)


def vectors_of(text: str, encoder: ToyEncoder) -> Array:
    tokenizer = TextTokenizer(bert_tokenizer())
    [encoded] = tokenizer.encode([text])
    return np.atleast_2d(encoder.compute(tokenizer.single.wrap(encoded.token_ids)))


def token_id(token: str) -> int:
    found = bert_tokenizer().token_to_id(token)
    assert found is not None
    return found


async def score(
    reranker: Reranker, query: str, documents: Sequence[Document], options: ScoreOptions
) -> list[Outcome]:
    async def arriving() -> AsyncIterator[IndexedDocuments]:
        yield list(enumerate(documents))

    found: dict[int, Outcome] = {}
    async with aclosing(reranker.score(query, arriving(), options)) as outcomes:
        async for index, outcome in outcomes:
            found[index] = outcome
    return [found[index] for index in range(len(documents))]


@pytest.mark.parametrize("encoder", [ToyEncoder(), ToyPooled()], ids=["tokens", "pooled"])
@pytest.mark.parametrize("is_cached", [False, True])
async def test_vectors_stand_for_texts(encoder: ToyEncoder, is_cached: bool) -> None:
    given = [Document("", vectors=vectors_of(text, encoder)) for text in DOCUMENTS]
    cache, options = TokenMatrixCache(MEGABYTE) if is_cached else None, ScoreOptions()
    async with reranker_over(encoder, cache=cache) as reranker:
        expected = await outcomes_of(reranker, QUERY, DOCUMENTS)
        ran = len(encoder.ran)
        assert await score(reranker, QUERY, given, options) == expected
        assert len(encoder.ran) == ran + 1  # the query
        assert options.meter.pairs == len(given)
        assert options.meter.matrix_hits == 0
        without = ScoreOptions(query_vectors=vectors_of(QUERY, encoder))
        assert await score(reranker, "", given, without) == expected
        assert len(encoder.ran) == ran + 1
        assert without.meter.tokens == 0
        mixed = [*given[:2], *map(Document, DOCUMENTS[2:])]
        assert await score(reranker, QUERY, mixed, ScoreOptions()) == expected


async def test_vectors_are_hardly_counted_in_an_estimate() -> None:
    encoder = ToyEncoder()
    given = [Document("a" * 1000, vectors=vectors_of(QUERY, encoder))] * 100
    async with reranker_over(encoder) as reranker:
        options = ScoreOptions(query_vectors=vectors_of(QUERY, encoder))
        estimate = reranker.estimate_tokens("long " * 100, given, options)
        assert 0 < estimate < 100
        counts = reranker.count_tokens("", [*given[:1], Document("paris")], options)
        assert counts == [0, 3]


async def test_a_bi_encoder_scores_by_the_cosine() -> None:
    encoder = ToyPooled()
    async with reranker_over(encoder, cache=TokenMatrixCache(MEGABYTE)) as reranker:
        cold = await outcomes_of(reranker, QUERY, DOCUMENTS)
        assert await outcomes_of(reranker, QUERY, DOCUMENTS) == cold
    [query] = vectors_of(QUERY, encoder)
    for text, outcome in zip(DOCUMENTS, cold, strict=True):
        [document] = vectors_of(text, encoder)
        cosine = query @ document / np.linalg.norm(query) / np.linalg.norm(document)
        assert isinstance(outcome, Score)
        assert outcome.value == pytest.approx(cosine, abs=0.01)


async def test_a_bi_encoder_takes_one_vector_for_a_query_and_the_best_for_a_document() -> None:
    encoder = ToyPooled()
    rows = [vectors_of(text, encoder) for text in DOCUMENTS]
    async with reranker_over(encoder) as reranker:
        expected = await outcomes_of(reranker, QUERY, DOCUMENTS)
        [best] = await score(
            reranker, QUERY, [Document("", vectors=np.concatenate(rows))], ScoreOptions()
        )
        assert isinstance(best, Score)
        assert best.value == max(each.value for each in expected if isinstance(each, Score))
        with pytest.raises(InvalidField) as raised:
            await score(reranker, "", [], ScoreOptions(query_vectors=np.concatenate(rows[:2])))
    assert raised.value.field == "query_vectors"


async def test_short_queries_are_filled_up() -> None:
    encoder = ToyEncoder()
    mask = token_id("x")
    config = replace(CONFIG, max_query_tokens=6, expansion=Expansion(mask, 8))
    options = ScoreOptions()
    async with reranker_over(encoder, config) as reranker:
        [outcome] = await outcomes_of(reranker, QUERY, ["paris"], options=options)
        query = max(encoder.ran, key=len)
        assert reranker.estimate_tokens(QUERY, [], ScoreOptions()) == 8
        await outcomes_of(reranker, f"{QUERY} paris is the city", ["paris"], options=options)
        long = encoder.ran[-2:]
    assert query.token_ids.tolist()[-3:] == [mask] * 3
    assert (len(query), query.attended) == (8, 5)
    assert [each.attended for each in long if len(each) == 8] == [None]
    assert options.meter.query_truncated
    of_query, of_document = encoder.compute(query), vectors_of("paris", encoder)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (of_query, of_document)]
    best = (unit[0] @ unit[1].T).max(axis=1)
    assert isinstance(outcome, Score)
    assert outcome.value == pytest.approx(math.fsum(best) / 8, abs=0.01)


async def test_expansion_may_be_attended_to() -> None:
    encoder = ToyEncoder()
    config = replace(CONFIG, expansion=Expansion(5, 8, attended=True))
    async with reranker_over(encoder, config) as reranker:
        await outcomes_of(reranker, QUERY, ["paris"])
    assert max(encoder.ran, key=len).attended is None


async def test_skipped_tokens_of_documents_take_no_part() -> None:
    skipped = frozenset({token_id("bread"), token_id("sea")})
    encoder, cache = WantedOnly(), TokenMatrixCache(MEGABYTE)
    config = replace(CONFIG, skipped_token_ids=skipped)
    text = "bread paris sea"
    async with reranker_over(encoder, config, cache) as reranker:
        cold = await outcomes_of(reranker, "bread", [text])
        assert await outcomes_of(reranker, "bread", [text]) == cold
        given = Document("", vectors=vectors_of(text, ToyEncoder())[[0, 2, 4]])
        assert await score(reranker, "bread", [given], ScoreOptions()) == cold
    async with reranker_over(WantedOnly()) as reranker:
        [of_all] = await outcomes_of(reranker, "bread", [text])
    [without] = cold
    assert isinstance(of_all, Score)
    assert isinstance(without, Score)
    assert without.value < of_all.value


class WantedOnly(ToyEncoder):
    """Gives the states that are wanted, as backends do."""

    def compute(self, sequence: object) -> Array:
        return sequence.states(super().compute(sequence))  # type: ignore[attr-defined,no-any-return,arg-type]


async def test_query_and_document_have_prompts_of_their_own() -> None:
    encoder, options = ToyEncoder(), ScoreOptions()
    async with reranker_over(encoder, prompts=("what is ", "the ")) as reranker:
        [prompted] = await outcomes_of(reranker, "paris", ["city"], options=options)
    async with reranker_over(ToyEncoder()) as reranker:
        assert [prompted] == await outcomes_of(reranker, "what is paris", ["the city"])
    assert options.meter.tokens == 5 + 4
