"""Tensors of the Open Inference Protocol (KServe v2): their elements as bytes and as values.

A tensor of strings (BYTES) is written as the length of each element in four bytes, little-endian,
and then the element; numbers are little-endian, in row-major order. Both are what the binary
tensor extension calls its format, over HTTP and in `raw_input_contents` over gRPC.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import InvalidField

BYTES = "BYTES"
FP32 = "FP32"
INT32 = "INT32"

_LENGTH = struct.Struct("<I")
_MOST = float(np.finfo(np.float32).max)
_DTYPES: Mapping[str, str] = MappingProxyType({FP32: "<f4", INT32: "<i4"})


@dataclass(frozen=True, slots=True)
class TextTensor:
    """Texts that a client sent, in row-major order; `field` is where in its message."""

    name: str
    shape: tuple[int, ...]
    texts: Sequence[str]
    field: str


@dataclass(frozen=True, slots=True)
class NumberTensor:
    """Numbers that a client is answered, one for each row; FP32 or INT32."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: npt.NDArray[Any]

    @classmethod
    def of(
        cls, name: str, datatype: str, shape: Sequence[int], values: Sequence[float]
    ) -> NumberTensor:
        """Round numbers to the type; what is finite stays so."""
        numbers = np.clip(np.asarray(values, np.float64), -_MOST, _MOST)
        return cls(name, datatype, tuple(shape), numbers.astype(_DTYPES[datatype]))

    @property
    def raw(self) -> bytes:
        """Write the numbers as bytes."""
        return self.values.tobytes()


def as_fp32(value: float) -> float:
    """Keep a finite number within what a float of four bytes holds."""
    return min(max(value, -_MOST), _MOST)


def check_text_tensor(datatype: str, shape: Sequence[int], count: int, field: str) -> None:
    """Make sure that a tensor is one of strings, [n] or [n, 1], and has as many as it says.

    Raises:
        InvalidField: it is not.
    """
    if datatype != BYTES:
        raise InvalidField(f"{field}.datatype: must be BYTES", f"{field}.datatype")
    if list(shape[1:]) not in ([], [1]) or not shape or shape[0] < 0:
        raise InvalidField(f"{field}.shape: must be [n] or [n, 1]", f"{field}.shape")
    if shape[0] != count:
        raise InvalidField(
            f"{field}.shape: tells of {shape[0]} elements, there are {count}", f"{field}.shape"
        )


def read_raw_texts(raw: bytes, field: str) -> list[str]:
    """Read the elements of a tensor of strings from bytes.

    Raises:
        InvalidField: a length does not fit, or an element is not UTF-8.
    """
    elements, place, view = [], 0, memoryview(raw)
    while place < len(raw):
        begin = place + _LENGTH.size
        if begin > len(raw):
            raise _malformed(field)
        [length] = _LENGTH.unpack_from(raw, place)
        place = begin + length
        if place > len(raw):
            raise _malformed(field)
        elements.append(view[begin:place])
    return read_texts(elements, field)


def read_texts(elements: Iterable[bytes | memoryview], field: str) -> list[str]:
    """Read elements that are UTF-8.

    Raises:
        InvalidField: one is not.
    """
    try:
        return [str(each, "utf-8") for each in elements]
    except UnicodeDecodeError:
        raise InvalidField(f"{field}: has an element that is not UTF-8", field) from None


def _malformed(field: str) -> InvalidField:
    return InvalidField(f"{field}: its bytes end inside an element", field)
