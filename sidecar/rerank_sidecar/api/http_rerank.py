"""The life of one rerank call over HTTP, the same for every dialect."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from rerank_sidecar.api.dialects import Dialect
from rerank_sidecar.api.disconnect import unless_disconnected
from rerank_sidecar.api.http_answer import (
    encoded_response,
    json_response,
    retry_headers,
    server_timing,
    shown,
)
from rerank_sidecar.api.json_body import parse_json, read_body
from rerank_sidecar.api.threads import are_large, in_thread_if, is_large
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import (
    DeadlineExceeded,
    InvalidField,
    RerankError,
    ShuttingDown,
    error_row,
)
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.types import RerankRequest, RerankResult

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
"""How long the caller will wait, in whole milliseconds from the arrival of the request."""


class RerankEndpoint:
    """Answers the calls of one dialect: reads, parses, asks the engine, renders."""

    def __init__(self, dialect: Dialect[Any], engine: Engine, settings: Settings) -> None:
        self._dialect = dialect
        self._engine = engine
        self._settings = settings

    async def answer(self, request: Request) -> Response:
        """Answer one call; whatever goes wrong becomes an error in the dialect's own form."""
        try:
            response = await self._rerank(request)
        except asyncio.CancelledError:
            # Only the server's stop cancels a call: its grace is over, but not the connection.
            return self._refuse(ShuttingDown("the server is shutting down"))
        except Exception as error:  # noqa: BLE001 - a door never answers with less than an error
            return self._refuse(shown(error))
        self._count("OK")
        return response

    async def _rerank(self, request: Request) -> Response:
        message, asked = await self._read(request)
        result = await unless_disconnected(request.receive, self._engine.rerank(asked))
        large = are_large(asked.documents)
        content = await in_thread_if(large, self._encode, message, result)
        return encoded_response(200, content, server_timing(result.summary.timing))

    async def _read(self, request: Request) -> tuple[Any, RerankRequest]:
        timeout_s = _timeout_s(request.headers, self._settings)
        deadline = time.monotonic() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                body = await read_body(request, self._settings.max_body_bytes)
        except TimeoutError as error:
            raise DeadlineExceeded("the body did not arrive in time") from error
        large = is_large(0, len(body))
        message, asked = await in_thread_if(large, self._parse, request.scope["path"], body)
        left = replace(asked.options, timeout_s=deadline - time.monotonic())
        return message, replace(asked, options=left)

    def _encode(self, message: Any, result: RerankResult) -> bytes:  # noqa: ANN401
        return msgspec.json.encode(self._dialect.render(message, result))

    def _parse(self, path: str, body: bytes) -> tuple[Any, RerankRequest]:
        message = parse_json(body, self._dialect.message_type)
        return message, self._dialect.parse(path, message)

    def _refuse(self, error: RerankError) -> Response:
        self._count(error_row(error).reason)
        status, body = self._dialect.render_error(error)
        return json_response(status, body, retry_headers(error))

    def _count(self, outcome: str) -> None:
        metrics.REQUESTS.labels(door=self._dialect.name, outcome=outcome).inc()


def _timeout_s(headers: Headers, settings: Settings) -> float:
    given = headers.get(TIMEOUT_HEADER)
    if given is None:
        return settings.request_timeout_s
    if not re.fullmatch("0*[1-9][0-9]{0,9}", given):
        raise InvalidField(
            f"{TIMEOUT_HEADER} must be a positive whole number of milliseconds", TIMEOUT_HEADER
        )
    return int(given) / 1000
