"""JSON bodies: read in pieces up to a limit, parsed strictly into typed messages."""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from rerank_sidecar.api.inflate import inflated
from rerank_sidecar.errors import BodyTooLarge, Cancelled, InvalidField, MalformedBody, RequestError
from rerank_sidecar.json_text import UnreadableJson, read_json

M = TypeVar("M")

_PROBLEM = re.compile(r"(?s)(?P<problem>.*?)(?: - at `\$\.?(?P<place>.*)`)?")
_MISSING_OR_UNKNOWN = re.compile(r"Object (?P<what>.+) field `(?P<name>.*)`", re.DOTALL)
_JSON_NAMES = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"}


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read a whole body and inflate it, never holding more than the limit and one piece of it.

    Raises:
        BodyTooLarge: it is, or says that it is, longer than the limit, inflated or not.
        MalformedBody: it is not in the encoding that it says, or in one that is not read.
        Cancelled: the caller went away before its end.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    pieces = []
    encoding = ",".join(request.headers.getlist("content-encoding"))
    sent = _limited(request.stream(), limit_bytes)
    try:
        async for piece in _limited(inflated(sent, encoding), limit_bytes):
            pieces.append(piece)
    except ClientDisconnect as error:
        raise Cancelled("the caller went away") from error
    return b"".join(pieces)


def parse_json(body: bytes, message_type: type[M]) -> M:
    """Turn a body into a typed message; lone surrogates in its strings become U+FFFD.

    Messages of errors name fields and positions, never what a field contained.

    Raises:
        InvalidField: a field is missing or of the wrong type.
        MalformedBody: the body is not a JSON object in UTF-8, is nested too deeply, or has a field
            that a strict message type does not know.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        return _parse(body, message_type)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except UnreadableJson as error:
        raise MalformedBody(f"the body {error}") from None
    except UnicodeDecodeError:
        raise MalformedBody("the body is not valid UTF-8") from None
    except RecursionError:
        raise MalformedBody("the body is nested too deeply") from None


def _parse(body: bytes, message_type: type[M]) -> M:
    try:
        return msgspec.json.decode(body, type=message_type)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # The fast parser refuses escaped lone surrogates; see `json_text`.
        return msgspec.convert(read_json(body.decode()), type=message_type)


def _explain(message: str) -> RequestError:
    match = _PROBLEM.fullmatch(message)
    problem, place = (match["problem"], match["place"] or "") if match else (message, "")
    about_field = _MISSING_OR_UNKNOWN.fullmatch(problem)
    if about_field:
        field = f"{place}.{about_field['name']}".removeprefix(".")
        if "missing" in about_field["what"]:
            return InvalidField(f"{field}: missing", field)
        return MalformedBody(f"{field}: no such field", field)
    problem = _in_json_words(problem)
    if not place:
        return MalformedBody(f"body: {problem}")
    return InvalidField(f"{place}: {problem}", place)


def _in_json_words(problem: str) -> str:
    words = re.sub(r"\w+", lambda word: _JSON_NAMES.get(word[0], word[0]), problem)
    return words[:1].lower() + words[1:].replace("`", "").replace(" | ", " or ")


async def _limited(pieces: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        yield piece


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is over {limit_bytes} bytes")
