"""What a server is asked about itself: life, readiness, models, versions, metrics, its API."""

from __future__ import annotations

import platform
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from rerank_sidecar import __version__
from rerank_sidecar.api.auth import Guard
from rerank_sidecar.api.dialects import Dialect
from rerank_sidecar.api.dialects.base import ServerState
from rerank_sidecar.api.dialects.native import NativeDialect, render_models
from rerank_sidecar.api.dialects.weaviate import WeaviateDialect
from rerank_sidecar.api.docs_page import docs_page
from rerank_sidecar.api.doors import MODEL_MOUNT, Door
from rerank_sidecar.api.http_answer import json_response, refusal, retry_headers, shown
from rerank_sidecar.api.openapi import openapi_document
from rerank_sidecar.api.routing import BARE_INFO
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import NotReady
from rerank_sidecar.types import ModelDescription

_RUNTIME = ("openvino", "tokenizers", "numpy")

_OPEN = re.compile(r"/(live|ready|health|ping|cluster/auth)$")
"""Orchestrators, and clients that ask whether they need a token, ask these without one."""

Handler = Callable[[Request], Awaitable[Response]]


def probe_routes(engine: Engine, guard: Guard) -> list[Route]:
    """Make the routes of the stock Weaviate container; it asks for a token at meta alone."""
    probes = _Probes(engine)
    return [
        Route("/.well-known/live", probes.live),
        Route("/.well-known/ready", probes.ready),
        Route("/meta", _guarded(probes.meta, WeaviateDialect(), guard)),
    ]


def info_routes(
    engine: Engine, dialects: Sequence[Dialect[Any]], doors: Sequence[Door], guard: Guard
) -> list[Route]:
    """Make the routes of what the server tells about itself, in its own words.

    The API's description tells nothing about the installation, and browsers could not show a token.
    """
    info = _Info(engine, openapi_document(dialects, doors))
    metrics_guard = guard if engine.settings.metrics_auth else None
    return [
        Route("/metrics", _guarded(info.metrics, NativeDialect(), metrics_guard)),
        Route("/api/v1/models", _guarded(info.models, NativeDialect(), guard)),
        Route("/openapi.json", info.openapi),
        Route("/docs", info.docs),
    ]


def dialect_routes(
    engine: Engine, dialects: Sequence[Dialect[Any]], guard: Guard
) -> Iterator[Route]:
    """Make the routes of what the dialects' clients ask, under their mounts and on bare paths."""
    by_name = {each.name: each for each in dialects}
    bare = [(path, path, by_name[name]) for path, name in BARE_INFO.items() if name in by_name]
    mounted = [(each.mount + path, path, each) for each in dialects for path in each.info()]
    for path, own_path, dialect in (*bare, *mounted):
        yield _info_route(path, own_path, dialect, engine, guard)
    # Mounts first: `{model:path}` would take theirs for a part of the model's name.
    for path, own_path, dialect in (*mounted, *bare):
        if "{model" not in path:
            yield _info_route(MODEL_MOUNT + path, own_path, dialect, engine, guard)


def _info_route(
    path: str, own_path: str, dialect: Dialect[Any], engine: Engine, guard: Guard
) -> Route:
    tell = dialect.info()[own_path]

    async def answer(request: Request) -> Response:
        status, body = tell(state_of(engine), request.path_params.get("model"))
        return Response(status_code=status) if body is None else json_response(status, body)

    return Route(path, _guarded(answer, dialect, None if _OPEN.search(path) else guard))


def _guarded(handler: Handler, dialect: Dialect[Any], guard: Guard | None) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            if guard is not None:
                guard.check(request.headers, dialect.key_headers)
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - a door never answers with less than an error
            return refusal(dialect, shown(error))

    return answer


def state_of(engine: Engine) -> ServerState:
    """Give what a server tells about itself now."""
    models = tuple(engine.models()) if engine.is_ready else ()
    settings, settings_of = engine.settings, engine.settings_of
    return ServerState(engine.is_ready, models, engine.describe, settings, settings_of)


class _Probes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def live(self, _request: Request) -> Response:
        return Response(status_code=204)

    async def ready(self, _request: Request) -> Response:
        if self._engine.is_ready:
            return Response(status_code=204)
        error = NotReady("the server is starting or shutting down")
        return json_response(503, {"error": error.message}, retry_headers(error))

    async def meta(self, _request: Request) -> Response:
        # Weaviate shows this object to whoever asks it for its modules, so it is one even before
        # there is a model.
        models = self._engine.models() if self._engine.is_ready else []
        body = {
            "name": "rerank-sidecar",
            "version": __version__,
            "ready": self._engine.is_ready,
            "model": _describe(models[0]) if models else None,
            "models": [_describe(each) for each in models],
            "versions": _versions(),
        }
        return json_response(200, body)


class _Info:
    def __init__(self, engine: Engine, openapi: dict[str, Any]) -> None:
        self._engine = engine
        self._openapi = openapi

    async def metrics(self, _request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def models(self, _request: Request) -> Response:
        return json_response(200, render_models(self._engine.models()))

    async def openapi(self, _request: Request) -> Response:
        return json_response(200, self._openapi)

    async def docs(self, _request: Request) -> Response:
        return HTMLResponse(docs_page(self._openapi))


def _describe(model: ModelDescription) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(model)
    return {**fields.pop("model"), **fields}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _RUNTIME:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
