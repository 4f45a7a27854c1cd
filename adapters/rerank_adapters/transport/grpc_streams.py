"""One streaming call over gRPC: sends what arrives and gives what comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator

import grpc

from rerank_adapters.errors import call_error
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub

Metadata = tuple[tuple[str, str], ...]


def received(
    stub: Callable[[], RerankServiceStub],
    start: pb.RerankStreamRequest,
    documents: Iterator[pb.RerankStreamRequest],
    until: float,
    metadata: Metadata,
) -> Generator[pb.RerankStreamResponse, None, None]:
    """Make the call and yield what the server sends.

    Raises:
        RerankCallError: the call failed.
        Exception: whatever `documents` raises.
    """
    sent = _Sent(start, documents)
    timeout_s = until - time.monotonic()
    call = stub().RerankStream(iter(sent), timeout=timeout_s, metadata=metadata)
    sent.begin(call)
    try:
        yield from call
    except grpc.RpcError as error:
        if sent.failure is not None:
            raise sent.failure from None
        raise call_error(error) from error
    finally:
        call.cancel()


class _Sent:
    """What gRPC's own thread sends; if it cannot be had, the call ends and `failure` is why.

    gRPC would end the call, too, but keep the reason for its log.
    """

    def __init__(
        self, start: pb.RerankStreamRequest, documents: Iterator[pb.RerankStreamRequest]
    ) -> None:
        self.failure: Exception | None = None
        self._start = start
        self._documents = documents
        self._call: grpc.Call | None = None
        self._begun = threading.Event()

    def begin(self, call: grpc.Call) -> None:
        """Take the call that may have to be ended."""
        self._call = call
        self._begun.set()

    def __iter__(self) -> Iterator[pb.RerankStreamRequest]:
        yield self._start
        try:
            yield from self._documents
        except Exception as error:  # noqa: BLE001 - the caller's own, and raised to the caller
            self.failure = error
            self._begun.wait()
            if self._call is not None:
                self._call.cancel()
