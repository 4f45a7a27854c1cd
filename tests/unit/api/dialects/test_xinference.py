"""What Xinference's clients are answered, over the toy."""

from collections.abc import Mapping
from typing import Any

import pytest

from rerank_sidecar.api.dialects.xinference import XinferenceDialect
from rerank_sidecar.errors import ModelNotFound
from tests.unit.api.dialects.calls import get, post, unit

PATH = "/xinference/v1/rerank"


async def test_the_answer_field_by_field() -> None:
    body = {
        "model": "toy",
        "query": "red fruit",
        "documents": ["-6", {"text": "3.5"}],
        "return_documents": True,
    }
    answer = (await post(PATH, body)).json()
    assert answer.pop("id")
    assert answer == {
        "results": [
            {"index": 1, "relevance_score": pytest.approx(unit(3.5)), "document": {"text": "3.5"}},
            {"index": 0, "relevance_score": pytest.approx(unit(-6)), "document": {"text": "-6"}},
        ],
        "meta": {"api_version": None, "billed_units": None, "tokens": None, "warnings": None},
    }


async def test_as_ragflow_sends_it() -> None:
    """Booleans are strings."""
    body = {
        "model": "toy",
        "query": "q",
        "return_documents": "true",
        "return_len": "true",
        "documents": ["1"],
    }
    answer = (await post(PATH, body)).json()
    assert answer["results"][0]["document"] == {"text": "1"}
    assert answer["meta"]["tokens"] == {"input_tokens": 0, "output_tokens": 0}


async def test_as_its_own_client_sends_it() -> None:
    """Nulls for whatever was not given, and further arguments twice."""
    body = {
        "model": "toy",
        "documents": ["1", "2"],
        "query": "q",
        "top_n": 1,
        "max_chunks_per_doc": None,
        "return_documents": None,
        "return_len": None,
        "kwargs": '{"instruction": "i"}',
        "instruction": "i",
    }
    (result,) = (await post(PATH, body)).json()["results"]
    assert (result["index"], result["document"]) == (1, None)


@pytest.mark.parametrize("kwargs", ["", "{}", {}, {"instruction": "i"}, None])
async def test_kwargs_that_are_an_object(kwargs: object) -> None:
    response = await post(PATH, {"query": "q", "documents": [], "kwargs": kwargs})
    assert (response.status_code, response.json()["results"]) == (200, [])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"documents": ["1"], "kwargs": "{"}, "kwargs: must be a JSON object"),
        ({"documents": ["1"], "kwargs": "[]"}, "kwargs: must be a JSON object"),
        ({"documents": ["1"], "kwargs": "[" * 100_000}, "kwargs: must be a JSON object"),
        ({"documents": ["1", {"image": "a"}]}, "documents[1].text: expected a string"),
        ({"documents": ["1"], "return_len": "perhaps"}, "return_len: must be true or false"),
    ],
)
async def test_errors_are_texts(body: Mapping[str, Any], message: str) -> None:
    response = await post(PATH, {"query": "q", **body})
    assert response.status_code == 400
    assert list(response.json()) == ["detail"]
    assert message in response.json()["detail"]


def test_a_model_that_is_not_there_is_a_wrong_request() -> None:
    assert XinferenceDialect().render_error(ModelNotFound("none", "model"))[0] == 400


async def test_its_client_finds_a_reranker() -> None:
    listed = (await get("/xinference/v1/models")).json()["data"]
    assert [each["id"] for each in listed] == ["toy"]
    for path in ("/xinference/v1/models/toy", "/v1/models/toy"):
        assert (await get(path)).json()["model_type"] == "rerank"
    response = await get("/xinference/v1/models/x", unknown_model="error")
    assert (response.status_code, list(response.json())) == (400, ["detail"])


@pytest.mark.parametrize("path", ["/xinference/v1/cluster/auth", "/v1/cluster/auth"])
async def test_its_client_is_told_whether_to_send_its_key(path: str) -> None:
    assert (await get(path)).json() == {"auth": False}
    assert (await get(path, auth_tokens="a-token")).json() == {"auth": True}
