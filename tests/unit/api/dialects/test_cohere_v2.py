"""What clients of Cohere's second version, and Weaviate's reranker-cohere, are answered."""

from typing import Any

import pytest

from tests.unit.api.dialects.calls import post, unit
from tests.unit.api.toy_engine import FAILS, Toy

PATHS = ("/cohere/v2/rerank", "/v2/rerank")
PATH = PATHS[0]


@pytest.mark.parametrize("path", PATHS)
async def test_the_answer_field_by_field(path: str) -> None:
    body = {"model": "rerank-v3.5", "query": "red fruit", "documents": ["sky", "-6"], "top_n": 1}
    answer = (await post(path, body)).json()
    assert answer.pop("id")
    assert answer == {
        "results": [{"index": 0, "relevance_score": pytest.approx(unit(3))}],
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 0, "output_tokens": 0},
        },
    }


async def test_weaviate_gets_every_document_back() -> None:
    """It makes a list as long as the results and looks up each index in it."""
    documents = ["", FAILS, *map(str, range(998))]
    body = {
        "model": "rerank-v3.5",
        "query": "q",
        "documents": documents,
        "return_documents": False,
    }
    answer = (await post("/v2/rerank", body)).json()
    assert sorted(each["index"] for each in answer["results"]) == list(range(1000))
    assert all("document" not in each for each in answer["results"])
    assert answer["meta"]["billed_units"] == {"search_units": 10}


async def test_as_litellm_sends_it() -> None:
    """With what belongs to version 1."""
    body = {
        "model": "rerank-v3.5",
        "query": "q",
        "documents": [{"title": "2", "id": 7}, "1"],
        "rank_fields": ["title"],
        "return_documents": True,
    }
    results = (await post(PATH, body)).json()["results"]
    assert [each["document"] for each in results] == [
        {"text": "2", "title": "2", "id": 7},
        {"text": "1"},
    ]


@pytest.mark.parametrize(("theirs", "ours"), [(None, 0), (0, 0), (5, -5), (999, -999)])
async def test_the_lowest_number_is_the_highest_priority(theirs: int | None, ours: int) -> None:
    toy = Toy()
    await post(PATH, {"query": "q", "documents": ["1"], "priority": theirs}, toy)
    assert [each.priority for each in toy.options] == [ours]


@pytest.mark.parametrize("limit", [None, 1, 4096, 10**30])
async def test_documents_are_cut_to_max_tokens_per_doc(limit: int | None) -> None:
    toy = Toy()
    await post(PATH, {"query": "q", "documents": ["1"], "max_tokens_per_doc": limit}, toy)
    assert [each.truncation.max_tokens_per_document for each in toy.options] == [limit]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc: must be at least 1"),
        ({"priority": 10**12}, "priority: must be within"),
        ({"top_n": "3"}, "top_n: expected integer or null, got string"),
    ],
)
async def test_an_error_names_the_clients_field(body: dict[str, Any], message: str) -> None:
    response = await post(PATH, {"query": "q", "documents": ["1"], **body})
    assert response.status_code == 400
    assert response.json()["message"].startswith(message)
    assert sorted(response.json()) == ["id", "message"]
