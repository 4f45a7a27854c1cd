"""Vectors in the form in which they travel: whatever they are given as, and as float32."""

import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pgvector import HalfVector, Vector

from rerank_adapters import Document, Rerank, Vectors

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = st.integers(1, 5).flatmap(
    lambda dimension: st.lists(
        st.lists(FLOAT32, min_size=dimension, max_size=dimension), min_size=1, max_size=5
    )
)


@given(MATRICES)
def test_numbers_of_32_bits_come_back_as_they_were(rows: list[list[float]]) -> None:
    vectors = Vectors.of(rows)
    assert vectors.rows() == rows
    assert (len(vectors), vectors.dimension) == (len(rows), len(rows[0]))
    assert np.frombuffer(vectors.values, "<f4").tolist() == [each for row in rows for each in row]


@given(st.lists(st.floats(-1e38, 1e38), min_size=1))
def test_finer_numbers_become_the_nearest_of_32_bits(numbers: list[float]) -> None:
    assert Vectors.of(numbers).rows() == [np.asarray(numbers, np.float32).tolist()]


@given(
    arrays.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<i8", "|u1"]),
        arrays.array_shapes(min_dims=1, max_dims=2, max_side=6),
        elements={"min_value": 0, "max_value": 100},
    ),
    st.booleans(),
)
def test_an_array_of_any_kind_and_layout_is_its_numbers(given: Any, is_turned: bool) -> None:
    turned = given.T[..., ::-1] if is_turned else given
    expected = np.atleast_2d(turned).astype(np.float32)
    assert Vectors.of(turned).rows() == expected.tolist()
    assert Vectors.of([*turned]) == Vectors.of(turned)


@pytest.mark.parametrize(
    "given",
    [
        [1, 2.0],
        [[1, 2.0]],
        ((1, 2.0),),
        array.array("f", [1, 2]),
        array.array("d", [1, 2]),
        memoryview(array.array("f", [1, 2])),
        Vector([1, 2]),
        [HalfVector([1, 2])],
        [np.float32(1), np.int64(2)],
        Vectors.of([1, 2]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_one_vector_in_every_form(given: Any) -> None:
    assert Vectors.of(given).rows() == [[1, 2]]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("a secret", TypeError),
        (b"a secret", TypeError),
        (17, TypeError),
        (np.float32(17), TypeError),
        ({17: 1.0}, TypeError),
        (["a secret"], TypeError),
        ([["a secret"]], TypeError),
        ([[None, 17]], TypeError),
        ([[1.0], 17], TypeError),
        ([[[17.0]]], TypeError),
        (np.ones((1, 1, 17), np.float32), TypeError),
        ([], ValueError),
        ([[]], ValueError),
        (np.ones((0, 17), np.float32), ValueError),
        ([[1.0], [1.0, 17.0]], ValueError),
        ([1.7e39], ValueError),
        (np.asarray([1.7e39]), ValueError),
    ],
    ids=str,
)
def test_what_is_no_vectors_is_refused_and_not_shown(given: Any, error: type[Exception]) -> None:
    for make in (Vectors.of, lambda each: Document("", vectors=each)):
        with pytest.raises(error, match=r"^vectors: ") as caught:
            make(given)
        assert "secret" not in str(caught.value)
        assert "17" not in str(caught.value)


def test_a_document_packs_its_vectors_and_can_be_compared() -> None:
    one, other = Document("", vectors=np.ones((2, 3))), Document("", vectors=[[1.0] * 3] * 2)
    assert one == other
    assert hash(one) == hash(other)
    assert one != Document("", vectors=[[2.0] * 3] * 2)
    assert one.vectors == Vectors.of([[1.0] * 3] * 2)
    assert "\\x" not in repr(one)


def test_a_rerank_packs_the_querys_vectors_and_can_be_compared() -> None:
    one = Rerank(vectors="colbert", query_vectors=np.ones((1, 2)))
    assert one == Rerank(vectors="colbert", query_vectors=[1.0, 1.0])
    assert one.query_text() == ""
    assert Rerank("body", "red", query_vectors=[1.0]).query_text() == "red"
