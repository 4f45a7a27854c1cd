"""The compact form of token vectors, and that no bit of a score depends on company or order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import NonFiniteScore
from rerank_sidecar.rerankers.maxsim import MaxSim
from rerank_sidecar.rerankers.token_matrix import QueryMatrix, TokenMatrix, products
from tests.unit.rerankers.toy_models import bert_tokenizer

Vectors = npt.NDArray[np.float32]
SPECIAL_TOKENS = TextTokenizer(bert_tokenizer()).single


def vectors(seed: int, tokens: int, dimension: int, size: float = 1.0) -> Vectors:
    drawn = np.random.default_rng(seed).standard_t(3, size=(tokens, dimension)) * size
    return drawn.astype(np.float32)


def unit(rows: Vectors) -> npt.NDArray[np.float64]:
    wide = rows.astype(np.float64)
    unit_rows: npt.NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit_rows


SEEDS = st.integers(0, 2**32 - 1)
TOKENS = st.integers(1, 40)
DIMENSIONS = st.sampled_from([1, 2, 16, 63, 384, 1024])


@settings(deadline=None)
@given(SEEDS, TOKENS, DIMENSIONS, st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_rows_are_unit_vectors_within_what_8_bits_can_tell(
    seed: int, tokens: int, dimension: int, size: float
) -> None:
    given_rows = vectors(seed, tokens, dimension, size)
    matrix = TokenMatrix.of(given_rows)
    assert matrix.levels.dtype == np.int8
    assert matrix.scales.dtype == np.float32
    assert matrix.levels.min() >= -127
    kept = matrix.levels.astype(np.float64) * matrix.scales[:, np.newaxis]
    assert np.linalg.norm(kept, axis=1) == pytest.approx(1.0, abs=1e-6)
    expected = unit(given_rows)
    # Half a step for each number; making the row a unit vector again moves it less than that.
    steps = np.abs(expected).max(axis=1, keepdims=True) / 127
    most = steps[:, 0] * math.sqrt(dimension) + 1e-6
    assert (np.linalg.norm(kept - expected, axis=1) <= most).all()


@settings(deadline=None)
@given(SEEDS, TOKENS, DIMENSIONS)
def test_opposite_vectors_are_rounded_alike(seed: int, tokens: int, dimension: int) -> None:
    rows = vectors(seed, tokens, dimension)
    one, other = TokenMatrix.of(rows), TokenMatrix.of(-rows)
    assert (one.levels == -other.levels).all()
    assert (one.scales == other.scales).all()


@settings(deadline=None)
@given(SEEDS, TOKENS, TOKENS, DIMENSIONS)
def test_products_are_exact_in_whole_numbers(
    seed: int, query_tokens: int, tokens: int, dimension: int
) -> None:
    query = QueryMatrix.of(vectors(seed, query_tokens, dimension))
    matrix = TokenMatrix.of(vectors(seed + 1, tokens, dimension))
    whole = matrix.levels.astype(np.int64) @ query.levels.astype(np.int64)
    assert np.abs(whole).max() <= 2**24
    expected = whole.astype(np.float32) * matrix.scales[:, np.newaxis]
    assert (products(query, [matrix]) == expected).all()


def test_the_worst_rows_are_exact_too() -> None:
    for dimension in (384, 4096):
        query = QueryMatrix.of(np.ones((3, dimension), np.float32))
        matrix = TokenMatrix.of(np.ones((5, dimension), np.float32))
        assert (matrix.levels == 127).all()
        whole = matrix.levels.astype(np.int64) @ query.levels.astype(np.int64)
        assert 2**23 < whole.max() <= 2**24
        cosines = products(query, [matrix]) * query.scales
        assert cosines == pytest.approx(1.0, abs=1e-6)


@settings(deadline=None)
@given(SEEDS, TOKENS, DIMENSIONS)
def test_a_query_is_rounded_more_finely_than_a_document(
    seed: int, tokens: int, dimension: int
) -> None:
    rows = vectors(seed, tokens, dimension)
    query = QueryMatrix.of(rows)
    kept = query.levels.T * query.scales[:, np.newaxis]
    assert kept == pytest.approx(unit(rows), abs=1e-3)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    rows = vectors(1, 3, 16)
    rows[1, 5] = number
    for make in (TokenMatrix.of, QueryMatrix.of):
        with pytest.raises(NonFiniteScore):
            make(rows)


def test_zeros_are_like_nothing() -> None:
    rows = np.zeros((2, 16), np.float32)
    matrix = TokenMatrix.of(rows)
    assert not matrix.levels.any()
    assert not products(QueryMatrix.of(vectors(1, 3, 16)), [matrix]).any()
    assert not (products(QueryMatrix.of(rows), [TokenMatrix.of(vectors(1, 3, 16))])).any()


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.lists(TOKENS, min_size=1, max_size=30), TOKENS, st.sampled_from([0.0, 0.5]))
def test_no_bit_of_a_score_depends_on_the_others(
    seed: int, lengths: list[int], query_tokens: int, cosine_weight: float
) -> None:
    maxsim = MaxSim(SPECIAL_TOKENS, cosine_weight=cosine_weight)
    query = maxsim.encode_query(0, vectors(seed, query_tokens + 2, 384))
    matrices = [
        maxsim.encode_document(vectors(seed + number, tokens + 2, 384))
        for number, tokens in enumerate(lengths)
    ]
    alone = [maxsim.scores(query, [matrix])[0] for matrix in matrices]
    assert maxsim.scores(query, matrices) == alone
    assert maxsim.scores(query, matrices[::-1]) == alone[::-1]
    with threadpool_limits(1, user_api="blas"):
        assert maxsim.scores(query, matrices) == alone


def test_more_than_is_multiplied_at_once_gives_the_same() -> None:
    maxsim = MaxSim(SPECIAL_TOKENS)
    query = maxsim.encode_query(0, vectors(1, 128, 16))
    matrices = [maxsim.encode_document(vectors(seed, 250, 16)) for seed in range(300)]
    alone = [maxsim.scores(query, [matrix])[0] for matrix in matrices]
    assert maxsim.scores(query, matrices) == alone


def test_no_documents_have_no_scores() -> None:
    maxsim = MaxSim(SPECIAL_TOKENS, cosine_weight=0.5)
    assert maxsim.scores(maxsim.encode_query(0, vectors(1, 4, 16)), []) == []
