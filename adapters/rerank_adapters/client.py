"""Clients of the sidecar's gRPC door, one that blocks and one for asyncio."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import TYPE_CHECKING, Unpack, cast

import grpc

from rerank_adapters.errors import call_error
from rerank_adapters.messages import Model, RerankOptions, RerankResponse
from rerank_adapters.transport.base import AsyncClient, BlockingClient
from rerank_adapters.transport.calls import Ask
from rerank_adapters.transport.channel import (
    DEFAULT_TARGET,
    ChannelOption,
    Reach,
    Target,
    check_fork,
)
from rerank_adapters.transport.grpc_async import answered, received_async
from rerank_adapters.transport.grpc_streams import received
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
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub

if TYPE_CHECKING:
    from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceAsyncStub as Stub


class RerankClient(BlockingClient):
    """Reranks over one gRPC channel, opened at the first call; threads may share the client.

    `target` is a gRPC target such as `localhost:50051` or `dns:///rerank:50051`, or a list of
    addresses; calls take turns between all addresses that there are. `timeout_s` is the deadline of
    every call that does not name its own, in seconds. `token` is sent with every call. `tls`
    encrypts the channel: `grpc.ssl_channel_credentials()` trusts the authorities that gRPC knows,
    `grpc.ssl_channel_credentials(root_certificates, private_key, certificate_chain)` those in PEM
    form, and shows a certificate of its own. `server_name` is the name that the server's
    certificate must have if the target has another. `channel_options` are gRPC's own and go before
    those that are set here. `ClientOptions` lists the others.

    After a fork the child may use it if the parent had not; gRPC follows a fork in mid-use only
    with GRPC_ENABLE_FORK_SUPPORT=1 in the environment.

    Raises:
        TypeError: there is no such option.
        ValueError: an argument cannot be used; the message names it.
    """

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        target: Target = DEFAULT_TARGET,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        token: str | None = None,
        tls: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
        channel_options: Sequence[ChannelOption] = (),
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(Policy(timeout_s, **options))
        self._reach = Reach.of(
            target,
            token=token,
            tls=tls,
            server_name=server_name,
            max_attempts=self._policy.max_attempts,
            channel_options=channel_options,
        )
        self._lock = threading.Lock()
        self._opened: dict[int, tuple[grpc.Channel, RerankServiceStub]] = {}  # by process
        self._is_closed = False

    def rerank_stream(
        self,
        query: str,
        documents: Iterable[Arriving],
        *,
        timeout_s: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankStream:
        """Score documents as they arrive; give an iterator over results as they become known.

        The call begins with the first result that is asked for. `documents` is read in a thread of
        its own. Failures are raised by the iterator, whatever `on_error` says.

        Raises:
            TypeError: an argument is unknown or of the wrong type.
            ValueError: an option has a value that the contract does not know.
        """
        start, until = start_message(query, options), self._policy.until(timeout_s)
        messages = document_messages(documents)
        return RerankStream(received(self._stub, start, messages, until, self._reach.metadata))

    def close(self) -> None:
        """Close the channel and end the calls that still run on it."""
        with self._lock:
            self._is_closed = True
            opened = self._opened.pop(os.getpid(), None)
        if opened is not None:
            opened[0].close()

    def _ask(self, ask: Ask) -> RerankResponse:
        request = build_request(ask.query, ask.documents, ask.options)
        stub, metadata = self._stub(), self._reach.metadata
        try:
            return parse_response(stub.Rerank(request, timeout=ask.timeout_s, metadata=metadata))
        except grpc.RpcError as error:
            raise call_error(error) from error

    def _list(self, timeout_s: float) -> tuple[Model, ...]:
        request, stub, metadata = pb.ListModelsRequest(), self._stub(), self._reach.metadata
        try:
            return parse_models(stub.ListModels(request, timeout=timeout_s, metadata=metadata))
        except grpc.RpcError as error:
            raise call_error(error) from error

    def _stub(self) -> RerankServiceStub:
        process = os.getpid()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the client is closed")
            if process not in self._opened:
                check_fork(self._opened)
                channel = self._reach.open()
                self._opened[process] = (channel, RerankServiceStub(channel))
            return self._opened[process][1]


class AsyncRerankClient(AsyncClient):
    """The same for asyncio; it has a channel for each event loop that it is used from."""

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        target: Target = DEFAULT_TARGET,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        token: str | None = None,
        tls: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
        channel_options: Sequence[ChannelOption] = (),
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(Policy(timeout_s, **options))
        self._reach = Reach.of(
            target,
            token=token,
            tls=tls,
            server_name=server_name,
            max_attempts=self._policy.max_attempts,
            channel_options=channel_options,
        )
        self._opened: dict[asyncio.AbstractEventLoop, tuple[grpc.aio.Channel, Stub]] = {}
        self._process = os.getpid()
        self._is_closed = False

    def rerank_stream(
        self,
        query: str,
        documents: Iterable[Arriving] | AsyncIterable[Arriving],
        *,
        timeout_s: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> AsyncRerankStream:
        """Score documents as they arrive, as `RerankClient` does; they may come asynchronously.

        An iterable that is not asynchronous is read on the event loop and must not block it.
        """
        start, until = start_message(query, options), self._policy.until(timeout_s)
        messages = arriving_messages(documents)
        return AsyncRerankStream(
            received_async(self._stub, start, messages, until, self._reach.metadata)
        )

    async def close(self) -> None:
        """Close the channel and end the calls that still run on it."""
        self._is_closed = True
        opened = self._opened.pop(asyncio.get_running_loop(), None)
        self._opened.clear()  # channels of other loops close when they are forgotten
        if opened is not None:
            await opened[0].close()

    async def _ask(self, ask: Ask) -> RerankResponse:
        request = build_request(ask.query, ask.documents, ask.options)
        stub, metadata = self._stub(), self._reach.metadata
        call = stub.Rerank(request, timeout=ask.timeout_s, metadata=metadata)
        return parse_response(await answered(call))

    async def _list(self, timeout_s: float) -> tuple[Model, ...]:
        request, stub, metadata = pb.ListModelsRequest(), self._stub(), self._reach.metadata
        call = stub.ListModels(request, timeout=timeout_s, metadata=metadata)
        return parse_models(await answered(call))

    def _stub(self) -> Stub:
        # Made late: an application may build its client before its event loop runs, or run several.
        loop = asyncio.get_running_loop()
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._process != os.getpid():
            check_fork(self._opened)
            self._process, self._opened = os.getpid(), {}
        if loop not in self._opened:
            for ended in [each for each in self._opened if each.is_closed()]:
                del self._opened[ended]
            channel = self._reach.open_async()
            self._opened[loop] = (channel, cast("Stub", RerankServiceStub(channel)))
        return self._opened[loop][1]
