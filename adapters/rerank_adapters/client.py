"""Clients of the sidecar's gRPC door, one that blocks and one for asyncio."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack, cast

import grpc

from rerank_adapters.errors import call_error
from rerank_adapters.messages import (
    Document,
    Model,
    RerankOptions,
    RerankResponse,
    build_request,
    parse_models,
    parse_response,
)
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub

if TYPE_CHECKING:
    from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceAsyncStub

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT_S = 30.0

# How large a message may be is the server's decision.
_CHANNEL_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class RerankClient:
    """Reranks over one channel, which is opened at the first call and may be shared by threads.

    `target` is a gRPC target such as `localhost:50051` or `dns:///rerank:50051`. `timeout_s` is
    the deadline of every call that does not name its own, in seconds.
    """

    def __init__(self, target: str = DEFAULT_TARGET, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(target, _CHANNEL_OPTIONS)
        self._stub = RerankServiceStub(self._channel)

    def rerank(
        self,
        query: str,
        documents: Iterable[str | Document],
        *,
        timeout_s: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankResponse:
        """Score documents against a query, best first; `RerankOptions` lists the options.

        Raises:
            RerankCallError: the server refused or failed, was not reached, or took too long.
            TypeError: an argument is unknown or of the wrong type.
            ValueError: an option has a value that the contract does not know.
        """
        request = build_request(query, documents, options)
        try:
            return parse_response(self._stub.Rerank(request, timeout=self._limit(timeout_s)))
        except grpc.RpcError as error:
            raise call_error(error) from error

    def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """List the models that the server can answer with, the default first.

        Raises:
            RerankCallError: the server is not ready, was not reached, or took too long.
        """
        request = pb.ListModelsRequest()
        try:
            return parse_models(self._stub.ListModels(request, timeout=self._limit(timeout_s)))
        except grpc.RpcError as error:
            raise call_error(error) from error

    def close(self) -> None:
        """Close the channel and end the calls that still run on it."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _limit(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else timeout_s


class AsyncRerankClient:
    """The same for asyncio; its channel belongs to the event loop of its first call."""

    def __init__(self, target: str = DEFAULT_TARGET, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None

    async def rerank(
        self,
        query: str,
        documents: Iterable[str | Document],
        *,
        timeout_s: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankResponse:
        """Score documents against a query, best first; takes and raises what `RerankClient` does.

        Cancelling it cancels the work on the server.
        """
        request = build_request(query, documents, options)
        try:
            call = self._stub().Rerank(request, timeout=self._limit(timeout_s))
            return parse_response(await call)
        except grpc.RpcError as error:
            raise call_error(error) from error

    async def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """List the models that the server can answer with, as `RerankClient` does."""
        request = pb.ListModelsRequest()
        try:
            call = self._stub().ListModels(request, timeout=self._limit(timeout_s))
            return parse_models(await call)
        except grpc.RpcError as error:
            raise call_error(error) from error

    async def close(self) -> None:
        """Close the channel and end the calls that still run on it."""
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _stub(self) -> RerankServiceAsyncStub:
        # Made late: an application may build its client before its event loop runs.
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target, _CHANNEL_OPTIONS)
        return cast("RerankServiceAsyncStub", RerankServiceStub(self._channel))

    def _limit(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else timeout_s
