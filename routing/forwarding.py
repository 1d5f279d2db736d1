"""Forwarding: one request to the first offer that answers it.

The thin driver around the pure parts: `attempts` decides what to try, `wires` says how to ask, `streams` reads along.
Here are the connections and the clocks; what comes back is in `replies`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import httpx

from routing.attempts import GiveUp, Outcome, RetryPolicy, next_attempt
from routing.calls import FAILURES, Call, explain
from routing.connections import Connections
from routing.conversion import ConvertedReader, wants_usage
from routing.errors import NoOffer, ProvidersFailed, RoutingError, UnsupportedParameter
from routing.health import Health
from routing.judgement import Judged, judge, judge_error, retold
from routing.offers import Offer
from routing.replies import Journal, Relay
from routing.replies import Reply as Reply
from routing.standing import Called, called
from routing.streams import Garbage
from routing.tongues import CHAT, Tongue, retelling
from routing.wires import (
    UnsupportedWire,
    Wire,
    headers_for,
    idempotency_key_for,
    read_key,
    retry_after_ms,
)
from routing.worded import address_of, worded

if TYPE_CHECKING:
    from routing.catalog import Provider

MAX_ANSWER_BYTES: Final = 64 * 2**20
"""Of a whole answer held in memory; a longer one is a bad response."""

MAX_CONNECTIONS: Final = 512
"""Of a router, to all providers together. Held by a semaphore of ours and not by httpx, see `calls`."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Milliseconds. Raises ValueError for one that is not positive.

    `connect_ms`: to a connection, its TLS handshake or a free place in the pool. `first_byte_ms`: of a stream, from
    the call to its first event. `idle_ms`: between two reads of a stream. `answer_ms`: of a call without a stream,
    until the whole answer is there (its first byte comes when the model has finished, so no shorter limit can tell a
    hang from work). `total_ms`: a request with all its attempts, waits and the stream to its last byte.
    """

    connect_ms: float = 5_000.0
    first_byte_ms: float = 120_000.0
    idle_ms: float = 60_000.0
    answer_ms: float = 300_000.0
    total_ms: float = 600_000.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a failed attempt leaves for the caller, should it be the last."""

    status: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, the same for every attempt."""

    body: Mapping[str, Any]
    stream: bool
    headers: Mapping[str, str]
    journal: Journal
    tongue: Tongue
    marked: Mapping[Called, Mapping[str, Any]]


class Router:
    """Calls providers. One for a process and event loop: it holds the connections (`aclose` drops them).

    `providers` by name. `health` is told how every attempt ends and says which offers to leave alone; share one between
    routers, so that it outlives them. `transport`, `rng`, `sleep` and `environ` are there for tests. TLS is verified,
    redirects are not followed, and proxies and certificate authorities come from the environment as with any httpx
    client.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        policy: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        *,
        health: Health | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._providers = MappingProxyType(dict(providers))
        self._timeouts = timeouts or Timeouts()
        policy = policy or RetryPolicy()
        # No attempt may start when the request as a whole is over.
        self._policy = replace(policy, deadline_ms=min(policy.deadline_ms, self._timeouts.total_ms))
        self.health = health or Health()
        self._rng = rng or random.Random()  # noqa: S311 (jitter is no secret)
        self._sleep = sleep
        self._environ = environ
        self._urls: dict[tuple[str, str], httpx.URL] = {}
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._calls: set[Call] = set()
        self._connections = Connections(transport)

    async def __aenter__(self) -> Router:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut every call that is under way, and drop the connections."""
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait([call.task for call in self._calls])
        await self._connections.aclose()

    async def forward(
        self,
        body: Mapping[str, Any],
        offers: Sequence[Offer],
        stream: bool,
        headers: Mapping[str, str] | None = None,
        tongue: Tongue = CHAT,
        marked: Mapping[Called, Mapping[str, Any]] | None = None,
    ) -> Reply:
        """The answer of the first offer, in the order given, that has one for this request.

        `body` is the caller's, in `tongue`, and so is the answer, whatever the provider speaks. To one that speaks it
        too it goes as it is; only `model`, `service_tier` (for flex and priority) and `stream` are set. `headers` are the
        caller's too, and those that the wire allows go along. `marked` holds what some offers get in its place.

        Raises NoOffer for no offers; MissingKey, UnsupportedWire or UnsupportedParameter if nothing could be sent to
        anybody; ProvidersFailed if all that was sent failed, or if every offer has asked us to wait for too long. A 4xx
        that is the caller's own is a Reply.
        """
        journal = Journal(self.health.ended)
        asked = _Asked(
            body,
            stream,
            {name.lower(): value for name, value in (headers or {}).items()},
            journal,
            tongue,
            marked or {},
        )
        seed = uuid.uuid4().hex
        last: _Failure | None = None
        unsent: RoutingError | None = None
        while True:
            resting = self.health.resting(offers)
            step = next_attempt(journal.attempts, offers, self._policy, self._rng.random(), journal.elapsed_ms, resting)
            if isinstance(step, GiveUp):
                break
            if step.delay_ms > 0:
                await self._sleep(step.delay_ms / 1000.0)
            started_ms = journal.elapsed_ms
            try:
                wire, key, request = self._request(asked, step.offer, seed)
            except RoutingError as error:
                unsent = unsent or error
                why: Outcome = "unsupported" if isinstance(error, UnsupportedParameter) else "rejected"
                journal.note(step.offer, started_ms, None, why, str(error))
                continue
            if not self.health.begin(step.offer) and called(step.offer) not in resting:
                continue  # while this one slept, another request found it down, or took the one probe that it gets
            result = await self._call(asked, step.offer, wire, key, request)
            if isinstance(result, Reply):
                return result
            last = result
        if last is None and unsent is None and offers:
            raise ProvidersFailed(f"no provider was asked: {step.reason}", (), 429, None, step.wait_ms)
        if last is None:
            raise unsent or NoOffer(step.reason, ())
        tried = "; ".join(f"{attempt.provider}/{attempt.model}: {attempt.detail}" for attempt in journal.attempts)
        message = f"no provider answered, and {step.reason} ({tried})"
        raise ProvidersFailed(message, tuple(journal.attempts), last.status, last.body)

    def _request(self, asked: _Asked, offer: Offer, seed: str) -> tuple[Wire, str | None, httpx.Request]:
        provider = self._providers.get(offer.provider)
        if provider is None:
            raise UnsupportedWire(f"provider {offer.provider!r} is not configured, so it can be planned with only")
        made = worded(provider, offer, asked.marked.get(called(offer), asked.body), asked.tongue, asked.stream)
        key = read_key(provider, self._environ)
        own = asked.headers.get("idempotency-key")
        idempotency_key = idempotency_key_for(own or seed, offer, made.content if own else b"")
        # Bounded: a path names a configured model at most.
        address = (provider.name, made.path)
        url = self._urls.get(address) or self._urls.setdefault(address, address_of(provider, made.path, made.query))
        # Read and write are left to the limits around the whole call, which also cover a server that drips.
        limits = {"connect": self._timeouts.connect_ms / 1000.0, "pool": None, "read": None, "write": None}
        headers = headers_for(made.wire, key, asked.headers, idempotency_key) | dict(made.headers)
        # Not client.build_request: it merges client-wide headers, cookies and parameters, of which there are none.
        request = httpx.Request("POST", url, headers=headers, content=made.content, extensions={"timeout": limits})
        return made.wire, key, request

    async def _call(
        self, asked: _Asked, offer: Offer, wire: Wire, key: str | None, request: httpx.Request
    ) -> Reply | _Failure:
        journal, timeouts = asked.journal, self._timeouts
        started_ms = journal.elapsed_ms
        own_ms = timeouts.first_byte_ms if asked.stream else timeouts.answer_ms
        limit_ms = max(0.0, min(own_ms, timeouts.total_ms - started_ms))
        call = Call(self._connections, request, self._slots, timeouts.connect_ms / 1000.0)
        self._calls.add(call)
        call.task.add_done_callback(lambda _: self._calls.discard(call))
        response: httpx.Response | None = None
        content: Relay | bytes | None = None
        try:
            async with asyncio.timeout(limit_ms / 1000.0):
                response = await call.head()
                self.health.told(offer, kept := _kept(response, wire))
                content = await self._receive(call, response, wire, asked)
        except FAILURES as error:
            outcome, detail = explain(error)
            journal.note(offer, started_ms, response.status_code if response else None, outcome, detail)
            return _Failure(504 if outcome == "timeout" else 502, None)
        finally:
            if not isinstance(content, Relay):
                call.cancel()
        judged = _judge(response.status_code, content, wire)
        if wire.tongue is not asked.tongue and judged.body is not None:
            judged = retold(judged, asked.tongue, asked.body)
        if isinstance(content, Relay) and judged.outcome in _FOR_THE_CALLER:
            content.start(offer, started_ms, response.status_code)
            told = None if wire.tongue is asked.tongue else retelling(asked.tongue, asked.body)
            return Reply(response.status_code, _renamed(kept, wire, asked.tongue), offer, journal, content, told=told)
        if isinstance(content, Relay):
            call.cancel()
        waits_ms = None
        if judged.outcome not in _FOR_THE_CALLER:
            waits_ms = retry_after_ms(response.headers, time.time())
            waits_ms = judged.retry_after_ms if waits_ms is None else waits_ms
        journal.note(offer, started_ms, response.status_code, judged.outcome, judged.detail, waits_ms, judged.reported)
        body = judged.body
        if key is not None and body is not None and judged.outcome != "ok":
            body = body.replace(key.encode(), b"[key]")  # some servers quote what they were sent
        if judged.outcome in _FOR_THE_CALLER:
            headers = _renamed(kept, wire, asked.tongue)
            return Reply(response.status_code, headers, offer, journal, body or b"", judged.reported)
        return _Failure(judged.status, body)

    async def _receive(self, call: Call, response: httpx.Response, wire: Wire, asked: _Asked) -> Relay | bytes:
        content_type = response.headers.get("content-type", "")
        if asked.stream and response.is_success and content_type.lower().startswith("text/event-stream"):
            timeouts = self._timeouts
            relay = Relay(
                call,
                wire,
                asked.journal,
                idle_ms=timeouts.idle_ms,
                total_ms=timeouts.total_ms,
                include_usage=wire.tongue is not asked.tongue or wants_usage(asked.body),
            )
            await relay.open()
            return relay
        content = bytearray()
        while (part := await call.read()) is not None:
            content += part
            if len(content) > MAX_ANSWER_BYTES:
                raise Garbage(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        return bytes(content)


_FOR_THE_CALLER: Final = ("ok", "caller_error")


def _judge(status: int, content: Relay | bytes, wire: Wire) -> Judged:
    """Pure. A stream is judged by its first event, which has been read and not yet passed on."""
    if isinstance(content, bytes):
        return judge(status, content, wire)
    reader = content.reader
    if not reader.events:
        return Judged("bad_response", reader.failure or "an empty stream", 502, None)
    if reader.error is None or reader.events > 1:
        return Judged("ok", "", status, None)
    own = reader.error_status if isinstance(reader, ConvertedReader) else wire.error_status(reader.error)
    return judge_error(own, json.dumps(reader.error).encode())


def _kept(response: httpx.Response, wire: Wire) -> Mapping[str, str]:
    kept = wire.response_headers
    headers = {kept[name]: value for name, value in response.headers.items() if name in kept}
    if wire.conversion is not None and not headers.get("content-type", "").startswith("text/event-stream"):
        headers["content-type"] = "application/json"  # what is made of it, whatever it was
    return headers


def _renamed(kept: Mapping[str, str], wire: Wire, tongue: Tongue) -> Mapping[str, str]:
    """The headers by the names that they have in the caller's tongue."""
    return kept if wire.tongue is tongue else {tongue.headers.get(name, name): value for name, value in kept.items()}
