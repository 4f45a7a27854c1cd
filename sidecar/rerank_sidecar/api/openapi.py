"""The OpenAPI description of the HTTP door, made from the message types themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from rerank_sidecar import __version__
from rerank_sidecar.api.dialects import Dialect
from rerank_sidecar.api.dialects.native_messages import NativeError, NativeModels
from rerank_sidecar.api.dialects.weaviate import WeaviateError
from rerank_sidecar.api.doors import Door
from rerank_sidecar.api.http_answer import FAILED_HEADER
from rerank_sidecar.api.routing import BARE_INFO

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
_ANSWER_HEADERS = {
    FAILED_HEADER: {
        "description": "Present when documents failed alone: `3;reason=LIMIT_EXCEEDED`, by index.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds spent in `queue`, `tokenise` and `infer`, and in `total`.",
        "schema": {"type": "string"},
    },
}

_HEALTH = re.compile(r"/(health|live|ping|ready)$")
"""Asked for its status; some of the products add a body to it."""

_YES = {"description": "Yes."}


def openapi_document(dialects: Sequence[Dialect[Any]], doors: Sequence[Door]) -> dict[str, Any]:
    """Describe every path of the HTTP door as an OpenAPI 3.1 document.

    Left out are the same paths once more under `/models/{name}`.
    """
    types: list[Any] = [NativeModels, NativeError, WeaviateError]
    for dialect in dialects:
        types += (dialect.message_type, dialect.answer_type, dialect.error_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "rerank-sidecar", "version": __version__, "description": _ABOUT},
        "paths": {
            **{_plain(door.path): {"post": _rerank(door)} for door in doors},
            **_info_paths(),
            **_dialect_info_paths(dialects),
        },
        "components": {"schemas": _components(tuple(types))},
    }


def _rerank(door: Door) -> dict[str, Any]:
    first, dialects = door.dialects[0], door.dialects
    return {
        "summary": first.summary if len(dialects) == 1 else "Score documents; the body tells how",
        "tags": [first.name if len(dialects) == 1 else "bare paths"],
        "parameters": [*_path_parameters(door.path), _TIMEOUT_PARAMETER],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": _any_of([each.message_type for each in dialects]),
                    "examples": {each.name: {"value": dict(each.example)} for each in dialects},
                }
            },
        },
        "responses": {
            "200": {
                **_json("What became of every document.", *(each.answer_type for each in dialects)),
                "headers": _ANSWER_HEADERS,
            },
            "default": _json("The call failed.", *(each.error_type for each in dialects)),
        },
    }


def _dialect_info_paths(dialects: Sequence[Dialect[Any]]) -> dict[str, Any]:
    by_name = {each.name: each for each in dialects}
    asked = [(path, by_name[name]) for path, name in BARE_INFO.items() if name in by_name]
    asked += [(each.mount + path, each) for each in dialects for path in each.info()]
    return {
        _plain(path): _get(
            f"Tell what {dialect.name}'s clients ask of a server",
            {
                "200": _YES if _HEALTH.search(path) else _typed("application/json"),
                "default": _json("The call failed.", dialect.error_type),
            },
            _path_parameters(path),
        )
        for path, dialect in asked
    }


def _plain(path: str) -> str:
    return path.replace(":path}", "}")


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)", path)
    ]


def _info_paths() -> dict[str, Any]:
    not_ready = {"503": _json("Starting or shutting down.", WeaviateError)}
    nothing = {"204": _YES}
    return {
        "/api/v1/models": _get(
            "List the models that the server answers with",
            {"200": _json("The models.", NativeModels), "default": _json("Failed.", NativeError)},
        ),
        "/.well-known/live": _get("Tell whether the process answers at all", nothing),
        "/.well-known/ready": _get(
            "Tell whether requests are answered now", {**nothing, **not_ready}
        ),
        "/meta": _get(
            "Describe the model and the versions",
            {"200": _typed("application/json"), "default": _json("Failed.", WeaviateError)},
        ),
        "/metrics": _get(
            "Give the metrics for Prometheus",
            {"200": _typed("text/plain"), "default": _json("Failed.", NativeError)},
        ),
        "/openapi.json": _get("Give this description", {"200": _typed("application/json")}),
        "/docs": _get("Show this description to people", {"200": _typed("text/html")}),
    }


def _get(
    summary: str, responses: dict[str, Any], parameters: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    described: dict[str, Any] = {"summary": summary, "tags": ["server"], "responses": responses}
    return {"get": {**described, "parameters": list(parameters)} if parameters else described}


def _json(description: str, *bodies: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "description": description,
        "content": {"application/json": {"schema": _any_of(bodies)}},
    }


def _typed(media_type: str) -> dict[str, Any]:
    return {"description": "The answer.", "content": {media_type: {}}}


def _any_of(bodies: Sequence[Any]) -> dict[str, Any]:
    schemas = list({repr(each): each for each in map(_schema, bodies)}.values())
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


# Types never change, and msgspec takes a while to look at them.
@cache
def _schema(body: Any) -> dict[str, Any]:  # noqa: ANN401
    """Refer to a struct by its name, and write out anything else, such as a list of structs."""
    [schema], _ = msgspec.json.schema_components([body], ref_template="#/components/schemas/{name}")
    return dict(schema)


@cache
def _components(types: tuple[Any, ...]) -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return dict(schemas)
