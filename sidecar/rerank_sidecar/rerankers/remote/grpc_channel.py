"""Servers that are spoken to over gRPC: the channel, and what a status says about a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rerank_sidecar.errors import (
    InvalidSetting,
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
    RerankError,
)
from rerank_sidecar.rerankers.remote.base import Access, CallFailed, Target
from rerank_sidecar.rerankers.retry_after import bounded_s

_MOST_MESSAGE_BYTES = 67_108_864
_LONGEST_RECONNECT_MS = 5_000

_TRANSIENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
_REFUSALS = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE})
"""OUT_OF_RANGE is how tonic, and so TEI, refuses a message over its limit of 4 MiB."""

_TOO_LARGE = "larger than max"
"""How gRPC's own libraries say so, with the status of a server that has too much to do."""

Send = Any
"""A method of the channel, whose types no two generators agree on."""


class GrpcChannel:
    """A channel to one server, and the key that it is shown with every call.

    Raises:
        InvalidSetting: TLS without checking the certificate is wanted, which gRPC does not offer.
        OSError: the file of authorities cannot be read.
    """

    def __init__(self, target: Target, access: Access) -> None:
        scheme, _, address = target.url.partition("://")
        options = [
            ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MOST_MESSAGE_BYTES),
            ("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MS),
        ]
        if scheme == "grpc":
            self.channel = grpc.aio.insecure_channel(address, options)
        else:
            self.channel = grpc.aio.secure_channel(address, channel_credentials(access), options)
        self._metadata: tuple[tuple[str, str], ...] = ()
        if access.key is not None:
            self._metadata = (("authorization", f"{access.key_scheme} {access.key}"),)

    async def call(self, send: Send, message: object, timeout_s: float) -> Any:  # noqa: ANN401
        """Call a method; the server is told how much time it has.

        Raises:
            CallFailed: it ended with another status than OK.
        """
        try:
            return await send(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise refused(error) from error

    async def close(self) -> None:
        """Close the channel."""
        await self.channel.close()


def channel_credentials(access: Access) -> grpc.ChannelCredentials:
    """Say which certificates are trusted.

    Raises:
        InvalidSetting: none would be checked.
        OSError: the file of authorities cannot be read.
    """
    if not access.verify:
        raise InvalidSetting(
            "family_options.verify: gRPC always checks certificates; name their authority with "
            "ca_file"
        )
    authorities = None if access.ca_file is None else Path(access.ca_file).read_bytes()
    return grpc.ssl_channel_credentials(authorities)


def refused(error: grpc.aio.AioRpcError) -> CallFailed:
    """Sort a call by the status with which it ended."""
    code = error.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in (error.details() or ""):
        return CallFailed(RemoteFailed("the remote takes no message as large", is_refusal=True))
    retry_after_s = _retry_after_s(error)
    return CallFailed(
        _error_of(code, retry_after_s),
        is_transient=code in _TRANSIENT,
        is_fault=code in _FAULTS,
        retry_after_s=retry_after_s,
    )


def _error_of(code: grpc.StatusCode, retry_after_s: float | None) -> RerankError:
    after_s = 1.0 if retry_after_s is None else retry_after_s
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Overloaded("the remote has too much to do (RESOURCE_EXHAUSTED)", after_s)
    if code is grpc.StatusCode.UNAVAILABLE:
        return RemoteUnavailable("the remote cannot be reached (UNAVAILABLE)", after_s)
    message = f"the remote answered with {code.name}"
    return RemoteFailed(message, is_refusal=code in _REFUSALS)


def _retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return _retry_delay_s(value)
    return None


def _retry_delay_s(details: bytes) -> float | None:
    """Find `google.rpc.RetryInfo` among the details of a status."""
    try:
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            info = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                return bounded_s(info.retry_delay.ToMilliseconds() / 1000)
    except DecodeError:
        return None
    return None
