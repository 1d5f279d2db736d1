"""Exchange: one HTTP request and its answer, as the server's edge sees them. A pure ASGI middleware makes and tells them.

Not Starlette's BaseHTTPMiddleware: it puts a task and a queue between the app and the socket, which costs more than all
that is measured here and holds up streams.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from opentelemetry import propagate, trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.conclusion import Conclusion
from trimtab.http import CLIENT_GONE
from trimtab.telemetry import request_ids
from trimtab.telemetry.scrubbing import Scrubber

OWN_HEADER: Final = "x-trimtab-request-id"
PROVIDERS_HEADER: Final = "x-trimtab-provider-request-id"
_ID: Final = request_ids.HEADER.encode()
_OWN: Final = OWN_HEADER.encode()
_PROVIDERS: Final = PROVIDERS_HEADER.encode()
_REPLAYED: Final = b"x-trimtab-replayed"
_TRACE_HEADERS: Final = (b"traceparent", b"tracestate", b"baggage")

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Exchange:
    """One request and its answer; filled in as it goes on, and told when it is over.

    `route` is the path as it was declared, "" where nothing serves the path that was asked for. `status` is 499 where the
    caller left before it was told one. `first_byte_s` and `seconds` count from the request's head to the first byte of
    the answer's body and to its end. `defect` names the error of ours that no endpoint answered for. `conclusion` is that
    of a request that was prepared, if it came to its end in time.
    """

    request_id: str
    method: str
    path: str
    route: str = ""
    status: int = CLIENT_GONE
    first_byte_s: float | None = None
    seconds: float = 0.0
    replayed: bool = False
    defect: str = ""
    conclusion: Conclusion | None = None


Watcher = Callable[[Exchange], None]
"""Is told of every exchange that is over. Called on the event loop: it must not block, nor raise."""

_current: Final[contextvars.ContextVar[Exchange | None]] = contextvars.ContextVar("trimtab_exchange", default=None)


def noted(conclusion: Conclusion) -> None:
    """A listener (`trimtab.conclusion`): the exchange that this conclusion belongs to will have it."""
    exchange = _current.get()
    if exchange is not None:
        exchange.conclusion = conclusion


class Observed:
    """An app whose every request has an id and is told to `watchers`.

    It must stand outside of the app's error handling, or an answer of status 500 has no id. `pass_trace` says whether a
    provider is told of the trace that this request is part of; a caller's own trace headers go no further than here.
    `scrub` takes secrets out of what a span says of the request's address.
    """

    def __init__(
        self,
        app: ASGIApp,
        watchers: Sequence[Watcher],
        *,
        pass_trace: bool = False,
        scrub: Callable[[str], str] | None = None,
    ) -> None:
        self._app = app
        self._scrub = scrub or Scrubber()
        self._watchers = watchers
        self._pass_trace = pass_trace
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = request_ids.sane(_given(scope["headers"]))
        exchange = Exchange(given or request_ids.new_id(), scope["method"], scope["path"])
        request_ids.begin(exchange.request_id)
        _current.set(exchange)
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attribute("trimtab.request_id", exchange.request_id)
            self._scrub_span(span, scope)
        scope["headers"] = self._headers(scope["headers"])

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = list(message.get("headers", ()))
                exchange.replayed = any(name == _REPLAYED for name, _ in headers)
                message = {**message, "headers": named(headers, exchange.request_id, given is not None)}
            elif exchange.first_byte_s is None and message.get("body"):
                exchange.first_byte_s = time.perf_counter() - began
            await send(message)

        self.in_flight += 1
        try:
            await self._app(scope, receive, told)
        except Exception as defect:
            exchange.defect = type(defect).__name__
            raise
        finally:
            self.in_flight -= 1
            exchange.seconds = time.perf_counter() - began
            exchange.route = getattr(scope.get("route"), "path", "")
            for watcher in self._watchers:
                watcher(exchange)

    def _scrub_span(self, span: trace.Span, scope: Scope) -> None:
        """FastAPI's span of the request holds its address as it came, keys that do not belong there included."""
        span.set_attribute("url.path", self._scrub(scope["path"]))
        if query := scope.get("query_string"):
            span.set_attribute("url.query", self._scrub(query.decode("latin-1")))

    def _headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """The request's headers, with this server's place in the trace instead of the caller's, or with none."""
        kept = [each for each in headers if each[0] not in _TRACE_HEADERS]
        if self._pass_trace:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            kept += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in carrier.items()]
        return kept


def named(headers: Sequence[tuple[bytes, bytes]], request_id: str, given: bool) -> list[tuple[bytes, bytes]]:
    """An answer's headers with the request's id, `given` being whether the caller made it.

    Ours is always there as `x-trimtab-request-id`. `x-request-id` is the id that the caller gave; where it gave none, the
    provider's, which official clients show their users and the provider's support asks for; and where there is none of
    it either, ours.

    >>> named([(b"x-request-id", b"req_theirs")], "mine", True)
    [(b'x-trimtab-request-id', b'mine'), (b'x-request-id', b'mine'), (b'x-trimtab-provider-request-id', b'req_theirs')]
    """
    own = request_id.encode("latin-1")
    theirs = next((value for name, value in headers if name == _ID), None)
    if theirs is None:
        return [*headers, (_OWN, own), (_ID, own)]
    if not given:
        return [*headers, (_OWN, own)]
    rest = [each for each in headers if each[0] != _ID]
    return [*rest, (_OWN, own), (_ID, own), (_PROVIDERS, theirs)]


def _given(headers: Headers) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == _ID), None)
