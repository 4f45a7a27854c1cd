"""Answers over HTTP: always JSON, errors by the one table, what was not foreseen kept hidden."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from rerank_sidecar.errors import RerankError, Unavailable, as_rerank_error
from rerank_sidecar.telemetry.crashes import log_crash
from rerank_sidecar.types import Timing

_LOG = logging.getLogger(__name__)


def json_response(status: int, body: object, headers: Mapping[str, str] | None = None) -> Response:
    """Encode a body and wrap it up."""
    return encoded_response(status, msgspec.json.encode(body), headers)


def encoded_response(
    status: int, content: bytes, headers: Mapping[str, str] | None = None
) -> Response:
    """Wrap up a body that is JSON already."""
    return Response(content, status, headers, "application/json")


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
