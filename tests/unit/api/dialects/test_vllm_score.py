"""What clients of vLLM's score API are answered, over the toy."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.api.dialects.calls import post, unit
from tests.unit.api.toy_engine import FAILS, Toy


@pytest.mark.parametrize("path", ["/vllm/score", "/vllm/v1/score", "/score", "/v1/score"])
async def test_the_answer_field_by_field(path: str) -> None:
    body = {"model": "toy", "text_1": "red fruit", "text_2": ["-6", "3.5"]}
    answer = (await post(path, body)).json()
    assert isinstance(answer.pop("created"), int)
    assert answer.pop("id").startswith("score-")
    assert answer == {
        "object": "list",
        "model": "toy",
        "data": [
            {"index": 0, "object": "score", "score": pytest.approx(unit(-6))},
            {"index": 1, "object": "score", "score": pytest.approx(unit(3.5))},
        ],
        "usage": {
            "prompt_tokens": 0,
            "total_tokens": 0,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        },
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("text_1", "text_2"),
        ("data_1", "data_2"),
        ("queries", "documents"),
        ("queries", "items"),
    ],
)
@pytest.mark.parametrize(
    ("queries", "documents", "scored"),
    [
        ("q", "1", {"q": ["1"]}),
        (["q"], ["2", "1"], {"q": ["2", "1"]}),
        (["p", "q", "p"], ["2", "1", "3"], {"p": ["2", "3"], "q": ["1"]}),
    ],
)
async def test_queries_meet_documents(
    one: str, other: str, queries: Any, documents: Any, scored: Mapping[str, list[str]]
) -> None:
    toy = Recording()
    body = {one: queries, other: documents, "use_activation": False}
    answer = (await post("/vllm/score", body, toy)).json()
    assert [each["index"] for each in answer["data"]] == list(range(len([*documents])))
    assert [each["score"] for each in answer["data"]] == [float(each) for each in documents]
    assert toy.scored == scored


async def test_a_document_of_many_queries_fails_alone() -> None:
    body = {"text_1": ["p", "q", "r"], "text_2": ["1", FAILS, "2"]}
    response = await post("/vllm/score", body)
    assert response.headers["X-Rerank-Failed-Documents"] == "1;reason=BACKEND_FAILED"
    assert [each["index"] for each in response.json()["data"]] == [0, 1, 2]
    assert response.json()["data"][1]["score"] == 0.0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text_1": "q"}, "body"),
        ({"text_1": "q", "data_2": ["1"]}, "body"),
        ({"text_1": [], "text_2": ["1"]}, "text_1"),
        ({"text_1": "q", "text_2": []}, "text_2"),
        ({"text_1": ["p", "q"], "text_2": ["1", "2", "3"]}, "text_1"),
        ({"queries": ["p", "q"], "items": ["1"]}, "queries"),
        ({"data_1": "q", "data_2": [{"content": [{"type": "image_url"}]}]}, "data_2[0].content[0]"),
        ({"data_1": "q", "data_2": ["1"], "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ],
)
async def test_a_wrong_request_is_a_400(body: Mapping[str, Any], param: str) -> None:
    response = await post("/vllm/score", body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


class Recording(Toy):
    """A toy that remembers which texts were scored against which query."""

    def __init__(self) -> None:
        super().__init__()
        self.scored: dict[str, list[str]] = {}

    async def score(self, query: str, documents: Any, options: Any) -> Any:
        async for group in documents:
            self.scored.setdefault(query, []).extend(each.text for _, each in group)
            async for outcome in super().score(query, _again(group), options):
                yield outcome


async def _again(group: Any) -> Any:
    yield group
