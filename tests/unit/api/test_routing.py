"""Who is speaking on a bare path: what the contracts say, and what known clients were seen to send.

Shapes of clients are those of their own source, at the versions in docs/doors.md.
"""

import json
from collections.abc import Collection

import pytest

from rerank_sidecar.api.routing import (
    BARE_INFO,
    BARE_PATHS,
    FORMS,
    BodyShape,
    choose_dialect,
    read_shape,
)
from rerank_sidecar.errors import MalformedBody

Q, DOCUMENTS, OBJECTS = "red fruit", ["sky", "apple"], [{"text": "sky"}, {"text": "apple"}]
PLAIN = {"query": Q, "documents": DOCUMENTS}

CONTRACTS = [
    ("/rerank", {"query": Q, "texts": DOCUMENTS}, "tei"),
    ("/rerank", {"query": Q, "texts": DOCUMENTS, "raw_scores": True, "truncate": False}, "tei"),
    ("/rerank", PLAIN, "weaviate"),
    ("/rerank", {"documents": DOCUMENTS}, "weaviate"),
    ("/rerank", {**PLAIN, "property": ""}, "weaviate"),
    ("/rerank", {"query": Q, "property": "sky"}, "weaviate"),
    ("/rerank", {**PLAIN, "property": "", "model": "m"}, "weaviate"),
    ("/rerank", {**PLAIN, "model": "m"}, "generic"),
    ("/rerank", {**PLAIN, "top_n": 1}, "generic"),
    ("/rerank", {**PLAIN, "return_documents": True}, "generic"),
    ("/rerank", {"query": Q, "documents": "sky", "model": "m"}, "generic"),
    ("/rerank", {**PLAIN, "model": "m", "top_k": 1}, "generic"),
    ("/rerank", {"query": Q, "documents": OBJECTS, "model": "m"}, "generic"),
    ("/v1/rerank", PLAIN, "generic"),
    ("/v1/rerank", {"model": "m", "query": Q, "documents": OBJECTS}, "generic"),
    ("/v1/rerank", {"query": Q, "texts": DOCUMENTS}, "tei"),
    ("/v1/rerank", {**PLAIN, "model": "rerank-2.5", "top_k": 1}, "voyage"),
    ("/v1/rerank", {**PLAIN, "truncation": False}, "voyage"),
    ("/v1/rerank", {**PLAIN, "top_k": None}, "voyage"),
    ("/v2/rerank", {**PLAIN, "model": "rerank-v3.5"}, "cohere_v2"),
    ("/v2/rerank", {"query": Q, "texts": DOCUMENTS}, "cohere_v2"),
    ("/reranking", {**PLAIN, "top_n": 1}, "generic"),
    ("/reranking", {"query": Q, "texts": DOCUMENTS}, "tei"),
    ("/v1/reranking", {"model": "m", "query": Q, "input": DOCUMENTS}, "mixedbread"),
    ("/v1/reranking", PLAIN, "generic"),
    ("/v1/reranking", {"query": Q, "texts": DOCUMENTS}, "tei"),
    ("/v1/ranking", {"query": {"text": Q}, "passages": OBJECTS}, "nvidia"),
    ("/v1/retrieval/nvidia/reranking", {"query": {"text": Q}, "passages": OBJECTS}, "nvidia"),
    ("/score", {"text_1": Q, "text_2": DOCUMENTS}, "vllm_score"),
    ("/v1/score", {"queries": Q, "documents": DOCUMENTS}, "vllm_score"),
    ("/", {"query": Q, "texts": DOCUMENTS}, "tei"),
    ("/invocations", {"query": Q, "texts": DOCUMENTS}, "tei"),
    ("/v2/models/{model:path}/infer", {"inputs": []}, "kserve"),
    ("/v2/models/{model:path}/versions/{version}/infer", {}, "kserve"),
]

