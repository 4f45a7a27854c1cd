"""What Weaviate's module is answered, over a toy: positions, floors, the old form, errors."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rerank_sidecar.api.dialects.weaviate import WeaviateDialect, WeaviateRequest
from rerank_sidecar.errors import NotSupportedByModel
from rerank_sidecar.score_kinds import ScoreKind, floor
from rerank_sidecar.telemetry.metrics import DOCUMENTS_FAILED
from rerank_sidecar.types import ModelReference, RerankResult, RerankSummary
from tests.unit.api.toy_engine import CRASHES, FAILS, Toy, client_of, engine_with, unready_engine


async def post(body: Mapping[str, Any], toy: Toy | None = None, **settings: object) -> Any:
    async with client_of(engine_with(toy or Toy(), **settings)) as client:
        response = await client.post("/weaviate/rerank", json=body)
    return response.status_code, response.json()


async def test_one_score_per_document_in_input_order() -> None:
    documents = ["0.1", "0.9", "-3", "0.9"]
    status, answer = await post({"query": "q", "documents": documents, "property": ""})
    assert status == 200
    assert answer == {
        "query": "q",
        "scores": [{"document": each, "score": float(each)} for each in documents],
        "property": None,
        "score": None,
    }


async def test_no_documents_no_scores() -> None:
    status, answer = await post({"query": "q", "documents": [], "property": ""})
    assert (status, answer["scores"]) == (200, [])


async def test_empty_texts_are_scored() -> None:
    status, answer = await post({"query": "", "documents": ["", ""], "property": ""})
    assert (status, [each["score"] for each in answer["scores"]]) == (200, [0.0, 0.0])


@pytest.mark.parametrize("documents", [{}, {"documents": None}])
async def test_the_old_form_scores_the_property(documents: Mapping[str, None]) -> None:
    status, answer = await post({"query": "q", "property": "0.5", **documents})
    assert status == 200
    assert answer == {"query": "q", "scores": None, "property": "0.5", "score": 0.5}


async def test_documents_win_over_the_property() -> None:
    _, answer = await post({"query": "q", "property": "0.5", "documents": ["0.25"]})
    assert answer["scores"] == [{"document": "0.25", "score": 0.25}]
    assert answer["property"] is None
    assert answer["score"] is None


async def test_extra_keys_are_ignored() -> None:
    extra = {"property": "", "top_n": 0, "model": "nope"}
    status, _ = await post({"query": "q", "documents": ["1"], **extra})
    assert status == 200


@pytest.mark.parametrize("kind", [kind for kind in ScoreKind if kind is not ScoreKind.RANK])
async def test_a_document_that_fails_alone_gets_the_floor(kind: ScoreKind) -> None:
    counted = DOCUMENTS_FAILED.labels(reason="BACKEND_FAILED")
    before = counted._value.get()
    status, answer = await post({"query": "q", "documents": ["0.5", FAILS, "0.25"]}, Toy(kind))
    assert status == 200
    scores = [each["score"] for each in answer["scores"]]
    assert scores == [0.5, floor(kind), 0.25]
    assert all(math.isfinite(score) for score in scores)
    assert answer["scores"][1]["document"] == FAILS
    (error,) = answer["errors"]
    assert error == {"index": 1, "reason": "BACKEND_FAILED", "message": "the forward pass failed"}
    assert counted._value.get() == before + 1


async def test_a_document_over_the_limit_fails_alone() -> None:
    body = {"query": "q", "documents": ["1", "x" * 101]}
    status, answer = await post(body, max_document_bytes=100)
    assert status == 200
    assert [each["reason"] for each in answer["errors"]] == ["LIMIT_EXCEEDED"]


@pytest.mark.parametrize("body", [{"documents": [FAILS, FAILS]}, {"property": FAILS}])
async def test_if_all_fail_the_call_fails(body: Mapping[str, Any]) -> None:
    status, answer = await post({"query": "q", **body})
    assert (status, answer) == (500, {"error": "the forward pass failed"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"documents": ["a"]}, "query: missing"),
        ({"query": "q"}, "documents: missing"),
        ({"query": "q", "documents": ["a", 5]}, "documents[1]: expected string, got integer"),
        ({"query": "q", "documents": "a"}, "documents: expected array or null, got string"),
        ({"query": "q", "property": 5}, "property: expected string or null, got integer"),
    ],
)
async def test_errors_are_strings_that_name_the_field(body: Mapping[str, Any], words: str) -> None:
    status, answer = await post(body)
    assert status == 400
    assert list(answer) == ["error"]
    assert words in answer["error"]


async def test_what_was_not_foreseen_is_not_told() -> None:
    status, answer = await post({"query": "q", "documents": ["1", CRASHES]})
    assert status == 500
    assert CRASHES not in answer["error"]


async def test_not_ready_is_told_with_a_time_to_come_again() -> None:
    async with client_of(unready_engine()) as client:
        response = await client.post("/rerank", json={"query": "q", "documents": ["1"]})
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert isinstance(response.json()["error"], str)


def test_a_model_that_ranks_lists_is_refused() -> None:
    summary = RerankSummary(ModelReference("listwise", "1"), ScoreKind.RANK)
    with pytest.raises(NotSupportedByModel):
        WeaviateDialect().render(WeaviateRequest("q", []), RerankResult((), summary))


def test_the_floors_are_documented() -> None:
    page = (Path(__file__).parents[4] / "docs" / "weaviate.md").read_text("utf-8")
    for kind in set(ScoreKind) - {ScoreKind.RANK}:
        assert f"| `{kind}` | {floor(kind):g} |" in page
