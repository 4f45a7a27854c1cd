"""Tensors as bytes: what was written is read again, what does not fit is named."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.api.tensors import FP32, INT32, NumberTensor, read_raw_texts
from rerank_sidecar.errors import InvalidField

TEXTS = st.lists(st.text())


def raw(texts: list[str]) -> bytes:
    elements = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


@given(texts=TEXTS)
def test_texts_are_read_from_bytes(texts: list[str]) -> None:
    assert read_raw_texts(raw(texts), "inputs[0]") == texts


@given(texts=TEXTS, cut=st.integers(1, 20))
def test_bytes_that_end_too_early_are_refused(texts: list[str], cut: int) -> None:
    kept = raw(texts)[:-cut]
    ends = [len(raw(texts[:count])) for count in range(len(texts) + 1)]
    if len(kept) in ends:  # whole elements were cut off
        assert read_raw_texts(kept, "inputs[0]") == texts[: ends.index(len(kept))]
        return
    with pytest.raises(InvalidField, match="inside an element"):
        read_raw_texts(kept, "inputs[0]")


@given(data=st.binary())
def test_any_bytes_are_texts_or_named_as_none(data: bytes) -> None:
    try:
        texts = read_raw_texts(data, "inputs[3]")
    except InvalidField as error:
        assert error.field == "inputs[3]"
        assert error.message.startswith("inputs[3]: ")
    else:
        assert raw(texts) == data


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_finite_numbers_stay_finite(values: list[float]) -> None:
    written = np.frombuffer(NumberTensor.of("score", FP32, [len(values)], values).raw, "<f4")
    assert np.isfinite(written).all()
    limits = np.finfo(np.float32)
    assert written == pytest.approx(np.clip(values, limits.min, limits.max), rel=1e-6)


@given(values=st.lists(st.integers(0, 2**31 - 1)))
def test_whole_numbers_are_exact(values: list[int]) -> None:
    written = NumberTensor.of("index", INT32, [len(values)], values)
    assert np.frombuffer(written.raw, "<i4").tolist() == values
    assert written.values.tolist() == values
