"""Bytes that are no message: refused as the caller's mistake, which grpc.aio does not do itself.

grpc.aio parses a unary request before the handler is called and answers UNKNOWN when that fails.
Here parsing gives the error in place of the message, and the handler's wrapper raises it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from rerank_sidecar.api.grpc_errors import answering
from rerank_sidecar.errors import MalformedBody

Handler = Callable[..., Any]


class RefuseMalformed(grpc.aio.ServerInterceptor):
    """Answers bytes that cannot be parsed with INVALID_ARGUMENT and MALFORMED_BODY."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's own handlers are a named tuple without public fields
        """Wrap the handler of a call, once for each method: refusing a call must cost little."""
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is not None:  # made-up names are not kept
            handler = self._wrapped[method] = _wrapped(handler)
        return handler


def _wrapped(handler: Any) -> Any:  # noqa: ANN401
    if handler.request_deserializer is None:
        return handler
    parse = _error_or_message(handler.request_deserializer)
    if handler.unary_unary is not None:
        unary = _unary(handler.unary_unary)
        return handler._replace(request_deserializer=parse, unary_unary=unary)
    if handler.stream_unary is not None:
        collecting = _collecting(handler.stream_unary)
        return handler._replace(request_deserializer=parse, stream_unary=collecting)
    if handler.stream_stream is not None:
        stream = _stream(handler.stream_stream)
        return handler._replace(request_deserializer=parse, stream_stream=stream)
    return handler


def _error_or_message(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse_or_error(data: bytes) -> Any:  # noqa: ANN401
        try:
            return parse(data)
        except DecodeError:
            return MalformedBody("the bytes are not a message of this call's request type")

    return parse_or_error


def _unary(handle: Handler) -> Handler:
    async def unary(request: Any, context: Any) -> Any:  # noqa: ANN401
        if isinstance(request, MalformedBody):
            async with answering(context):
                raise request
        return await handle(request, context)

    return unary


def _collecting(handle: Handler) -> Handler:
    async def collecting(requests: AsyncIterator[Any], context: Any) -> Any:  # noqa: ANN401
        return await handle(_checked(requests), context)

    return collecting


def _stream(handle: Handler) -> Handler:
    async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        async with aclosing(handle(_checked(requests), context)) as answers:
            async for answer in answers:
                yield answer

    return stream


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, MalformedBody):
            raise request
        yield request
