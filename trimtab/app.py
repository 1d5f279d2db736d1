"""The HTTP app: groups of endpoints, put together.

Thin: bytes are read and checked at the edge, the pipeline decides, the router forwards. CPU work crosses into a thread at
one place, `http.in_thread`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response

from trimtab import api_docs
from trimtab.answering import Answering
from trimtab.caller import OpenGate
from trimtab.contexts import Contexts
from trimtab.edge import Edge
from trimtab.endpoints import OwnEndpoints
from trimtab.errors import Problem
from trimtab.http import Endpoints, problem_response
from trimtab.pipeline import Trimtab


def create_app(trimtab: Trimtab) -> FastAPI:
    """The ASGI app over one `Trimtab`. The encoder loads in the background; `/readyz` says when it is there."""
    settings = trimtab.settings
    edge = Edge(trimtab, OpenGate())
    contexts = Contexts(settings.cache_dir / "contexts", settings.keep_contexts_hours)
    groups: tuple[Endpoints, ...] = (OwnEndpoints(edge, contexts), Answering(edge, contexts))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(edge.serving())
            for each in groups:
                await stack.enter_async_context(each.serving())
            yield

    # No pages of documentation: FastAPI's load their scripts from another host, and this server may have no network.
    pages: dict[str, Any] = {"docs_url": None, "redoc_url": None}
    app = FastAPI(title="trimtab", version=api_docs.VERSION, summary=api_docs.SUMMARY, lifespan=lifespan, **pages)
    for route in (route for each in groups for route in each.routes()):
        app.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            name=route.summary,
            summary=route.summary,
            response_model=None,
            openapi_extra=dict(route.operation),
        )
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign] # FastAPI's documented way to extend the schema
    return app


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}; GET /openapi.json lists what there is"
    return problem_response(
        Problem(error.status_code, message, "invalid_request_error", None, None, None, error.headers or {})
    )


def _defect(_: Request, error: Exception) -> Response:
    """For what is wrong here and not in the request. Says nothing of it: the server's log does."""
    message = f"trimtab failed ({type(error).__name__}), and its log says where; the request was not answered"
    return problem_response(Problem(500, message, "server_error", None, "internal_error"))


def _openapi(app: FastAPI) -> dict[str, Any]:
    if not app.openapi_schema:
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schema.setdefault("components", {}).setdefault("schemas", {}).update(api_docs.SCHEMAS)
        app.openapi_schema = schema
    return app.openapi_schema
