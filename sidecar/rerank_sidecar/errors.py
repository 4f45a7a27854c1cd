"""Every error that a caller or an operator can meet, as one tree with one table.

    RerankError
    ├── RequestError                 the caller's fault
    │   ├── InvalidField             a field has a wrong type or value
    │   ├── MalformedBody            the body is not what the door reads
    │   ├── LimitExceeded            more documents or bytes than the server takes
    │   │   └── BodyTooLarge         the whole body is over the limit
    │   ├── ModelNotFound            no model of that name is served
    │   ├── NotSupportedByModel      the model cannot do what the request asks
    │   ├── Unauthenticated          the door wants a token, and this is none or the wrong one
    │   └── RouteNotFound            no door at that path, or not with that method
    ├── CallEnded                    nobody's fault: the caller's time is over
    │   ├── DeadlineExceeded         the deadline passed before the score was known
    │   └── Cancelled                the caller went away
    ├── Unavailable                  try again later
    │   ├── NotReady                 the model has not warmed up yet
    │   ├── ShuttingDown             the server is draining
    │   ├── Overloaded               too much waits to answer in time; carries a retry hint
    │   └── RemoteUnavailable        the server that computes the scores cannot be reached
    ├── ServerFault                  our fault
    │   ├── BackendFailed            a forward pass failed
    │   ├── RemoteFailed             the server that computes the scores failed, or spoke nonsense
    │   ├── NonFiniteScore           the model gave NaN or infinity for a document
    │   └── InternalError            anything that was not foreseen
    └── StartupError                 the server cannot start as it is told to
        ├── InvalidSetting           a setting has a wrong value
        ├── MissingExtra             an optional part of the package is not installed
        ├── UnreadableInput          a file that a command reads is missing or malformed
        ├── ModelUnavailable         the model's files cannot be had
        └── ModelNotServable         the files are there but are no reranker that we can run

`ERROR_TABLE` gives each leaf its reason, gRPC code and HTTP status; docs/errors.md lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class RerankError(Exception):
    """Something that kept a request, a document or the server from being served.

    `message` is a sentence for people and never contains document or query text.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(RerankError):
    """The caller asked for something that cannot be answered as it stands.

    `field` names the offending field in the caller's own words, for example `documents[3].text`.
    Whoever raises it says ours, and begins the message with it: doors put in the caller's.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidField(RequestError):
    """A field has a wrong type or a value outside its range."""


class MalformedBody(RequestError):
    """The body is not JSON, or not the form that the door reads."""


class LimitExceeded(RequestError):
    """The request, or one of its documents, is larger than the server's settings allow."""


class BodyTooLarge(LimitExceeded):
    """The whole body is larger than the server reads."""


class ModelNotFound(RequestError):
    """No model of that name is served."""


class NotSupportedByModel(RequestError):
    """The model that was asked for cannot do what the request asks."""


class Unauthenticated(RequestError):
    """The door takes requests with a valid token only, and this one has none."""


class RouteNotFound(RequestError):
    """There is no door at that path, or it does not take that method."""


class CallEnded(RerankError):
    """The caller's time was over before the answer was ready."""


class DeadlineExceeded(CallEnded):
    """The deadline passed before the score was known."""


class Cancelled(CallEnded):
    """The caller went away."""


class Unavailable(RerankError):
    """The server cannot answer now but may soon; `retry_after_s` says when to try again."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(Unavailable):
    """The model has not warmed up yet."""


class ShuttingDown(Unavailable):
    """The server is draining and takes no new work."""


class Overloaded(Unavailable):
    """So much is waiting that the request could not be answered before its deadline."""


class RemoteUnavailable(Unavailable):
    """The server that computes the scores cannot be reached, or failed too often a moment ago."""


class ServerFault(RerankError):
    """Something of ours broke."""


class BackendFailed(ServerFault):
    """A forward pass failed."""


class RemoteFailed(ServerFault):
    """The server that computes the scores refused, failed, or answered what means nothing.

    `is_refusal` tells that it will not have what it was asked, and may well answer other requests.
    """

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


class NonFiniteScore(ServerFault):
    """The model gave NaN or infinity for a document."""


class InternalError(ServerFault):
    """Something failed that was not foreseen; the log has the details."""


class StartupError(RerankError):
    """The server or a command cannot start as it is told to."""


class InvalidSetting(StartupError):
    """A setting has a wrong value."""


class MissingExtra(StartupError):
    """An optional part of the package is not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs: pip install 'rerank-sidecar[{extra}]'")
        self.extra = extra


