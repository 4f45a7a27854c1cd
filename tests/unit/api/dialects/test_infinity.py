"""What Infinity's clients are answered, over the toy."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from rerank_sidecar.api.dialects.infinity import InfinityDialect
from rerank_sidecar.errors import ModelNotFound, Overloaded, RerankError, Unauthenticated
from tests.unit.api.dialects.calls import get, post, unit


async def test_the_answer_field_by_field() -> None:
    body = {"model": "toy", "query": "red fruit", "documents": ["-6", "3.5"], "top_n": 1}
    answer = (await post("/infinity/rerank", body)).json()
    assert answer.pop("id").startswith("infinity-")
    assert isinstance(answer.pop("created"), int)
    assert answer == {
        "object": "rerank",
        "results": [{"relevance_score": pytest.approx(unit(3.5)), "index": 1, "document": None}],
        "model": "toy",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


async def test_documents_are_texts_and_raw_scores_logits() -> None:
    body = {"query": "q", "documents": ["-6"], "return_documents": True, "raw_scores": "true"}
    answer = (await post("/infinity/rerank", body)).json()
    assert answer["results"] == [{"relevance_score": -6.0, "index": 0, "document": "-6"}]


@pytest.mark.parametrize("top_n", [None, 0, -1, 9])
async def test_a_top_n_that_leaves_all(top_n: int | None) -> None:
    body = {"query": "q", "documents": ["1", "2"], "top_n": top_n}
    assert len((await post("/infinity/rerank", body)).json()["results"]) == 2


async def test_the_clients_word_for_no_model_means_the_default() -> None:
    body = {"query": "q", "documents": ["1"], "model": "default/not-specified"}
    response = await post("/infinity/rerank", body, unknown_model="error")
    assert response.json()["model"] == "toy"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"documents": []}, ["body", "documents"]),
        ({"documents": ["a", 1]}, ["body", "documents", 1]),
        ({"documents": ["a"], "return_documents": "x"}, ["body", "return_documents"]),
    ],
)
async def test_wrong_fields_are_told_as_fastapi_does(
    body: Mapping[str, Any], place: list[str | int]
) -> None:
    response = await post("/infinity/rerank", {"query": "q", **body})
    assert response.status_code == 422
    (fault,) = response.json()["detail"]
    assert fault.keys() == {"type", "loc", "msg"}
    assert fault["loc"] == place


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (Unauthenticated("no"), 401, {"detail": "Unauthorized"}),
        (
            ModelNotFound("none", "model"),
            400,
            {"error": {"message": "none", "type": None, "param": None, "code": 400}},
        ),
        (
            Overloaded("wait"),
            429,
            {"error": {"message": "wait", "type": None, "param": None, "code": 429}},
        ),
    ],
)
def test_other_errors(error: RerankError, status: int, body: Mapping[str, Any]) -> None:
    found, answer = InfinityDialect().render_error(error)
    assert (found, msgspec.to_builtins(answer)) == (status, body)


async def test_models_and_health() -> None:
    (model,) = (await get("/infinity/models")).json()["data"]
    assert (model["id"], model["owned_by"], model["capabilities"]) == (
        "toy",
        "infinity",
        ["rerank"],
    )
    assert model["stats"] == {}
    assert isinstance((await get("/infinity/health", is_ready=False)).json()["unix"], float)
