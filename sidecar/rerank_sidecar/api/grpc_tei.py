"""Text Embeddings Inference (TEI, 1.9) over gRPC: `tei.v1.Rerank` and `tei.v1.Info`.

What its messages say means what the same words mean over HTTP, so `TeiDialect` reads and answers
them. Different are `truncate`, which is false unless set, and streams.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc
import msgspec

from rerank_sidecar.api.dialects.tei import TeiDialect, TeiRank, TeiRequest
from rerank_sidecar.api.grpc_errors import Wording, answering
from rerank_sidecar.api.http_answer import failed_documents
from rerank_sidecar.api.http_info import state_of
from rerank_sidecar.api.tensors import as_fp32
from rerank_sidecar.api.threads import in_thread_if, is_large
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.pairs import Part, rerank_parts
from rerank_sidecar.engine.validation import check_count
from rerank_sidecar.errors import (
    BackendFailed,
    BodyTooLarge,
    DeadlineExceeded,
    InvalidField,
    LimitExceeded,
    NonFiniteScore,
)
from rerank_sidecar.third_party import tei_pb2 as tei
from rerank_sidecar.types import RerankRequest, RerankResult

Context = grpc.aio.ServicerContext[Any, Any]

_DIALECT = TeiDialect()

_WORDING = Wording(
    "grpc_tei",
    _DIALECT.field_names,
    {BackendFailed: "FAILED_PRECONDITION", NonFiniteScore: "FAILED_PRECONDITION"},
)

_DIRECTIONS: Mapping[int, str] = {
    tei.TRUNCATION_DIRECTION_RIGHT: "right",
    tei.TRUNCATION_DIRECTION_LEFT: "left",
}

_MOST_UINT32 = 2**32 - 1


class TeiRerankService:
    """Scores texts; what that cost is told in the answer and, as over HTTP, in metadata."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Rerank(self, request: tei.RerankRequest, context: Context) -> tei.RerankResponse:
        """Score every text of one message."""
        async with answering(context, _WORDING):
            message = _message(request, list(request.texts))
            asked = _within(context.time_remaining(), _DIALECT.parse(message))
            result = await self._engine.rerank(asked)
            characters = sum(len(message.query) + len(text) for text in message.texts)
            return await _answer(context, message, result, characters)

    async def RerankStream(
        self, request_iterator: AsyncIterator[tei.RerankStreamRequest], context: Context
    ) -> tei.RerankResponse:
        """Score the texts that came, once the last of them has come.

        Each may have a query of its own and is cut as its own message says; what is returned is
        as the first message wants it.
        """
        async with answering(context, _WORDING):
            messages, left_s = await self._collect(request_iterator, context.time_remaining())
            result = await rerank_parts(self._engine, _parts(messages, left_s))
            _refuse_too_long(messages, result)
            whole = _message(messages[0], [each.text for each in messages], truncate=True)
            characters = sum(len(each.query) + len(each.text) for each in messages)
            return await _answer(context, whole, result, characters)

    async def _collect(
        self, arriving: AsyncIterator[tei.RerankStreamRequest], left_s: float | None
    ) -> tuple[list[tei.RerankStreamRequest], float]:
        """Wait for all texts, within the limits of one message; tell what time is left."""
        settings = self._engine.settings_of(None)
        limit_s = settings.request_timeout_s if left_s is None else left_s
        began, messages, size = time.monotonic(), list[tei.RerankStreamRequest](), 0
        try:
            async with asyncio.timeout(limit_s):
                async for each in arriving:
                    messages.append(each)
                    size += each.ByteSize()
                    check_count(len(messages), settings)
                    if size > settings.max_body_bytes:
                        raise BodyTooLarge(f"the texts are over {settings.max_body_bytes} bytes")
        except TimeoutError as error:
            raise DeadlineExceeded("the texts did not all arrive in time") from error
        if not messages:
            raise InvalidField("texts: the stream had none", "texts")
        return messages, began + limit_s - time.monotonic()


