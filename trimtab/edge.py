"""The edge: what every group of endpoints stands on. One pipeline, one gate, one set of connections to the providers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from starlette.requests import Request

from routing.forwarding import Router
from trimtab.caller import Caller, Gate
from trimtab.errors import BadRequest
from trimtab.http import read_object
from trimtab.pipeline import Trimtab

logger = logging.getLogger("trimtab")


class Edge:
    """`state` is "loading" until the encoder is there, then "ready", or "failed" where it cannot be had."""

    def __init__(self, trimtab: Trimtab, gate: Gate) -> None:
        self.trimtab = trimtab
        self.gate = gate
        self.state = "loading"
        self._router: Router | None = None
        self._leaving: list[Callable[[], None]] = []

    @property
    def router(self) -> Router:
        """The connections to the providers, while serving."""
        if self._router is None:
            raise RuntimeError("the app's lifespan has not started: serve it with an ASGI server")
        return self._router

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        with self.trimtab.running():
            async with self.trimtab.router() as self._router:
                # Not in a task group: an encoder that cannot be loaded must cost the trimming and not the server.
                warming = asyncio.create_task(anyio.to_thread.run_sync(self.trimtab.warm_up, abandon_on_cancel=True))
                warming.add_done_callback(self._warmed)
                yield
                warming.cancel()

    def on_leaving(self, end: Callable[[], None]) -> None:
        """Have `end` called when the server is about to stop, before it waits for answers under way: one that goes on until
        it is told to end would hold it up."""
        self._leaving.append(end)

    def leave(self) -> None:
        """The server is about to stop. Called on the event loop."""
        for end in self._leaving:
            end()

    def _warmed(self, warming: asyncio.Task[None]) -> None:
        if warming.cancelled():
            return
        defect = warming.exception()
        self.state = "ready" if defect is None else "failed"
        if defect is not None:
            logger.error("the encoder cannot be loaded (%s: %s); payloads go untrimmed", type(defect).__name__, defect)

    async def caller(self, request: Request) -> Caller:
        """Who asks. Raises BadRequest for whoever may not."""
        return await self.gate.admit(request.headers)

    async def body(self, request: Request) -> dict[str, Any]:
        """The request's body as a JSON object. Raises BadRequest."""
        return await read_object(request, self.trimtab.settings.max_body_bytes)

    def check_providers(self) -> None:
        """Raises BadRequest where no provider is configured."""
        if not self.trimtab.catalog.providers:
            reason = "no provider is configured: add a [[providers]] table and start with --config (see the README)"
            raise BadRequest(None, reason, "no_provider", status=503)