CLIENTS = [
    # Open WebUI's external engine, whose URL is the user's own choice.
    ("/rerank", {"model": "m", "query": Q, "documents": DOCUMENTS, "top_n": 2}, "generic"),
    ("/v1/rerank", {"model": "m", "query": Q, "documents": DOCUMENTS, "top_n": 2}, "generic"),
    # Dify: OpenAI-compatible, its base class, TEI, Xinference, Voyage, Mixedbread.
    ("/rerank", {"model": "m", "query": Q, "documents": DOCUMENTS, "top_n": None}, "generic"),
    ("/v1/rerank", {**PLAIN, "model": "m", "top_n": 2, "return_documents": True}, "generic"),
    ("/rerank", {"query": Q, "texts": DOCUMENTS, "return_text": True}, "tei"),
    (
        "/v1/rerank",
        {**PLAIN, "model": "m", "top_k": 2, "return_documents": True},
        "voyage",
    ),
    (
        "/v1/reranking",
        {"model": "m", "query": Q, "input": DOCUMENTS, "top_k": 2, "return_input": True},
        "mixedbread",
    ),
    # RAGFlow: Jina, Xinference (booleans as strings), LocalAI, vLLM by Cohere's SDK, NVIDIA.
    ("/v1/rerank", {**PLAIN, "model": "m", "top_n": 2}, "generic"),
    (
        "/v1/rerank",
        {**PLAIN, "model": "m", "return_documents": "true", "return_len": "true"},
        "generic",
    ),
    ("/rerank", {**PLAIN, "model": "m", "top_n": 2}, "generic"),
    (
        "/v1/ranking",
        {
            "model": "m",
            "query": {"text": Q},
            "passages": OBJECTS,
            "truncate": "END",
            "top_n": 2,
        },
        "nvidia",
    ),
    # LibreChat: Jina's form, Cohere v2, and its own rag_api.
    (
        "/v1/rerank",
        {
            "model": "jina-reranker-v2-base-multilingual",
            "query": Q,
            "documents": DOCUMENTS,
            "top_n": 5,
            "return_documents": True,
        },
        "generic",
    ),
    ("/v2/rerank", {**PLAIN, "model": "rerank-v3.5", "top_n": 5}, "cohere_v2"),
    (
        "/v1/rerank",
        {
            "profile": "p",
            "query": Q,
            "candidates": [{"id": "a", "text": "sky", "base_score": 0.5}],
            "top_n": 25,
        },
        "librechat",
    ),
    # LiteLLM: cohere and jina_ai, infinity and hosted_vllm, huggingface, voyage.
    (
        "/v1/rerank",
        {**PLAIN, "model": "m", "top_n": 2, "rank_fields": None, "return_documents": True},
        "generic",
    ),
    ("/rerank", {**PLAIN, "model": "m", "return_documents": False}, "generic"),
    ("/rerank", {**PLAIN, "model": "m", "truncate_prompt_tokens": 512}, "generic"),
    (
        "/rerank",
        {"query": Q, "texts": DOCUMENTS, "raw_scores": False, "return_text": False},
        "tei",
    ),
    ("/v1/rerank", {**PLAIN, "model": "rerank-2.5", "top_k": 2}, "voyage"),
    # The library rerankers: TEI with fields that it does not know, and Jina.
    (
        "/rerank",
        {"model": "m", "query": Q, "texts": DOCUMENTS, "top_n": 2, "return_text": True},
        "tei",
    ),
    ("/v1/rerank", {**PLAIN, "model": "m", "top_n": 2, "return_documents": True}, "generic"),
]


@pytest.mark.parametrize(("path", "body", "dialect"), [*CONTRACTS, *CLIENTS])
def test_the_body_tells_who_speaks(path: str, body: object, dialect: str) -> None:
    shape = read_shape(json.dumps(body).encode())
    assert choose_dialect(path, shape) == dialect


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
@pytest.mark.parametrize(
    ("documents", "has_api_key", "dialect"),
    [(OBJECTS, True, "pinecone"), (OBJECTS, False, "generic"), (DOCUMENTS, True, "generic")],
)
def test_an_api_key_with_object_documents_is_pinecones(
    path: str, documents: Collection[object], has_api_key: bool, dialect: str
) -> None:
    body = {"model": "m", "query": Q, "documents": documents, "top_n": 1, "parameters": {}}
    shape = read_shape(json.dumps(body).encode())
    assert choose_dialect(path, shape, has_api_key) == dialect


