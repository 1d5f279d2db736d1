"""Deferring: a request with a deadline is answered with a 202 if waiting pays, and `/v1/deferred/{id}` says what became of it.

    {"id": "def_...", "object": "deferred", "status": "queued", "deadline_at": 1795540800, ..., "response": null}

A request without a deadline, and one that streams, never meets any of this.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from routing.promotion import Buy
from routing.streams import Garbage, parse_object
from trimtab.caller import Caller
from trimtab.contexts import Contexts
from trimtab.deferred.bids import BATCH
from trimtab.deferred.jobs import SHIPPED, WAITING, Job, Jobs, NewJob, fingerprint_of
from trimtab.deferred.lane import Lane
from trimtab.deferred.shipments import Shipments
from trimtab.edge import Edge
from trimtab.errors import BadRequest
from trimtab.http import Route, answered, in_thread, unless_gone
from trimtab.idempotency import KEY_HEADER
from trimtab.options import seconds_until
from trimtab.prepared import Prepared
from trimtab.surfaces import SURFACES, Surface, with_receipt
from trimtab.webhooks import Webhooks

SHORTEST_S: Final = 600.0
"""Within less than this nobody's batch is worth a try, and a price that changes soon is not worth two requests."""
MOST_WAIT_S: Final = 60.0
"""How long a request for a job that is not over is held at the most."""
RETRY_AFTER_S: Final = (2, 60)

Found = TypeVar("Found")

_SURFACES: Final[Mapping[str, Surface]] = {surface.path: surface for surface in SURFACES}
_STATUSES: Final = {WAITING: "queued", SHIPPED: "in_progress"}


