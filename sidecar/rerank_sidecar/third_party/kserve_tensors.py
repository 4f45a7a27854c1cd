"""Numbers that a KServe v2 server answers, out of its JSON and out of its messages.

Over gRPC a message has its tensors either all in `contents` or all in `raw_output_contents`; raw
numbers are little-endian. Over HTTP the elements may be nested as the shape is, or flat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from rerank_sidecar.third_party import kserve_pb2 as kserve

Numbers = npt.NDArray[np.float64]

_RAW: Mapping[str, str] = MappingProxyType(
    {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8"}
)
_CONTENTS: Mapping[str, str] = MappingProxyType(
    {
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
    }
)


def numbers_of_json(answer: object, name: str) -> Numbers:
    """Give the elements of an output in row-major order; what JSON cannot write is NaN.

    Raises:
        ValueError: there is no such output, or it does not hold as many numbers as its shape says.
    """
    outputs = answer.get("outputs") if isinstance(answer, dict) else None
    for each in outputs if isinstance(outputs, list) else []:
        if isinstance(each, dict) and each.get("name") == name:
            return _checked(each.get("data"), each.get("shape"))
    raise ValueError(f"there is no output `{name}`")


def numbers_of_message(answer: kserve.ModelInferResponse, name: str) -> Numbers:
    """Give the elements of an output in row-major order.

    Raises:
        ValueError: there is no such output, its type is none of numbers, or it does not hold as
            many as its shape says.
    """
    for place, output in enumerate(answer.outputs):
        if output.name == name:
            return _checked(_elements(answer, place), list(output.shape))
    raise ValueError(f"there is no output `{name}`")


def _elements(answer: kserve.ModelInferResponse, place: int) -> object:
    output, raw = answer.outputs[place], answer.raw_output_contents
    if output.datatype not in _RAW:
        raise ValueError("an output is not of a type of numbers")
    if not raw:
        field = _CONTENTS.get(output.datatype)
        return [] if field is None else list(getattr(output.contents, field))
    if place >= len(raw):
        raise ValueError("an output has no contents")
    return np.frombuffer(raw[place], _RAW[output.datatype])


def _checked(data: object, shape: object) -> Numbers:
    try:
        numbers = np.asarray(data, np.float64).reshape(-1)
    except (TypeError, OverflowError):
        raise ValueError("an output holds what is no number") from None
    if not isinstance(shape, list) or not all(isinstance(each, int) for each in shape):
        raise ValueError("an output has no shape")
    if len(numbers) != math.prod(shape):
        raise ValueError("an output does not hold as many numbers as its shape says")
    return numbers


def text_input(name: str, texts: Sequence[str]) -> dict[str, object]:
    """Write a tensor of strings, [n, 1], as JSON has it."""
    return {"name": name, "shape": [len(texts), 1], "datatype": "BYTES", "data": list(texts)}


def text_message(name: str, texts: Sequence[str]) -> kserve.ModelInferRequest.InferInputTensor:
    """Write a tensor of strings, [n, 1], as a message has it."""
    contents = kserve.InferTensorContents(bytes_contents=[text.encode() for text in texts])
    return kserve.ModelInferRequest.InferInputTensor(
        name=name, datatype="BYTES", shape=[len(texts), 1], contents=contents
    )


def token_input(name: str, tokens: npt.NDArray[np.int64]) -> dict[str, object]:
    """Write a tensor of token ids, [n, tokens], as JSON has it."""
    return {
        "name": name,
        "shape": list(tokens.shape),
        "datatype": "INT64",
        "data": tokens.reshape(-1).tolist(),
    }


def token_message(
    name: str, tokens: npt.NDArray[np.int64]
) -> kserve.ModelInferRequest.InferInputTensor:
    """Write the description of a tensor of token ids; its elements go beside it, raw."""
    return kserve.ModelInferRequest.InferInputTensor(
        name=name, datatype="INT64", shape=list(tokens.shape)
    )
