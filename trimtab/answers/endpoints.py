"""Endpoints: what a caller can have forgotten of its own answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from trimtab.edge import Edge
from trimtab.errors import BadRequest
from trimtab.http import Route, answered, in_thread, json_response

MOST_AT_ONCE: Final = 1_000

_OPERATION: Final[Mapping[str, Any]] = {
    "parameters": [
        {
            "name": "context",
            "in": "query",
            "description": "The SHA-256 of a context's text in UTF-8, as a receipt lists it; may be repeated. Without one, "
            "all of the caller's answers.",
            "schema": {"type": "array", "items": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}},
        }
    ]
}


class AnswerEndpoints:
    """`DELETE /v1/answers`."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def routes(self) -> tuple[Route, ...]:
        summary = "Have cached answers forgotten: those that rest on a context, or all"
        return (Route("DELETE", "/v1/answers", self._forget, summary, _OPERATION),)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        yield
        self._edge.trimtab.answers.close()

    async def _forget(self, request: Request) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            given = request.query_params.getlist("context")
            if unknown := set(request.query_params) - {"context"}:
                raise BadRequest(sorted(unknown)[0][:40], "is no parameter; there is `context`, the digest of a text")
            if len(given) > MOST_AT_ONCE:
                raise BadRequest("context", f"is given more than {MOST_AT_ONCE} times; send several requests")
            for each in given:
                if len(each) != 64 or not set(each.lower()) <= set("0123456789abcdef"):
                    raise BadRequest("context", "must be the SHA-256 of a context's text, in 64 hexadecimal digits")
            await in_thread(lambda: self._edge.trimtab.answers.withdraw(caller, given or ("",)))
            return json_response({"object": "answers.deleted", "contexts": given, "all": not given})

        return await answered(answer)
