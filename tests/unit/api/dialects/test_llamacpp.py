"""What clients of llama.cpp's server are answered, over the toy, in both of its forms."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from rerank_sidecar.api.dialects.llamacpp import LlamaCppDialect
from rerank_sidecar.errors import (
    BackendFailed,
    ModelNotFound,
    NotReady,
    RerankError,
    Unauthenticated,
)
from rerank_sidecar.score_kinds import ScoreKind
from tests.unit.api.dialects.calls import get, post
from tests.unit.api.toy_engine import Toy

PATHS = ["/llamacpp/rerank", "/llamacpp/reranking", "/llamacpp/v1/rerank", "/llamacpp/v1/reranking"]


@pytest.mark.parametrize("path", PATHS)
async def test_jinas_form_field_by_field(path: str) -> None:
    body = {"query": "red fruit", "documents": ["-9.8", "4.1"], "top_n": 1}
    assert (await post(path, body)).json() == {
        "model": "toy",
        "object": "list",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
        "results": [{"index": 1, "relevance_score": 4.1}],
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("asked", "echo"), [({}, {}), ({"return_text": True}, {"text": "4.1"})])
async def test_teis_form(path: str, asked: Mapping[str, Any], echo: Mapping[str, Any]) -> None:
    body = {"query": "red fruit", "texts": ["-9.8", "4.1"], "top_n": 1, **asked}
    assert (await post(path, body)).json() == [{"index": 1, "score": 4.1, **echo}]


async def test_texts_decide_the_form_and_documents_what_is_read() -> None:
    body = {"query": "q", "documents": ["1"], "texts": ["2"], "return_text": True}
    answer = (await post("/llamacpp/rerank", body)).json()
    assert answer == [{"index": 0, "score": 1.0, "text": "1"}]


@pytest.mark.parametrize(("top_n", "left"), [(None, 2), (0, 0), (1, 1), (9, 2), (-1, 2)])
@pytest.mark.parametrize("name", ["documents", "texts"])
async def test_top_n(name: str, top_n: int | None, left: int) -> None:
    answer = (
        await post("/llamacpp/rerank", {"query": "q", name: ["1", "2"], "top_n": top_n})
    ).json()
    results = answer if name == "texts" else answer["results"]
    assert len(results) == left


async def test_a_probability_is_turned_back_into_its_logit() -> None:
    body = {"query": "q", "documents": ["0.5"]}
    answer = (await post("/llamacpp/rerank", body, Toy(ScoreKind.PROBABILITY))).json()
    assert answer["results"][0]["relevance_score"] == 0.0


@pytest.mark.parametrize("body", [{}, {"documents": []}, {"texts": []}, {"documents": [1]}])
async def test_wrong_documents_are_a_400(body: Mapping[str, Any]) -> None:
    response = await post("/llamacpp/rerank", {"query": "q", **body})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.keys() == {"code", "message", "type"}
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith("documents")


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (Unauthenticated("no"), 401, "authentication_error"),
        (ModelNotFound("none"), 404, "not_found_error"),
        (NotReady("loading"), 503, "unavailable_error"),
        (BackendFailed("broken"), 500, "server_error"),
    ],
)
def test_errors(error: RerankError, code: int, kind: str) -> None:
    status, answer = LlamaCppDialect().render_error(error)
    told = {"code": code, "message": error.message, "type": kind}
    assert (status, msgspec.to_builtins(answer)) == (code, {"error": told})


async def test_health_and_models() -> None:
    assert (await get("/llamacpp/health")).json() == {"status": "ok"}
    assert (await get("/llamacpp/health", is_ready=False)).json()["error"]["code"] == 503
    (model,) = (await get("/llamacpp/v1/models")).json()["data"]
    assert (model["id"], model["owned_by"]) == ("toy", "llamacpp")
