"""Who may call over gRPC: the same tokens as over HTTP, in metadata."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from rerank_sidecar.api.auth import Guard
from rerank_sidecar.api.grpc_errors import answering
from rerank_sidecar.errors import Unauthenticated

_NAMES = ("authorization", "x-api-key")

_OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.")

_OPEN_METHODS = frozenset(
    f"/inference.GRPCInferenceService/{name}"
    for name in ("ServerLive", "ServerReady", "ModelReady")
)
"""What KServe's callers ask before they ask for anything else; open over HTTP, too."""


class RequireToken(grpc.aio.ServerInterceptor):
    """Refuses calls without a valid token, except to health checks and reflection.

    All services are behind it, those of other products and administration, too; so are names that
    do not exist. A refused call's messages are not read.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's own handlers are a named tuple without public fields
        """Let a call pass to its handler, or to one that refuses it."""
        if not _is_open(handler_call_details.method):
            metadata = {
                key: value
                for key, value in handler_call_details.invocation_metadata
                if isinstance(value, str)
            }
            try:
                self._guard.check(metadata, _NAMES)
            except Unauthenticated as error:
                return _refusing(error)
        return await continuation(handler_call_details)


def _is_open(method: str) -> bool:
    return method.startswith(_OPEN_SERVICES) or method in _OPEN_METHODS


def _refusing(error: Unauthenticated) -> Any:  # noqa: ANN401
    async def refuse(_requests: AsyncIterator[bytes], context: Any) -> None:  # noqa: ANN401
        async with answering(context):
            raise error

    # On the wire every call is a stream, and only as one it can be refused before it has sent.
    return grpc.stream_stream_rpc_method_handler(refuse)