class TeiInfoService:
    """Tells which model answers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Info(self, request: tei.InfoRequest, context: Context) -> tei.InfoResponse:
        """Describe the model and the limits, as over HTTP."""
        async with answering(context, _WORDING):
            _, about = _DIALECT.info()["/info"](state_of(self._engine), None)
            told = tei.InfoResponse.DESCRIPTOR.fields_by_name.keys() & about.keys()
            fields = {name: about[name] for name in told}
            return tei.InfoResponse(**{**fields, "model_type": tei.MODEL_TYPE_RERANKER})


def _message(
    request: tei.RerankRequest | tei.RerankStreamRequest,
    texts: list[str],
    truncate: bool | None = None,
) -> TeiRequest:
    direction = request.truncation_direction
    return TeiRequest(
        query=request.query,
        texts=texts,
        truncate=request.truncate if truncate is None else truncate,
        # A number that is no direction is refused as a word that is none.
        truncation_direction=_DIRECTIONS.get(direction, str(direction)),
        raw_scores=request.raw_scores,
        return_text=request.return_text,
    )


def _within(left_s: float | None, asked: RerankRequest) -> RerankRequest:
    return replace(asked, options=replace(asked.options, timeout_s=left_s))


def _parts(messages: Sequence[tei.RerankStreamRequest], left_s: float) -> list[Part]:
    """Make a request of the rows that are alike in all but their texts."""
    rows_of: dict[tuple[str, bool, int], list[int]] = {}
    for row, each in enumerate(messages):
        alike = each.query, each.truncate, each.truncation_direction
        rows_of.setdefault(alike, []).append(row)
    return [_part(messages, rows, left_s) for rows in rows_of.values()]


def _part(messages: Sequence[tei.RerankStreamRequest], rows: Sequence[int], left_s: float) -> Part:
    one = _message(messages[rows[0]], [messages[row].text for row in rows])
    one = msgspec.structs.replace(one, raw_scores=messages[0].raw_scores)
    return Part(_within(left_s, _DIALECT.parse(one)), rows)


def _refuse_too_long(messages: Sequence[tei.RerankStreamRequest], result: RerankResult) -> None:
    for each in result.results:
        if isinstance(each.error, LimitExceeded) and not messages[each.index].truncate:
            raise each.error


async def _answer(
    context: Context, message: TeiRequest, result: RerankResult, characters: int
) -> tei.RerankResponse:
    large = is_large(len(message.texts), 0)
    response = await in_thread_if(large, _response, message, result, characters)
    headers = {**_DIALECT.headers(result), "x-compute-characters": str(characters)}
    await context.send_initial_metadata(tuple(headers.items()))
    failed = failed_documents(result).items()
    context.set_trailing_metadata(tuple((name.lower(), value) for name, value in failed))
    return response


def _response(message: TeiRequest, result: RerankResult, characters: int) -> tei.RerankResponse:
    ranks = [_rank(each) for each in _DIALECT.render(message, result)]
    return tei.RerankResponse(ranks=ranks, metadata=_metadata(result, characters))


def _rank(rank: TeiRank) -> tei.Rank:
    text = rank.text if isinstance(rank.text, str) else None
    return tei.Rank(index=rank.index, text=text, score=as_fp32(rank.score))


def _metadata(result: RerankResult, characters: int) -> tei.Metadata:
    timing, pairs = result.summary.timing, max(1, len(result.results))
    return tei.Metadata(
        compute_chars=min(characters, _MOST_UINT32),
        compute_tokens=min(result.summary.usage.tokens, _MOST_UINT32),
        total_time_ns=timing.total_us * 1000,
        tokenization_time_ns=timing.tokenise_us * 1000 // pairs,
        queue_time_ns=timing.queue_us * 1000,
        inference_time_ns=timing.infer_us * 1000 // pairs,
    )
