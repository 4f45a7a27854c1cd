"""What a server is asked about itself: life, readiness, models, versions, metrics, its API."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from rerank_sidecar import __version__
from rerank_sidecar.api.dialects.native import NativeDialect, render_models
from rerank_sidecar.api.docs_page import docs_page
from rerank_sidecar.api.http_answer import json_response, retry_headers, shown
from rerank_sidecar.api.openapi import openapi_document
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import NotReady
from rerank_sidecar.types import ModelDescription

_RUNTIME = ("openvino", "tokenizers", "numpy")


def info_routes(engine: Engine) -> list[Route]:
    """Make the routes that are read by GET."""
    info = _Info(engine)
    return [
        Route("/.well-known/live", info.live),
        Route("/.well-known/ready", info.ready),
        Route("/meta", info.meta),
        Route("/metrics", info.metrics),
        Route("/api/v1/models", info.models),
        Route("/openapi.json", info.openapi),
        Route("/docs", info.docs),
    ]


class _Info:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._openapi = openapi_document()

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

    async def metrics(self, _request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def models(self, _request: Request) -> Response:
        try:
            return json_response(200, render_models(self._engine.models()))
        except Exception as error:  # noqa: BLE001 - a door never answers with less than an error
            told = shown(error)
            status, body = NativeDialect().render_error(told)
            return json_response(status, body, retry_headers(told))

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
