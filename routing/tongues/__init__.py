"""Tongues: the APIs that callers speak, as a table of frozen rows.

A wire that speaks a tongue itself gets the caller's body as it is, and its answer goes back as it came. Every other one is
asked by way of a chat completion, the form that all have in common, and the row says how that is made and told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from routing.chat_answer import to_bytes
from routing.errors import UnsupportedParameter
from routing.streams import EventSplitter, Garbage, error_event, parse_object
from routing.tongues import messages_answer, messages_request, responses_answer, responses_request


class Teller(Protocol):
    """Tells one stream of chat chunks in another tongue."""

    def see(self, chunk: Mapping[str, Any]) -> Sequence[bytes]:
        """The events that this chunk makes; raises Garbage for what is no chunk."""

    def last(self) -> Sequence[bytes]:
        """The events that end a finished answer."""

    def failed(self, error: Mapping[str, Any]) -> Sequence[bytes]:
        """The events that end one that an error broke off; `error` is OpenAI's."""


@dataclass(frozen=True, slots=True)
class Tongue:
    """One row.

    `native(body)` is what a provider gets that speaks the tongue itself. `to_chat(body)` raises UnsupportedParameter for
    what would be lost. `from_chat(answer, body)` tells a whole answer and raises Garbage for what is none. `teller(body)`
    serves one stream; None where there are none. `error(status, error)` tells an error object of OpenAI's, and
    `error_event(message, code)` ends a stream that broke off. `headers` are the names that a chat completion's headers
    have here. `terminal` is how the event begins that ends a stream.
    """

    name: str
    to_chat: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    from_chat: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
    teller: Callable[[Mapping[str, Any]], Teller] | None
    error: Callable[[int, Mapping[str, Any]], Mapping[str, Any]]
    error_event: Callable[[str, str], bytes] = error_event
    headers: Mapping[str, str] = field(default_factory=dict)
    terminal: Sequence[bytes] = ()
    native: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda body: body


class Retelling:
    """A chat completion's stream, told by a Teller: `feed` every chunk of bytes, then `end`."""

    __slots__ = ("_over", "_splitter", "_teller")

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._splitter = EventSplitter()
        self._over = False

    def feed(self, content: bytes) -> bytes:
        return b"".join(part for raw, data in self._splitter.feed(content) for part in self._told(raw, data))

    def end(self) -> bytes:
        """What is left to say. A stream that broke off was told so by an error event before."""
        raw, data = self._splitter.rest()
        parts = [*self._told(raw, data)] if data else []
        return b"".join([*parts, *self._ended()])

    def _told(self, raw: bytes, data: bytes) -> Sequence[bytes]:
        if self._over:
            return ()
        if not data:
            return (raw,)  # a comment, by which clients see life
        if data.strip() == b"[DONE]":
            return self._ended()
        try:
            chunk = parse_object(data)
            if (error := chunk.get("error")) is not None:
                return self._failed(error if isinstance(error, Mapping) else {})
            return self._teller.see(chunk)
        except Garbage as garbage:
            return self._failed({"message": f"The provider's stream broke off: {garbage}.", "code": "stream_cut_off"})

    def _ended(self) -> Sequence[bytes]:
        if self._over:
            return ()
        self._over = True
        return self._teller.last()

    def _failed(self, error: Mapping[str, Any]) -> Sequence[bytes]:
        self._over = True
        return self._teller.failed(error)


def _same(body: Mapping[str, Any], _: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    return body


def _openai_error(_: int, error: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"error": dict(error)}


def _no_chat(_: Mapping[str, Any]) -> Mapping[str, Any]:
    raise UnsupportedParameter("model", "is of a provider that does not serve this endpoint; name another one's")


CHAT: Final = Tongue(
    "chat",
    to_chat=_same,
    from_chat=_same,
    teller=None,
    error=_openai_error,
    terminal=(b"data: [DONE]", b"data:[DONE]"),
)

MESSAGES: Final = Tongue(
    "messages",
    to_chat=messages_request.to_chat,
    from_chat=messages_answer.from_chat,
    teller=messages_answer.MessagesTeller,
    error=messages_answer.error_of,
    error_event=messages_answer.error_event,
    headers={"x-request-id": "request-id"},
    terminal=messages_answer.TERMINAL,
    native=messages_request.native,
)

COUNT_TOKENS: Final = Tongue("count_tokens", _no_chat, _same, teller=None, error=messages_answer.error_of)

RESPONSES: Final = Tongue(
    "responses",
    to_chat=responses_request.to_chat,
    from_chat=responses_answer.from_chat,
    teller=responses_answer.ResponsesTeller,
    error=_openai_error,
    error_event=responses_answer.error_event,
    terminal=responses_answer.TERMINAL,
    native=responses_request.native,
)

EMBEDDINGS: Final = Tongue("embeddings", _no_chat, _same, teller=None, error=_openai_error)


def retelling(tongue: Tongue, body: Mapping[str, Any]) -> Retelling | None:
    """What tells the stream that answers `body`; None where the tongue has no streams."""
    return None if tongue.teller is None else Retelling(tongue.teller(body))


def error_bytes(tongue: Tongue, status: int, error: Mapping[str, Any]) -> bytes:
    """An error object of OpenAI's, as the body of an answer with this status."""
    return to_bytes(tongue.error(status, error))
