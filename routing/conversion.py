"""Conversions: the seam for providers that do not speak OpenAI's chat completions.

A `Conversion` is a row of pure functions, both ways; `ConvertedReader` runs one over an event stream, with the face of
`streams.StreamReader`, so that whoever relays a stream need not know which of the two it holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from routing.chat_answer import DONE, to_event
from routing.chat_request import ChatRequest, read_chat_request
from routing.errors import UnsupportedParameter
from routing.streams import EventSplitter, Garbage, parse_object


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as the provider takes it. `path` begins with the API's version ("/v1/messages"), which a `base_url`
    may already end with; `query` and `headers` are (name, value) pairs."""

    path: str
    body: Mapping[str, Any]
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A provider's error: the HTTP status that it stands for, the error in OpenAI's shape, the pause it asks for."""

    status: int
    error: Mapping[str, Any]
    retry_after_ms: float | None = None


class EventConverter(Protocol):
    """One stream's events, turned into chunks as they come."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete, so that the stream may end here."""

    @property
    def done(self) -> bool:
        """Whether the wire's end mark has come."""

    @property
    def usage(self) -> Mapping[str, Any] | None:
        """What has been reported so far, in OpenAI's shape."""

    def see(self, event: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The chunks that this event makes; raises Garbage for what is no event of its wire."""

    def last(self) -> Sequence[Mapping[str, Any]]:
        """The chunks that end a finished answer."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """How one kind of provider says what OpenAI's chat completions say.

    `encode(request, model, stream)` raises UnsupportedParameter. `decode(answer, created_s)` gives the completion of a
    whole answer and raises Garbage. `fault(status, answer)` reads an error body; `status` is None where the error came
    inside a success, and its own code counts. `converter(include_usage, created_s)` serves one stream.
    `tier_field` is where the body says which service class is bought.
    """

    encode: Callable[[ChatRequest, str, bool], Outgoing]
    decode: Callable[[Mapping[str, Any], int], dict[str, Any]]
    fault: Callable[[int | None, Mapping[str, Any]], Fault]
    converter: Callable[[bool, int], EventConverter]
    tier_field: str


def encoded(conversion: Conversion, body: Mapping[str, Any], model: str, stream: bool) -> Outgoing:
    """The caller's body for this provider; raises UnsupportedParameter."""
    return conversion.encode(read_chat_request(body), model, stream)


def wants_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def content_of(conversion: Conversion, outgoing: Outgoing, service_tier: str | None) -> bytes:
    """The body as JSON; raises UnsupportedParameter for one that JSON cannot hold (NaN, too deep)."""
    body = outgoing.body if service_tier is None else {**outgoing.body, conversion.tier_field: service_tier}
    try:
        try:
            return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except UnicodeEncodeError:
            return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except RecursionError:
        raise UnsupportedParameter("tools", "is nested too deeply") from None


def read_fault(conversion: Conversion, status: int, content: bytes) -> Fault:
    """The error in an answer that is no success, whatever its body is. Google wraps some of them into an array."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return conversion.fault(status, found if isinstance(found, dict) else {})


class ConvertedReader:
    """Reads one stream of another wire, with the face of StreamReader: `feed` every chunk, then `end`; both give the
    bytes that may be relayed, which are OpenAI's events here.

    `events` counts the events that have made chunks. `error` is in OpenAI's shape, and `error_status` what it stands
    for. A ping becomes a comment, so that a client sees life while the model thinks.
    """

    __slots__ = (
        "_conversion",
        "_converter",
        "_notice",
        "_splitter",
        "done",
        "error",
        "error_status",
        "events",
        "failure",
    )

    def __init__(
        self,
        conversion: Conversion,
        include_usage: bool,
        created_s: int,
        notice: Callable[[Mapping[str, Any]], None],
    ) -> None:
        """`notice` is shown the usage of a finished answer, as `{"usage": ...}`. What a broken one cost is not known:
        the counts that came before the break leave out what the provider went on to write."""
        self._conversion = conversion
        self._converter = conversion.converter(include_usage, created_s)
        self._notice = notice
        self._splitter = EventSplitter()
        self.events = 0
        self.failure: str | None = None
        self.error: Mapping[str, Any] | None = None
        self.error_status: int | None = None
        self.done = False

    @property
    def finished(self) -> bool:
        return self.done or self._converter.finished

    def feed(self, chunk: bytes) -> bytes:
        """The events up to the last whole one of the provider's; sets `failure` rather than raise."""
        ready: list[bytes] = []
        try:
            for _, data in self._splitter.feed(chunk):
                self._see(data, ready)
                if self.failure is not None:
                    break
        except Garbage as garbage:
            self.failure = str(garbage)
        return b"".join(ready)

    def end(self) -> bytes:
        """What is left to say when the provider has closed, if its answer is complete; else sets `failure`."""
        ready: list[bytes] = []
        _, data = self._splitter.rest()
        try:
            self._see(data, ready)
        except Garbage:
            ready.clear()
        if self.error is None and not self.finished:
            self.failure = "the stream ended before the answer did"
            return b""
        return b"".join(ready) + (self.closing() if self.error is None else b"")

    def closing(self) -> bytes:
        """The last events of a finished answer, once: usage if it was asked for, and the end mark."""
        if self.done:
            return b""
        self.done = True
        usage = self._converter.usage
        if usage is not None:
            self._notice({"usage": usage})
        return b"".join([*map(to_event, self._converter.last()), DONE])

    def _see(self, data: bytes, ready: list[bytes]) -> None:
        if not data or self.done:
            return
        event = parse_object(data)
        if event.get("error"):
            fault = self._conversion.fault(None, event)
            self.error, self.error_status = fault.error, fault.status
            self.failure = "the provider sent an error event"
            # The opening alone says nothing yet: an error right behind it is the first event, and can be retried.
            self.events = max(1, self.events if self.events == 1 else self.events + 1)
            ready.append(to_event(fault.error))
            return
        chunks = self._converter.see(event)
        if chunks:
            self.events += 1
            ready += map(to_event, chunks)
        elif self.events and event.get("type") == "ping":
            ready.append(b": ping\n\n")
        if self._converter.done:
            ready.append(self.closing())
