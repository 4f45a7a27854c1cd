"""What is wrong with a request's fields, as servers made with FastAPI tell it."""

from __future__ import annotations

import re

from msgspec import Struct

from rerank_sidecar.errors import MalformedBody, RequestError


class FieldFault(Struct, frozen=True):
    """What is wrong with one field; `loc` is its path, such as `["body", "documents", 3]`."""

    type: str
    loc: list[str | int]
    msg: str


def field_faults(error: RequestError) -> list[FieldFault]:
    """Tell an error about a field; one about the whole body has the path `["body"]`."""
    kind = "json_invalid" if isinstance(error, MalformedBody) else "value_error"
    return [FieldFault(kind, ["body", *_path(error.field or "")], error.message)]


def _path(field: str) -> list[str | int]:
    steps = re.findall(r"[^.\[\]]+", field)
    return [int(step) if step.isdecimal() else step for step in steps]
