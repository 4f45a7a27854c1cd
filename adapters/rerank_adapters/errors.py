"""How a failed call looks to the application, read from the status that the server sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class RerankCallError(Exception):
    """A call failed as a whole.

    `code` is gRPC's status. The others are None when the server did not give them, and always
    when it was not reached: `reason` is stable and listed in docs/errors.md, `field` is the path
    of the offending field in the request message (such as `options.top_n`), `retry_after_s` is
    when to try again, in seconds.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str | None,
        message: str,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, reason, message, field, retry_after_s)
        self.code = code
        self.reason = reason
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


def call_error(error: grpc.RpcError) -> RerankCallError:
    """Read the status of a failed call and the `google.rpc` details that came with it."""
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for packed in _details(error):
        for detail in (info, request, retry):
            packed.Unpack(detail)  # leaves a detail of another type as it is
    delay = retry.retry_delay if retry.HasField("retry_delay") else None
    return RerankCallError(
        code=error.code(),
        reason=info.reason or None,
        message=error.details() or "",
        field=next((violation.field for violation in request.field_violations), None),
        retry_after_s=None if delay is None else delay.ToTimedelta().total_seconds(),
    )


def _details(error: grpc.RpcError) -> Iterable[any_pb2.Any]:
    metadata = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    for key, value in metadata:
        if key == _DETAILS_KEY:
            yield from status_pb2.Status.FromString(value).details
