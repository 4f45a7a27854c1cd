"""The HTTP door: every dialect under its paths, and what a server is asked about itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rerank_sidecar.api.auth import Guard, OpenGuard
from rerank_sidecar.api.doors import MODEL_MOUNT, Door, make_doors, open_dialects
from rerank_sidecar.api.http_answer import json_response, refusal
from rerank_sidecar.api.http_info import dialect_routes, info_routes, probe_routes
from rerank_sidecar.api.http_rerank import RerankEndpoint
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import RouteNotFound
from rerank_sidecar.settings import Settings


def build_http_app(
    engine: Engine,
    settings: Settings,
    *,
    guard: Guard | None = None,
    only: Collection[str] | None = None,
) -> Starlette:
    """Make the ASGI application of a listener; it answers before the engine is ready, too.

    `guard` decides who may ask, None letting everybody; `only` names the dialects to serve, with
    no more beside them than live, ready and meta.

    Raises:
        InvalidSetting: a setting names a door or a path that does not exist.
    """
    guard = guard or OpenGuard()
    dialects = open_dialects(settings, only)
    doors = make_doors(dialects, settings)
    routes = [
        *_rerank_routes(doors, engine, settings, guard),
        *probe_routes(engine, guard),
        *(info_routes(engine, dialects, doors, guard) if only is None else ()),
        *dialect_routes(engine, dialects, guard),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(OneSlash)],
        exception_handlers={HTTPException: _refuse_route},
    )
    # Weaviate does not follow redirects, and what it would be told by one it could not parse.
    app.router.redirect_slashes = False
    return app


class OneSlash:
    """Reads several slashes in a path as one.

    Weaviate's clients add a slash to the base URL of its cohere and nvidia modules, and Weaviate
    another one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call on the path that was meant."""
        if "//" in scope.get("path", ""):
            scope = {**scope, "path": re.sub("/{2,}", "/", scope["path"])}
        await self._app(scope, receive, send)


def _rerank_routes(
    doors: Sequence[Door], engine: Engine, settings: Settings, guard: Guard
) -> Iterator[Route]:
    endpoints = [(each.path, RerankEndpoint(each, engine, settings, guard)) for each in doors]
    for path, endpoint in endpoints:
        yield Route(path, endpoint.answer, methods=["POST"])
    # Mounts first: `{model:path}` would take theirs for a part of the model's name.
    for path, endpoint in reversed(endpoints):
        if "{model" not in path:
            yield Route(MODEL_MOUNT + path, endpoint.answer, methods=["POST"])


def _refuse_route(request: Request, error: Exception) -> Response:
    """Answer an unknown path (404) or method (405), in the path's own dialect if it has one."""
    status, headers = 404, None
    message = "there is nothing at this path; /docs on the main port lists what there is"
    if isinstance(error, HTTPException) and error.status_code == 405:
        status, headers = 405, error.headers
        message = f"this path takes {(headers or {}).get('Allow', 'another method')} only"
    # The router's choice, which no Host header and no mount of a model can mislead.
    endpoint = getattr(request.scope.get("endpoint"), "__self__", None)
    if not isinstance(endpoint, RerankEndpoint):
        return json_response(status, {"error": message}, headers)
    response = refusal(endpoint.door.dialects[0], RouteNotFound(message))
    response.status_code = status
    response.headers.update(headers or {})
    return response
