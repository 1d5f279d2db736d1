"""Endpoints: what is asked of trimtab itself: compress, plan, inspect, the originals of what was cut, models, health."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from routing.catalog import Listing
from routing.chat_answer import to_bytes
from trimtab import api_docs
from trimtab.caller import Caller
from trimtab.contexts import Contexts
from trimtab.edge import Edge
from trimtab.errors import BadRequest
from trimtab.http import Route, answered, in_thread, json_response
from trimtab.inspecting import inspected
from trimtab.options import CompressIn, checked


class OwnEndpoints:
    """`contexts` holds what was cut."""

    def __init__(self, edge: Edge, contexts: Contexts) -> None:
        self._edge = edge
        self._trimtab = edge.trimtab
        self._contexts = contexts

    def routes(self) -> tuple[Route, ...]:
        rows: tuple[tuple[str, str, Callable[..., Awaitable[Response]], str], ...] = (
            ("POST", "/v1/compress", self._compress, "Trim contexts to a budget"),
            ("POST", "/v1/plan", self._plan, "What a request would cost, and what else was considered (dry run)"),
            ("POST", "/v1/inspect", self._inspect, "What of a request is context, what is protected, and why"),
            ("GET", "/v1/contexts/{digest}", self._context, "The original of a context that was cut"),
            ("GET", "/v1/models", self._models, "The models that the configured providers serve"),
            ("GET", "/v1/models/{model:path}", self._model, "One of them"),
            ("GET", "/healthz", self._healthz, "The process is up"),
            ("GET", "/readyz", self._readyz, "The encoder is loaded, and requests will not wait for it"),
        )
        return tuple(Route(*row, api_docs.EXTRAS.get(row[1], {})) for row in rows)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        yield
        self._contexts.close()

    async def _compress(self, request: Request) -> Response:
        async def answer() -> Response:
            await self._edge.caller(request)
            asked = checked(CompressIn, await self._edge.body(request), None)
            return json_response(await self._edge.worked(lambda: self._trimtab.compress_request(asked)))

        return await answered(answer)

    async def _plan(self, request: Request) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            body = await self._edge.body(request)
            return json_response(
                (await self._edge.worked(lambda: self._trimtab.plan(body, self._edge.gate.rules(caller)))).to_dict()
            )

        return await answered(answer)

    async def _inspect(self, request: Request) -> Response:
        async def answer() -> Response:
            await self._edge.caller(request)
            body, surface = await self._edge.body(request), request.query_params.get("surface")
            return json_response((await self._edge.worked(lambda: inspected(body, surface))).to_dict())

        return await answered(answer)

    async def _context(self, request: Request, digest: str) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            found = await in_thread(lambda: self._contexts.find(caller, digest))
            if found is None:
                reason = f"no context of yours is kept under {digest[:64]!r}; a receipt's cut lists them"
                raise BadRequest("digest", reason, "context_not_found", status=404)
            return Response(to_bytes(found), media_type="application/json")

        return await answered(answer)

    async def _models(self, request: Request) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            listed = [_model(each) for each in await self._listed(caller)]
            ends = {"first_id": listed[0]["id"] if listed else None, "last_id": listed[-1]["id"] if listed else None}
            return json_response({"object": "list", "data": listed, "has_more": False, **ends})

        return await answered(answer)

    async def _listed(self, caller: Caller) -> list[Listing]:
        """The models that this caller may use, each with those of its providers that he may ask."""
        rules = await in_thread(lambda: self._edge.gate.rules(caller))
        listings = [each for each in self._trimtab.catalog.models() if rules.permits(each.model)]
        sold = [replace(each, providers=tuple(p for p in each.providers if rules.sells(p))) for each in listings]
        return [each for each in sold if each.providers]

    async def _model(self, request: Request, model: str) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            listing = next((each for each in await self._listed(caller) if each.model == model), None)
            if listing is None:
                reason = f"no configured provider lists {model[:100]!r}; GET /v1/models says which models there are"
                raise BadRequest("model", reason, "model_not_found", status=404)
            return json_response(_model(listing))

        return await answered(answer)

    async def _healthz(self) -> Response:
        return json_response({"status": "ok"})

    async def _readyz(self) -> Response:
        return json_response({"status": self._edge.state}, 200 if self._edge.state == "ready" else 503)


def _model(listing: Listing) -> dict[str, Any]:
    """A model as both OpenAI's and Anthropic's clients read it. When it was made is not known here."""
    return {
        "id": listing.model,
        "object": "model",
        "created": 0,
        "owned_by": listing.providers[0],
        "providers": listing.providers,
        "type": "model",
        "display_name": listing.model,
        "created_at": "1970-01-01T00:00:00Z",
    }
