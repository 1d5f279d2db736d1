"""The HTTP app: groups of endpoints, put together.

Thin: bytes are read and checked at the edge, the pipeline decides, the router forwards. CPU work crosses into a thread at
one place, `http.in_thread`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import request_response

from trimtab import api_docs
from trimtab.access.endpoints import Administration
from trimtab.access.opening import key_gate
from trimtab.answering import Answering
from trimtab.answers.endpoints import AnswerEndpoints
from trimtab.caller import OpenGate
from trimtab.contexts import SIZE_LIMIT_BYTES as CONTEXTS_BYTES
from trimtab.contexts import Contexts
from trimtab.dashboard.endpoints import Dashboard
from trimtab.database import Database
from trimtab.deferred import batch_docs
from trimtab.deferred.batch_endpoints import BatchEndpoints
from trimtab.deferred.endpoints import Deferring
from trimtab.deferred.jobs import Jobs
from trimtab.edge import Edge
from trimtab.endpoints import OwnEndpoints
from trimtab.errors import Problem
from trimtab.http import Endpoints, problem_response
from trimtab.pipeline import Trimtab
from trimtab.surfaces import CHAT
from trimtab.telemetry.operations import HTTP_TELEMETRY, Operations
from trimtab.webhooks import Webhooks


def create_app(trimtab: Trimtab) -> FastAPI:
    """The ASGI app over one `Trimtab`. The encoder loads in the background; `/readyz` says when it is there."""
    settings = trimtab.settings
    database = Database(settings.database)
    gate = key_gate(settings, database) if settings.keys else None
    edge = Edge(trimtab, OpenGate() if gate is None else gate)
    contexts = Contexts(trimtab.stores.near("contexts", CONTEXTS_BYTES), settings.keep_contexts_hours)
    operations = Operations(edge)
    for gauge in edge.admission.depths():
        operations.metrics.gauge(*gauge)
    webhooks = Webhooks(edge, database)
    jobs = Jobs(database)
    deferring = Deferring(edge, jobs, contexts, webhooks)
    groups: tuple[Endpoints, ...] = (
        *(() if gate is None else (Administration(edge, gate),)),
        OwnEndpoints(edge, contexts),
        Answering(edge, contexts, deferring),
        AnswerEndpoints(edge),
        webhooks,
        deferring,
        *((BatchEndpoints(edge, jobs, webhooks),) if settings.deferred else ()),
        operations,
        Dashboard(edge, database, contexts),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(database.close)
            await stack.enter_async_context(edge.serving())
            for each in groups:
                await stack.enter_async_context(each.serving())
            yield

    # No pages of documentation: FastAPI's load their scripts from another host, and this server may have no network.
    pages: dict[str, Any] = {"docs_url": None, "redoc_url": None}
    app = FastAPI(
        title="trimtab",
        version=api_docs.VERSION,
        summary=api_docs.SUMMARY,
        lifespan=lifespan,
        telemetry=HTTP_TELEMETRY,
        **pages,
    )
    app.state.leave = edge.leave
    routes = (route for each in groups for route in each.routes())
    for route in sorted(
        routes, key=lambda route: route.path != CHAT.path
    ):  # they are tried in turn: what is asked most, first
        app.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            name=route.summary,
            summary=route.summary,
            response_model=None,
            openapi_extra=dict(route.operation),
            include_in_schema=route.listed,
        )
        if tuple(inspect.signature(route.endpoint).parameters) == ("request",):
            # Called with the request alone: FastAPI's own way to it, with dependencies that there are not, took a tenth of
            # all that a small request costs. What it says of the route stays.
            cast(APIRoute, app.router.routes[-1]).app = request_response(route.endpoint)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _defect)
    stack = app.build_middleware_stack
    # Not add_middleware, which puts it inside of what answers a defect: that answer would have no request id.
    app.build_middleware_stack = lambda: operations.around(edge.admission.around(stack()))  # type: ignore[method-assign]
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
        schema.setdefault("components", {}).setdefault("schemas", {}).update(api_docs.SCHEMAS | batch_docs.schemas())
        app.openapi_schema = schema
    return app.openapi_schema
