"""The OpenAPI description of the HTTP door, made from the message types themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from rerank_sidecar import __version__
from rerank_sidecar.api.dialects import DIALECTS, Dialect
from rerank_sidecar.api.dialects.native_messages import NativeError, NativeModels
from rerank_sidecar.api.dialects.weaviate import WeaviateError

_ABOUT = (
    "Scores documents against a query. Dialects differ in form only: behind all of them is the "
    "same engine. Errors are always JSON; `docs/errors.md` lists the reasons."
)
_TIMEOUT_PARAMETER = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "How long the caller will wait, in milliseconds. Unset: the server's setting.",
    "schema": {"type": "integer", "minimum": 1},
}
_TIMING_HEADER = {
    "Server-Timing": {
        "description": "Milliseconds spent in `queue`, `tokenise` and `infer`, and in `total`.",
        "schema": {"type": "string"},
    }
}


def openapi_document() -> dict[str, Any]:
    """Describe every path of the HTTP door as an OpenAPI 3.1 document."""
    types: list[Any] = [NativeModels, NativeError, WeaviateError]
    for dialect in DIALECTS:
        types += [dialect.message_type, dialect.answer_type, dialect.error_type]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "rerank-sidecar", "version": __version__, "description": _ABOUT},
        "paths": {**_dialect_paths(), **_info_paths()},
        "components": {"schemas": schemas},
    }


def _dialect_paths() -> dict[str, Any]:
    return {path: {"post": _rerank(each)} for each in DIALECTS for path in each.paths}


def _rerank(dialect: Dialect[Any]) -> dict[str, Any]:
    return {
        "summary": dialect.summary,
        "tags": [dialect.name],
        "parameters": [_TIMEOUT_PARAMETER],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _reference(dialect.message_type),
                    "example": dict(dialect.example),
                }
            },
        },
        "responses": {
            "200": {
                **_json("What became of every document.", dialect.answer_type),
                "headers": _TIMING_HEADER,
            },
            "default": _json("The call failed.", dialect.error_type),
        },
    }


def _info_paths() -> dict[str, Any]:
    not_ready = {"503": _json("Starting or shutting down.", WeaviateError)}
    nothing = {"204": {"description": "Yes."}}
    return {
        "/api/v1/models": _get(
            "List the models that the server answers with",
            {"200": _json("The models.", NativeModels), "default": _json("Failed.", NativeError)},
        ),
        "/.well-known/live": _get("Tell whether the process answers at all", nothing),
        "/.well-known/ready": _get(
            "Tell whether requests are answered now", {**nothing, **not_ready}
        ),
        "/meta": _get("Describe the model and the versions", {"200": _typed("application/json")}),
        "/metrics": _get("Give the metrics for Prometheus", {"200": _typed("text/plain")}),
        "/openapi.json": _get("Give this description", {"200": _typed("application/json")}),
        "/docs": _get("Show this description to people", {"200": _typed("text/html")}),
    }


def _get(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "tags": ["server"], "responses": responses}}


def _json(description: str, body: type) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(body)}}
    return {"description": description, "content": content}


def _typed(media_type: str) -> dict[str, Any]:
    return {"description": "The answer.", "content": {media_type: {}}}


def _reference(message: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{message.__name__}"}
