"""Calls over grpc.aio, which tells some of their ends in ways of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

import grpc

from rerank_adapters.errors import (
    Cancelled,
    RerankCallError,
    call_error,
    details_of,
    error_of_status,
)
from rerank_adapters.transport.grpc_streams import Metadata
from rerank_sidecar.v1 import rerank_pb2 as pb

if TYPE_CHECKING:
    from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceAsyncStub

    AsyncCall = grpc.aio.StreamStreamCall[pb.RerankStreamRequest, pb.RerankStreamResponse]

_T = TypeVar("_T")

_NOT_SENT = "Internal error from Core"
_MOMENT_S, _PATIENCE = 0.01, 100


async def answered(call: Awaitable[_T]) -> _T:
    """Wait for the answer to a call of one message.

    Raises:
        RerankCallError: the call failed.
    """
    try:
        return await call
    except grpc.RpcError as error:
        raise call_error(error) from error
    except asyncio.CancelledError:
        if _is_cancelling():
            raise
        raise _cancelled() from None


async def received_async(
    stub: Callable[[], RerankServiceAsyncStub],
    start: pb.RerankStreamRequest,
    documents: AsyncGenerator[pb.RerankStreamRequest, None],
    until: float,
    metadata: Metadata,
) -> AsyncGenerator[pb.RerankStreamResponse, None]:
    """Make the call and yield what the server sends; raises what `received` raises."""
    call = stub().RerankStream(timeout=until - time.monotonic(), metadata=metadata)
    ended = _Ended(call)
    sending = asyncio.create_task(_send(call, start, documents))
    try:
        while isinstance(message := await call.read(), pb.RerankStreamResponse):
            yield message
    except grpc.RpcError as error:
        raise (await ended.error()) or call_error(error) from error
    except asyncio.CancelledError:
        if _is_cancelling():
            raise
        raise (await _failure(sending)) or (await ended.error()) or _cancelled() from None
    finally:
        call.cancel()
        await _failure(sending)


async def _send(
    call: AsyncCall,
    start: pb.RerankStreamRequest,
    documents: AsyncGenerator[pb.RerankStreamRequest, None],
) -> None:
    """Send what arrives until the server has heard enough; raises whatever `documents` raises."""
    try:
        async with aclosing(documents):
            if not await _written(call.write(start)):
                return
            async for message in documents:
                if not await _written(call.write(message)):
                    return
            await _written(call.done_writing())
    except Exception:
        call.cancel()
        raise


async def _written(writing: Awaitable[None]) -> bool:
    try:
        await writing
    except (grpc.RpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
        return False  # the call has ended; whoever reads from it learns why
    return True


async def _failure(sending: asyncio.Task[None]) -> BaseException | None:
    """Give what kept documents from being sent; if they are still being sent, that ends now."""
    sending.cancel()
    await asyncio.wait([sending])
    return None if sending.cancelled() else sending.exception()


class _Ended:
    """Keeps the server's status of a call.

    If a message could not be sent because the server had ended the call, grpc.aio puts an INTERNAL
    of its own in that status's place, mostly after it and sometimes a moment before.
    """

    def __init__(self, call: AsyncCall) -> None:
        self._call = call
        self._error: RerankCallError | None = None
        call.add_done_callback(self._keep)

    async def error(self) -> RerankCallError | None:
        """Give the error that the server ended the call with, None if it did not."""
        for _ in range(_PATIENCE):
            if self._error is None or self._error.message != _NOT_SENT:
                break
            await asyncio.sleep(_MOMENT_S)
            self._keep(self._call)
        return self._error

    def _keep(self, call: AsyncCall) -> None:
        code = _known(call.code())
        is_known = self._error is not None and self._error.message != _NOT_SENT
        if not is_known and code is not grpc.StatusCode.OK and not call.cancelled():
            details = details_of(_known(call.trailing_metadata()))
            self._error = error_of_status(code, _known(call.details()) or "", details)


def _known(coroutine: Coroutine[None, None, _T]) -> _T:
    """Give what a coroutine gives that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: _T = end.value
        return value
    raise RuntimeError("the call has not ended")


def _is_cancelling() -> bool:
    """Tell whether it is the caller's task that is cancelled, and not just the call in it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cancelled() -> Cancelled:
    """Give the error of a call that was ended, but not by its caller."""
    return Cancelled(grpc.StatusCode.CANCELLED, None, "the call was ended before its answer")
