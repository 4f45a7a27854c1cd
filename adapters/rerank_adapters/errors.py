"""How a failed call looks to the application: the server's tree of errors, as they come back.

    RerankCallError
    ├── RequestError                 the caller's fault: raised whatever `on_error` says
    │   ├── InvalidField             a field has a wrong type or value
    │   ├── MalformedBody            the body is not what the server reads
    │   ├── LimitExceeded            more documents or bytes than the server takes
    │   │   └── BodyTooLarge         the whole message is over the limit
    │   ├── ModelNotFound            no model of that name is served
    │   ├── NotSupportedByModel      the model cannot do what the request asks
    │   ├── Unauthenticated          the server wants a token, and this is none or the wrong one
    │   └── RouteNotFound            whatever listens there is no sidecar
    ├── CallEnded                    the call's time is over
    │   ├── DeadlineExceeded         the deadline passed before the scores were known
    │   └── Cancelled                the call was ended, here or there
    ├── Unavailable                  try again later
    │   ├── Unreachable              nobody answered: not started, gone, or the network
    │   ├── NotReady                 the model has not warmed up yet
    │   ├── ShuttingDown             the server is draining
    │   ├── Overloaded               too much waits there to answer in time; carries a hint
    │   └── RemoteUnavailable        the server that computes its scores cannot be reached
    ├── ServerFault                  the server's fault
    │   ├── BackendFailed            a forward pass failed
    │   ├── NonFiniteScore           the model gave NaN or infinity
    │   ├── RemoteFailed             the server that computes its scores failed
    │   └── InternalError            anything that was not foreseen
    └── StartupError                 the server cannot have the model that was asked for
        ├── InvalidSetting           a setting has a wrong value
        ├── MissingExtra             an optional part is not installed there
        ├── UnreadableInput          a file is missing or malformed
        ├── ModelUnavailable         the model's files cannot be had
        └── ModelNotServable         the files are there but are no reranker

`ERRORS` gives the class and gRPC code of each reason that docs/errors.md lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import cast

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_TOO_LARGE = "larger than max"


class RerankCallError(Exception):
    """A call failed as a whole.

    `code` is gRPC's status, also over HTTP. The others are None when the server did not give them,
    and always when it was not reached: `reason` is stable and listed in docs/errors.md, `field` is
    the path of the offending field in the request message (such as `options.top_n`),
    `retry_after_s` is when to try again, in seconds.
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


class RequestError(RerankCallError):
    """The call cannot be answered as it stands; asking again will not help."""


class InvalidField(RequestError):
    """A field has a wrong type or a value outside its range; `field` names it."""


class MalformedBody(RequestError):
    """The body is not a form that the server reads."""


class LimitExceeded(RequestError):
    """The request is larger than the server's settings allow; `field` says in what."""


class BodyTooLarge(LimitExceeded):
    """The whole message has more bytes than the server reads."""


class ModelNotFound(RequestError):
    """No model of that name is served; the message lists those that are."""


class NotSupportedByModel(RequestError):
    """The model that was asked for cannot do what the request asks."""


class Unauthenticated(RequestError):
    """The server takes calls with a valid token only, and this one had none."""


class RouteNotFound(RequestError):
    """Something listens there, but it does not know this call."""


class CallEnded(RerankCallError):
    """The call's time was over before the answer was ready."""


class DeadlineExceeded(CallEnded):
    """The deadline passed before every score was known."""


class Cancelled(CallEnded):
    """The call was ended: by closing the client, or on the server's side."""


class Unavailable(RerankCallError):
    """The server cannot answer now but may soon."""


class Unreachable(Unavailable):
    """Nobody answered at that address, or the connection broke."""


class NotReady(Unavailable):
    """The model has not warmed up yet."""


class ShuttingDown(Unavailable):
    """The server is draining and takes no new work."""


class Overloaded(Unavailable):
    """The server has so much to do that it could not answer in time."""


class RemoteUnavailable(Unavailable):
    """The server that computes the scores for the sidecar cannot be reached."""


class ServerFault(RerankCallError):
    """Something broke on the server's side."""


class BackendFailed(ServerFault):
    """A forward pass failed."""


class NonFiniteScore(ServerFault):
    """The model gave NaN or infinity."""


class RemoteFailed(ServerFault):
    """The server that computes the scores for the sidecar failed, or answered nonsense."""


class InternalError(ServerFault):
    """Something failed that was not foreseen; the server's log has the details."""


class StartupError(RerankCallError):
    """The server cannot load the model that was asked for."""


class InvalidSetting(StartupError):
    """One of the server's settings has a wrong value."""


class MissingExtra(StartupError):
    """An optional part of the package is not installed on the server."""


class UnreadableInput(StartupError):
    """A file that the server was given is missing, empty or malformed."""


class ModelUnavailable(StartupError):
    """The model's files cannot be had."""


class ModelNotServable(StartupError):
    """The model's files are there but are not a reranker that can be run."""


_Code = grpc.StatusCode

