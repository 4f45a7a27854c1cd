"""What most clients get on bare paths, over the toy: each of them finds what it looks for."""

from typing import Any

import pytest

from rerank_sidecar.types import LongDocumentPolicy, TruncationSide
from tests.unit.api.dialects.calls import post, unit
from tests.unit.api.toy_engine import FAILS, Toy

PATHS = ["/rerank", "/v1/rerank", "/reranking", "/v1/reranking"]


@pytest.mark.parametrize("path", PATHS)
async def test_the_answer_field_by_field(path: str) -> None:
    body = {
        "model": "a name of theirs",
        "query": "red fruit",
        "documents": ["-6", "3.5"],
        "top_n": 2,
        "return_documents": True,
    }
    answer = (await post(path, body)).json()
    assert answer.pop("id")
    assert answer.pop("created") > 1_700_000_000
    assert answer == {
        "object": "rerank",
        "model": "toy",
        "results": [
            {"index": 1, "relevance_score": pytest.approx(unit(3.5)), "document": {"text": "3.5"}},
            {"index": 0, "relevance_score": pytest.approx(unit(-6)), "document": {"text": "-6"}},
        ],
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 0, "output_tokens": 0},
        },
    }


TEXTS = ["-6", "3.5"]


@pytest.mark.parametrize(
    ("path", "asked", "documents"),
    [
        ("/v1/rerank", {"model": "m", "top_n": 2}, [None, None]),  # Open WebUI
        ("/rerank", {"model": "m", "top_n": None, "return_documents": True}, TEXTS),  # Dify
        ("/rerank", {"model": "m", "top_n": 2}, [None, None]),  # Dify, OpenAI-compatible
        ("/rerank", {"return_documents": "true", "return_len": "true"}, TEXTS),  # RAGFlow
        ("/v1/rerank", {"model": "m", "return_documents": True, "top_n": 2}, TEXTS),  # LibreChat
        ("/rerank", {"model": "m", "raw_scores": False, "return_documents": False}, [None, None]),
        ("/v1/rerank", {"model": "m", "truncate_prompt_tokens": -1, "priority": 0}, [None, None]),
        (
            "/v1/rerank",  # xinference-client
            {
                "top_n": None,
                "max_chunks_per_doc": None,
                "return_documents": None,
                "return_len": None,
                "kwargs": "{}",
            },
            [None, None],
        ),
        (
            "/rerank",  # LiteLLM for vLLM
            {"model": "m", "return_documents": True, "instruction": "i", "max_tokens_per_doc": 9},
            TEXTS,
        ),
    ],
)
async def test_as_its_clients_send_it(
    path: str, asked: dict[str, Any], documents: list[str | None]
) -> None:
    response = await post(path, {"query": "q", "documents": TEXTS, **asked})
    assert response.status_code == 200
    results = response.json()["results"]
    scores = {each["index"]: each["relevance_score"] for each in results}
    assert scores == {0: pytest.approx(unit(-6)), 1: pytest.approx(unit(3.5))}
    echoes = {each["index"]: each.get("document", {}).get("text") for each in results}
    assert [echoes[0], echoes[1]] == documents


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (0, 3), (-1, 3), (1, 1), (99, 3)])
async def test_top_n(top_n: int | None, count: int) -> None:
    body = {"query": "q", "documents": ["1", FAILS, "2"], "top_n": top_n}
    assert len((await post("/v1/rerank", body)).json()["results"]) == count


@pytest.mark.parametrize(
    ("asked", "score"),
    [
        ({"raw_scores": True}, 3.5),
        ({"raw_scores": "true"}, 3.5),
        ({"use_activation": False}, 3.5),
        ({"raw_scores": False, "use_activation": True}, unit(3.5)),
    ],
)
async def test_raw_scores_only_for_those_who_ask(asked: dict[str, Any], score: float) -> None:
    answer = (await post("/v1/rerank", {"query": "q", "documents": ["3.5"], **asked})).json()
    assert answer["results"] == [{"index": 0, "relevance_score": pytest.approx(score)}]


async def test_texts_are_where_any_of_the_clients_puts_them() -> None:
    toy = Toy()
    one = {"query": {"text": "q"}, "documents": "a single text", "return_documents": True}
    answer = (await post("/v1/rerank", one, toy)).json()
    assert answer["results"][0]["document"] == {"text": "a single text"}
    objects = {"query": "q", "documents": [{"title": "t"}, "u"], "rank_fields": ["title"]}
    await post("/v1/rerank", objects, toy)
    assert toy.texts == ["a single text", "t", "u"]


async def test_no_documents_no_results() -> None:
    response = await post("/v1/rerank", {"query": "q", "documents": []})
    assert (response.status_code, response.json()["results"]) == (200, [])


async def test_how_documents_are_read() -> None:
    toy = Toy()
    for asked in (
        {},
        {"max_chunks_per_doc": 1},
        {"max_tokens_per_doc": 9, "truncation_side": "left", "priority": 3},
        {"max_tokens_per_doc": 0, "truncate_prompt_tokens": -1},
    ):
        body = {"query": "q", "documents": ["1"], **asked}
        await post("/v1/rerank", body, toy, long_document_policy="chunk")
    chunk, truncate = LongDocumentPolicy.CHUNK, LongDocumentPolicy.TRUNCATE
    right, left = TruncationSide.RIGHT, TruncationSide.LEFT
    assert [
        (
            each.long_document_policy,
            each.truncation.max_tokens_per_document,
            each.truncation.side,
            each.priority,
        )
        for each in toy.options
    ] == [
        (chunk, None, right, 0),
        (truncate, None, right, 0),
        (chunk, 9, left, -3),
        (truncate, None, right, 0),
    ]


async def test_documents_that_failed_alone_are_last_and_warned_of() -> None:
    body = {"query": "q", "documents": [FAILS, "-6"], "return_documents": True}
    answer = (await post("/v1/rerank", body)).json()
    assert answer["results"][1] == {
        "index": 0,
        "relevance_score": 0.0,
        "document": {"text": FAILS},
    }
    assert answer["meta"]["warnings"] == ["documents[0]: not scored and put last: BACKEND_FAILED"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "field"),
    [
        ({"query": "q", "documents": ["a", 5]}, 400, "INVALID_FIELD", "documents[1]"),
        ({"query": "q", "documents": [{}]}, 400, "INVALID_FIELD", "documents[0].text"),
        ({"documents": ["a"], "model": "m"}, 400, "INVALID_FIELD", "query"),
        ({"query": "q", "documents": ["1"] * 3, "top_n": 1}, 400, "LIMIT_EXCEEDED", "documents"),
        ({"query": "q", "documents": [FAILS], "top_n": 1}, 500, "BACKEND_FAILED", None),
    ],
)
async def test_every_client_finds_the_error(
    body: dict[str, Any], status: int, kind: str, field: str | None
) -> None:
    response = await post("/v1/rerank", body, max_documents=2)
    answer = response.json()
    message = answer["error"].pop("message")
    assert response.status_code == status
    assert message.startswith(field or "the forward pass failed")
    assert answer == {
        "error": {"type": kind, "param": field, "code": status},
        "message": message,
        "detail": message,
    }
