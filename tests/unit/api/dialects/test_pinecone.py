"""What Pinecone's clients are answered, over the toy."""

from typing import Any

import pytest

from rerank_sidecar.api.dialects.pinecone import (
    PineconeDialect,
    PineconeParameters,
    PineconeRequest,
)
from rerank_sidecar.errors import LimitExceeded, ModelNotFound, Overloaded, Unauthenticated
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    ModelReference,
    RankedDocument,
    RerankResult,
    RerankSummary,
    Score,
)
from tests.unit.api.dialects.calls import post, unit
from tests.unit.api.toy_engine import Toy, client_of, engine_with

PATH = "/pinecone/rerank"


async def test_the_answer_field_by_field() -> None:
    body = {
        "model": "bge-reranker-v2-m3",
        "query": "red fruit",
        "documents": [{"text": "-6"}, {"id": "b", "text": "3.5"}],
        "top_n": 1,
        "rank_fields": ["text"],
        "return_documents": True,
        "parameters": {"truncate": "END"},
    }
    assert (await post(PATH, body)).json() == {
        "model": "toy",
        "data": [
            {
                "index": 1,
                "score": pytest.approx(unit(3.5)),
                "document": {"id": "b", "text": "3.5"},
            }
        ],
        "usage": {"rerank_units": 1},
    }


async def test_a_bare_path_is_pinecones_if_the_key_is() -> None:
    body = {"query": "q", "documents": [{"text": "0"}], "top_n": 1, "return_documents": False}
    async with client_of(engine_with(Toy())) as client:
        response = await client.post("/rerank", json=body, headers={"Api-Key": "a"})
    assert response.json()["data"] == [{"index": 0, "score": 0.5}]


@pytest.mark.parametrize("asked", [{}, {"return_documents": None}, {"return_documents": "true"}])
async def test_documents_come_back_as_they_were_sent_unless_told_not_to(
    asked: dict[str, Any],
) -> None:
    documents = [{"title": "2", "id": 7}, {"title": "1", "text": "x"}]
    body = {"query": "q", "documents": documents, "rank_fields": ["title"], **asked}
    data = (await post(PATH, body)).json()["data"]
    assert [each["document"] for each in data] == documents


@pytest.mark.parametrize(
    ("parameters", "policy"),
    [
        (None, "chunk"),
        ({}, "chunk"),
        ({"truncate": None, "other": 5}, "chunk"),
        ({"truncate": "END"}, "truncate"),
        ({"truncate": "NONE"}, "reject"),
    ],
)
async def test_truncate(parameters: dict[str, Any] | None, policy: str) -> None:
    toy = Toy()
    body = {"query": "q", "documents": [{"text": "1"}], "parameters": parameters}
    await post(PATH, body, toy, long_document_policy="chunk")
    assert [each.long_document_policy for each in toy.options] == [policy]


def test_what_may_not_be_cut_fails_the_call() -> None:
    too_long = RankedDocument(1, error=LimitExceeded("documents[1]: too long", "documents[1]"))
    summary = RerankSummary(ModelReference("m", "1"), ScoreKind.RAW_LOGIT)
    result = RerankResult((RankedDocument(0, score=Score(0.5)), too_long), summary)
    answer = PineconeDialect().render(PineconeRequest("q", ["a", "b"]), result)
    assert [each.document for each in answer.data] == [{"text": "a"}, {"text": "b"}]
    forbidding = PineconeRequest("q", ["a", "b"], parameters=PineconeParameters("NONE"))
    with pytest.raises(LimitExceeded):
        PineconeDialect().render(forbidding, result)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"top_n": 0}, "top_n: must be at least 1"),
        ({"rank_fields": ["title"]}, "documents[0]: has none of the rank_fields"),
        ({"parameters": {"truncate": "MIDDLE"}}, "parameters.truncate: must be END or NONE"),
    ],
)
async def test_a_wrong_request_is_told_so(body: dict[str, Any], message: str) -> None:
    response = await post(PATH, {"query": "q", "documents": [{"text": "1"}], **body})
    answer = response.json()
    assert response.status_code == 400
    assert answer["error"].pop("message").startswith(message)
    assert answer == {"error": {"code": "INVALID_ARGUMENT"}, "status": 400}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Unauthenticated("no"), 401, "UNAUTHENTICATED"),
        (ModelNotFound("no"), 404, "NOT_FOUND"),
        (Overloaded("no"), 429, "RESOURCE_EXHAUSTED"),
    ],
)
def test_errors_have_the_names_of_grpc_codes(error: Any, status: int, code: str) -> None:
    told, body = PineconeDialect().render_error(error)
    assert (told, body.status, body.error.code, body.error.message) == (status, status, code, "no")
