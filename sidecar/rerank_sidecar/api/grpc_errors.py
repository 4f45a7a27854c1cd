"""How errors are told over gRPC: a status code and `google.rpc` details, for every call alike."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rerank_sidecar.api.dialects.fields import renamed
from rerank_sidecar.errors import (
    Overloaded,
    RequestError,
    RerankError,
    Unavailable,
    as_rerank_error,
    error_row,
)
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.telemetry.crashes import log_crash
from rerank_sidecar.v1 import rerank_pb2 as pb

DOMAIN = "rerank-sidecar"
"""The domain of every `ErrorInfo`: reasons are unique within it."""

_LOG = logging.getLogger(__name__)
_OPTIONS = frozenset(pb.RerankOptions.DESCRIPTOR.fields_by_name)
# Metadata is limited to 8 KiB; a message is sent percent-encoded and again in the details.
_MAX_MESSAGE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Wording:
    """How the callers of one gRPC service are told errors.

    `door` is the service in metrics, `field_names` are the fields of our requests that it calls
    otherwise, `codes` the status codes that it does not take from the one table of errors.
    """

    door: str
    field_names: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[type[RerankError], str] = field(default_factory=dict)

    def told(self, error: BaseException) -> RerankError:
        """Give the error that a caller may see, in the words of the service."""
        return renamed(as_rerank_error(error), self.field_names)

    def code(self, error: RerankError) -> grpc.StatusCode:
        """Give the status code of an error."""
        return grpc.StatusCode[self.codes.get(type(error), error_row(error).grpc_code)]


OURS = Wording("grpc")
"""How rerank.proto tells errors."""


@asynccontextmanager
async def answering(
    context: grpc.aio.ServicerContext[Any, Any], wording: Wording = OURS
) -> AsyncIterator[None]:
    """Answer one call: whatever the body raises ends the call with a status, and it is counted.

    Cancellation passes through, so that the work behind the call stops with it. What was not
    foreseen is told as INTERNAL without a text and logged with its traceback.
    """
    outcome = "CANCELLED"
    try:
        yield
        outcome = "OK"
    except Exception as error:  # noqa: BLE001 - the one place that keeps surprises from the wire
        told = wording.told(error)
        outcome = error_row(told).reason
        if not isinstance(error, RerankError):
            log_crash(_LOG, "a call over gRPC", error)
        await _abort(context, told, wording)
    finally:
        metrics.REQUESTS.labels(door=wording.door, outcome=outcome).inc()


def status_of(error: RerankError, wording: Wording = OURS) -> status_pb2.Status:
    """Tell an error as a `google.rpc.Status`.

    `ErrorInfo` is always among the details; `BadRequest` names the field of a request error, as
    a path in the service's request; `RetryInfo` says when an unavailable server may be asked again.
    """
    row = error_row(error)
    details: list[message.Message] = [error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN)]
    text = error.message[:_MAX_MESSAGE_CHARACTERS]
    if isinstance(error, RequestError) and error.field is not None:
        path = _path(error.field) if wording is OURS else error.field
        details.append(_bad_request(path, text, row.reason))
    if isinstance(error, Unavailable):
        details.append(_retry_info(error.retry_after_s))
    return status_pb2.Status(
        code=wording.code(error).value[0],
        message=text,
        details=[_packed(detail) for detail in details],
    )


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], error: RerankError, wording: Wording
) -> None:
    status = rpc_status.to_status(status_of(error, wording))
    metadata = (*status.trailing_metadata, *_pushback(error))
    await context.abort(status.code, status.details, metadata)


def _pushback(error: RerankError) -> tuple[tuple[str, str], ...]:
    # gRPC's own retries obey this key and not RetryInfo (gRFC A6, "Pushback").
    if not isinstance(error, Overloaded):
        return ()
    return (("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1000))),)


def _path(field: str) -> str:
    # The engine says `top_n`; on this wire that is a field of the message `options`.
    return f"options.{field}" if field.split(".", maxsplit=1)[0] in _OPTIONS else field


def _bad_request(field: str, description: str, reason: str) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=field, description=description, reason=reason
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _retry_info(retry_after_s: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(round(retry_after_s * 1000))
    return info


def _packed(detail: message.Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
