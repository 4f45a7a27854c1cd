"""The life of one rerank call over HTTP, the same for every door and dialect."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rerank_sidecar.api.auth import Guard
from rerank_sidecar.api.dialects import Dialect
from rerank_sidecar.api.dialects.base import Headers
from rerank_sidecar.api.disconnect import unless_disconnected
from rerank_sidecar.api.doors import Door
from rerank_sidecar.api.http_answer import failed_documents, fallback, refusal, server_timing, shown
from rerank_sidecar.api.json_body import read_body
from rerank_sidecar.api.threads import are_large, in_thread_if, is_large
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.pairs import rerank_pairs
from rerank_sidecar.errors import (
    DeadlineExceeded,
    InvalidField,
    LimitExceeded,
    RerankError,
    ShuttingDown,
    error_row,
)
from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.types import PairRequest, RerankRequest, RerankResult

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
"""How long the caller will wait, in whole milliseconds from the arrival of the request."""
_SHORT_LIST = 64


class RerankEndpoint:
    """Answers the calls of one `door`: lets in, reads, parses, asks the engine, renders."""

    def __init__(self, door: Door, engine: Engine, settings: Settings, guard: Guard) -> None:
        self.door = door
        self._engine = engine
        self._settings = settings
        self._guard = guard

    async def answer(self, request: Request) -> Response:
        """Answer one call; whatever goes wrong becomes an error in the dialect's own form."""
        call = _Call(self.door.dialects[0])
        try:
            response = await self._rerank(request, call)
        except asyncio.CancelledError:
            # Only the server's stop cancels a call: its grace is over, but not the connection.
            return call.refuse(ShuttingDown("the server is shutting down"))
        except Exception as error:  # noqa: BLE001 - a door never answers with less than an error
            return call.refuse(shown(error))
        call.count("OK")
        return response

    async def _rerank(self, request: Request, call: _Call) -> Response:
        self._guard.check(request.headers, self.door.key_headers)
        asked = await self._read(request, call)
        result = await unless_disconnected(request.receive, self._answers(asked))
        large = are_large(asked.documents)
        content, headers = await in_thread_if(large, call.encode, result)
        return Response(content, 200, {**headers, **server_timing(result.summary.timing)})

    async def _answers(self, asked: RerankRequest | PairRequest) -> RerankResult:
        if isinstance(asked, PairRequest):
            return await rerank_pairs(self._engine, asked)
        return await self._engine.rerank(asked)

    async def _read(self, request: Request, call: _Call) -> RerankRequest | PairRequest:
        began = time.monotonic()
        timeout_s = _timeout_s(request.headers, self._settings)
        try:
            async with asyncio.timeout(timeout_s):
                body = await read_body(request, self._settings.max_body_bytes)
        except TimeoutError as error:
            raise DeadlineExceeded("the body did not arrive in time") from error
        large = is_large(0, len(body))
        asked = await in_thread_if(large, self._parse, body, request.headers, call)
        options = asked.options
        if options.timeout_s is not None:
            timeout_s = min(timeout_s, options.timeout_s)
        return replace(
            asked,
            options=replace(
                options,
                model=request.path_params.get("model", options.model),
                timeout_s=began + timeout_s - time.monotonic(),
            ),
        )

    def _parse(self, body: bytes, headers: Headers, call: _Call) -> RerankRequest | PairRequest:
        call.dialect = self.door.dialect_of(body, headers)
        call.message = call.dialect.decode(body, headers)
        _check_lists(call.message, self._engine.most_documents)
        return call.dialect.parse(call.message)


class _Call:
    """One call: who is speaking, as far as that is known, and what was sent."""

    def __init__(self, dialect: Dialect[Any]) -> None:
        self.dialect = dialect
        self.message: Any = None

    def encode(self, result: RerankResult) -> tuple[bytes, dict[str, str]]:
        dialect, message = self.dialect, self.message
        content, headers = dialect.encode(message, dialect.render(message, result))
        flags = {**failed_documents(result), **fallback(result)}
        return content, {**headers, **dialect.headers(result), **flags}

    def refuse(self, error: RerankError) -> Response:
        self.count(error_row(error).reason)
        return refusal(self.dialect, error)

    def count(self, outcome: str) -> None:
        metrics.REQUESTS.labels(door=self.dialect.name, outcome=outcome).inc()


def _check_lists(message: msgspec.Struct, most: int) -> None:
    # Before they are translated one by one: a body can hold ten million of them. Short lists pass,
    # as they may name tensors or fields; documents are counted again by the engine.
    most = max(most, _SHORT_LIST)
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, list) and len(value) > most:
            raise LimitExceeded(f"{name}: more than {most}", name)


def _timeout_s(headers: Headers, settings: Settings) -> float:
    given = headers.get(TIMEOUT_HEADER)
    if given is None:
        return settings.request_timeout_s
    if not re.fullmatch("0*[1-9][0-9]{0,9}", given):
        raise InvalidField(
            f"{TIMEOUT_HEADER} must be a positive whole number of milliseconds", TIMEOUT_HEADER
        )
    return int(given) / 1000