class Deferring:
    """The group, and the lane while it is served. `clock` gives seconds since 1970."""

    def __init__(
        self, edge: Edge, jobs: Jobs, contexts: Contexts, webhooks: Webhooks, clock: Callable[[], float] = time.time
    ) -> None:
        self._edge = edge
        self._jobs = jobs
        self._webhooks = webhooks
        self._clock = clock
        self._shipments = Shipments(jobs.database)
        self._lane = Lane(edge, jobs, self._shipments, contexts, clock)
        edge.on_leaving(self._lane.closing.leave)
        jobs.finished.append(webhooks.job_finished)

    def routes(self) -> tuple[Route, ...]:
        path, parameters = "/v1/deferred/{job_id}", [_ID]
        return (
            Route("GET", path, self._get, "What became of a request that may wait", {"parameters": [_ID, _WAIT]}),
            Route("DELETE", path, self._cancel, "Cancel a request that waits", {"parameters": parameters}),
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in (self._jobs, self._shipments):
                await in_thread(each.create)
            if self._edge.trimtab.settings.deferred:
                await stack.enter_async_context(self._lane.serving())
            yield

    # --- a request that may wait ---------------------------------------------------------------------------------------

    def may_wait(self, body: Mapping[str, Any]) -> bool:
        """Whether a request is to be considered. One that may not wait is answered as ever."""
        options = body.get("trimtab")
        if not isinstance(options, Mapping) or body.get("stream"):
            return False
        if options.get("callback_url") is not None and options.get("deadline") is None:
            reason = "is told of an answer that may wait: give trimtab.deadline with it"
            raise BadRequest("trimtab.callback_url", reason)
        if options.get("deadline") is None or not self._edge.trimtab.settings.deferred:
            return False
        try:
            return seconds_until(options["deadline"], datetime.now(UTC)) >= SHORTEST_S
        except ValueError:  # told of by whoever reads the options
            return False

    async def consider(
        self, caller: Caller, headers: Mapping[str, str], body: Mapping[str, Any], surface: Surface
    ) -> Response | Prepared:
        """A 202 for a request that is to wait, and is written down; or what is to be sent now. Raises as `prepare`."""
        content, key = _written(body), headers.get(KEY_HEADER)
        if key is not None and (known := await _stored(lambda: self._jobs.under_key(caller, surface.path, key))):
            job, fingerprint = known
            if fingerprint != fingerprint_of(content):
                reason = "was used before with another body; send a new key with a new request"
                raise BadRequest("Idempotency-Key", reason, "idempotency_key_reused", status=422)
            return self._accepted(job, {"x-trimtab-replayed": "true"})
        buying, now = self._lane.buying, self._clock()
        prepared = await self._edge.worked(lambda: buying.prepared(body, surface, self._edge.gate.rules(caller)))
        options = prepared.request.options
        callback_url = options.callback_url
        if callback_url is not None:
            callback_url = self._webhooks.check(callback_url, "trimtab.callback_url")
        deadline_at = now + (options.deadline_s or 0.0)
        asked = Job("", caller, surface.path, now, deadline_at, WAITING)
        weighed = await in_thread(lambda: buying.weighed(asked, prepared))
        if isinstance(weighed.step, Buy) and weighed.step.way.processing != BATCH:
            assert weighed.prepared is not None
            return weighed.prepared
        new = NewJob(
            caller,
            surface.path,
            content,
            deadline_at,
            idempotency_key=key,
            callback_url=callback_url,
            headers=headers,
        )
        # What it may cost must be there now; it is reserved when it is bought.
        await self._edge.gate.hold(caller, prepared)
        self._edge.gate.settle(prepared.receipt.id, Decimal(0))
        (accepted,) = await _stored(lambda: self._jobs.accept([new], now))
        self._lane.wake()
        return self._accepted(replace(asked, id=accepted.id))

    def _accepted(self, job: Job, headers: Mapping[str, str] | None = None) -> Response:
        located = {"location": f"/v1/deferred/{job.id}", **self._come_back(job), **(headers or {})}
        return Response(shown(job, None), 202, located, media_type="application/json")

    def _come_back(self, job: Job) -> dict[str, str]:
        """When to ask again: sooner, where there is less time."""
        if job.over:
            return {}
        least_s, most_s = RETRY_AFTER_S
        return {"retry-after": str(min(most_s, max(least_s, int((job.deadline_at - self._clock()) / 60))))}

    # --- and what becomes of it ------------------------------------------------------------------------------------------

    async def _get(self, request: Request, job_id: str) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            wait_s = _wait_s(request.query_params.get("wait"))
            try:
                waiting = self._lane.closing.over(job_id, caller.tenant, wait_s)
                return await self._shown(await unless_gone(request, waiting), job_id)
            except SQLAlchemyError:
                raise _away() from None

        return await answered(answer)

    async def _cancel(self, request: Request, job_id: str) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            job = await _stored(lambda: self._jobs.cancel(job_id, caller.tenant, self._clock()))
            if job is not None and job.lane is None and job_id not in self._lane.buying.calling:
                self._edge.gate.settle(job_id, Decimal(0))
            self._lane.closing.tell([job_id])
            return await self._shown(job, job_id)

        return await answered(answer)

    async def _shown(self, job: Job | None, job_id: str) -> Response:
        if job is None:
            reason = f"no request of yours is kept under {job_id[:64]!r}"
            raise BadRequest("id", reason, "deferred_not_found", status=404)
        results = await _stored(lambda: self._jobs.results([job.id])) if job.over else {}
        return Response(shown(job, results.get(job.id)), 200, self._come_back(job), media_type="application/json")


def shown(job: Job, content: bytes | None) -> bytes:
    """A job as its caller sees it: the answer is the surface's own, with the receipt in it where that has room for one."""
    head = {
        "id": job.id,
        "object": "deferred",
        "status": _STATUSES.get(job.state, job.state),
        "endpoint": job.surface,
        "accepted_at": int(job.accepted_at),
        "deadline_at": int(job.deadline_at),
        "finished_at": None if job.finished_at is None else int(job.finished_at),
        "lane": job.lane,
        "error": None if job.error is None else {"message": job.error, "code": job.state},
        "receipt": None if job.receipt is None else orjson.loads(job.receipt),
    }
    told = orjson.dumps(head)[:-1]
    if content is None or job.status is None:
        return told + b',"response":null}'
    # The answer's own bytes: numbers, and the order of its fields, stay as the provider wrote them.
    if not _is_object(content):
        content = orjson.dumps(content.decode(errors="replace"))
    elif job.receipt is not None and 200 <= job.status < 300 and _SURFACES[job.surface].receipt_in_body:
        content = with_receipt(content, job.receipt.encode())
    return told + b',"response":{"status_code":%d,"body":%s}}' % (job.status, content)


def _is_object(content: bytes) -> bool:
    try:
        parse_object(content)
    except Garbage:
        return False
    return True


def _written(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # it writes fewer levels than it reads
        reason = "the body is nested too deeply; send it with fewer levels"
        raise BadRequest(None, reason, "invalid_json") from None


def _wait_s(given: str | None) -> float:
    try:
        wait_s = 0.0 if given is None else float(given)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= MOST_WAIT_S:
        raise BadRequest("wait", f"must be a number of seconds from 0 to {MOST_WAIT_S:g}")
    return wait_s


async def _stored(work: Callable[[], Found]) -> Found:
    try:
        return await in_thread(work)
    except SQLAlchemyError:
        raise _away() from None


def _away() -> BadRequest:
    reason = "the database cannot be reached, so nothing was accepted; send it again later"
    return BadRequest(None, reason, "database_unavailable", status=503)


_ID: Final = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
_WAIT: Final = {
    "name": "wait",
    "in": "query",
    "description": "How long to wait for its end, in seconds.",
    "schema": {"type": "number", "minimum": 0, "maximum": MOST_WAIT_S},
}
