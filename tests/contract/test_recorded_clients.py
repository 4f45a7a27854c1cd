"""What applications send to rerankers, as recorded from their sources, and what each of them reads.

Open WebUI (0.6), Dify (its own plugins of 2026), RAGFlow (0.20 and 2026) and LibreChat (agents of
2026) ship no client library. Each case is one of their requests, field by field, with the code
that takes the reply apart in Python: it fails where theirs would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.contract.running import running_sidecar

QUERY = "red fruit"
TEXTS = ["a boat at sea", "an apple", "Der Himmel ist blau 🌍", "an apple", "ripe red strawberries"]
SOME = 2

JSON = {"Content-Type": "application/json"}
EMPTY_KEY = {**JSON, "Authorization": "Bearer "}
KEY = {**JSON, "Authorization": "Bearer some-key"}

Scores = Mapping[int, float]
Read = Callable[[Any], Scores]


@dataclass(frozen=True)
class Recorded:
    """A request, where it may be sent, and how its sender reads scores, in the reply's order."""

    caller: str
    paths: Sequence[str]
    body: Mapping[str, Any]
    read: Read
    headers: Mapping[str, str] = field(default_factory=lambda: KEY)
    top_n: int = len(TEXTS)
    scale: str = "unit"


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "some-model", "query": QUERY, "documents": TEXTS, **fields}


def results(reply: Any) -> Scores:
    return {each["index"]: each["relevance_score"] for each in reply["results"]}


def open_webui(reply: Any) -> Scores:
    scores = [
        each["relevance_score"] for each in sorted(reply["results"], key=lambda r: r["index"])
    ]
    assert len(scores) == len(TEXTS), "scores are laid on the documents by position"
    return results(reply)


def dify_sdk(reply: Any) -> Scores:
    low = min(each["relevance_score"] for each in reply["results"])
    high = max(each["relevance_score"] for each in reply["results"])
    assert low < high, "scores are stretched over [0, 1]"
    for each in reply["results"]:
        document = each.get("document", {})
        text = document.get("text") if isinstance(document, dict) else document
        assert text in (None, TEXTS[each["index"]])
    return results(reply)


def document_text(reply: Any) -> Scores:
    assert all(each["document"]["text"] == TEXTS[each["index"]] for each in reply["results"])
    return results(reply)


def data(name: str, score: str) -> Read:
    def read(reply: Any) -> Scores:
        assert all(each[name] == TEXTS[each["index"]] for each in reply["data"])
        return {each["index"]: each[score] for each in reply["data"]}

    return read


def with_usage(reply: Any) -> Scores:
    assert reply["usage"]["total_tokens"] >= 0
    return results(reply)


def siliconflow(reply: Any) -> Scores:
    tokens = reply["meta"]["tokens"]
    assert tokens["input_tokens"] + tokens["output_tokens"] >= 0
    return results(reply)


def tei(reply: Any) -> Scores:
    return {each["index"]: each["score"] for each in reply}


def dify_tei(reply: Any) -> Scores:
    assert all(each["text"] == TEXTS[each["index"]] for each in reply)
    return tei(reply)


def rankings(reply: Any) -> Scores:
    return {each["index"]: each["logit"] for each in reply["rankings"]}


def librechat_jina(reply: Any) -> Scores:
    for each in reply["results"]:
        document = each.get("document") or TEXTS[each["index"]]
        text = document["text"] if isinstance(document, dict) else document
        assert text == TEXTS[each["index"]]
    return with_usage(reply)


def librechat_voyage(reply: Any) -> Scores:
    scores = {each["index"]: each["relevance_score"] for each in reply["data"]}
    assert len(scores) == len(reply["data"]), "an index that comes twice drops the whole answer"
    return scores


def librechat_rag_api(reply: Any) -> Scores:
    assert all(each["id"] == str(each["index"]) for each in reply["results"])
    return {each["index"]: each["score"] for each in reply["results"]}


CANDIDATES = [{"id": str(index), "text": text, "base_score": 0} for index, text in enumerate(TEXTS)]
NIM = {
    "model": "nvidia/rerank-qa-mistral-4b",
    "query": {"text": QUERY},
    "passages": [{"text": text} for text in TEXTS],
    "truncate": "END",
    "top_n": len(TEXTS),
}
OPEN_WEBUI_USER = {
    "X-OpenWebUI-User-Name": "Ada",
    "X-OpenWebUI-User-Id": "1",
    "X-OpenWebUI-User-Email": "ada@example.org",
    "X-OpenWebUI-User-Role": "user",
}

GENERIC = ("/v1/rerank", "/rerank")
JINA = ("/v1/rerank", "/jina/v1/rerank")
COHERE_2 = ("/v2/rerank", "/cohere/v2/rerank")
COHERE_1 = ("/v1/rerank", "/cohere/v1/rerank")
VOYAGE = ("/v1/rerank", "/voyage/v1/rerank")
MIXEDBREAD = ("/v1/reranking", "/mixedbread/v1/reranking")
TEI = ("/rerank", "/tei/rerank")
OPEN_WEBUI = (*GENERIC, "/jina/v1/rerank", "/cohere/v2/rerank")
NVIDIA = (
    "/v1/ranking",
    "/v1/retrieval/nvidia/reranking",
    "/v1/retrieval/nvidia/nv-rerankqa-mistral-4b-v3/reranking",
    "/nvidia/v1/ranking",
)
DIFY_SDK = (*JINA, "/rerank", "/infinity/rerank")
LIBRECHAT = ("/v1/rerank", "/librechat/v1/rerank")
XINFERENCE = ("/v1/rerank", "/xinference/v1/rerank")

