"""Vectors as messages and as JSON: read as they were sent, or refused by the name of the field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rerank_sidecar.api.grpc_messages import read_documents, read_request
from rerank_sidecar.api.vectors import read_message, read_rows
from rerank_sidecar.errors import InvalidField
from rerank_sidecar.types import Document
from rerank_sidecar.v1 import rerank_pb2 as pb
from tests.unit.api.toy_engine import Toy, client_of, engine_with

ROWS = [[1.0, -2.5, 3e30], [0.0, 0.25, -1e-3]]


def message(rows: Any, dimension: int = 3) -> pb.Vectors:
    return pb.Vectors(dimension=dimension, values=np.asarray(rows, dtype="<f4").tobytes())


def test_numbers_are_read_as_they_were_sent() -> None:
    for vectors in (read_message(message(ROWS), "f"), read_rows(ROWS, "f")):
        assert vectors.dtype == np.float32
        assert vectors.flags.c_contiguous
        assert np.array_equal(vectors, np.array(ROWS, dtype=np.float32))


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (pb.Vectors(), "f.dimension"),
        (pb.Vectors(values=b"\0" * 12), "f.dimension"),
        (pb.Vectors(dimension=3), "f.values"),
        (pb.Vectors(dimension=3, values=b"\0" * 11), "f.values"),
        (pb.Vectors(dimension=2**32 - 1, values=b"\0" * 12), "f.values"),
        (message([[1.0, np.nan, 0.0]]), "f.values"),
        (message([[1.0, np.inf, 0.0]]), "f.values"),
    ],
    ids=["empty", "no dimension", "none", "a part", "huge", "nan", "infinite"],
)
def test_a_message_that_holds_no_vectors_is_refused(sent: pb.Vectors, field: str) -> None:
    with pytest.raises(InvalidField) as raised:
        read_message(sent, "f")
    assert raised.value.field == field


@pytest.mark.parametrize(
    "rows", [[], [[]], [[1.0], [1.0, 2.0]], [[1e39]], [[-1e300, 0.0]], [[float("nan")]]], ids=str
)
def test_rows_that_are_no_vectors_are_refused(rows: list[list[float]]) -> None:
    with pytest.raises(InvalidField) as raised:
        read_rows(rows, "f")
    assert raised.value.field == "f"


def test_messages_carry_vectors_of_query_and_documents() -> None:
    sent = pb.RerankRequest(
        documents=[pb.Document(text="plain"), pb.Document(id="a", vectors=message(ROWS))],
        query_vectors=message(ROWS[:1]),
    )
    request = read_request(sent, None)
    plain, given = request.documents
    assert plain.vectors is None
    assert given.id == "a"
    assert given.vectors is not None
    assert np.array_equal(given.vectors, read_rows(ROWS, "f"))
    assert request.options.query_vectors is not None
    assert request.options.query_vectors.shape == (1, 3)
    with pytest.raises(InvalidField, match=r"documents\[7\]\.vectors\.dimension"):
        read_documents([pb.Document(vectors=pb.Vectors())], first=7)


async def post(**body: Any) -> tuple[int, Any]:
    async with client_of(engine_with(Toy())) as client:
        response = await client.post("/api/v1/rerank", json={"query": "q", **body})
    return response.status_code, response.json()


@pytest.mark.parametrize("rows", [[], [[]], [[1], [1, 2]], [[1e39]]], ids=str)
async def test_json_that_holds_no_vectors_is_refused(rows: list[list[float]]) -> None:
    for body, field in (
        ({"documents": ["1", {"text": "", "vectors": rows}]}, "documents[1].vectors"),
        ({"documents": ["1"], "query_vectors": rows}, "query_vectors"),
    ):
        status, answer = await post(**body)
        assert (status, answer["error"]["reason"]) == (400, "INVALID_FIELD")
        assert answer["error"]["field"] == field


async def test_json_of_another_type_is_refused() -> None:
    for rows in ("0.5", [0.5], [["0.5"]], {"0": [0.5]}):
        status, _ = await post(documents=["1"], query_vectors=rows)
        assert status == 400


def test_documents_compare_without_their_vectors() -> None:
    assert Document("a", vectors=read_rows(ROWS, "f")) == Document("a")
