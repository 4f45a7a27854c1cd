"""What goes over the wire to each kind of server, and what is read out of its answer.

Requests and answers are those of the servers' own documentation and source, not of our doors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from rerank_sidecar.rerankers.base import Meter, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Score
from tests.unit.rerankers.remote.stand_in import opened, results, says, standing_in
from tests.unit.rerankers.toy_models import outcomes_of

TEXTS = ["sky", "apple"]


@dataclass
class Wire:
    """One exchange: how the server is named, what it is asked, what it answers."""

    engine: str
    path: str
    body: dict[str, Any]
    answer: Any
    scores: tuple[float, float] = (0.003, 0.97)
    model: str = "m"
    kind: ScoreKind = ScoreKind.PROBABILITY
    tokens: int = 0
    options: dict[str, Any] = field(default_factory=dict)


def bytes_tensor(name: str, *data: str) -> dict[str, Any]:
    return {"name": name, "shape": [len(data), 1], "datatype": "BYTES", "data": list(data)}


WIRES = [
    Wire(
        "cohere",
        "/v2/rerank",
        {"model": "m", "query": "red fruit", "documents": TEXTS},
        results(
            "results",
            "relevance_score",
            id="x",
            meta={"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 9}},
        ),
        tokens=9,
    ),
    Wire(
        "jina",
        "/v1/rerank",
        {
            "model": "m",
            "query": "red fruit",
            "documents": TEXTS,
            "top_n": 2,
            "return_documents": False,
        },
        results("results", "relevance_score", model="m", usage={"total_tokens": 30}),
        tokens=30,
    ),
    Wire(
        "voyage",
        "/v1/rerank",
        {"model": "m", "query": "red fruit", "documents": TEXTS, "truncation": True},
        results("data", "relevance_score", object="list", usage={"total_tokens": 24}),
        tokens=24,
    ),
    Wire(
        "mixedbread",
        "/v1/reranking",
        {
            "model": "m",
            "query": "red fruit",
            "input": TEXTS,
            "top_k": 2,
            "return_input": False,
        },
        results("data", "score", object="list", usage={"total_tokens": 20}, top_k=2),
        tokens=20,
    ),
    Wire(
        "pinecone",
        "/rerank",
        {
            "model": "m",
            "query": "red fruit",
            "top_n": 2,
            "return_documents": False,
            "documents": [{"text": "sky"}, {"text": "apple"}],
            "rank_fields": ["text"],
            "parameters": {"truncate": "END"},
        },
        results("data", "score", model="m", usage={"rerank_units": 1}),
    ),
    Wire(
        "pinecone",
        "/rerank",
        {
            "model": "cohere-rerank-3.5",
            "query": "red fruit",
            "top_n": 2,
            "return_documents": False,
            "documents": [{"text": "sky"}, {"text": "apple"}],
            "rank_fields": ["text"],
        },
        results("data", "score", model="cohere-rerank-3.5", usage={"rerank_units": 1}),
        model="cohere-rerank-3.5",
    ),
    Wire(
        "nvidia",
        "/v1/ranking",
        {
            "model": "m",
            "query": {"text": "red fruit"},
            "truncate": "END",
            "passages": [{"text": "sky"}, {"text": "apple"}],
        },
        {"rankings": [{"index": 1, "logit": 3.2}, {"index": 0, "logit": -9.8}]},
        scores=(-9.8, 3.2),
        kind=ScoreKind.RAW_LOGIT,
    ),
    Wire(
        "vllm",
        "/rerank",
        {
            "model": "m",
            "query": "red fruit",
            "documents": TEXTS,
            "truncate_prompt_tokens": -1,
        },
        {
            "id": "score-1",
            "model": "m",
            "usage": {"total_tokens": 18},
            "results": [
                {"index": i, "document": {"text": text, "multi_modal": None}, **score}
                for i, text, score in (
                    (1, "apple", {"relevance_score": 0.97}),
                    (0, "sky", {"relevance_score": 0.003}),
                )
            ],
        },
        tokens=18,
    ),
    Wire(
        "vllm",
        "/rerank",
        {
            "query": "red fruit",
            "documents": TEXTS,
            "truncate_prompt_tokens": -1,
            "use_activation": False,
        },
        results("results", "relevance_score"),
        model="",
        kind=ScoreKind.RAW_LOGIT,
        options={"score_kind": "RAW_LOGIT"},
    ),
    Wire(
        "vllm-score",
        "/score",
        {"model": "m", "text_1": "red fruit", "text_2": TEXTS, "truncate_prompt_tokens": -1},
        {
            "id": "score-1",
            "object": "list",
            "model": "m",
            "usage": {"total_tokens": 18},
            "data": [
                {"index": 0, "object": "score", "score": 0.003},
                {"index": 1, "object": "score", "score": 0.97},
            ],
        },
        tokens=18,
    ),
    Wire(
        "infinity",
        "/rerank",
        {
            "model": "m",
            "query": "red fruit",
            "documents": TEXTS,
            "return_documents": False,
            "raw_scores": True,
        },
        {
            "object": "rerank",
            "id": "infinity-1",
            "usage": {"total_tokens": 25},
            "results": [
                {"relevance_score": 4.1, "index": 1, "document": None},
                {"relevance_score": -5.0, "index": 0, "document": None},
            ],
        },
        scores=(-5.0, 4.1),
        kind=ScoreKind.RAW_LOGIT,
    ),
    Wire(
        "infinity",
        "/v1/rerank",
        {
            "query": "red fruit",
            "documents": TEXTS,
            "return_documents": False,
            "raw_scores": False,
        },
        results("results", "relevance_score"),
        model="",
        options={"score_kind": "PROBABILITY", "path": "/v1/rerank"},
    ),
    Wire(
        "xinference",
        "/v1/rerank",
        {
            "model": "m",
            "query": "red fruit",
            "documents": TEXTS,
            "top_n": 2,
            "return_documents": False,
            "return_len": True,
        },
        results(
            "results",
            "relevance_score",
            meta={"tokens": {"input_tokens": 7, "output_tokens": 7}, "warnings": None},
        ),
        tokens=7,
    ),
    Wire(
        "llamacpp",
        "/v1/rerank",
        {"model": "m", "query": "red fruit", "documents": TEXTS, "top_n": 2},
        {
            "model": "m",
            "object": "list",
            "usage": {"total_tokens": 14},
            "results": [
                {"index": 1, "relevance_score": 4.1},
                {"index": 0, "relevance_score": -8.25},
            ],
        },
        scores=(-8.25, 4.1),
        kind=ScoreKind.RAW_LOGIT,
        tokens=14,
    ),
    Wire(
        "kserve",
        "/v2/models/m/infer",
        {
            "inputs": [
                bytes_tensor("query", "red fruit", "red fruit"),
                bytes_tensor("passage", *TEXTS),
            ],
            "outputs": [{"name": "logit"}],
            "parameters": {"truncate": "END"},
        },
        {
            "model_name": "m",
            "model_version": "1",
            "outputs": [
                {"name": "logit", "datatype": "FP32", "shape": [2, 1], "data": [-9.8, 3.2]}
            ],
        },
        scores=(-9.8, 3.2),
        kind=ScoreKind.RAW_LOGIT,
    ),
    Wire(
        "kserve",
        "/v2/models/m/infer",
        {
            "inputs": [bytes_tensor("q", "red fruit", "red fruit"), bytes_tensor("d", *TEXTS)],
            "outputs": [{"name": "score"}, {"name": "place"}],
            "parameters": {"truncate": "END"},
        },
        {
            "outputs": [
                {"name": "place", "datatype": "INT32", "shape": [2, 1], "data": [[1], [0]]},
                {"name": "score", "datatype": "FP32", "shape": [2, 1], "data": [[0.97], [0.003]]},
            ],
        },
        options={
            "query_tensor": "q",
            "document_tensor": "d",
            "score_tensor": "score",
            "index_tensor": "place",
            "score_kind": "PROBABILITY",
        },
    ),
]


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: f"{wire.engine}-{wire.kind}")
async def test_a_question_and_its_answer(wire: Wire) -> None:
    meter = Meter()
    async with standing_in(says(wire.answer)) as server:
        source = f"{wire.engine}:{server.url}/below#{wire.model}"
        async with opened(source, **wire.options) as reranker:
            scored = await outcomes_of(
                reranker, "red fruit", TEXTS, options=ScoreOptions(meter=meter)
            )
            assert reranker.info.score_kind is wire.kind
            assert reranker.info.family == "remote"
            assert reranker.info.comparable_across_requests
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", f"/below{wire.path}")
    assert asked.body == wire.body
    assert asked.headers["content-type"] == "application/json"
    assert "authorization" not in asked.headers
    assert scored == [Score(each) for each in wire.scores]
    assert (meter.remote_calls, meter.pairs, meter.tokens) == (1, 2, wire.tokens)
