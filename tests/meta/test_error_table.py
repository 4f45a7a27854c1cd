"""Every error that can be raised has a row that tells it on the wire, and the docs list it."""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import grpc
import pytest

from rerank_sidecar import errors
from rerank_sidecar.errors import ERROR_TABLE, RequestError, RerankError, ServerFault

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


def _tree(root: type[RerankError]) -> Iterator[type[RerankError]]:
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)


LEAVES = [
    error
    for error in _tree(RerankError)
    if error.__module__ == errors.__name__ and (not error.__subclasses__() or error in ERROR_TABLE)
]


def test_every_leaf_has_a_row_and_every_row_is_an_error() -> None:
    assert set(ERROR_TABLE) == set(LEAVES)


def test_reasons_are_stable_names_used_once() -> None:
    reasons = [row.reason for row in ERROR_TABLE.values()]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.replace("_", "").isalpha() and reason.isupper() for reason in reasons)


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_codes_exist_and_blame_the_right_side(error: type[RerankError]) -> None:
    row = ERROR_TABLE[error]
    assert hasattr(grpc.StatusCode, row.grpc_code)
    if issubclass(error, RequestError):
        assert HTTPStatus.BAD_REQUEST <= row.http_status < HTTPStatus.INTERNAL_SERVER_ERROR
        assert row.grpc_code not in {"INTERNAL", "UNKNOWN"}
    if issubclass(error, ServerFault):
        assert row.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR
        assert row.grpc_code != "INVALID_ARGUMENT"


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_the_tree_in_the_docstring_and_the_docs_name_it(error: type[RerankError]) -> None:
    row = ERROR_TABLE[error]
    assert error.__name__ in (errors.__doc__ or "")
    line = f"| `{row.reason}` | {row.grpc_code} | {row.http_status} | "
    assert line in DOCS.read_text("utf-8")
