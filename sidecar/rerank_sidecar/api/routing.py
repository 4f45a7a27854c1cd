"""Which dialect a request on a bare path speaks: one pure function of its path and its body.

Under a mount (`/cohere/v2/rerank`) nothing is guessed. Clients that cannot be given a mount call
the same few paths and mean different things by them; what tells them apart is which fields they
send. docs/doors.md has the table in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from rerank_sidecar.api.json_body import parse_json
from rerank_sidecar.errors import MalformedBody

GENERIC = "generic"

_OBJECTS = re.compile(rb"\[\s*{")

_FIXED: Mapping[str, str] = MappingProxyType(
    {
        "/": "tei",
        "/invocations": "tei",
        "/v2/rerank": "cohere_v2",
        "/v1/ranking": "nvidia",
        "/v1/retrieval/nvidia/reranking": "nvidia",
        "/v1/retrieval/nvidia/{model:path}/reranking": "nvidia",
        "/score": "vllm_score",
        "/v1/score": "vllm_score",
        "/v2/models/{model:path}/versions/{version}/infer": "kserve",
        "/v2/models/{model:path}/infer": "kserve",
    }
)
"""Bare paths that mean one thing."""

_GUESSED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "/rerank": ("weaviate", "tei", GENERIC, "pinecone"),
        "/v1/rerank": (GENERIC, "tei", "voyage", "librechat", "pinecone"),
        "/reranking": (GENERIC, "tei"),
        "/v1/reranking": (GENERIC, "tei", "mixedbread"),
    }
)
"""Bare paths that mean several things; the first tells what is wrong with a body that is none."""

BARE_PATHS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {**_GUESSED, **{path: (name,) for path, name in _FIXED.items()}}
)
"""Every path that takes POST without a mount, the most usual first, and who may be speaking."""

BARE_INFO: Mapping[str, str] = MappingProxyType(
    {
        "/info": "tei",
        "/health": "tei",
        "/ping": "tei",
        "/v1/models": "vllm",
        "/v1/models/{model:path}": "vllm",
        "/version": "vllm",
        "/v1/cluster/auth": "xinference",
        "/v1/health/live": "nvidia",
        "/v1/health/ready": "nvidia",
        "/v2": "kserve",
        "/v2/health/live": "kserve",
        "/v2/health/ready": "kserve",
        "/v2/models/{model:path}/versions/{version}/ready": "kserve",
        "/v2/models/{model:path}/versions/{version}/config": "kserve",
        "/v2/models/{model:path}/versions/{version}/stats": "kserve",
        "/v2/models/{model:path}/versions/{version}": "kserve",
        "/v2/models/{model:path}/ready": "kserve",
        "/v2/models/{model:path}/config": "kserve",
        "/v2/models/{model:path}/stats": "kserve",
        "/v2/models/{model:path}": "kserve",
    }
)
"""Whose answer is given by GET on a path without a mount; each is also under its own."""

FORMS = (
    'accepted are {"query", "documents"} with "property" or nothing else (Weaviate), '
    '{"query", "texts"} (TEI), {"model", "query", "documents", "top_n", "return_documents"} '
    "(Cohere, Jina, vLLM, Infinity, Xinference, llama.cpp), on /v1/rerank also "
    '{"query", "documents", "top_k", "truncation"} (Voyage) and {"query", "candidates"} '
    '(LibreChat), on /v1/reranking {"query", "input"} (Mixedbread)'
)


@dataclass(frozen=True, slots=True)
class BodyShape:
    """All that is looked at: the fields of a body, and whether its documents are objects."""

    fields: frozenset[str]
    has_object_documents: bool = False


def read_shape(body: bytes) -> BodyShape:
    """Look at a JSON body from outside; its texts are passed over, not read.

    Raises:
        MalformedBody: the body is not a JSON object.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _shape_of(parse_json(body, dict[str, Any]))
    begins_with_object = _OBJECTS.match(fields.get("documents", b""))
    return BodyShape(frozenset(fields), begins_with_object is not None)


def choose_dialect(path: str, shape: BodyShape, has_api_key: bool = False) -> str:
    """Name the dialect of a request on a bare path; `has_api_key` tells of the header `Api-Key`.

    Raises:
        MalformedBody: the body fits no form that this path takes; the message lists the forms.
    """
    if path in _FIXED:
        return _FIXED[path]
    for name, speaks in _RULES:
        if name in _GUESSED[path] and speaks(shape, has_api_key):
            return name
    raise MalformedBody(f"body: none of the forms that {path} takes; {FORMS}")


def _is_weaviates(fields: frozenset[str]) -> bool:
    return "property" in fields or ("documents" in fields and fields <= {"query", "documents"})


_RULES: tuple[tuple[str, Callable[[BodyShape, bool], bool]], ...] = (
    ("tei", lambda shape, _key: "texts" in shape.fields),
    ("weaviate", lambda shape, _key: _is_weaviates(shape.fields)),
    ("mixedbread", lambda shape, _key: "input" in shape.fields),
    ("librechat", lambda shape, _key: "candidates" in shape.fields),
    ("pinecone", lambda shape, key: key and shape.has_object_documents),
    ("voyage", lambda shape, _key: _is_voyages(shape.fields)),
    (GENERIC, lambda shape, _key: "documents" in shape.fields),
)
"""Who is speaking: the first that may be on the path and whose fields these are."""


def _is_voyages(fields: frozenset[str]) -> bool:
    return "documents" in fields and not fields.isdisjoint({"top_k", "truncation"})


def _shape_of(fields: Mapping[str, Any]) -> BodyShape:
    documents = fields.get("documents")
    first = documents[0] if isinstance(documents, list) and documents else None
    return BodyShape(frozenset(fields), isinstance(first, dict))
