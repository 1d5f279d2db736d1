"""Streams: a provider's event stream, read alongside while its bytes are relayed.

Pure: bytes in, the bytes that may be relayed out, and what they say so far. Bytes are released an event at a time, so
a stream that breaks off in the middle of an event leaves the client with whole events only, and all of them unchanged.
The rejected alternative, relaying every read at once, hands out half a JSON object that no client can parse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

MAX_EVENT_BYTES = 16 * 2**20
"""Of one event. An image inside an event is a few megabytes; a server that never ends one must not fill our memory."""

# Two line ends in a row. Atomic, or the "\r\n" of a single line end would be read as two.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LONGEST_BLANK_LINE = 4


class Garbage(ValueError):
    """The stream holds something that is no event of its wire; the message is ours and quotes nothing of it."""


def parse_object(data: bytes) -> dict[str, Any]:
    """`data` as a JSON object; raises Garbage for anything else, nested beyond Python's limit included."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Garbage("not JSON") from None
    if not isinstance(value, dict):
        raise Garbage("not a JSON object")
    return value


class EventSplitter:
    """Cuts bytes into server-sent events, wherever they were split (WHATWG HTML, section 9.2).

    CRLF, CR and LF end lines; comments, unknown fields and events without data have no data; several data lines are
    joined by a line feed.

    >>> splitter = EventSplitter()
    >>> [list(splitter.feed(part)) for part in (b": hi\\r\\n\\r", b"\\nda", b"ta: 1\\ndata: 2\\n\\n")]
    [[(b': hi\\r\\n\\r', b'')], [], [(b'\\ndata: 1\\ndata: 2\\n\\n', b'1\\n2')]]
    """

    __slots__ = ("_held", "_searched_bytes")

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(bytes of the event with its blank line, its data) for each event that `chunk` completes.

        Raises Garbage for an event beyond MAX_EVENT_BYTES. To be exhausted before the next call.
        """
        held = self._held
        if not held and chunk.endswith(b"\n\n") and b"\r" not in chunk:
            # Nearly every chunk of every provider: whole events. Twice as fast as the search below.
            for block in chunk[:-2].split(b"\n\n"):
                plain = block.startswith(b"data: ") and b"\n" not in block
                yield block + b"\n\n", block[6:] if plain else _data(block)
            return
        held += chunk
        start = 0
        # From the last search's end, so that an event arriving a byte at a time is not searched all over each time.
        for match in _BLANK_LINE.finditer(held, self._searched_bytes):
            end = match.end()
            raw = bytes(held[start:end])
            start = end
            yield raw, _data(raw)
        del held[:start]
        self._searched_bytes = max(0, len(held) - _LONGEST_BLANK_LINE + 1)
        if len(held) > MAX_EVENT_BYTES:
            raise Garbage(f"an event of more than {MAX_EVENT_BYTES} bytes")

    def rest(self) -> tuple[bytes, bytes]:
        """What follows the last blank line, and its data, at the end of the stream."""
        raw = bytes(self._held)
        self._held.clear()
        self._searched_bytes = 0
        return raw, _data(raw)


def _data(raw: bytes) -> bytes:
    lines = raw.removeprefix(b"\xef\xbb\xbf").splitlines()
    found = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:") or line == b"data"]
    return b"\n".join(found)


class Progress(Protocol):
    """What a wire knows of how far its streams have come. One for each stream."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete, so that the stream may end here."""

    @property
    def done(self) -> bool:
        """Whether the wire's end mark has come, so that nothing that follows matters."""

    def see(self, data: bytes) -> Mapping[str, Any] | None:
        """The event's object, None for the end mark; raises Garbage."""


class ChatProgress:
    """OpenAI chat chunks: complete when every choice seen has a `finish_reason`, over at `[DONE]`."""

    __slots__ = ("_open", "_seen", "done")

    def __init__(self) -> None:
        self._open: set[object] = set()
        self._seen = False
        self.done = False

    @property
    def finished(self) -> bool:
        return self.done or (self._seen and not self._open)

    def see(self, data: bytes) -> Mapping[str, Any] | None:
        if data.strip() == b"[DONE]":
            self.done = True
            return None
        chunk = parse_object(data)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                raise Garbage("a choice that is not an object")
            index = choice.get("index", 0)
            if not isinstance(index, int):
                raise Garbage("a choice whose index is not a number")
            self._seen = True
            if choice.get("finish_reason"):
                self._open.discard(index)
            else:
                self._open.add(index)
        return chunk


class StreamReader:
    """Reads one stream: `feed` every chunk, then `end`; both give the bytes that may be relayed.

    `events` counts the events with data so far. `failure` says why the stream must not go on; bytes of whatever caused
    it are held back, but for an error event of the provider's own (`error` holds its object), which is relayed as it
    is: it already says what the caller must know.
    """

    __slots__ = ("_notice", "_progress", "_splitter", "error", "events", "failure")

    def __init__(self, progress: Progress, notice: Callable[[Mapping[str, Any]], None]) -> None:
        """`notice` is shown every event's object (to find the usage in)."""
        self._progress = progress
        self._notice = notice
        self._splitter = EventSplitter()
        self.events = 0
        self.failure: str | None = None
        self.error: Mapping[str, Any] | None = None

    @property
    def finished(self) -> bool:
        return self._progress.finished

    @property
    def done(self) -> bool:
        return self._progress.done

    def feed(self, chunk: bytes) -> bytes:
        """The bytes up to the end of the last whole event; sets `failure` rather than raise."""
        ready = []
        try:
            for raw, data in self._splitter.feed(chunk):
                self._see(data)
                ready.append(raw)
                if self.failure is not None:
                    break
        except Garbage as garbage:
            self.failure = str(garbage)
        return ready[0] if len(ready) == 1 else b"".join(ready)

    def end(self) -> bytes:
        """The bytes after the last blank line, if the answer is complete with them; else sets `failure`.

        A last event without its blank line is an event here, as for many clients, though not for the standard.
        """
        raw, data = self._splitter.rest()
        events = self.events
        try:
            self._see(data)
        except Garbage:
            raw = b""
        if self.finished or self.error is not None:
            return raw
        # Held back, or an error event of ours would be glued to half a line.
        self.events = events
        self.failure = "the stream ended before the answer did"
        return b""

    def closing(self) -> bytes:
        """What is still to be said of a finished answer whose connection broke: nothing, since no byte here is ours."""
        return b""

    def _see(self, data: bytes) -> None:
        if not data or self.done:
            return
        seen = self._progress.see(data)
        self.events += 1
        if seen is None:
            return
        self._notice(seen)
        if seen.get("error"):
            self.error = seen
            self.failure = "the provider sent an error event"


def error_event(message: str, code: str) -> bytes:
    """A server-sent event in OpenAI's error shape, which its clients raise as an APIError.

    >>> error_event("gone", "cut_off")
    b'data: {"error":{"message":"gone","type":"upstream_error","param":null,"code":"cut_off"}}\\n\\n'
    """
    error = {"message": message, "type": "upstream_error", "param": None, "code": code}
    return b"data: " + json.dumps({"error": error}, separators=(",", ":")).encode() + b"\n\n"
