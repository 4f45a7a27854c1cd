"""Answers over HTTP: always JSON, errors by the one table, what was not foreseen kept hidden."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from rerank_sidecar.api.dialects import Dialect
from rerank_sidecar.api.dialects.fields import renamed
from rerank_sidecar.errors import RerankError, Unavailable, as_rerank_error, error_row
from rerank_sidecar.telemetry.crashes import log_crash
from rerank_sidecar.types import RerankResult, Timing

FAILED_HEADER = "X-Rerank-Failed-Documents"
"""Which documents failed alone, by index, and why; the first hundred of them."""

FALLBACK_HEADER = "X-Rerank-Fallback-For"
"""The model that should have answered, where another did in its place."""

_MOST_NAMED = 100

_CHALLENGE = {"WWW-Authenticate": "Bearer"}

_LOG = logging.getLogger(__name__)


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """Encode a body and wrap it up."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def refusal(dialect: Dialect[Any], error: RerankError) -> Response:
    """Tell an error in a dialect's own form."""
    status, body = dialect.render_error(renamed(error, dialect.field_names))
    headers = retry_headers(error) | _CHALLENGE if status == 401 else retry_headers(error)
    if body is None:
        return Response(status_code=status, headers=headers)
    return json_response(status, body, headers)


def failed_documents(result: RerankResult) -> dict[str, str]:
    """Give the header that names the documents that failed alone, in every dialect."""
    failed = [
        f"{each.index};reason={error_row(each.error).reason}"
        for each in result.results
        if each.error is not None
    ]
    return {FAILED_HEADER: ", ".join(failed[:_MOST_NAMED])} if failed else {}


def fallback(result: RerankResult) -> dict[str, str]:
    """Give the header that names the model in whose place another answered, in every dialect."""
    name = result.summary.fallback_for
    # A name is what an operator wrote, and a header holds Latin-1 alone.
    return {} if name is None else {FALLBACK_HEADER: quote(name, safe="/:@#")}


def server_timing(timing: Timing) -> dict[str, str]:
    """Give the header that tells, in milliseconds, where a request's time went (W3C)."""
    stages = {
        "queue": timing.queue_us,
        "tokenise": timing.tokenise_us,
        "infer": timing.infer_us,
        "total": timing.total_us,
    }
    told = (f"{name};dur={spent_us / 1000}" for name, spent_us in stages.items())
    return {"Server-Timing": ", ".join(told)}


def retry_headers(error: RerankError) -> dict[str, str]:
    """Give the Retry-After header, in whole seconds, of an error that may soon be over."""
    if isinstance(error, Unavailable):
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    return {}


def shown(error: Exception) -> RerankError:
    """Give the error that the caller may see; log where the fault is if it is one of ours."""
    if not isinstance(error, RerankError):
        log_crash(_LOG, "a call over HTTP", error)
    return as_rerank_error(error)
