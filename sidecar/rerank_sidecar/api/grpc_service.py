"""The three calls of RerankService: read the message, ask the engine, write the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc

from rerank_sidecar.api.grpc_errors import answering
from rerank_sidecar.api.grpc_messages import (
    read_documents,
    read_request,
    read_start,
    write_event,
    write_models,
    write_response,
)
from rerank_sidecar.api.threads import are_large, in_thread_if, is_large
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import InvalidField
from rerank_sidecar.types import Document
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class RerankService(RerankServiceServicer):
    """Answers the calls of rerank.proto; a call's deadline is the request's time limit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        """Score every document of one message and answer with one message."""
        async with answering(context):
            large = is_large(len(request.documents), 0)
            left_s = context.time_remaining()
            asked = await in_thread_if(large, read_request, request, left_s)
            result = await self._engine.rerank(asked)
            return await in_thread_if(are_large(asked.documents), write_response, result)

    async def RerankStream(
        self, request_iterator: AsyncIterator[pb.RerankStreamRequest], context: Context
    ) -> AsyncIterator[pb.RerankStreamResponse]:
        """Score documents as they arrive and answer each as its score becomes known."""
        async with answering(context):
            start = await _read_start(request_iterator)
            options = read_start(start, context.time_remaining())
            documents = _read_more(request_iterator)
            async with aclosing(self._engine.stream(start.query, options, documents)) as events:
                async for event in events:
                    yield write_event(event)

    async def ListModels(
        self,
        request: pb.ListModelsRequest,
        context: Context,
    ) -> pb.ListModelsResponse:
        """List the models that answer."""
        async with answering(context):
            return write_models(self._engine.models())


async def _read_start(messages: AsyncIterator[pb.RerankStreamRequest]) -> pb.RerankStreamStart:
    first = await anext(messages, None)
    if first is None or first.WhichOneof("message") != "start":
        raise InvalidField("the first message of a stream must carry start", "start")
    return first.start


async def _read_more(
    messages: AsyncIterator[pb.RerankStreamRequest],
) -> AsyncIterator[Sequence[Document]]:
    count = 0
    async for message in messages:
        kind = message.WhichOneof("message")
        if kind != "documents":
            raise InvalidField(
                f"every message after the first must carry documents, not {kind or 'nothing'}",
                kind or "documents",
            )
        documents = message.documents.documents
        yield await in_thread_if(is_large(len(documents), 0), read_documents, documents, count)
        count += len(documents)
