"""The service: delivers what is in the outbox while the app is served, and tells callers their secrets."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpx
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response

from routing.wires import retry_after_ms
from trimtab.api_docs import VERSION
from trimtab.database import Database
from trimtab.deferred.job import Job
from trimtab.edge import Edge
from trimtab.errors import BadRequest
from trimtab.http import Route, answered, in_thread, json_response
from trimtab.outbound import AddressRefused, GuardedTransport, OutboundRules, Resolve, resolve
from trimtab.webhooks.job_events import job_event
from trimtab.webhooks.outbox import Delivery, Outbox
from trimtab.webhooks.schedule import SCHEDULE_S, Attempt, after
from trimtab.webhooks.signing import Secrets

logger = logging.getLogger("trimtab.webhooks")

ATTEMPT_S: Final = 20.0
"""For one attempt as a whole; the specification asks for 15 to 30."""
AT_ONCE: Final = 32
PER_TENANT: Final = 8
POLL_S: Final = 1.0
LEAVING_S: Final = 5.0
_SWEEP_S: Final = 3_600.0


class Courier:
    """Delivers. One for a process and event loop; several processes may share an outbox."""

    def __init__(
        self,
        outbox: Outbox,
        secrets: Secrets,
        rules: OutboundRules,
        *,
        resolver: Resolve = resolve,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._outbox = outbox
        self._secrets = secrets
        self._rules = rules
        self._resolver = resolver
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 (jitter is no secret)
        self._writing = asyncio.Lock()  # SQLite has one writer, and lets those who crowd around it sleep
        self._running: dict[asyncio.Task[None], str] = {}
        self._client: httpx.AsyncClient | None = None

    async def run(self) -> None:
        """Deliver until cancelled. What is under way then has a few seconds to end; the rest is claimed anew later."""
        swept_at = float("-inf")
        transport = GuardedTransport(self._rules, self._resolver)
        async with httpx.AsyncClient(transport=transport, follow_redirects=False, timeout=ATTEMPT_S) as self._client:
            try:
                while True:
                    try:
                        if self._clock() - swept_at > _SWEEP_S:
                            swept_at = self._clock()
                            await in_thread(lambda: self._outbox.sweep(self._clock()))
                        await self._begin_what_is_due()
                    except SQLAlchemyError as error:  # the database is away, and comes back
                        logger.warning("webhooks wait for the database (%s)", type(error).__name__)
                    await asyncio.sleep(POLL_S)
            finally:
                await self._leave()

    async def _begin_what_is_due(self) -> None:
        free = AT_ONCE - len(self._running)
        due_at = await in_thread(self._outbox.next_due)
        if not free or due_at is None or due_at > self._clock():
            return
        under_way = list(self._running.values())
        busy = {tenant for tenant in under_way if under_way.count(tenant) >= PER_TENANT}
        claimed = await in_thread(lambda: self._outbox.claim(self._clock(), free, PER_TENANT, busy))
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery))
            self._running[task] = delivery.tenant
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task)
        if not task.cancelled() and task.exception() is not None:
            # its claim runs out, and it is tried again
            logger.warning("a webhook's attempt was not written down (%s)", type(task.exception()).__name__)

    async def _leave(self) -> None:
        under_way = set(self._running)
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=LEAVING_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _deliver(self, delivery: Delivery) -> None:
        # One that ends the process each time, or whose ends were never written down, is not begun for ever.
        too_often = delivery.attempts > len(SCHEDULE_S)
        attempt = Attempt(None, "was begun too often") if too_often else await self._attempt(delivery)
        verdict = after(attempt, delivery.attempts, self._rng.random())
        async with self._writing:
            await in_thread(lambda: self._outbox.settle(delivery, attempt, verdict, self._clock()))
        if verdict.state != "delivered":
            told = attempt.status if attempt.status is not None else attempt.detail
            logger.info("webhook %s, attempt %d: %s; now %s", delivery.id, delivery.attempts, told, verdict.state)

    async def _attempt(self, delivery: Delivery) -> Attempt:
        """One POST. The status line and the headers count; not a byte of the body is read."""
        assert self._client is not None
        headers = {
            "content-type": "application/json",
            "user-agent": f"trimtab/{VERSION}",
            **self._secrets.headers(delivery.tenant, delivery.id, delivery.body, self._clock()),
        }
        try:
            async with asyncio.timeout(ATTEMPT_S):
                request = self._client.stream("POST", delivery.url, content=delivery.body, headers=headers)
                async with request as response:
                    return _judged(response, self._clock())
        except AddressRefused as refused:
            return Attempt(None, f"the address {refused}", refused=True)
        except TimeoutError:
            return Attempt(None, f"no answer in {ATTEMPT_S:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # its message may quote the address
            return Attempt(None, f"no answer ({type(error).__name__})")


def _judged(response: httpx.Response, now: float) -> Attempt:
    status = response.status_code
    detail = "redirects are not followed" if 300 <= status < 400 else ""
    waits_ms = retry_after_ms(response.headers, now) if status in (429, 502, 503, 504) else None
    return Attempt(status, detail, retry_after_s=None if waits_ms is None else waits_ms / 1000.0)


class Webhooks:
    """The group of endpoints that runs a `Courier`. `outbox.put` is how an event gets on its way.

    Raises BadSettings where the settings' secrets or networks are none.
    """

    def __init__(self, edge: Edge, database: Database, environ: Mapping[str, str] = os.environ) -> None:
        settings = edge.trimtab.settings
        self._edge = edge
        self._rules = OutboundRules.of(settings.callback_networks)
        self._secrets = Secrets.read(environ, settings.webhook_secret_env, settings.webhook_secret_file)
        self._secret_env = settings.webhook_secret_env
        self.outbox = Outbox(database)
        self._courier = Courier(self.outbox, self._secrets, self._rules)

    def check(self, url: str, param: str) -> str:
        """A caller's `url`, as it is to be put into the outbox. Raises BadRequest, naming `param`, for one that may not be
        called, and where no webhook could be signed."""
        if not self._secrets.keys:
            raise BadRequest(param, self._off(), "webhooks_off")
        return str(self._rules.check(url, param))

    def _off(self) -> str:
        return f"this server sends no webhooks: it has no secret to sign them with; set {self._secret_env} (docs/webhooks.md)"

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v1/webhooks/secrets", self._own_secrets, "The secrets that your webhooks are signed with"),
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        await in_thread(self.outbox.create)
        courier = asyncio.create_task(self._courier.run()) if self._secrets.keys else None
        if courier is not None:
            courier.add_done_callback(_ended)
        yield
        if courier is not None:
            courier.cancel()
            await asyncio.gather(courier, return_exceptions=True)

    def job_finished(self, connection: sa.Connection, job: Job) -> None:
        """For `Jobs.finished`: puts the event of a job that is over into the transaction that ends it."""
        assert job.callback_url is not None
        event = job_event(connection, job)
        self.outbox.put(connection, job.caller.tenant, job.callback_url, event, event.at.timestamp())

    async def _own_secrets(self, request: Request) -> Response:
        async def answer() -> Response:
            caller = await self._edge.caller(request)
            if not self._secrets.keys:
                raise BadRequest(None, self._off(), "webhooks_off", status=404)
            secrets = self._secrets.of_tenant(caller.tenant)
            return json_response({"object": "webhook_secrets", "secrets": secrets})

        return await answered(answer)


def _ended(courier: asyncio.Task[None]) -> None:
    if not courier.cancelled() and courier.exception() is not None:
        logger.error("webhooks have stopped until the next start", exc_info=courier.exception())
