"""The edge: what every group of endpoints stands on. One pipeline, one gate, one set of connections to the providers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import anyio.to_thread
from starlette.requests import Request

from compressor.prompts import Api
from retrieval.vectors import keep_vectors_apart
from routing.forwarding import Router
from trimtab.access.rules import Rules
from trimtab.admission import Admission, Limits
from trimtab.caller import Caller, Gate
from trimtab.errors import BadRequest
from trimtab.http import in_thread, read_object
from trimtab.pipeline import Trimtab
from trimtab.prepared import Prepared
from trimtab.ranking_pool import process_count

logger = logging.getLogger("trimtab")

Result = TypeVar("Result")

BRIEF_BYTES: Final = 4_096
"""Preparing a body of so many bytes takes the event loop a third of a millisecond, and three at worst (turns by the
hundred)."""


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

    async def prepared(self, body: Mapping[str, Any], api: Api, rules: Rules) -> Prepared:
        """`Trimtab.prepare`, of the body of the request at hand: small work at once, all else in its turn in a thread.

        A thread costs a small request more than the work does: it wakes up, and then wants the interpreter that the loop has.
        Raises what `prepare` raises, and Overloaded.
        """
        if self.state == "ready" and 0 < self.admission.body_bytes <= BRIEF_BYTES:
            prepared = self.trimtab.prepared_at_once(body, api, rules)
            if prepared is not None:
                return prepared
        return await self.worked(lambda: self.trimtab.prepare(body, api=api, rules=rules))

    async def rules(self, caller: Caller) -> Rules:
        """What the caller may use. Raises BadRequest for one whose key is gone."""
        if not caller.key:  # nothing is looked up for it
            return self.gate.rules(caller)
        return await in_thread(lambda: self.gate.rules(caller))

    def check_providers(self) -> None:
        """Raises BadRequest where no provider is configured."""
        if not self.trimtab.catalog.providers:
            reason = "no provider is configured: add a [[providers]] table and start with --config (see the README)"
            raise BadRequest(None, reason, "no_provider", status=503)