ERRORS: Mapping[str, tuple[type[RerankCallError], grpc.StatusCode]] = MappingProxyType(
    {
        "INVALID_FIELD": (InvalidField, _Code.INVALID_ARGUMENT),
        "MALFORMED_BODY": (MalformedBody, _Code.INVALID_ARGUMENT),
        "LIMIT_EXCEEDED": (LimitExceeded, _Code.INVALID_ARGUMENT),
        "BODY_TOO_LARGE": (BodyTooLarge, _Code.RESOURCE_EXHAUSTED),
        "MODEL_NOT_FOUND": (ModelNotFound, _Code.NOT_FOUND),
        "NOT_SUPPORTED_BY_MODEL": (NotSupportedByModel, _Code.FAILED_PRECONDITION),
        "UNAUTHENTICATED": (Unauthenticated, _Code.UNAUTHENTICATED),
        "ROUTE_NOT_FOUND": (RouteNotFound, _Code.UNIMPLEMENTED),
        "DEADLINE_EXCEEDED": (DeadlineExceeded, _Code.DEADLINE_EXCEEDED),
        "CANCELLED": (Cancelled, _Code.CANCELLED),
        "NOT_READY": (NotReady, _Code.UNAVAILABLE),
        "SHUTTING_DOWN": (ShuttingDown, _Code.UNAVAILABLE),
        "OVERLOADED": (Overloaded, _Code.RESOURCE_EXHAUSTED),
        "BACKEND_FAILED": (BackendFailed, _Code.INTERNAL),
        "NON_FINITE_SCORE": (NonFiniteScore, _Code.INTERNAL),
        "REMOTE_UNAVAILABLE": (RemoteUnavailable, _Code.UNAVAILABLE),
        "REMOTE_FAILED": (RemoteFailed, _Code.UNAVAILABLE),
        "INTERNAL": (InternalError, _Code.INTERNAL),
        "INVALID_SETTING": (InvalidSetting, _Code.FAILED_PRECONDITION),
        "MISSING_EXTRA": (MissingExtra, _Code.FAILED_PRECONDITION),
        "UNREADABLE_INPUT": (UnreadableInput, _Code.FAILED_PRECONDITION),
        "MODEL_UNAVAILABLE": (ModelUnavailable, _Code.FAILED_PRECONDITION),
        "MODEL_NOT_SERVABLE": (ModelNotServable, _Code.FAILED_PRECONDITION),
    }
)
"""The server's table from its other end; a test fails when a reason is missing here."""

# For what no sidecar said: gRPC itself, a proxy in between, or a server newer than this client.
_BY_CODE: Mapping[grpc.StatusCode, type[RerankCallError]] = MappingProxyType(
    {
        _Code.INVALID_ARGUMENT: RequestError,
        _Code.OUT_OF_RANGE: RequestError,
        _Code.NOT_FOUND: RequestError,
        _Code.UNAUTHENTICATED: Unauthenticated,
        _Code.PERMISSION_DENIED: Unauthenticated,
        _Code.UNIMPLEMENTED: RouteNotFound,
        _Code.DEADLINE_EXCEEDED: DeadlineExceeded,
        _Code.CANCELLED: Cancelled,
        _Code.UNAVAILABLE: Unavailable,
        _Code.RESOURCE_EXHAUSTED: Overloaded,
    }
)


def call_error(error: grpc.RpcError) -> RerankCallError:
    """Read the status of a failed call and the `google.rpc` details that came with it."""
    details = details_of(error.trailing_metadata())
    return error_of_status(error.code(), error.details() or "", details)


def error_of_status(
    code: grpc.StatusCode, message: str, details: Iterable[any_pb2.Any]
) -> RerankCallError:
    """Make the error that a status and its `google.rpc` details tell of."""
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for packed in details:
        for detail in (info, request, retry):
            packed.Unpack(detail)  # leaves a detail of another type as it is
    delay = retry.retry_delay if retry.HasField("retry_delay") else None
    kind = _kind(code, info.reason or None, message)
    return kind(
        code=code,
        reason=info.reason or None,
        message=message,
        field=next((violation.field for violation in request.field_violations), None),
        retry_after_s=None if delay is None else delay.ToTimedelta().total_seconds(),
    )


def _kind(code: grpc.StatusCode, reason: str | None, message: str) -> type[RerankCallError]:
    if reason is not None and reason in ERRORS:
        return ERRORS[reason][0]
    if code is _Code.UNAVAILABLE and reason is None:
        return Unreachable
    if code is _Code.RESOURCE_EXHAUSTED and _TOO_LARGE in message:
        return BodyTooLarge  # gRPC refuses such a message before the server sees it
    return _BY_CODE.get(code, ServerFault)


def details_of(metadata: object) -> Iterable[any_pb2.Any]:
    """Read the `google.rpc` details from the metadata that came at the end of a call."""
    for key, value in cast("Iterable[tuple[str, bytes]]", metadata or ()):
        if key == _DETAILS_KEY:
            yield from status_pb2.Status.FromString(value).details
