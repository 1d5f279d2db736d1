"""The cache: answers by all that decides them, for the caller who paid for them and for nobody else.

A tenant's answers lie under names that only the tenant's digest leads to. Trouble with the store costs a miss.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from retrieval import Encoder
from retrieval.store import Store
from trimtab.answers.asked import Asked, asked, server_of
from trimtab.answers.entry import MAX_BYTES, MAX_CONTEXTS, Entry, unpacked
from trimtab.answers.near import Near
from trimtab.answers.policy import Policy, policy_of
from trimtab.caller import Caller, name_of
from trimtab.options import MAX_TTL_S
from trimtab.settings import Settings
from trimtab.surfaces import Surface

SIZE_LIMIT_BYTES: Final = 512 * 2**20
"""Of all answers on disk; the oldest go first."""
WAIT_S: Final = 60.0
"""How long a request waits for the same one that is being answered, before it is bought a second time."""


@dataclass(frozen=True, slots=True)
class Looking:
    """A request that may be answered from the cache. `came_s` is the moment when it came."""

    caller: Caller
    asked: Asked
    policy: Policy
    came_s: float

    @property
    def name(self) -> bytes:
        return name_of(self.caller, "answer", self.asked.digest)

    @property
    def group(self) -> bytes | None:
        if not self.policy.near or self.asked.group is None:
            return None
        return name_of(self.caller, "questions", self.asked.group)


@dataclass(frozen=True, slots=True)
class Found:
    """An answer that is there: `how` is "hit" or "near"."""

    entry: Entry
    how: str
    age_s: float


class Answers:
    """One for a process and event loop. `clock` tells the seconds since 1970, by which all who share a store agree."""

    def __init__(
        self, settings: Settings, encoder: Encoder, store: Store, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self._server = server_of(settings)
        self._store = store
        self._clock = clock
        self._near = Near(store, encoder, settings.answer_cache_hours * 3600.0, clock)
        self._flights: dict[bytes, asyncio.Future[None]] = {}

    def looking(
        self, caller: Caller, surface: Surface, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> Looking | None:
        """None where the cache is not to be used. CPU-bound, for a large body. Raises BadRequest as `policy_of`."""
        policy = policy_of(self.settings, body, headers)
        request = None if policy is None else asked(surface, body, self._server)
        return None if policy is None or request is None else Looking(caller, request, policy, self._clock())

    async def found(self, looking: Looking) -> Found | None:
        """The answer that is there. Where the same is being answered just now, it is waited for; None makes it the
        caller's to `land`, whatever comes of it."""
        if looking.policy.max_age_s <= 0:
            return None
        while True:
            flight = self._flights.get(looking.name)
            if flight is None:
                # before anything is awaited, so that of two that come at once one is the first
                self._take_off(looking.name)
                try:
                    found = await asyncio.to_thread(self.find, looking)
                except BaseException:
                    self.land(looking)
                    raise
                if found is not None:
                    self.land(looking)
                return found
            await asyncio.shield(flight)
            if (found := await asyncio.to_thread(self.find, looking)) is not None:
                return found

    def _take_off(self, name: bytes) -> None:
        loop = asyncio.get_running_loop()
        flight = self._flights[name] = loop.create_future()
        # a timer, since nobody says that a client hung up before its stream began
        timer = loop.call_later(WAIT_S, self._ended, name, flight)
        flight.add_done_callback(lambda _: timer.cancel())

    def _ended(self, name: bytes, flight: asyncio.Future[None]) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]
        if not flight.done():
            flight.set_result(None)

    def land(self, looking: Looking) -> None:
        """The request is answered, or will not be: whoever waits for it may look. Does nothing a second time."""
        if (flight := self._flights.get(looking.name)) is not None:
            self._ended(looking.name, flight)

    def find(self, looking: Looking) -> Found | None:
        """Blocking: one or two reads of the store and, where another wording may do, the encoder."""
        found = self._valid(looking, looking.name)
        if found is not None:
            return Found(found, "hit", max(0.0, looking.came_s - found.at_s))
        if looking.group is None:
            return None
        for name in self._near.alike(looking.group, looking.asked.question):
            if (near := self._valid(looking, name)) is not None:
                return Found(near, "near", max(0.0, looking.came_s - near.at_s))
        return None

    def _valid(self, looking: Looking, name: bytes) -> Entry | None:
        entry = unpacked(self._store.get((name,)).get(name), name.hex())
        if entry is None or looking.came_s - entry.at_s > looking.policy.max_age_s:
            return None
        withdrawn = self._store.get([_withdrawn(looking.caller, each) for each in ("", *entry.contexts)])
        # of what is not to be read as a moment nobody knows what it withdrew
        if any(_moment(raw) >= entry.at_s for raw in withdrawn.values()):
            return None
        return entry

    def keep(self, looking: Looking, entry: Entry) -> None:
        """Keep an answer for whoever asks the same, and note how it was asked. Blocking."""
        if len(entry.answer) > MAX_BYTES or len(entry.contexts) > MAX_CONTEXTS:
            return
        lifetime_s = looking.policy.lifetime_s
        self._store.set({looking.name: entry.packed()}, lifetime_s)
        if looking.group is not None:
            self._near.note(looking.group, looking.asked.question, looking.name)

    def withdraw(self, caller: Caller, contexts: Sequence[str] = ("",)) -> None:
        """Answers of this caller that rest on these contexts, by digest, are not given again, those under way included;
        "" stands for all of his answers. Blocking."""
        moment = repr(self._clock()).encode()
        self._store.set({_withdrawn(caller, each): moment for each in contexts}, MAX_TTL_S + WAIT_S)

    def close(self) -> None:
        """Release the files."""
        self._store.close()


def _withdrawn(caller: Caller, context: str) -> bytes:
    return name_of(caller, "withdrawn", context.lower())


def _moment(raw: bytes) -> float:
    try:
        return float(raw)
    except ValueError:
        return float("inf")