GUESSED = [path for path, names in BARE_PATHS.items() if len(names) > 1]


@pytest.mark.parametrize("path", GUESSED)
@pytest.mark.parametrize("fields", [set(), {"query"}, {"inputs"}, {"passages"}, {"Documents"}])
def test_a_body_that_is_none_of_them_is_shown_the_forms(path: str, fields: set[str]) -> None:
    with pytest.raises(MalformedBody) as raised:
        choose_dialect(path, BodyShape(frozenset(fields)))
    assert raised.value.message.startswith("body: ")
    assert FORMS in raised.value.message
    assert path in raised.value.message


@pytest.mark.parametrize("path", GUESSED)
def test_only_who_may_be_on_a_path_is_found_there(path: str) -> None:
    names = ("query", "texts", "documents", "property", "input", "candidates", "top_k", "model")
    for bits in range(2 ** len(names)):
        fields = frozenset(name for at, name in enumerate(names) if bits >> at & 1)
        try:
            found = choose_dialect(path, BodyShape(fields, has_object_documents=True), True)
        except MalformedBody:
            continue
        assert found in BARE_PATHS[path]


def test_paths_that_take_both_methods_answer_for_the_same_product() -> None:
    assert {BARE_INFO[path] for path in ("/info", "/health", "/ping")} == {"tei"}
    assert not any(path in BARE_INFO for path in GUESSED)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (b"{}", BodyShape(frozenset())),
        (b'\xef\xbb\xbf{"texts": []}', BodyShape(frozenset({"texts"}))),
        (b'\r\n\t {"texts": [] } \n', BodyShape(frozenset({"texts"}))),
        (rb'{"\u0074exts": []}', BodyShape(frozenset({"texts"}))),
        (rb'{"texts": ["\ud800"]}', BodyShape(frozenset({"texts"}))),
        (rb'{"\ud800": ["\udfff"]}', BodyShape(frozenset({"\ufffd"}))),
        (b'{"documents": [{"text": "a"}]}', BodyShape(frozenset({"documents"}), True)),
        (rb'{"documents": [{"text": "\ud800"}]}', BodyShape(frozenset({"documents"}), True)),
        (b'{"documents":[' + b" " * 99 + b"{}]}", BodyShape(frozenset({"documents"}), True)),
        (b'{"documents": {"text": "a"}}', BodyShape(frozenset({"documents"}))),
        (b'{"documents": ["{"]}', BodyShape(frozenset({"documents"}))),
        (b'{"documents": []}', BodyShape(frozenset({"documents"}))),
        (b'{"documents": [[{}]]}', BodyShape(frozenset({"documents"}))),
        (b'{"texts": 1e999}', BodyShape(frozenset({"texts"}))),
        (b'{"texts": [], "texts": []}', BodyShape(frozenset({"texts"}))),
        (b'{"texts": "' + b"x" * 1_000_000 + b'"}', BodyShape(frozenset({"texts"}))),
    ],
)
def test_a_body_is_looked_at_from_outside(body: bytes, shape: BodyShape) -> None:
    assert read_shape(body) == shape


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'["texts"]',
        b'"texts"',
        b"texts=a&query=b",
        b'{"texts": []',
        b'{"texts": []} more',
        b'{"texts": NaN}',
        b"{1: 2}",
        b"\xff\xfe{",
        '{"texts": []}'.encode("utf-16"),
        b'{"texts": ' + DEEP,
        b'{"texts": ' + DEEP + b"]" * 100_000 + b"}",
        b'{"\\ud800": ' + DEEP + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read_shape(body)