class UnreadableInput(StartupError):
    """A file that a command was given is missing, empty or not in the format it should have."""


class ModelUnavailable(StartupError):
    """The model's files cannot be had."""


class ModelNotServable(StartupError):
    """The files are there but are not a reranker that can be run."""


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one error is told: a stable reason, a gRPC code, an HTTP status, worth a retry or not."""

    reason: str
    grpc_code: str
    http_status: int
    retryable: bool = False


ERROR_TABLE: Mapping[type[RerankError], ErrorRow] = MappingProxyType(
    {
        InvalidField: ErrorRow("INVALID_FIELD", "INVALID_ARGUMENT", 400),
        MalformedBody: ErrorRow("MALFORMED_BODY", "INVALID_ARGUMENT", 400),
        LimitExceeded: ErrorRow("LIMIT_EXCEEDED", "INVALID_ARGUMENT", 400),
        BodyTooLarge: ErrorRow("BODY_TOO_LARGE", "RESOURCE_EXHAUSTED", 413),
        ModelNotFound: ErrorRow("MODEL_NOT_FOUND", "NOT_FOUND", 404),
        NotSupportedByModel: ErrorRow("NOT_SUPPORTED_BY_MODEL", "FAILED_PRECONDITION", 422),
        Unauthenticated: ErrorRow("UNAUTHENTICATED", "UNAUTHENTICATED", 401),
        RouteNotFound: ErrorRow("ROUTE_NOT_FOUND", "UNIMPLEMENTED", 404),
        DeadlineExceeded: ErrorRow("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", 504, True),
        Cancelled: ErrorRow("CANCELLED", "CANCELLED", 499),
        NotReady: ErrorRow("NOT_READY", "UNAVAILABLE", 503, True),
        ShuttingDown: ErrorRow("SHUTTING_DOWN", "UNAVAILABLE", 503, True),
        Overloaded: ErrorRow("OVERLOADED", "RESOURCE_EXHAUSTED", 429, True),
        RemoteUnavailable: ErrorRow("REMOTE_UNAVAILABLE", "UNAVAILABLE", 503, True),
        BackendFailed: ErrorRow("BACKEND_FAILED", "INTERNAL", 500),
        RemoteFailed: ErrorRow("REMOTE_FAILED", "UNAVAILABLE", 502, True),
        NonFiniteScore: ErrorRow("NON_FINITE_SCORE", "INTERNAL", 500),
        InternalError: ErrorRow("INTERNAL", "INTERNAL", 500),
        InvalidSetting: ErrorRow("INVALID_SETTING", "FAILED_PRECONDITION", 500),
        MissingExtra: ErrorRow("MISSING_EXTRA", "FAILED_PRECONDITION", 500),
        UnreadableInput: ErrorRow("UNREADABLE_INPUT", "FAILED_PRECONDITION", 500),
        ModelUnavailable: ErrorRow("MODEL_UNAVAILABLE", "FAILED_PRECONDITION", 500),
        ModelNotServable: ErrorRow("MODEL_NOT_SERVABLE", "FAILED_PRECONDITION", 500),
    }
)
"""The one table from error to wire; a test fails when a leaf of the tree has no row."""


def error_row(error: RerankError) -> ErrorRow:
    """Find how an error is told on the wire."""
    return ERROR_TABLE[type(error)]


def as_rerank_error(error: BaseException) -> RerankError:
    """Turn any exception into an error that may be shown; what was not foreseen stays hidden."""
    if isinstance(error, RerankError):
        return error
    return InternalError("internal error; the server's log has the details")
