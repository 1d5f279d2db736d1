"""The dashboard's endpoints: two pages, their events, their assets, and a door.

They do not ask the gate who calls, as all others do: a browser sends no API key. `access` says who may come in, and whoever
may sees every tenant's requests. Nothing here writes, so that a request forged by another page has nothing to do.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import parse_qs

import anyio
import anyio.to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from trimtab.caller import Caller
from trimtab.contexts import Contexts
from trimtab.dashboard.access import COOKIE, SESSION_S, Door, Verdict, Visit
from trimtab.dashboard.asked import Asked
from trimtab.dashboard.assets import PATH as ASSETS_PATH
from trimtab.dashboard.assets import Assets
from trimtab.dashboard.one_request import one_request
from trimtab.dashboard.overview import overview, read
from trimtab.dashboard.pages import HEADERS, Pages
from trimtab.dashboard.watching import Watch
from trimtab.database import Database
from trimtab.deferred.job import METADATA as DEFERRED_TABLES
from trimtab.edge import Edge
from trimtab.errors import BadRequest
from trimtab.http import Result, Route, answered, read_bytes
from trimtab.ledger import figures
from trimtab.ledger.entries import TABLES

SIGN_IN: Final = "/sign-in"
_AT_ONCE: Final = 2
"""Pages that are read from the database at a time: a month's sums must not take the threads that requests need."""
_MOST_FORM_BYTES: Final = 4_096

Show = Callable[[Request], Awaitable[Response]]

_SHUT: Final[dict[Verdict, tuple[int, str]]] = {
    "no key set": (403, "The dashboard's key is not set."),
    "not this machine": (403, "The dashboard opens to the machine that it runs on only."),
    "wrong host": (403, "This address is not one of this machine's own names."),
}


class Dashboard:
    """`contexts` holds what was cut. Tables that are missing are made at the first look at them: a database that is away
    must not keep the server from starting."""

    def __init__(self, edge: Edge, database: Database, contexts: Contexts) -> None:
        self._edge, self._trimtab, self._database, self._contexts = edge, edge.trimtab, database, contexts
        self._door = Door(edge.trimtab.settings.dashboard_key_env, os.environ)
        self._assets = Assets()
        self._pages = Pages(self._assets)
        self._reading = anyio.CapacityLimiter(_AT_ONCE)
        self._has_tables = False
        self._watch = Watch(self._last_number, self._numbers_above, self._other)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/", self._guarded(self._overview), "The dashboard", listed=False),
            Route("GET", "/requests/{receipt_id}", self._request, "One request, on the dashboard", listed=False),
            Route(
                "GET",
                "/events",
                self._guarded(self._events),
                "That the dashboard has something new to show",
                listed=False,
            ),
            Route("GET", SIGN_IN, self._sign_in_page, "The dashboard's door", listed=False),
            Route("POST", SIGN_IN, self._sign_in, "Through the dashboard's door", listed=False),
            Route("GET", "/sign-out", self._sign_out, "Out of the dashboard", listed=False),
            Route("GET", f"{ASSETS_PATH}{{name}}", self._asset, "What the dashboard's pages load", listed=False),
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self._edge.on_leaving(self._watch.close)
        yield
        self._watch.close()

    # --- who may come in ---

    def _guarded(self, show: Show) -> Show:
        async def endpoint(request: Request) -> Response:
            return await self._let_in(request, show)

        return endpoint

    async def _let_in(self, request: Request, show: Show) -> Response:
        verdict = self._door.verdict(Visit.of(request), time.time())
        if verdict == "sign in":
            return RedirectResponse(SIGN_IN, 303, HEADERS)
        if verdict != "open":
            status, title = _SHUT[verdict]
            return self._pages.page(request, "shut", status, title=title, verdict=verdict)
        try:
            return await show(request)
        except BadRequest as error:
            return self._pages.page(request, "message", error.status, title="That cannot be shown", words=str(error))
        except SQLAlchemyError as error:  # its text may hold what was asked
            words = f"The database does not answer ({type(error).__name__}). Requests are served all the same."
            return self._pages.page(request, "message", 503, title="The ledger cannot be read", words=words)

    async def _sign_in_page(self, request: Request) -> Response:
        verdict = self._door.verdict(Visit.of(request), time.time())
        if verdict == "sign in":
            return self._pages.page(request, "sign_in", wrong=False)
        return await self._let_in(request, self._home)

    async def _home(self, _: Request) -> Response:
        return RedirectResponse("/", 303, HEADERS)

    async def _sign_in(self, request: Request) -> Response:
        async def answer() -> Response:
            form = parse_qs((await read_bytes(request, _MOST_FORM_BYTES)).decode("utf-8", "replace"))
            session = self._door.session(form.get("key", [""])[0], time.time())
            if session is None:
                return self._pages.page(request, "sign_in", 403, wrong=True)
            response = RedirectResponse("/", 303, HEADERS)
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, session, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
            return response

        return await answered(answer)

    async def _sign_out(self, _: Request) -> Response:
        response = RedirectResponse(SIGN_IN, 303, HEADERS)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    # --- what there is to see ---

    async def _overview(self, request: Request) -> Response:
        asked, now = Asked.of(request.query_params), datetime.now(UTC)
        found = await self._read(partial(read, self._database, asked, now, self._trimtab.catalog))
        providers = tuple(provider.name for provider in self._trimtab.catalog.providers)
        shown = overview(asked, now, found, providers, self._trimtab.experience.health.known())
        models = () if found.last else self._trimtab.catalog.models()
        return self._pages.page(
            request,
            "overview",
            page=shown,
            has_providers=bool(providers),
            has_ledger=self._trimtab.settings.ledger is not False,
            example_model=models[0].model if models else "gpt-5-mini",
            signed_in=self._door.key_env is not None,
        )

    async def _request(self, request: Request, receipt_id: str) -> Response:
        async def show(_: Request) -> Response:
            entry = await self._read(partial(figures.one, self._database, receipt_id.replace("\0", "")))
            if entry is None:
                raise BadRequest(None, "the ledger has no request of that id (yet)", "not_found", status=404)
            whose = Caller(entry.tenant)
            shown = await self._read(lambda: one_request(entry, lambda digest: self._contexts.find(whose, digest)))
            return self._pages.page(request, "request", page=shown, signed_in=self._door.key_env is not None)

        return await self._let_in(request, show)

    async def _events(self, request: Request) -> Response:
        told = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = int(told) if told.isascii() and told.isdigit() and len(told) < 19 else None
        head = {**HEADERS, "x-accel-buffering": "no"}
        return StreamingResponse(self._watch.events(after), 200, head, media_type="text/event-stream")

    async def _asset(self, request: Request, name: str) -> Response:
        async def answer() -> Response:
            return self._assets.response(request, name)

        return await answered(answer)

    async def _read(self, work: Callable[[], Result]) -> Result:
        def read_now() -> Result:
            if not self._has_tables:
                for tables in (TABLES, DEFERRED_TABLES):
                    self._database.create(tables)
                self._has_tables = True
            return work()

        return await anyio.to_thread.run_sync(read_now, limiter=self._reading)

    async def _last_number(self) -> int:
        return await self._read(partial(figures.last_number, self._database))

    async def _numbers_above(self, number: int) -> tuple[int, ...]:
        return await self._read(partial(figures.numbers_above, self._database, number))

    async def _other(self) -> Hashable:
        """What else may change on a page: the circuit breakers."""
        known = self._trimtab.experience.health.known()
        return frozenset((key, breaker, standing.available) for key, (breaker, standing) in known.items())
