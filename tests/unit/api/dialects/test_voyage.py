"""What Voyage's clients are answered, over the toy."""

from typing import Any

import pytest

from rerank_sidecar.api.dialects.voyage import VoyageDialect, VoyageRequest
from rerank_sidecar.errors import LimitExceeded
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    LongDocumentPolicy,
    ModelReference,
    RankedDocument,
    RerankResult,
    RerankSummary,
    Score,
)
from tests.unit.api.dialects.calls import post, unit
from tests.unit.api.toy_engine import Toy

PATH = "/voyage/v1/rerank"


@pytest.mark.parametrize("path", [PATH, "/v1/rerank"])
async def test_the_answer_field_by_field(path: str) -> None:
    body = {
        "model": "rerank-2.5",
        "query": "red fruit",
        "documents": ["-6", "3.5", "1"],
        "top_k": 2,
        "return_documents": True,
        "truncation": True,
    }
    assert (await post(path, body)).json() == {
        "object": "list",
        "data": [
            {"index": 1, "relevance_score": pytest.approx(unit(3.5)), "document": "3.5"},
            {"index": 2, "relevance_score": pytest.approx(unit(1)), "document": "1"},
        ],
        "model": "toy",
        "usage": {"total_tokens": 0},
    }


async def test_no_documents_unless_asked() -> None:
    answer = (await post(PATH, {"query": "q", "documents": ["0"], "top_k": None})).json()
    assert answer["data"] == [{"index": 0, "relevance_score": 0.5}]


@pytest.mark.parametrize(
    ("truncation", "policy"),
    [
        (None, LongDocumentPolicy.TRUNCATE),
        (True, LongDocumentPolicy.TRUNCATE),
        ("true", LongDocumentPolicy.TRUNCATE),
        (False, LongDocumentPolicy.REJECT),
        ("False", LongDocumentPolicy.REJECT),
    ],
)
async def test_truncation(truncation: bool | str | None, policy: LongDocumentPolicy) -> None:
    toy = Toy()
    await post(PATH, {"query": "q", "documents": ["1"], "truncation": truncation}, toy)
    assert [each.long_document_policy for each in toy.options] == [policy]


def test_without_truncation_a_document_that_is_too_long_fails_the_call() -> None:
    too_long = RankedDocument(1, error=LimitExceeded("documents[1]: too long", "documents[1]"))
    summary = RerankSummary(ModelReference("m", "1"), ScoreKind.RAW_LOGIT)
    result = RerankResult((RankedDocument(0, score=Score(0.5)), too_long), summary)
    whole = VoyageDialect().render(VoyageRequest("q", ["a", "b"]), result)
    assert [each.index for each in whole.data] == [0, 1]
    with pytest.raises(LimitExceeded) as raised:
        VoyageDialect().render(VoyageRequest("q", ["a", "b"], truncation=False), result)
    assert VoyageDialect().render_error(raised.value)[0] == 400


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"query": "q", "documents": [5]}, 400, "documents[0]: expected string, got integer"),
        ({"query": "q", "documents": ["a"], "truncation": "no way"}, 400, "truncation: must be"),
        ([], 422, "body: expected object, got array"),
        ({"query": "q", "documents": ["1"], "model": "x"}, 400, "model: "),
    ],
)
async def test_an_error_is_a_detail(body: Any, status: int, detail: str) -> None:
    response = await post(PATH, body, unknown_model="error")
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert response.json()["detail"].startswith(detail)