ALL = {"top_n": len(TEXTS)}
OBJECTS = [{"text": text} for text in TEXTS]
best = partial(Recorded, top_n=SOME)
RECORDED = [
    Recorded("Open WebUI", OPEN_WEBUI, asked(**ALL), open_webui, EMPTY_KEY),
    Recorded("Open WebUI user", OPEN_WEBUI, asked(**ALL), open_webui, {**KEY, **OPEN_WEBUI_USER}),
    best("Dify OpenAI-compatible", GENERIC, asked(top_n=SOME), results, JSON),
    Recorded("Dify SDK", DIFY_SDK, asked(top_n=None, return_documents=True), dify_sdk, JSON),
    best("Dify Jina", JINA, asked(top_n=SOME, return_documents=False), results),
    Recorded("Dify Jina objects", JINA, asked(documents=OBJECTS, top_n=None), results),
    # LocalAI sends documents back unasked, and so does vLLM.
    best("Dify LocalAI", ("/vllm/rerank",), asked(top_n=SOME), document_text),
    best("Dify SiliconFlow", COHERE_1, asked(top_n=SOME, return_documents=True), document_text),
    best(
        "Dify Voyage",
        VOYAGE,
        asked(top_k=SOME, return_documents=True),
        data("document", "relevance_score"),
    ),
    Recorded(
        "Dify Mixedbread",
        MIXEDBREAD,
        {"model": "m", "query": QUERY, "input": TEXTS, "top_k": None, "return_input": True},
        data("input", "score"),
    ),
    Recorded("Dify TEI", TEI, {"query": QUERY, "texts": TEXTS, "return_text": True}, dify_tei),
    Recorded("RAGFlow Jina", JINA, asked(**ALL), with_usage),
    Recorded(
        "RAGFlow Xinference",
        XINFERENCE,
        asked(return_documents="true", return_len="true"),
        results,
        {**JSON, "accept": "application/json"},
    ),
    Recorded("RAGFlow LocalAI, OpenAI-compatible, GPUStack", GENERIC, asked(**ALL), results),
    Recorded(
        "RAGFlow SiliconFlow",
        COHERE_1,
        asked(**ALL, return_documents=False, max_chunks_per_doc=1024, overlap_tokens=80),
        siliconflow,
    ),
    Recorded("RAGFlow NVIDIA", NVIDIA, NIM, rankings, scale="logit"),
    Recorded(
        "RAGFlow Hugging Face",
        TEI,
        {"query": QUERY, "texts": TEXTS, "raw_scores": False, "truncate": True},
        tei,
        JSON,
    ),
    best("LibreChat Jina", JINA, asked(top_n=SOME, return_documents=True), librechat_jina),
    best("LibreChat Cohere", COHERE_2, asked(top_n=SOME), results),
    best(
        "LibreChat Voyage",
        VOYAGE,
        asked(top_k=SOME, return_documents=False, truncation=False),
        librechat_voyage,
    ),
    best(
        "LibreChat rag_api",
        LIBRECHAT,
        {"profile": "fast-v1", "query": QUERY, "candidates": CANDIDATES, "top_n": SOME},
        librechat_rag_api,
    ),
]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a sidecar listens that has its own defaults, as theirs would."""
    with running_sidecar() as running:
        yield running.http_port


@pytest.fixture(scope="module")
def native(port: int) -> Mapping[str, Scores]:
    """What the native form says, best first, on both scales that the doors have."""
    return {scale: _native(port, scale) for scale in ("unit", "logit")}


def _native(port: int, scale: str) -> Scores:
    body = {"query": QUERY, "documents": TEXTS, "options": {"normalization": scale}}
    _, reply = call(port, "/api/v1/rerank", body, JSON)
    return {each["index"]: each["score"]["value"] for each in reply["results"]}


def call(
    port: int, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
) -> tuple[int, Any]:
    """Send a body as JSON, or ask without one; httpx would refuse to send an empty key."""
    content = None if body is None else json.dumps(body)
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET" if body is None else "POST", path, content, headers)
        response = connection.getresponse()
        return response.status, json.load(response)


@pytest.mark.parametrize(
    ("case", "path"),
    [
        pytest.param(case, path, id=f"{case.caller} {path}")
        for case in RECORDED
        for path in case.paths
    ],
)
def test_a_recorded_request(
    port: int, native: Mapping[str, Scores], case: Recorded, path: str
) -> None:
    status, reply = call(port, path, case.body, case.headers)
    assert status == 200, reply
    scores, expected = case.read(reply), native[case.scale]
    assert list(scores) == list(expected)[: case.top_n]
    assert scores == pytest.approx({index: expected[index] for index in scores}, abs=1e-6)


@pytest.mark.parametrize("mount", ["", "/tei"])
def test_dify_asks_tei_what_it_serves_before_it_takes_its_address(port: int, mount: str) -> None:
    _, info = call(port, f"{mount}/info", None, JSON)
    assert next(iter(info["model_type"])) == "reranker"
    assert info["max_input_length"] > 0
    assert info["max_client_batch_size"] > 0


def test_an_error_has_a_status_that_stops_them(port: int) -> None:
    status, reply = call(port, "/v1/rerank", {"model": "m", "query": QUERY}, EMPTY_KEY)
    assert status == 400
    assert "documents" in reply["message"]
