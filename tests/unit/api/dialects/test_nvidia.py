"""What a NIM's clients are answered, over the toy."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from rerank_sidecar.api.dialects.nvidia import NvidiaDialect, NvidiaRequest, NvidiaText
from rerank_sidecar.errors import LimitExceeded, Overloaded, RerankError, Unauthenticated
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    LongDocumentPolicy,
    ModelReference,
    RankedDocument,
    RerankResult,
    RerankSummary,
    Score,
    TruncationSide,
)
from tests.unit.api.dialects.calls import get, post
from tests.unit.api.toy_engine import Toy

PATH = "/nvidia/v1/ranking"


@pytest.mark.parametrize("mount", ["", "/nvidia"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/ranking",
        "/v1/retrieval/nvidia/reranking",
        "/v1/retrieval/nvidia/toy/reranking",
    ],
)
async def test_every_passage_best_first_with_its_logit(mount: str, path: str) -> None:
    body = {
        "model": "toy",
        "query": {"text": "red fruit"},
        "passages": [{"text": "-9.8"}, {"text": "3.2"}],
        "truncate": "END",
    }
    response = await post(mount + path, body)
    assert response.json() == {
        "rankings": [{"index": 1, "logit": 3.2}, {"index": 0, "logit": -9.8}]
    }


async def test_as_ragflow_sends_it() -> None:
    """There is no `top_n`: clients cut the list themselves."""
    body = {"model": "toy", "query": {"text": "q"}, "passages": [{"text": "1"}] * 3, "top_n": 1}
    assert len((await post(PATH, body)).json()["rankings"]) == 3


@pytest.mark.parametrize(
    ("asked", "policy", "side"),
    [
        ({}, None, TruncationSide.RIGHT),
        ({"truncate": None}, None, TruncationSide.RIGHT),
        ({"truncate": "NONE"}, LongDocumentPolicy.REJECT, TruncationSide.RIGHT),
        ({"truncate": "END"}, LongDocumentPolicy.TRUNCATE, TruncationSide.RIGHT),
        ({"truncate": "START"}, LongDocumentPolicy.TRUNCATE, TruncationSide.LEFT),
    ],
)
async def test_the_truncation_switch(
    asked: Mapping[str, Any], policy: LongDocumentPolicy | None, side: TruncationSide
) -> None:
    toy = Toy()
    await post(PATH, {"query": {"text": "q"}, "passages": [{"text": "1"}], **asked}, toy)
    (options,) = toy.options
    assert (options.long_document_policy, options.truncation.side) == (policy, side)


def test_a_passage_that_may_not_be_cut_fails_the_call_only_then() -> None:
    too_long = LimitExceeded("documents[1]: too long", "documents[1]")
    summary = RerankSummary(ModelReference("m", "1"), ScoreKind.RAW_LOGIT)
    scored = RankedDocument(0, Score(1.0))
    result = RerankResult((scored, RankedDocument(1, error=too_long)), summary)
    query, passages = NvidiaText("q"), [NvidiaText("a"), NvidiaText("b")]
    answer = NvidiaDialect().render(NvidiaRequest(query, passages, truncate="END"), result)
    assert [each.index for each in answer.rankings] == [0, 1]
    with pytest.raises(LimitExceeded):
        NvidiaDialect().render(NvidiaRequest(query, passages, truncate="NONE"), result)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"passages": [{"text": "a", "image": "data:"}]}, ["body", "passages", 0, "image"]),
        ({"passages": [{"text": "a"}, {"image": "data:"}]}, ["body", "passages", 1, "image"]),
        ({"passages": [{}]}, ["body", "passages", 0, "text"]),
        ({"passages": ["a"]}, ["body", "passages", 0]),
        ({"passages": [{"text": "a"}], "truncate": "UP"}, ["body", "truncate"]),
        ({"passages": [{"text": "a"}] * 3}, ["body", "passages"]),
    ],
)
async def test_wrong_requests_are_told_in_a_list(
    body: Mapping[str, Any], place: list[str | int]
) -> None:
    response = await post(PATH, {"query": {"text": "q"}, **body}, max_documents=2)
    assert response.status_code == 422
    (fault,) = response.json()["detail"]
    assert fault["loc"] == place
    assert fault["msg"]


@pytest.mark.parametrize(
    ("error", "status"), [(Unauthenticated("no"), 401), (Overloaded("wait"), 429)]
)
def test_other_errors_are_texts(error: RerankError, status: int) -> None:
    found, answer = NvidiaDialect().render_error(error)
    assert (found, msgspec.to_builtins(answer)) == (status, {"detail": error.message})


async def test_langchain_finds_a_model() -> None:
    (model,) = (await get("/nvidia/v1/models")).json()["data"]
    assert (model["id"], model["root"]) == ("toy", "toy")


@pytest.mark.parametrize("mount", ["", "/nvidia"])
@pytest.mark.parametrize(
    ("path", "is_ready", "status", "word"),
    [
        ("/v1/health/live", False, 200, "live"),
        ("/v1/health/ready", True, 200, "ready"),
        ("/v1/health/ready", False, 503, "not ready"),
    ],
)
async def test_health(mount: str, path: str, is_ready: bool, status: int, word: str) -> None:
    response = await get(mount + path, is_ready=is_ready)
    assert response.status_code == status
    assert response.json() == {"object": "health.response", "message": word, "status": word}
