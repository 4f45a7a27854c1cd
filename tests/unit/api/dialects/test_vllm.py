"""What clients of vLLM's rerank API are answered, over the toy."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from rerank_sidecar.api.dialects.vllm import VllmDialect
from rerank_sidecar.errors import (
    BackendFailed,
    LimitExceeded,
    ModelNotFound,
    RerankError,
    Unauthenticated,
)
from rerank_sidecar.types import LongDocumentPolicy, Truncation, TruncationSide
from tests.unit.api.dialects.calls import get, post, unit
from tests.unit.api.toy_engine import Toy


@pytest.mark.parametrize("path", ["/vllm/rerank", "/vllm/v1/rerank", "/vllm/v2/rerank"])
async def test_the_answer_field_by_field(path: str) -> None:
    body = {"model": "toy", "query": "red fruit", "documents": ["-6", "3.5"], "top_n": 1}
    answer = (await post(path, body)).json()
    assert answer.pop("id").startswith("score-")
    assert answer == {
        "model": "toy",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
        "results": [
            {
                "index": 1,
                "document": {"text": "3.5", "multi_modal": None},
                "relevance_score": pytest.approx(unit(3.5)),
            }
        ],
    }


@pytest.mark.parametrize("top_n", [None, 0, -1, 9])
async def test_a_top_n_that_leaves_all(top_n: int | None) -> None:
    body = {"query": "q", "documents": ["1", "2"], "top_n": top_n}
    assert len((await post("/vllm/rerank", body)).json()["results"]) == 2


@pytest.mark.parametrize(
    ("asked", "score"),
    [
        ({}, unit(3)),
        ({"use_activation": True}, unit(3)),
        ({"use_activation": False}, 3.0),
        ({"use_activation": "false"}, 3.0),
        ({"softmax": False}, 3.0),
        ({"activation": False}, 3.0),
        ({"use_activation": True, "activation": False}, unit(3)),
    ],
)
async def test_the_score_space(asked: Mapping[str, Any], score: float) -> None:
    answer = (await post("/vllm/rerank", {"query": "q", "documents": "3", **asked})).json()
    assert answer["results"][0]["relevance_score"] == pytest.approx(score)


async def test_parts_of_type_text_are_read_and_given_back() -> None:
    toy, parts = Toy(), [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"query": {"content": parts}, "documents": [{"content": parts}, {"text": "c"}]}
    answer = (await post("/vllm/rerank", body, toy)).json()
    assert (toy.queries, toy.texts) == (["a\nb"], ["a\nb", "c"])
    echoes = {each["index"]: each["document"] for each in answer["results"]}
    assert echoes == {
        0: {"text": None, "multi_modal": parts},
        1: {"text": "c", "multi_modal": None},
    }


@pytest.mark.parametrize(
    ("asked", "truncation", "policy"),
    [
        ({}, Truncation(), None),
        ({"truncate_prompt_tokens": 0}, Truncation(), None),
        ({"truncate_prompt_tokens": -1}, Truncation(), LongDocumentPolicy.TRUNCATE),
        ({"truncate_prompt_tokens": 9}, Truncation(9), LongDocumentPolicy.TRUNCATE),
        ({"max_tokens_per_doc": 5}, Truncation(5), None),
        (
            {"max_tokens_per_doc": 5, "truncate_prompt_tokens": 9, "truncation_side": "left"},
            Truncation(5, TruncationSide.LEFT),
            LongDocumentPolicy.TRUNCATE,
        ),
    ],
)
async def test_truncation(
    asked: Mapping[str, Any], truncation: Truncation, policy: LongDocumentPolicy | None
) -> None:
    toy = Toy()
    await post("/vllm/rerank", {"query": "q", "documents": ["1"], **asked}, toy)
    (options,) = toy.options
    assert (options.truncation, options.long_document_policy) == (truncation, policy)


async def test_a_lower_priority_runs_sooner() -> None:
    toy = Toy()
    await post("/vllm/rerank", {"query": "q", "documents": ["1"], "priority": -3}, toy)
    assert toy.options[0].priority == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a", 1]}, "documents[1]"),
        ({"documents": [{"content": [{"type": "image_url"}]}]}, "documents[0].content[0]"),
        ({"documents": {"content": "a"}}, "documents.content"),
        ({"documents": [{"image": "a"}]}, "documents[0].text"),
        ({"documents": ["1"], "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"documents": ["1"], "truncation_side": "up"}, "truncation_side"),
        ({"documents": ["1"], "priority": 2**40}, "priority"),
    ],
)
async def test_a_wrong_request_is_a_400(body: Mapping[str, Any], param: str) -> None:
    response = await post("/vllm/rerank", {"query": "q", **body})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", param, 400)
    assert error["message"].startswith(param)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (Unauthenticated("no"), 401, "Unauthorized"),
        (
            ModelNotFound("none", "model"),
            404,
            {"message": "none", "type": "NotFoundError", "param": "model", "code": 404},
        ),
        (
            LimitExceeded("long", "query"),
            400,
            {"message": "long", "type": "BadRequestError", "param": "query", "code": 400},
        ),
        (
            BackendFailed("broken"),
            500,
            {"message": "broken", "type": "InternalServerError", "param": None, "code": 500},
        ),
    ],
)
def test_errors(error: RerankError, status: int, told: object) -> None:
    found, answer = VllmDialect().render_error(error)
    assert (found, msgspec.to_builtins(answer)) == (status, {"error": told})


@pytest.mark.parametrize("mount", ["", "/vllm"])
async def test_models_version_and_health(mount: str) -> None:
    listed = (await get(f"{mount}/v1/models")).json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["root"], model["owned_by"]) == ("toy", "toy", "vllm")
    assert (await get(f"{mount}/v1/models/toy")).json()["id"] == "toy"
    assert (await get(f"{mount}/version")).json().keys() == {"version"}
    assert (await get(f"{mount}/v1/models", is_ready=False)).status_code == 503
    assert (await get("/vllm/health")).status_code == 200
    assert (await get("/vllm/health", is_ready=False)).status_code == 503
