"""How requests and answers travel over HTTP: between the clients' values and native JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import grpc
from google.protobuf import json_format

from rerank_adapters.errors import (
    ERRORS,
    BodyTooLarge,
    InvalidField,
    Overloaded,
    RequestError,
    RerankCallError,
    RouteNotFound,
    ServerFault,
    Unauthenticated,
    Unreachable,
)
from rerank_adapters.messages import (
    Document,
    DocumentError,
    Model,
    RerankOptions,
    RerankResponse,
    RerankResult,
    Timing,
    Usage,
    Window,
)
from rerank_adapters.transport.wire import build_options, check_text
from rerank_adapters.vectors import Vectors, packed

_Code = grpc.StatusCode

# What reading JSON of another form comes to.
_NOT_IN_FORM = (ValueError, TypeError, LookupError, AttributeError)

# What a proxy in between may answer, or a server newer than this client.
_BY_STATUS: Mapping[int, tuple[type[RerankCallError], grpc.StatusCode]] = {
    401: (Unauthenticated, _Code.UNAUTHENTICATED),
    403: (Unauthenticated, _Code.PERMISSION_DENIED),
    404: (RouteNotFound, _Code.UNIMPLEMENTED),
    405: (RouteNotFound, _Code.UNIMPLEMENTED),
    413: (BodyTooLarge, _Code.RESOURCE_EXHAUSTED),
    429: (Overloaded, _Code.RESOURCE_EXHAUSTED),
    502: (Unreachable, _Code.UNAVAILABLE),
    503: (Unreachable, _Code.UNAVAILABLE),
    504: (Unreachable, _Code.UNAVAILABLE),
}


def write_request(query: str, documents: Sequence[str | Document], options: RerankOptions) -> bytes:
    """Write a request.

    Raises:
        TypeError: an argument is unknown or of the wrong type.
        ValueError: an option has a value that the contract does not know, or a text is none.
        InvalidField: a number of a vector is not finite, which JSON cannot say.
    """
    body: dict[str, object] = {
        "query": check_text(query, "query"),
        "documents": [_write_document(*each) for each in enumerate(documents)],
        "options": json_format.MessageToDict(
            build_options(options), preserving_proto_field_name=True
        ),
    }
    if (query_vectors := packed(options.get("query_vectors"))) is not None:
        body["query_vectors"] = _write_vectors(query_vectors, "query_vectors")
    text = json.dumps(body, ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("documents: one has half of a surrogate pair") from None


def read_response(body: bytes) -> RerankResponse:
    """Read an answer.

    Raises:
        ServerFault: it is none.
    """
    try:
        answer = json.loads(body)
        return _read_answer(answer["summary"], answer["results"])
    except _NOT_IN_FORM as error:
        raise _not_understood() from error


def read_models(body: bytes) -> tuple[Model, ...]:
    """Read the list of models, the default first.

    Raises:
        ServerFault: it is none.
    """
    try:
        return tuple(_read_model(each) for each in json.loads(body)["models"])
    except _NOT_IN_FORM as error:
        raise _not_understood() from error


def read_error(status: int, retry_after: str | None, body: bytes) -> RerankCallError:
    """Read why a call failed; if that is not in the sidecar's form, something else answered."""
    try:
        error = json.loads(body)["error"]
        reason, message = str(error["reason"]), str(error["message"])
        kind, code = ERRORS.get(reason, _by_status(status))
        return kind(code, reason, message, error.get("field"), error.get("retry_after_s"))
    except _NOT_IN_FORM:
        kind, code = _by_status(status)
        hint = (retry_after or "").strip()
        wait_s = float(hint) if hint.isdecimal() else None
        return kind(code, None, f"HTTP status {status}", None, wait_s)


def _by_status(status: int) -> tuple[type[RerankCallError], grpc.StatusCode]:
    is_the_callers = 400 <= status < 500
    usual = (
        (RequestError, _Code.INVALID_ARGUMENT) if is_the_callers else (ServerFault, _Code.UNKNOWN)
    )
    return _BY_STATUS.get(status, usual)


def _write_document(index: int, document: str | Document) -> str | dict[str, object]:
    if isinstance(document, str):
        return document
    written: dict[str, object] = {"text": document.text, "id": document.id}
    if (vectors := packed(document.vectors)) is not None:
        written["vectors"] = _write_vectors(vectors, f"documents[{index}].vectors")
    return written


def _write_vectors(vectors: Vectors, field: str) -> list[list[float]]:
    rows = vectors.rows()
    if not all(map(math.isfinite, chain.from_iterable(rows))):
        message = f"{field}: every number must be finite"
        raise InvalidField(_Code.INVALID_ARGUMENT, "INVALID_FIELD", message, field)
    return rows


def _read_answer(summary: Any, results: Any) -> RerankResponse:  # noqa: ANN401 - JSON
    usage, timing = summary["usage"], summary["timing"]
    return RerankResponse(
        results=tuple(_read_result(each) for each in results),
        model=summary["model"]["name"],
        model_version=summary["model"]["version"],
        score_kind=summary["score_kind"],
        normalization=summary["normalization"],
        query_truncated=summary["query_truncated"],
        usage=Usage(
            usage["tokens"], usage["pairs"], usage["cache_hits"], usage.get("remote_calls", 0)
        ),
        timing=Timing(
            queue_us=timing["queue_us"],
            tokenise_us=timing["tokenise_us"],
            infer_us=timing["infer_us"],
            total_us=timing["total_us"],
        ),
        fallback_for=summary.get("fallback_for"),
    )


def _read_result(result: Any) -> RerankResult:  # noqa: ANN401 - JSON
    score, error, document = result.get("score"), result.get("error"), result.get("document")
    window = score.get("best_window") if score else None
    return RerankResult(
        index=result["index"],
        id=result.get("id"),
        score=score["value"] if score else None,
        error=DocumentError(error["reason"], error["message"]) if error else None,
        best_window=Window(window["start"], window["end"]) if window else None,
        truncated=score["truncated"] if score else False,
        window_count=score["window_count"] if score else 0,
        document=Document(document["text"], document.get("id")) if document else None,
    )


def _read_model(model: Any) -> Model:  # noqa: ANN401 - JSON
    return Model(
        name=model["model"]["name"],
        version=model["model"]["version"],
        family=model["family"],
        score_kind=model["score_kind"] or "UNSPECIFIED",
        max_tokens=model["max_tokens"],
        comparable_across_requests=model["comparable_across_requests"],
        is_default=model["is_default"],
        default_long_document_policy=model["default_long_document_policy"] or "unspecified",
        aliases=tuple(model["aliases"]),
        is_loaded=model["is_loaded"],
        vector_dimension=model.get("vector_dimension"),
    )


def _not_understood() -> ServerFault:
    return ServerFault(_Code.UNKNOWN, None, "the answer is not one of a sidecar's")
