"""The HTTP door: every dialect under its paths, and what a server is asked about itself."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rerank_sidecar.api.dialects import DIALECTS
from rerank_sidecar.api.http_answer import json_response
from rerank_sidecar.api.http_info import info_routes
from rerank_sidecar.api.http_rerank import RerankEndpoint
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import RouteNotFound
from rerank_sidecar.settings import Settings


def build_http_app(engine: Engine, settings: Settings) -> Starlette:
    """Make the ASGI application; it answers before the engine is ready, too."""
    endpoints = [(each, RerankEndpoint(each, engine, settings)) for each in DIALECTS]
    app = Starlette(
        routes=[
            *(
                Route(path, endpoint.answer, methods=["POST"])
                for dialect, endpoint in endpoints
                for path in dialect.paths
            ),
            *info_routes(engine),
        ],
        exception_handlers={HTTPException: _no_such_route},
    )
    # Weaviate does not follow redirects, and what it would be told by one it could not parse.
    app.router.redirect_slashes = False
    return app


async def _no_such_route(request: Request, error: Exception) -> Response:
    """Answer an unknown path (404) or method (405), in the path's own dialect if it has one."""
    status, headers = 404, None
    message = "there is nothing at this path; GET /docs lists what there is"
    if isinstance(error, HTTPException) and error.status_code == 405:
        status, headers = 405, error.headers
        message = f"this path takes {(headers or {}).get('Allow', 'another method')} only"
    dialect = next((each for each in DIALECTS if request.url.path in each.paths), None)
    refusal = RouteNotFound(message)
    body = dialect.render_error(refusal)[1] if dialect else {"error": message}
    return json_response(status, body, headers)
