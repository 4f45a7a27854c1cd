"""What LibreChat is answered in place of its rag_api, over the toy."""

from typing import Any

import pytest

from tests.unit.api.dialects.calls import post, unit
from tests.unit.api.toy_engine import FAILS

PATH = "/librechat/v1/rerank"


@pytest.mark.parametrize("path", [PATH, "/v1/rerank"])
async def test_as_it_sends_it(path: str) -> None:
    body = {
        "profile": "fast-v1",
        "query": "red fruit",
        "candidates": [
            {"id": "0", "text": "-6", "base_score": 0},
            {"id": "1", "text": "3.5", "base_score": 0},
            {"id": "2", "text": "1", "base_score": 0},
        ],
        "top_n": 2,
    }
    assert (await post(path, body)).json() == {
        "profile": "fast-v1",
        "model": "toy",
        "results": [
            {"id": "1", "index": 1, "score": pytest.approx(unit(3.5))},
            {"id": "2", "index": 2, "score": pytest.approx(unit(1))},
        ],
    }


async def test_no_candidate_is_lost_and_ids_are_given_back() -> None:
    candidates = [{"text": FAILS, "id": 7}, {"text": "1"}, {"text": "", "id": None}]
    answer = (await post(PATH, {"query": "q", "candidates": candidates})).json()
    assert [each["id"] for each in answer["results"]] == ["1", "2", 7]
    assert answer["profile"] is None


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"query": "q", "candidates": [{"id": "0"}]}, 422, "candidates[0].text: missing"),
        ({"query": "q", "candidates": [{"text": "1"}] * 3}, 400, "candidates: more than 2"),
    ],
)
async def test_an_error_is_a_detail(body: dict[str, Any], status: int, detail: str) -> None:
    response = await post(PATH, body, max_documents=2)
    assert (response.status_code, response.json()) == (status, {"detail": detail})
