"""Bills: which addresses take requests that may carry context, and what the answers that come from them say they took.

Pure: bytes in, token counts out. A provider's bytes are read beside their way to the caller, and never changed.
"""

from __future__ import annotations

from typing import Final

from routing.offers import Usage
from routing.streams import EventSplitter, Garbage, parse_object
from routing.wires import NATIVE, WIRES
from trimtab.surfaces import CHAT, MESSAGES, RESPONSES, Surface

MAX_ANSWER_BYTES: Final = 16 * 2**20
"""Of an answer that is held to read its bill: images come as base64 in it."""

_CARRYING_CONTEXT: Final = (CHAT, MESSAGES, RESPONSES)
_WIRES: Final = {
    CHAT.path: WIRES["openai"],
    MESSAGES.path: NATIVE["anthropic", MESSAGES.tongue.name],
    RESPONSES.path: NATIVE["openai", RESPONSES.tongue.name],
}


def surface_at(path: str) -> Surface | None:
    """The surface behind a URL's path, whatever stands before `/v1` or in its place; None for every other address.

    >>> surface_at("/openai/deployments/mine/chat/completions") is CHAT, surface_at("/v1/messages/count_tokens")
    (True, None)
    """
    return next((surface for surface in _CARRYING_CONTEXT if path.endswith(surface.path.removeprefix("/v1"))), None)


class Bill:
    """What an answer says that it took: `feed` its bytes, whole or as a stream of events, then read `usage`.

    Never raises: a bill that cannot be read is None, and costs no answer.

    >>> bill = Bill(CHAT, stream=False)
    >>> bill.feed(b'{"usage": {"prompt_tokens": 7, "completion_tokens": 2}}')
    >>> bill.usage
    Usage(input_tokens=7, output_tokens=2, cache_read_tokens=0, cache_write_tokens=0)
    """

    __slots__ = ("_held", "_progress", "_splitter", "_unreadable", "_usage", "_wire")

    def __init__(self, surface: Surface, *, stream: bool) -> None:
        self._wire = _WIRES[surface.path]
        self._progress = self._wire.progress()
        self._splitter = EventSplitter() if stream else None
        self._held = bytearray()
        self._usage: Usage | None = None
        self._unreadable = False

    def feed(self, chunk: bytes) -> None:
        if self._unreadable:
            return
        if self._splitter is None:
            self._held += chunk
            self._unreadable = len(self._held) > MAX_ANSWER_BYTES
            return
        try:
            for _, data in self._splitter.feed(chunk):
                if b'"usage"' in data:  # nearly no event has one: the others are not parsed a second time
                    reported = self._wire.read_usage(self._progress.see(data) or {})
                    self._usage = self._usage if reported is None else reported.usage
        except Garbage:
            self._unreadable = True

    @property
    def usage(self) -> Usage | None:
        if self._splitter is not None or self._unreadable:
            return self._usage
        try:
            reported = self._wire.read_usage(parse_object(bytes(self._held)))
        except Garbage:
            return None
        return None if reported is None else reported.usage
