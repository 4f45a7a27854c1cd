"""What several dialects do alike: texts of documents, loose booleans, places of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from rerank_sidecar.errors import (
    InvalidField,
    LimitExceeded,
    MalformedBody,
    RequestError,
    RerankError,
    error_row,
)
from rerank_sidecar.score_kinds import ScoreKind, floor
from rerank_sidecar.types import Document, Normalization, RerankResult

UNPROCESSABLE: Mapping[type[RerankError], int] = MappingProxyType(
    {InvalidField: 422, MalformedBody: 422}
)
"""The status that FastAPI gives to a body which is not what it reads."""

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off", ""})


class TokenUsage(msgspec.Struct, frozen=True):
    """What a call cost, in tokens; a reranker writes none, so that both numbers are the same."""

    prompt_tokens: int
    total_tokens: int


class DetailError(msgspec.Struct, frozen=True):
    """Why a call failed, as services that are built on FastAPI say it."""

    detail: str


def detail_error(
    error: RerankError, statuses: Mapping[type[RerankError], int]
) -> tuple[int, DetailError]:
    """Say an error as `detail`, with one of these statuses or that of the error table."""
    status = statuses.get(type(error), error_row(error).http_status)
    return status, DetailError(error.message)


@dataclass(frozen=True, slots=True)
class Placed:
    """A document's place in an answer; one that failed alone has the worst score of all."""

    index: int
    score: float
    error: RerankError | None = None


def placed(result: RerankResult, top_n: int | None = None) -> list[Placed]:
    """Put every document in its place, best first, for clients that know no failed documents.

    Those that failed alone come last, at the floor of the scale, so that none is lost.

    Raises:
        RerankError: the error of the first document, if all of them failed.
    """
    lowest = _lowest(result)
    places = [
        Placed(each.index, lowest if each.score is None else each.score.value, each.error)
        for each in result.results
    ]
    first = min(places, key=lambda each: each.index, default=None)
    if first is not None and first.error is not None and all(each.error for each in places):
        raise first.error
    return places if top_n is None else places[:top_n]


def token_usage(result: RerankResult) -> TokenUsage:
    """Tell what a call cost."""
    tokens = result.summary.usage.tokens
    return TokenUsage(tokens, tokens)


def as_bool(given: bool | str | None, field: str, default: bool = False) -> bool:
    """Understand a boolean that may have been sent as a string.

    Raises:
        InvalidField: the string is neither.
    """
    if given is None or isinstance(given, bool):
        return default if given is None else given
    word = given.strip().lower()
    if word not in _TRUE | _FALSE:
        raise InvalidField(f"{field}: must be true or false", field)
    return word in _TRUE


def positive(value: int | None) -> int | None:
    """Read a count of which zero and less mean that there is no limit."""
    return value if value is not None and value > 0 else None


def text_document(given: str | Mapping[str, Any], field: str) -> Document:
    """Take a document that is a text, or an object with one under `text`.

    Raises:
        InvalidField: it has no text.
    """
    if isinstance(given, str):
        return Document(given)
    text = given.get("text")
    if not isinstance(text, str):
        raise InvalidField(f"{field}.text: expected a string", f"{field}.text")
    return Document(text)


def ranked_document(
    given: str | Mapping[str, Any], field: str, rank_fields: Sequence[str] | None
) -> Document:
    """Take a document that is ranked by some of its fields, or by `text` if none are named.

    Those that it has are read in the order in which they are named, one a line. What is no text
    is read as JSON.

    Raises:
        InvalidField: it has none of the fields.
    """
    if isinstance(given, str) or not rank_fields:
        return text_document(given, field)
    values = [given[name] for name in rank_fields if given.get(name) is not None]
    if not values:
        raise InvalidField(f"{field}: has none of the rank_fields", field)
    return Document("\n".join(map(_line, values)))


def refuse_too_long(result: RerankResult) -> None:
    """Fail a call that forbids cutting and had a document over a limit, as a whole.

    Raises:
        LimitExceeded: the error of the first such document.
    """
    for each in result.results:
        if isinstance(each.error, LimitExceeded):
            raise each.error


def renamed(error: RerankError, names: Mapping[str, str]) -> RerankError:
    """Say an error about a field in the client's words; messages begin with the field's name."""
    if not isinstance(error, RequestError) or error.field is None:
        return error
    for ours, theirs in names.items():
        rest = error.field.removeprefix(ours)
        if rest != error.field and (not rest or rest[0] in ".["):
            message = theirs + error.message.removeprefix(ours)
            begins = error.message.startswith(ours)
            return type(error)(message if begins else error.message, theirs + rest)
    return error


def _line(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _lowest(result: RerankResult) -> float:
    kind, normalization = result.summary.score_kind, result.summary.normalization
    if normalization is Normalization.UNIT:
        return 0.0
    if kind is ScoreKind.RANK:
        last = float(len(result.results))
        return -last if normalization is Normalization.LOGIT else last
    if normalization is Normalization.LOGIT and kind is ScoreKind.PROBABILITY:
        kind = ScoreKind.RAW_LOGIT
    return floor(kind)
