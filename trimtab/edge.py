"""The edge: what every group of endpoints stands on. One pipeline, one gate, one set of connections to the providers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio.to_thread
from starlette.requests import Request

from retrieval.vectors import keep_vectors_apart
from routing.forwarding import Router
from trimtab.admission import Admission, Limits
from trimtab.caller import Caller, Gate
from trimtab.errors import BadRequest
from trimtab.http import in_thread, read_object
from trimtab.pipeline import Trimtab
from trimtab.ranking_pool import process_count

logger = logging.getLogger("trimtab")

Result = TypeVar("Result")


class Edge:
    """`state` is "loading" until the encoder is there, then "ready", or "failed" where it cannot be had."""

    def __init__(self, trimtab: Trimtab, gate: Gate) -> None:
        self.trimtab = trimtab
        self.gate = gate
        settings = trimtab.settings
        self.admission = Admission(
            Limits(
                settings.max_requests,
                settings.max_bodies_bytes,
                settings.max_wait_s,
                max(1, process_count(settings)),
            )
        )
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
        caller = await self.gate.admit(request.headers)
        if self.trimtab.settings.isolate_vectors:
            keep_vectors_apart(caller.tenant)
        return caller

    async def body(self, request: Request) -> dict[str, Any]:
        """The request's body as a JSON object. Raises BadRequest, and Overloaded where there is no room for it."""
        return await read_object(request, self.trimtab.settings.max_body_bytes, self.admission.grow)

    async def worked(self, work: Callable[[], Result]) -> Result:
        """What `work` makes of the body of the request at hand, in a thread, once it is its turn. Raises Overloaded."""
        async with self.admission.turn():
            return await in_thread(work)

    def check_providers(self) -> None:
        """Raises BadRequest where no provider is configured."""
        if not self.trimtab.catalog.providers:
            reason = "no provider is configured: add a [[providers]] table and start with --config (see the README)"
            raise BadRequest(None, reason, "no_provider", status=503)
