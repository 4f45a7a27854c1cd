"""The client's errors are the server's, seen from the other end."""

import inspect
import pickle
import re

import grpc
import pytest
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

import rerank_adapters
from rerank_adapters import errors
from rerank_adapters.errors import (
    ERRORS,
    BodyTooLarge,
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    RequestError,
    RerankCallError,
    RouteNotFound,
    ServerFault,
    Unauthenticated,
    Unavailable,
    Unreachable,
    error_of_status,
)
from rerank_adapters.transport.json_wire import read_error
from rerank_sidecar.api.dialects.native import NativeDialect
from rerank_sidecar.api.grpc_errors import OURS, status_of
from rerank_sidecar.api.http_answer import json_response
from rerank_sidecar.errors import ERROR_TABLE, MissingExtra, RerankError

TREE = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RerankCallError)
]


def raised(kind: type[RerankError]) -> RerankError:
    return kind("torch", "serving") if kind is MissingExtra else kind("why")


@pytest.mark.parametrize("kind", ERROR_TABLE, ids=lambda kind: kind.__name__)
def test_every_reason_of_the_server_is_one_here_over_both_doors(kind: type[RerankError]) -> None:
    row, error = ERROR_TABLE[kind], raised(kind)
    status = status_of(error)
    over_grpc = error_of_status(OURS.code(error), status.message, status.details)
    http_status, body = NativeDialect().render_error(error)
    over_http = read_error(http_status, None, bytes(json_response(http_status, body).body))
    for told in (over_grpc, over_http):
        assert type(told).__name__ == kind.__name__
        assert (told.reason, told.code.name) == (row.reason, row.grpc_code)
        assert (told.message, told.field) == (error.message, None)
        assert told.retry_after_s == getattr(error, "retry_after_s", None)


@pytest.mark.parametrize("kind", ERROR_TABLE, ids=lambda kind: kind.__name__)
def test_the_trees_have_the_same_shape(kind: type[RerankError]) -> None:
    ours, _ = ERRORS[ERROR_TABLE[kind].reason]
    theirs = [each.__name__ for each in kind.__mro__ if issubclass(each, RerankError)]
    mine = [each.__name__ for each in ours.__mro__ if issubclass(each, RerankCallError)]
    assert mine[:-1] == theirs[:-1]


def test_no_reason_is_one_that_no_server_has() -> None:
    assert ERRORS.keys() == {row.reason for row in ERROR_TABLE.values()}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_the_tree_is_drawn_and_exported(kind: type[RerankCallError]) -> None:
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__ or "")
    assert kind.__name__ in rerank_adapters.__all__


def test_what_is_exported_is_sorted_and_there() -> None:
    assert rerank_adapters.__all__ == sorted(rerank_adapters.__all__)
    for name in rerank_adapters.__all__:
        assert getattr(rerank_adapters, name).__doc__


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", Unreachable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, "", Cancelled),
        (grpc.StatusCode.UNIMPLEMENTED, "", RouteNotFound),
        (grpc.StatusCode.PERMISSION_DENIED, "", Unauthenticated),
        (grpc.StatusCode.INVALID_ARGUMENT, "", RequestError),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (9 vs. 4)",
            BodyTooLarge,
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full", Overloaded),
        (grpc.StatusCode.UNKNOWN, "", ServerFault),
        (grpc.StatusCode.DATA_LOSS, "", ServerFault),
    ],
    ids=str,
)
def test_what_no_sidecar_said_is_told_by_its_code(
    code: grpc.StatusCode, message: str, kind: type[RerankCallError]
) -> None:
    error = error_of_status(code, message, ())
    assert type(error) is kind
    assert (error.code, error.reason, error.message) == (code, None, message)


def test_a_newer_servers_reason_is_told_by_its_code() -> None:
    status = status_of(ERRORS_OF_A_NEWER_SERVER)
    for detail in status.details:
        detail.value = detail.value.replace(b"NOT_READY", b"NOT_THERE")
    error = error_of_status(grpc.StatusCode.UNAVAILABLE, status.message, status.details)
    assert type(error) is Unavailable
    assert error.reason == "NOT_THERE"


ERRORS_OF_A_NEWER_SERVER = raised(next(each for each in ERROR_TABLE if each.__name__ == "NotReady"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RequestError), (422, RequestError), (503, Unreachable), (500, ServerFault)],
)
def test_a_newer_servers_reason_over_http_is_told_by_its_status(
    status: int, kind: type[RerankCallError]
) -> None:
    body = b'{"error": {"reason": "NEW", "message": "why", "field": "a", "retry_after_s": 1.5}}'
    error = read_error(status, None, body)
    assert type(error) is kind
    assert (error.reason, error.message, error.field) == ("NEW", "why", "a")
    assert error.retry_after_s == 1.5


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "text"}', b'{"error": {}}'])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthenticated),
        (404, RouteNotFound),
        (413, BodyTooLarge),
        (429, Overloaded),
        (502, Unreachable),
        (503, Unreachable),
        (500, ServerFault),
        (418, RequestError),
    ],
)
def test_what_a_proxy_says_is_told_by_its_status(
    status: int, kind: type[RerankCallError], body: bytes
) -> None:
    error = read_error(status, "7", body)
    assert type(error) is kind
    assert (error.reason, error.retry_after_s) == (None, 7.0)
    assert str(status) in str(error)


def test_a_hint_that_is_a_date_is_none() -> None:
    assert read_error(503, "Wed, 21 Oct 2015 07:28:00 GMT", b"").retry_after_s is None


@given(st.sampled_from(TREE), st.text(), st.none() | st.text(), st.none() | st.floats(0, 1e6))
def test_errors_can_be_sent_to_another_process(
    kind: type[RerankCallError], message: str, field: str | None, retry_after_s: float | None
) -> None:
    error = kind(grpc.StatusCode.INTERNAL, "REASON", message, field, retry_after_s)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is kind
    assert copy.args == error.args
    assert str(copy) == str(error)


def test_details_of_another_kind_are_passed_over() -> None:
    status = status_pb2.Status()
    status.details.add().Pack(status_pb2.Status(message="something else"))
    assert error_of_status(grpc.StatusCode.INTERNAL, "why", status.details).reason is None
