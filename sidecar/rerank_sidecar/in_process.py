"""The clients' twins without a server: the same calls, answered by an engine in this process.

For scripts and tests. Requests, answers and errors are translated as at the gRPC door, so that they
are the same in every field.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing
from typing import Self, TypeVar, Unpack

from rerank_adapters.errors import RerankCallError, error_of_status
from rerank_adapters.messages import Model, RerankOptions, RerankResponse
from rerank_adapters.transport.base import AsyncClient, BlockingClient
from rerank_adapters.transport.calls import Ask
from rerank_adapters.transport.policy import DEFAULT_TIMEOUT_S, ClientOptions, Policy
from rerank_adapters.transport.streams import (
    Arriving,
    AsyncRerankStream,
    RerankStream,
    arriving_messages,
    document_messages,
    start_message,
)
from rerank_adapters.transport.wire import build_request, parse_models, parse_response
from rerank_sidecar.api.grpc_errors import OURS, status_of
from rerank_sidecar.api.grpc_messages import (
    read_documents,
    read_request,
    read_start,
    write_event,
    write_models,
    write_response,
)
from rerank_sidecar.app import build_engine
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine_thread import EngineThread
from rerank_sidecar.errors import Cancelled, RerankError
from rerank_sidecar.settings import Settings, read_settings
from rerank_sidecar.types import Document
from rerank_sidecar.v1 import rerank_pb2 as pb

_T = TypeVar("_T")


class InProcessRerankClient(BlockingClient):
    """Reranks in this process, on a thread of its own; threads may share the client.

    `settings` are those of a server, by default from the environment. The model is loaded when the
    `with` block is entered, or else by the first call. The other arguments are those that every
    client has. After a fork the child may use it only if the parent had not.

    Raises:
        TypeError: there is no such option.
        ValueError: an argument cannot be used; the message names it.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(Policy(timeout_s, **options))
        self._settings = settings
        self._lock = threading.Lock()
        self._thread: EngineThread | None = None
        self._is_closed = False

    def rerank_stream(
        self,
        query: str,
        documents: Iterable[Arriving],
        *,
        timeout_s: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankStream:
        """Score documents as they arrive, as `RerankClient` does."""
        start, until = start_message(query, options), self._policy.until(timeout_s)
        return RerankStream(self._streamed(start, document_messages(documents), until))

    def close(self) -> None:
        """Wait for the calls that still run, then give the model's memory back."""
        with self._lock:
            self._is_closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> Self:
        """Load the model.

        Raises:
            rerank_sidecar.errors.StartupError: a setting is wrong or the model cannot be had.
        """
        self._open()
        return self

    def _ask(self, ask: Ask) -> RerankResponse:
        thread = self._open()
        return thread.run(_rerank(thread.engine, ask))

    def _list(self, timeout_s: float) -> tuple[Model, ...]:
        thread = self._open()
        return thread.run(_models(thread.engine))

    def _streamed(
        self,
        start: pb.RerankStreamRequest,
        documents: Iterator[pb.RerankStreamRequest],
        until: float,
    ) -> Generator[pb.RerankStreamResponse, None, None]:
        thread = self._open()
        events = _events(thread.engine, start, _pulled(documents), until)
        try:
            while (message := thread.run(_next(events))) is not None:
                yield message
        finally:
            thread.run(events.aclose())

    def _open(self) -> EngineThread:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the client is closed")
            if self._thread is None:
                self._thread = EngineThread(self._settings or read_settings())
            if self._thread.process != os.getpid():
                raise RuntimeError("the client was used before the process forked")
            return self._thread


class AsyncInProcessRerankClient(AsyncClient):
    """The same for asyncio, on the event loop of its first call, to which it then belongs."""

    def __init__(
        self,
        settings: Settings | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(Policy(timeout_s, **options))
        self._settings = settings
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def rerank_stream(
        self,
        query: str,
        documents: Iterable[Arriving] | AsyncIterable[Arriving],
        *,
        timeout_s: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> AsyncRerankStream:
        """Score documents as they arrive, as `AsyncRerankClient` does."""
        start, until = start_message(query, options), self._policy.until(timeout_s)
        return AsyncRerankStream(self._streamed(start, arriving_messages(documents), until))

    async def close(self) -> None:
        """Wait for the calls that still run, then give the model's memory back."""
        self._is_closed = True
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        """Load the model.

        Raises:
            rerank_sidecar.errors.StartupError: a setting is wrong or the model cannot be had.
        """
        await self._open()
        return self

    async def _ask(self, ask: Ask) -> RerankResponse:
        return await _rerank(await self._open(), ask)

    async def _list(self, timeout_s: float) -> tuple[Model, ...]:
        return await _models(await self._open())

    async def _streamed(
        self,
        start: pb.RerankStreamRequest,
        documents: AsyncIterator[pb.RerankStreamRequest],
        until: float,
    ) -> AsyncGenerator[pb.RerankStreamResponse, None]:
        async with aclosing(_events(await self._open(), start, documents, until)) as events:
            async for event in events:
                yield event

    async def _open(self) -> Engine:
        if self._loop not in {None, asyncio.get_running_loop()}:
            raise RuntimeError("the client belongs to the event loop of its first call")
        self._loop = asyncio.get_running_loop()
        async with self._opening:
            if self._is_closed:
                raise RuntimeError("the client is closed")
            if self._engine is None:
                building = build_engine(self._settings or read_settings())
                self._engine = await self._stack.enter_async_context(building)
            return self._engine


async def _rerank(engine: Engine, ask: Ask) -> RerankResponse:
    message = build_request(ask.query, ask.documents, ask.options)
    try:
        result = await engine.rerank(read_request(message, ask.timeout_s))
    except RerankError as error:
        raise _told(error) from error
    return parse_response(write_response(result))


async def _models(engine: Engine) -> tuple[Model, ...]:
    try:
        return parse_models(write_models(engine.models()))
    except RerankError as error:
        raise _told(error) from error


async def _events(
    engine: Engine,
    start: pb.RerankStreamRequest,
    documents: AsyncIterator[pb.RerankStreamRequest],
    until: float,
) -> AsyncGenerator[pb.RerankStreamResponse, None]:
    arriving = _Arriving(documents)
    try:
        options = read_start(start.start, until - time.monotonic())
        async with aclosing(engine.stream(start.start.query, options, arriving.groups())) as events:
            async for event in events:
                yield write_event(event)
    except RerankError as error:
        raise arriving.failure or _told(error) from error


class _Arriving:
    """The documents of a stream; if they cannot be had, the call ends and `failure` is why."""

    def __init__(self, documents: AsyncIterator[pb.RerankStreamRequest]) -> None:
        self._documents = documents
        self.failure: Exception | None = None

    async def groups(self) -> AsyncIterator[Sequence[Document]]:
        """Give documents as they arrive."""
        count = 0
        try:
            async for message in self._documents:
                documents = message.documents.documents
                yield read_documents(documents, count)
                count += len(documents)
        except RerankError:
            raise
        except Exception as error:
            self.failure = error
            raise Cancelled("the documents did not arrive") from error


async def _pulled(
    documents: Iterator[pb.RerankStreamRequest],
) -> AsyncIterator[pb.RerankStreamRequest]:
    while (message := await asyncio.to_thread(next, documents, None)) is not None:
        yield message


async def _next(
    events: AsyncGenerator[pb.RerankStreamResponse, None],
) -> pb.RerankStreamResponse | None:
    return await anext(events, None)


def _told(error: RerankError) -> RerankCallError:
    status = status_of(error)
    return error_of_status(OURS.code(error), status.message, status.details)
