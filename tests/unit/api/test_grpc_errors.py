"""Errors as google.rpc statuses, each of them and not only those that a call can provoke."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from rerank_sidecar.api.grpc_errors import DOMAIN, status_of
from rerank_sidecar.errors import (
    ERROR_TABLE,
    InvalidField,
    MissingExtra,
    ModelNotFound,
    Overloaded,
    RequestError,
    RerankError,
    Unavailable,
)


def _example(kind: type[RerankError]) -> RerankError:
    if kind is MissingExtra:
        return MissingExtra("server", "serving")
    if issubclass(kind, RequestError):
        return kind("a sentence", "query")
    return kind("a sentence")


def _details(status: status_pb2.Status) -> set[str]:
    return {detail.type_url.rpartition(".")[2] for detail in status.details}


def _field(status: status_pb2.Status) -> str:
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    (violation,) = bad_request.field_violations
    name: str = violation.field
    return name


@pytest.mark.parametrize("kind", ERROR_TABLE, ids=lambda kind: kind.__name__)
def test_every_error_is_told_by_its_row(kind: type[RerankError]) -> None:
    error = _example(kind)
    status = status_of(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (ERROR_TABLE[kind].reason, DOMAIN)
    assert status.code == grpc.StatusCode[ERROR_TABLE[kind].grpc_code].value[0]
    assert status.message == error.message
    assert ("BadRequest" in _details(status)) == issubclass(kind, RequestError)
    assert ("RetryInfo" in _details(status)) == issubclass(kind, Unavailable)


def test_a_request_error_without_a_field_has_no_violation() -> None:
    assert _details(status_of(ModelNotFound("no such model"))) == {"ErrorInfo"}


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("query", "query"),
        ("documents[3]", "documents[3]"),
        ("top_n", "options.top_n"),
        ("truncation.side", "options.truncation.side"),
    ],
)
def test_fields_are_paths_in_the_request_message(field: str, path: str) -> None:
    assert _field(status_of(InvalidField("a sentence", field))) == path


def test_retry_delays_keep_their_fraction() -> None:
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status_of(Overloaded("full", 0.25)).details)
    assert retry.retry_delay.ToMilliseconds() == 250


def test_a_status_fits_into_the_metadata_however_long_its_message() -> None:
    status = status_of(InvalidField("\N{OK HAND SIGN}" * 10_000, "model"))
    percent_encoded = 3 * len(status.message.encode())
    base64_encoded = 4 / 3 * len(status.SerializeToString())
    assert percent_encoded + base64_encoded < 8192
