"""What TEI's clients are answered, over the toy: order, truncation, headers, errors, /info."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from rerank_sidecar.api.dialects.tei import TeiDialect, TeiRequest
from rerank_sidecar.errors import LimitExceeded, Overloaded, RerankError, Unauthenticated
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    LongDocumentPolicy,
    ModelReference,
    RankedDocument,
    RerankResult,
    RerankSummary,
    Score,
    Timing,
    TruncationSide,
    Usage,
)
from tests.unit.api.dialects.calls import get, post, unit
from tests.unit.api.toy_engine import Toy

SUMMARY = RerankSummary(ModelReference("m", "1"), ScoreKind.RAW_LOGIT)


@pytest.mark.parametrize("path", ["/tei/rerank", "/tei/", "/tei/invocations", "/rerank", "/"])
async def test_a_bare_list_best_first(path: str) -> None:
    body = {"query": "red fruit", "texts": ["-6", "3.5"], "return_text": True}
    response = await post(path, body)
    assert response.json() == [
        {"index": 1, "text": "3.5", "score": pytest.approx(unit(3.5))},
        {"index": 0, "text": "-6", "score": pytest.approx(unit(-6))},
    ]


@pytest.mark.parametrize("asked", [{}, {"return_text": False}, {"return_text": "false"}])
async def test_no_text_unless_asked(asked: Mapping[str, Any]) -> None:
    response = await post("/tei/rerank", {"query": "q", "texts": ["0"], **asked})
    assert response.json() == [{"index": 0, "score": 0.5}]


async def test_raw_scores_are_logits() -> None:
    body = {"query": "q", "texts": ["-6", "3.5"], "raw_scores": True}
    response = await post("/tei/rerank", body)
    assert response.json() == [{"index": 1, "score": 3.5}, {"index": 0, "score": -6.0}]


async def test_as_the_rerankers_library_sends_it() -> None:
    body = {"model": "toy", "query": "q", "texts": ["1", "2"], "top_n": 2, "return_text": True}
    response = await post("/tei/rerank", body)
    assert [each["text"] for each in response.json()] == ["2", "1"]


@pytest.mark.parametrize(
    ("asked", "policy", "side"),
    [
        ({}, LongDocumentPolicy.TRUNCATE, TruncationSide.RIGHT),
        ({"truncate": True}, LongDocumentPolicy.TRUNCATE, TruncationSide.RIGHT),
        ({"truncate": "false"}, LongDocumentPolicy.REJECT, TruncationSide.RIGHT),
        ({"truncation_direction": "Left"}, LongDocumentPolicy.TRUNCATE, TruncationSide.LEFT),
    ],
)
async def test_the_truncation_switch(
    asked: Mapping[str, Any], policy: LongDocumentPolicy, side: TruncationSide
) -> None:
    toy = Toy()
    await post("/tei/rerank", {"query": "q", "texts": ["1"], **asked}, toy)
    (options,) = toy.options
    assert (options.long_document_policy, options.truncation.side) == (policy, side)


def test_a_text_that_may_not_be_cut_fails_the_call_only_then() -> None:
    too_long = LimitExceeded("documents[1]: too long", "documents[1]")
    scored = RankedDocument(0, Score(1.0))
    result = RerankResult((scored, RankedDocument(1, error=too_long)), SUMMARY)
    dialect, message = TeiDialect(), TeiRequest("q", ["a", "b"])
    assert len(dialect.render(message, result)) == 2
    with pytest.raises(LimitExceeded):
        dialect.render(TeiRequest("q", ["a", "b"], truncate=False), result)


async def test_headers_tell_what_it_cost() -> None:
    response = await post("/tei/rerank", {"query": "qü", "texts": ["1", "abc"]})
    assert response.headers["x-compute-characters"] == "8"
    timing = Timing(queue_us=9_900, tokenise_us=4_000, infer_us=20_500, total_us=31_999)
    summary = replace(SUMMARY, timing=timing, usage=Usage(tokens=7))
    two = (RankedDocument(0, Score(1.0)), RankedDocument(1, Score(0.0)))
    assert TeiDialect().headers(RerankResult(two, summary)) == {
        "x-compute-type": "gpu+optimized",
        "x-compute-time": "31",
        "x-compute-tokens": "7",
        "x-total-time": "31",
        "x-tokenization-time": "2",
        "x-queue-time": "9",
        "x-inference-time": "10",
    }


@pytest.mark.parametrize(
    ("body", "status", "word", "message"),
    [
        ({"texts": []}, 400, "empty", "texts: must not be empty"),
        ({"texts": None}, 422, "validation", "texts: expected array, got null"),
        ({"texts": ["a", 1]}, 422, "validation", "texts[1]: expected string, got integer"),
        ({"texts": ["1"], "raw_scores": "perhaps"}, 422, "validation", "raw_scores: must be"),
        ({"texts": ["1"], "truncation_direction": "up"}, 422, "validation", "left or right"),
        ({"texts": ["1"] * 3}, 422, "validation", "texts: more than 2"),
    ],
)
async def test_errors_of_a_request(
    body: Mapping[str, Any], status: int, word: str, message: str
) -> None:
    response = await post("/tei/rerank", {"query": "q", **body}, max_documents=2)
    assert response.status_code == status
    assert response.json().keys() == {"error", "error_type"}
    assert response.json()["error_type"] == word
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (Unauthenticated("no"), 401, None),
        (Overloaded("wait"), 429, {"error": "wait", "error_type": "overloaded"}),
    ],
)
def test_other_errors(error: RerankError, status: int, body: Mapping[str, Any] | None) -> None:
    found, answer = TeiDialect().render_error(error)
    told = None if answer is None else {"error": answer.error, "error_type": answer.error_type}
    assert (found, told) == (status, body)


@pytest.mark.parametrize("path", ["/tei/info", "/info", "/models/toy/tei/info"])
async def test_dify_reads_that_the_model_is_a_reranker(path: str) -> None:
    info = (await get(path)).json()
    assert list(info["model_type"]) == ["reranker"]
    assert info["model_id"] == "toy"
    numbers = ("max_input_length", "max_batch_tokens", "max_client_batch_size")
    assert all(isinstance(info[name], int) for name in numbers)


@pytest.mark.parametrize("path", ["/tei/health", "/tei/ping", "/health", "/ping"])
async def test_health_is_empty_or_503(path: str) -> None:
    response = await get(path)
    assert (response.status_code, response.content) == (200, b"")
    response = await get(path, is_ready=False)
    assert (response.status_code, response.json()["error_type"]) == (503, "unhealthy")
