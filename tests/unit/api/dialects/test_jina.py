"""What Jina's clients are answered, over the toy."""

from typing import Any

import pytest

from tests.unit.api.dialects.calls import post, unit

PATH = "/jina/v1/rerank"


async def test_the_answer_field_by_field() -> None:
    body = {
        "model": "jina-reranker-v3",
        "query": {"text": "red fruit"},
        "documents": ["-6", {"text": "3.5"}],
        "return_documents": True,
    }
    assert (await post(PATH, body)).json() == {
        "model": "toy",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
        "results": [
            {"index": 1, "relevance_score": pytest.approx(unit(3.5)), "document": "3.5"},
            {"index": 0, "relevance_score": pytest.approx(unit(-6)), "document": "-6"},
        ],
    }


@pytest.mark.parametrize("asked", [{}, {"return_documents": False}, {"return_documents": "false"}])
async def test_no_documents_unless_asked(asked: dict[str, Any]) -> None:
    answer = (await post(PATH, {"query": "q", "documents": ["0"], **asked})).json()
    assert answer["results"] == [{"index": 0, "relevance_score": 0.5}]


@pytest.mark.parametrize(("top_n", "count"), [(None, 2), (0, 2), (1, 1), (9, 2)])
async def test_top_n(top_n: int | None, count: int) -> None:
    body = {"query": "q", "documents": ["1", "2"], "top_n": top_n}
    assert len((await post(PATH, body)).json()["results"]) == count


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"documents": ["a"]}, 422, "query: missing"),
        ({"query": "q", "documents": [{"image": "b"}]}, 422, "documents[0].text: expected"),
        ({"query": "q", "documents": ["1", "2", "3"]}, 400, "documents: more than 2"),
    ],
)
async def test_an_error_is_a_detail(body: dict[str, Any], status: int, detail: str) -> None:
    response = await post(PATH, body, max_documents=2)
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert response.json()["detail"].startswith(detail)
