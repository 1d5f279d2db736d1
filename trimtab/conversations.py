"""Conversations: what was sent of the turns that come back.

A caller repeats every earlier turn, untrimmed. Where a provider still holds the prefix that was sent then, cutting those
turns anew would break it, and cost more than it saves: they are sent as they were sent before, byte for byte.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import orjson

from compressor.prompts import Api
from retrieval.store import Store
from trimtab.telling import Tell, nobody

MAX_BYTES: Final = 64 * 2**20
"""Of trimmed turns held in memory; those not seen for longest go first."""

SHARED_S: Final = 3_600.0
"""How long turns are kept where other workers find them: longer than any cache of a provider holds them."""

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

    Only whoever sends a conversation again, to the byte, finds what was sent of it. With a `shared` store, the next turn
    may come to another worker.
    """

    def __init__(
        self, max_bytes: int = MAX_BYTES, shared: Store | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._shared = shared
        self._clock = clock
        self._writing = ThreadPoolExecutor(1, "trimtab conversations")  # its thread begins with the first use
        self._lock = threading.Lock()
        self._sent: OrderedDict[bytes, _Kept] = OrderedDict()
        self._bytes = 0
        self.tell: Tell = nobody

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
        self._fetch(digests[1:-1])
        sent: list[Any] = []
        with self._lock:
            for digest, turn in zip(digests[1:-1], turns, strict=False):
                if digest not in self._sent:
                    break
                self._sent.move_to_end(digest)
                kept = self._sent[digest].turn
                sent.append(turn if kept is None else kept)
        return {**body, api.turns: [*sent, *turns[len(sent) :]]}, len(sent)

    def at_hand(self, digests: Digests) -> bool:
        """Whether `resumed` has nothing to look up where other workers find it."""
        if self._shared is None:
            return True
        with self._lock:
            return all(digest in self._sent for digest in digests[1:-1])

    def _fetch(self, digests: Digests) -> None:
        """Have those that another worker sent."""
        if self._shared is None:
            return
        with self._lock:
            missing = [digest for digest in digests if digest not in self._sent]
        found = self._shared.get(missing) if missing else {}
        now_s = self._clock()
        # half of a lifetime may have passed: written again before long
        fetched = [
            (name, _Kept(orjson.loads(raw), _LINK_BYTES + len(raw), now_s - SHARED_S)) for name, raw in found.items()
        ]
        with self._lock:
            self._put([(digest, kept) for digest, kept in fetched if digest not in self._sent])

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
            noted.append((digest, None if same else turn))
        now_s = self._clock()
        with self._lock:
            before_of = {digest: self._sent.get(digest) for digest, _ in noted}
            fresh = {
                digest: turn
                for digest, turn in noted
                if (old := before_of[digest]) is None or old.turn != turn or now_s - old.shared_s > SHARED_S / 2
            }
            shared_s = {
                digest: old.shared_s for digest, old in before_of.items() if old is not None and digest not in fresh
            }
            self._put([(digest, _Kept(turn, _size(turn), shared_s.get(digest, now_s))) for digest, turn in noted])
        if self._shared is None or not fresh:
            return
        recut = [digest for digest in fresh if (old := before_of[digest]) is not None and old.turn != fresh[digest]]
        # In a thread, since answers end on the event loop: the next turn comes later than this takes.
        self._writing.submit(self._share, fresh, recut)

    def _share(self, fresh: Mapping[bytes, Any], recut: Sequence[bytes]) -> None:
        if self._shared is not None:
            self._shared.set({digest: orjson.dumps(turn) for digest, turn in fresh.items()}, SHARED_S)
        if recut:
            self.tell("recut", {"digests": [digest.hex() for digest in recut]})

    def heard(self, event: Mapping[str, Any]) -> None:
        """Another worker has sent some turns otherwise than before: what is held of them is to be fetched anew."""
        digests = [bytes.fromhex(each) for each in event["digests"]]
        with self._lock:
            for digest in digests:
                if (kept := self._sent.pop(digest, None)) is not None:
                    self._bytes -= kept.size_bytes

    def _put(self, entries: Sequence[tuple[bytes, _Kept]]) -> None:
        for digest, entry in entries:
            old = self._sent.pop(digest, None)
            self._bytes += entry.size_bytes - (0 if old is None else old.size_bytes)
            self._sent[digest] = entry
        while self._bytes > self._max_bytes:
            self._bytes -= self._sent.popitem(last=False)[1].size_bytes


class _Kept(NamedTuple):
    """A turn as it was sent, None for one that went as it came, and when others could last be sure to find it."""

    turn: Any
    size_bytes: int
    shared_s: float


def _size(turn: Any) -> int:
    return _LINK_BYTES if turn is None else _LINK_BYTES + len(_canonical(turn))
