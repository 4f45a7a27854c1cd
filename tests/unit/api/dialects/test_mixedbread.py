"""What Mixedbread's clients are answered, over the toy."""

from typing import Any

import pytest

from tests.unit.api.dialects.calls import post, unit
from tests.unit.api.toy_engine import Toy, client_of, unready_engine

PATH = "/mixedbread/v1/reranking"


@pytest.mark.parametrize("path", [PATH, "/v1/reranking"])
async def test_the_answer_field_by_field(path: str) -> None:
    body = {
        "model": "mixedbread-ai/mxbai-rerank-large-v2",
        "query": "red fruit",
        "input": ["-6", {"text": "3.5", "id": 7}, "1"],
        "top_k": 2,
        "return_input": True,
        "rewrite_query": False,
    }
    scores = [pytest.approx(unit(3.5)), pytest.approx(unit(1))]
    assert (await post(path, body)).json() == {
        "object": "list",
        "model": "toy",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
        "data": [
            {
                "index": 1,
                "score": scores[0],
                "input": {"text": "3.5", "id": 7},
                "object": "rank_result",
            },
            {"index": 2, "score": scores[1], "input": "1", "object": "rank_result"},
        ],
        "top_k": 2,
        "return_input": True,
    }


@pytest.mark.parametrize("top_k", [{}, {"top_k": None}, {"top_k": 0}])
async def test_without_top_k_all_come_back_and_no_input(top_k: dict[str, Any]) -> None:
    answer = (await post(PATH, {"query": "q", "input": ["0", "1"], **top_k})).json()
    assert [sorted(each) for each in answer["data"]] == [["index", "object", "score"]] * 2
    assert (answer["top_k"], answer["return_input"]) == (2, False)


async def test_documents_are_texts_objects_or_parts() -> None:
    toy = Toy()
    body = {
        "query": {"type": "text", "text": "q"},
        "input": ["a", {"title": "b", "text": "c"}, ["d", {"type": "text", "text": "e"}]],
        "rank_fields": ["title", "text"],
    }
    assert (await post(PATH, body, toy)).status_code == 200
    assert (toy.queries, toy.texts) == (["q"], ["a", "b\nc", "d\ne"])


@pytest.mark.parametrize(
    ("body", "status", "kind", "field"),
    [
        ({"query": "q", "input": [5]}, 422, "validation_error", "input[0]"),
        ({"query": "q", "input": [{"a": 1}]}, 422, "validation_error", "input[0].text"),
        ({"query": "q", "input": [[{"a": 1}]]}, 422, "validation_error", "input[0][0].text"),
        ({"query": "q", "input": ["1", "2"]}, 400, "bad_request_error", "input"),
        ({"query": "q", "input": [], "model": "x"}, 404, "not_found_error", "model"),
        ([], 400, "bad_request_error", None),
    ],
)
async def test_an_error_has_a_type_and_names_the_field(
    body: Any, status: int, kind: str, field: str | None
) -> None:
    response = await post(PATH, body, max_documents=1, unknown_model="error")
    assert response.status_code == status
    answer = response.json()
    assert answer.pop("message").startswith(field or "body")
    details = None if field is None else {"field": field}
    assert answer == {"type": kind, "url": None, "details": details}


async def test_other_errors_are_the_servers() -> None:
    async with client_of(unready_engine()) as client:
        response = await client.post(PATH, json={"query": "q", "input": []})
    assert (response.status_code, response.json()["type"]) == (503, "server_error")
