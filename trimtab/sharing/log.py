"""Logs: what several workers write for each other, in one order, for some minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from trimtab.errors import TrimtabError

KEPT_S: Final = 600.0
"""How long a message can be read: what a worker that begins has to go by."""
AT_ONCE: Final = 500
"""Messages of one reading."""


class Unreachable(TrimtabError):
    """What is shared cannot be reached at present. Never a caller's business: he is served by what is known here."""


class Read(NamedTuple):
    """Messages, in their order, and the position after the last of them."""

    messages: Sequence[bytes]
    position: str


class Log(Protocol):
    """Used by two threads at most: one appends, one reads. Both methods raise Unreachable."""

    def append(self, message: bytes) -> None:
        """Write one message at the end."""
        ...

    def read(self, position: str, wait_s: float) -> Read:
        """What stands after `position` ("" for the beginning), some hundred messages at most. Where there is nothing, it
        waits about `wait_s` for something."""
        ...

    def close(self) -> None:
        """Release the connections."""
        ...
