"""Conversations: what was sent of the turns that come back.

A caller repeats every earlier turn, untrimmed. Where a provider still holds the prefix that was sent then, cutting those
turns anew would break it, and cost more than it saves: they are sent as they were sent before, byte for byte.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from compressor.prompts import Api

MAX_BYTES: Final = 64 * 2**20
"""Of trimmed turns held in memory; those not seen for longest go first."""

_LINK_BYTES: Final = 200  # what an entry costs without a turn
_PER_REQUEST: Final = frozenset(
    (
        *("trimtab", "stream", "stream_options", "user", "metadata", "temperature", "top_p", "seed", "n"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens"),
    )
)
"""Fields that say nothing of the prompt: two requests that differ in them share their prefix."""

Digests = tuple[bytes, ...]


def chain(api: Api, body: Mapping[str, Any]) -> Digests:
    """Digests of all that the model reads up to the end of what stands before the conversation (the model, tools,
    instructions), and up to the end of each turn: one more than there are turns."""
    head = {name: value for name, value in body.items() if name != api.turns and name not in _PER_REQUEST}
    digest = hashlib.sha256(_canonical(head))
    digests = [digest.digest()]
    for turn in _turns(api, body):
        digest.update(_canonical(turn))
        digests.append(digest.digest())
    return tuple(digests)


def _turns(api: Api, body: Mapping[str, Any]) -> Sequence[Any]:
    turns = body.get(api.turns)
    return turns if isinstance(turns, list) else [turns]


def _canonical(value: object) -> bytes:
    # A separator, so that two turns never read like one.
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS) + b"\n"
    except TypeError:  # legal in JSON, and too much for orjson: a number beyond 64 bits, half a surrogate pair
        return repr(value).encode(errors="surrogatepass") + b"\n"


class Conversations:
    """The turns that were sent, by what they were sent for. Safe to share between threads.

    Only whoever sends a conversation again, to the byte, finds what was sent of it.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sent: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()  # a turn, None for one that went as it came
        self._bytes = 0

    def forget(self) -> None:
        """Drop all of it."""
        with self._lock:
            self._sent.clear()
            self._bytes = 0

    def resumed(self, api: Api, body: Mapping[str, Any], digests: Digests) -> tuple[Mapping[str, Any], int]:
        """The body with every turn that was sent before as it was sent, and how many turns those are.

        The last turn is never among them: a question that is asked again may ask for another cut.
        """
        turns = body.get(api.turns)
        if not isinstance(turns, list):
            return body, 0
        sent: list[Any] = []
        with self._lock:
            for digest, turn in zip(digests[1:-1], turns, strict=False):
                if digest not in self._sent:
                    break
                self._sent.move_to_end(digest)
                kept = self._sent[digest][0]
                sent.append(turn if kept is None else kept)
        return {**body, api.turns: [*sent, *turns[len(sent) :]]}, len(sent)

    def sent(
        self,
        api: Api,
        asked: Mapping[str, Any],
        digests: Digests,
        sent: Mapping[str, Any],
        beside: int | None = None,
    ) -> None:
        """Note what was sent for `asked`, turn by turn, in place of what was sent for it before. Contexts given beside the
        conversation stand in a turn of their own, which no caller repeats: only what is before turn `beside` is noted."""
        before, after = asked.get(api.turns), sent.get(api.turns)
        if not isinstance(before, list) or not isinstance(after, list):
            return
        noted = []
        for digest, turn, own in zip(digests[1:], after[:beside], before[:beside], strict=False):
            same = turn is own or turn == own  # not held then: a caller's turn may be a book, and comes again with him
            noted.append((digest, (None, _LINK_BYTES) if same else (turn, _LINK_BYTES + len(_canonical(turn)))))
        with self._lock:
            for digest, entry in noted:
                self._bytes += entry[1] - self._sent.pop(digest, (None, 0))[1]
                self._sent[digest] = entry
            while self._bytes > self._max_bytes:
                self._bytes -= self._sent.popitem(last=False)[1][1]
