"""Operations: the group of endpoints for whoever runs the server (`/metrics`), and what watches every request."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from fastapi.telemetry import TelemetryConfig
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from trimtab.dashboard.access import Door, Visit
from trimtab.edge import Edge
from trimtab.errors import BadRequest
from trimtab.http import Route, answered, in_thread
from trimtab.telemetry.access_log import told
from trimtab.telemetry.exchange import Exchange, Observed, noted
from trimtab.telemetry.logs import secret_variables
from trimtab.telemetry.metrics import Metrics
from trimtab.telemetry.scrubbing import Scrubber, secrets_in
from trimtab.telemetry.traces import Traces

PATH: Final = "/metrics"
HTTP_TELEMETRY: Final[TelemetryConfig] = {
    "logs": False,  # they hold what exceptions say, which may be a prompt
    "operation_spans": False,
    "exclude": lambda scope: scope.get("path") in ("/healthz", "/readyz", PATH),
}
"""What FastAPI tells OpenTelemetry: the HTTP server's spans and metrics, of all but what watches the server."""

SAMPLED_EVERY_S: Final = 5.0
_DUE_S: Final = 0.5
_BEARER: Final = "bearer "


class Operations:
    """`metrics` shows figures; others may add gauges of their own to it (`Metrics.gauge`).

    Who may read `/metrics`: with `metrics_key_env` in the settings whoever sends that key as a bearer token, as Prometheus
    does with `authorization.credentials`; without it this machine alone, by the rule of the dashboard.
    """

    def __init__(self, edge: Edge, environ: Mapping[str, str] = os.environ) -> None:
        self._trimtab = edge.trimtab
        self._environ = environ
        self.metrics = Metrics(edge.trimtab, environ)
        self.metrics.gauge("threads_waited_for", "Requests that wait for a thread to be trimmed in.", _waiting)
        self._traces = Traces(edge.trimtab.catalog, environ)

    def routes(self) -> tuple[Route, ...]:
        return (Route("GET", PATH, self._page, "What this server counted, for Prometheus", listed=False),)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        listeners = (self.metrics.concluded, self._traces.concluded, noted)
        self._trimtab.listeners.extend(listeners)
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for listener in listeners:
                self._trimtab.listeners.remove(listener)

    def around(self, app: ASGIApp) -> ASGIApp:
        """`app`, every request of which has an id, is counted and leaves a line in the log."""
        settings = self._trimtab.settings
        scrub = Scrubber(secrets_in(self._environ, secret_variables(settings)))
        observed = Observed(app, (self._exchanged,), pass_trace=settings.pass_trace, scrub=scrub)
        self.metrics.gauge("requests_in_flight", "Requests under way, this one included.", lambda: observed.in_flight)
        return observed

    def _exchanged(self, exchange: Exchange) -> None:
        self.metrics.exchanged(exchange)
        told(exchange)

    async def _watch(self) -> None:
        """Look at what is, and how late the event loop is."""
        loop, left_s = asyncio.get_running_loop(), 0.0
        while True:
            due = loop.time() + _DUE_S
            await asyncio.sleep(_DUE_S)
            self.metrics.lagged(max(0.0, loop.time() - due))
            left_s -= _DUE_S
            if left_s <= 0:
                self.metrics.sample()
                left_s = SAMPLED_EVERY_S

    async def _page(self, request: Request) -> Response:
        async def answer() -> Response:
            self._admit(request)
            self.metrics.sample()
            accept = request.headers.get("accept", "")
            content, content_type = await in_thread(lambda: self.metrics.page(accept))
            return Response(content, headers={"content-type": content_type, "cache-control": "no-store"})

        return await answered(answer)

    def _admit(self, request: Request) -> None:
        """Not the gate's business: what is read here is every tenant's, and no tenant's key may open it."""
        key_env = self._trimtab.settings.metrics_key_env
        if key_env is None:
            if Door(None, {}).verdict(Visit.of(request), 0.0) == "open":
                return
            reason = "is read from this machine only; set metrics_key_env in the settings to read it from elsewhere"
            raise BadRequest(None, f"{PATH} {reason}", "metrics_closed", status=403)
        key = self._environ.get(key_env, "")
        if not key:
            raise BadRequest(
                None, f"{PATH} is closed: {key_env} is not set where the server runs", "metrics_closed", 403
            )
        given = request.headers.get("authorization", "")
        sent = given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else ""
        if not hmac.compare_digest(sent.encode("utf-8", "replace"), key.encode("utf-8", "surrogateescape")):
            reason = f"{PATH} wants its own key: send authorization: Bearer, with the value of {key_env}"
            raise BadRequest("authorization", reason, "invalid_api_key", status=401)


def _waiting() -> float:
    return float(anyio.to_thread.current_default_thread_limiter().statistics().tasks_waiting)
