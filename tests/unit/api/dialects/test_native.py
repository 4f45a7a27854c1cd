"""The native JSON form says the same as rerank.proto, in the same words."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor

from rerank_sidecar.api.dialects import native_messages as messages
from rerank_sidecar.api.dialects.native import NativeDialect
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    Normalization,
    RerankOptions,
    RerankSummary,
    Score,
    Truncation,
    TruncationSide,
    Window,
)
from rerank_sidecar.v1 import rerank_pb2 as pb
from tests.unit.api.toy_engine import FAILS, Toy, client_of, engine_with, unready_engine


async def post(body: Mapping[str, Any], toy: Toy | None = None, **headers: str) -> Any:
    async with client_of(engine_with(toy or Toy())) as client:
        response = await client.post("/api/v1/rerank", json=body, headers=headers)
    return response.status_code, response.json()


def parse(**body: Any) -> Any:
    message = msgspec.convert({"query": "q", "documents": [], **body}, messages.NativeRequest)
    return NativeDialect().parse(message)


async def test_best_first_with_scores_and_totals() -> None:
    documents = ["0.25", {"text": "0.75", "id": "mine"}, "0.25"]
    status, answer = await post({"query": "q", "documents": documents})
    assert status == 200
    assert [each["index"] for each in answer["results"]] == [1, 0, 2]
    assert answer["results"][0] == {
        "index": 1,
        "id": "mine",
        "score": {
            "value": 0.75,
            "best_window": {"start": 0, "end": 4},
            "truncated": False,
            "window_count": 1,
        },
    }
    summary = answer["summary"]
    assert summary["model"] == {"name": "toy", "version": "1"}
    assert (summary["score_kind"], summary["normalization"]) == ("RAW_LOGIT", "none")
    assert summary["timing"]["total_us"] >= 0


async def test_options_reach_the_engine() -> None:
    options = {"top_n": 1, "return_documents": True, "normalization": "unit"}
    status, answer = await post({"query": "q", "documents": ["-1", "0"], "options": options})
    assert status == 200
    (result,) = answer["results"]
    assert result["document"] == {"text": "0", "id": None}
    assert result["score"]["value"] == 0.5
    assert answer["summary"]["normalization"] == "unit"


async def test_a_document_that_fails_alone_says_why() -> None:
    _, answer = await post({"query": "q", "documents": [FAILS, "1"]})
    assert answer["results"][1] == {
        "index": 0,
        "error": {"reason": "BACKEND_FAILED", "message": "the forward pass failed"},
    }


def test_unset_options_are_the_defaults() -> None:
    assert parse().options == RerankOptions()
    assert parse(options={}).options == RerankOptions()
    unset = dict.fromkeys(messages.NativeOptions.__struct_fields__)
    assert parse(options=unset).options == RerankOptions()


@pytest.mark.parametrize("long", [False, True])
def test_every_option_is_read_under_short_and_proto_names(long: bool) -> None:
    names = ["truncate", "left", "unit"]
    if long:
        names = ["LONG_DOCUMENT_POLICY_TRUNCATE", "TRUNCATION_SIDE_LEFT", "NORMALIZATION_UNIT"]
    policy, side, normalization = names
    given = parse(
        documents=["a", {"text": "b", "id": "2"}],
        options={
            "model": "m",
            "top_n": 3,
            "return_documents": True,
            "score_threshold": -0.5,
            "truncation": {"max_tokens_per_document": 9, "side": side},
            "long_document_policy": policy,
            "priority": -2,
            "normalization": normalization,
        },
    )
    assert given.documents == (Document("a"), Document("b", "2"))
    assert given.options == RerankOptions(
        model="m",
        top_n=3,
        return_documents=True,
        score_threshold=-0.5,
        truncation=Truncation(9, TruncationSide.LEFT),
        long_document_policy=LongDocumentPolicy.TRUNCATE,
        priority=-2,
        normalization=Normalization.UNIT,
    )


def test_the_json_of_a_proto_request_is_a_native_request() -> None:
    options = pb.RerankOptions(
        top_n=2,
        truncation=pb.Truncation(side=pb.TRUNCATION_SIDE_UNSPECIFIED),
        long_document_policy=pb.LONG_DOCUMENT_POLICY_CHUNK,
    )
    request = pb.RerankRequest(
        query="q", documents=[pb.Document(text="a", id="1")], options=options
    )
    body = json_format.MessageToDict(
        request, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    given = parse(**body)
    assert given.documents == (Document("a", "1"),)
    chunked = replace(RerankOptions(), top_n=2, long_document_policy=LongDocumentPolicy.CHUNK)
    assert given.options == chunked


@pytest.mark.parametrize(
    ("ours", "proto"),
    [
        (messages.NativeRequest, pb.RerankRequest),
        (messages.NativeDocument, pb.Document),
        (messages.NativeOptions, pb.RerankOptions),
        (messages.NativeTruncation, pb.Truncation),
        (messages.NativeAnswer, pb.RerankResponse),
        (messages.NativeResult, pb.RerankResult),
        (messages.NativeDocumentError, pb.DocumentError),
        (messages.NativeModel, pb.Model),
        (messages.NativeModels, pb.ListModelsResponse),
        (RerankSummary, pb.RerankSummary),
        (Score, pb.Score),
        (Window, pb.Window),
    ],
)
def test_field_names_are_those_of_the_proto(ours: type, proto: Any) -> None:
    descriptor: Descriptor = proto.DESCRIPTOR
    fields = {field.name for field in msgspec.inspect.type_info(ours).fields}  # type: ignore[attr-defined]
    assert fields == {field.name for field in descriptor.fields}


@pytest.mark.parametrize(
    ("names", "enum"),
    [
        (messages.POLICIES, pb.LongDocumentPolicy),
        (messages.SIDES, pb.TruncationSide),
        (messages.NORMALIZATIONS, pb.Normalization),
    ],
)
def test_enum_names_are_those_of_the_proto(names: Mapping[str, object], enum: Any) -> None:
    assert {name for name in names if name.isupper()} == set(enum.keys())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"documents": []}, "query"),
        ({"query": "q"}, "documents"),
        ({"query": "q", "documents": ["a", {"id": "1"}]}, "documents[1].text"),
        ({"query": "q", "documents": [], "options": {"top_n": 0}}, "options.top_n"),
        (
            {"query": "q", "documents": [], "options": {"normalization": "x"}},
            "options.normalization",
        ),
        (
            {"query": "q", "documents": [], "options": {"truncation": {"side": "up"}}},
            "options.truncation.side",
        ),
        (
            {
                "query": "q",
                "documents": [],
                "options": {"truncation": {"max_tokens_per_document": 0}},
            },
            "options.truncation.max_tokens_per_document",
        ),
    ],
)
async def test_errors_name_the_field(body: Mapping[str, Any], field: str) -> None:
    status, answer = await post(body)
    assert status == 400
    assert answer["error"]["reason"] == "INVALID_FIELD"
    assert answer["error"]["field"] == field
    assert answer["error"]["message"]


@pytest.mark.parametrize(
    ("body", "field"), [({"top_n": 1}, "top_n"), ({"options": {"topn": 1}}, "options.topn")]
)
async def test_misspelt_and_misplaced_fields_are_refused(
    body: Mapping[str, Any], field: str
) -> None:
    status, answer = await post({"query": "q", "documents": [], **body})
    assert status == 400
    assert answer["error"] == {
        "reason": "MALFORMED_BODY",
        "message": f"{field}: no such field",
        "field": field,
    }


async def test_an_unknown_model_is_not_found() -> None:
    body = {"query": "q", "documents": [], "options": {"model": "nope"}}
    async with client_of(engine_with(Toy(), unknown_model="error")) as client:
        response = await client.post("/api/v1/rerank", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["reason"]) == (404, "MODEL_NOT_FOUND")
    assert error["field"] == "options.model"


async def test_models_are_listed() -> None:
    async with client_of(engine_with(Toy())) as client:
        answer = (await client.get("/api/v1/models")).json()
    assert answer == {
        "models": [
            {
                "model": {"name": "toy", "version": "1"},
                "family": "toy",
                "score_kind": "RAW_LOGIT",
                "max_tokens": None,
                "comparable_across_requests": True,
                "is_default": True,
                "default_long_document_policy": "truncate",
                "aliases": [],
                "is_loaded": True,
                "vector_dimension": None,
            }
        ]
    }


async def test_before_the_models_are_loaded_callers_are_told_when_to_come_again() -> None:
    async with client_of(unready_engine()) as client:
        listed = await client.get("/api/v1/models")
        ranked = await client.post("/api/v1/rerank", json={"query": "q", "documents": []})
    for response in (listed, ranked):
        assert response.status_code == 503
        assert response.json()["error"]["reason"] == "NOT_READY"
        assert response.json()["error"]["retry_after_s"] > 0
        assert int(response.headers["Retry-After"]) >= 1
