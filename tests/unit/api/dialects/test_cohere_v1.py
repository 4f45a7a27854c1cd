"""What clients of Cohere's first version are answered, over the toy."""

from typing import Any

import pytest

from rerank_sidecar.api.dialects.cohere_v1 import CohereV1Dialect
from rerank_sidecar.api.dialects.cohere_v2 import CohereV2Dialect
from rerank_sidecar.errors import (
    DeadlineExceeded,
    ModelNotFound,
    NotSupportedByModel,
    Overloaded,
    RerankError,
    Unauthenticated,
)
from tests.unit.api.dialects.calls import post, unit
from tests.unit.api.toy_engine import FAILS, Toy

PATH = "/cohere/v1/rerank"


async def test_the_answer_field_by_field() -> None:
    body = {
        "model": "rerank-v3.5",
        "query": "red fruit",
        "documents": ["-6", {"text": "3.5", "title": "apple"}],
        "top_n": 2,
        "return_documents": True,
    }
    answer = (await post(PATH, body)).json()
    assert answer.pop("id")
    assert answer == {
        "results": [
            {
                "index": 1,
                "relevance_score": pytest.approx(unit(3.5)),
                "document": {"text": "3.5", "title": "apple"},
            },
            {"index": 0, "relevance_score": pytest.approx(unit(-6)), "document": {"text": "-6"}},
        ],
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 0, "output_tokens": 0},
        },
    }


@pytest.mark.parametrize("asked", [{}, {"return_documents": False}, {"return_documents": None}])
async def test_no_documents_unless_asked(asked: dict[str, Any]) -> None:
    answer = (await post(PATH, {"query": "q", "documents": ["0"], **asked})).json()
    assert answer["results"] == [{"index": 0, "relevance_score": 0.5}]


async def test_objects_are_ranked_by_their_rank_fields() -> None:
    toy = Toy()
    body = {
        "query": "q",
        "documents": [{"title": "apple", "text": "a fruit"}, "sky"],
        "rank_fields": ["title", "text"],
    }
    assert (await post(PATH, body, toy)).status_code == 200
    assert toy.texts == ["apple\na fruit", "sky"]


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (0, 3), (-1, 3), (1, 1), (9, 3)])
async def test_top_n(top_n: int | None, count: int) -> None:
    body = {"query": "q", "documents": ["1", FAILS, "2"], "top_n": top_n}
    assert len((await post(PATH, body)).json()["results"]) == count


@pytest.mark.parametrize(
    ("chunks", "policy"), [(None, "chunk"), (1, "truncate"), (10, "chunk"), (0, "chunk")]
)
async def test_one_chunk_is_the_beginning(chunks: int | None, policy: str) -> None:
    toy = Toy()
    body = {"query": "q", "documents": ["1"], "max_chunks_per_doc": chunks}
    await post(PATH, body, toy, long_document_policy="chunk")
    assert [each.long_document_policy for each in toy.options] == [policy]


async def test_documents_that_failed_alone_are_warned_of() -> None:
    answer = (await post(PATH, {"query": "q", "documents": [FAILS, "1"]})).json()
    assert [each["index"] for each in answer["results"]] == [1, 0]
    assert answer["meta"]["warnings"] == ["documents[0]: not scored and put last: BACKEND_FAILED"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"documents": ["a"]}, "query: missing"),
        ({"query": "q", "documents": "a"}, "documents: expected array, got string"),
        (
            {"query": "q", "documents": ["a", {"image": "b"}]},
            "documents[1].text: expected a string",
        ),
        (
            {"query": "q", "documents": [], "return_documents": "maybe"},
            "return_documents: must be true or false",
        ),
    ],
)
async def test_an_error_has_an_id_and_a_message(body: dict[str, Any], message: str) -> None:
    response = await post(PATH, body)
    answer = response.json()
    assert response.status_code == 400
    assert answer.pop("id")
    assert answer == {"message": message}


@pytest.mark.parametrize("dialect", [CohereV1Dialect(), CohereV2Dialect()])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unauthenticated("no"), 401),
        (ModelNotFound("no"), 404),
        (NotSupportedByModel("no"), 422),
        (Overloaded("no"), 429),
        (DeadlineExceeded("no"), 504),
    ],
)
def test_errors_have_the_statuses_that_the_sdk_knows(
    dialect: CohereV1Dialect | CohereV2Dialect, error: RerankError, status: int
) -> None:
    told, body = dialect.render_error(error)
    assert (told, body.message) == (status, "no")
    assert body.id
