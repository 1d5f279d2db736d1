"""Admission: how much may be under way at once. What is past it is refused at once, with the time to come back, and never
piles up.

Three things are bounded: requests (each waits for a provider at some time, and holds a connection), the bytes of their
bodies, and the time that one would wait for its turn to be worked on. Small bodies do not wait behind large ones: each
kind has a lane of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from trimtab.errors import Overloaded

LARGE_BYTES: Final = 64 * 2**10
"""A body of this size holds about 15,000 tokens: a tenth of a second of work with known vectors, a second with new ones."""
SMALL_AT_ONCE: Final = 8
"""Threads for small bodies: their work waits for the cache on disk now and then, else for a core."""
FIXED_BYTES: Final = 4_096
"""What the work that every request makes weighs, whatever its size."""
FIRST_S_PER_BYTE: Final = 1e-6
"""What work is taken to cost before any was seen: 200,000 tokens of known text a second."""
_NEWEST: Final = 0.2
"""The weight of the latest work in the moving average."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`requests` and `body_bytes` are under way at once at most; nobody waits for a turn longer than `wait_s` by our
    estimate. `large_at_once`: how many large bodies are worked on at a time."""

    requests: int
    body_bytes: int
    wait_s: float
    large_at_once: int


class Lane:
    """Work of one kind: `at_once` at a time, first come, first served, each by its weight in bytes."""

    def __init__(self, at_once: int, wait_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._at_once = at_once
        self._wait_s = wait_s
        self._clock = clock
        self._turns = asyncio.Semaphore(at_once)
        self._s_per_byte = FIRST_S_PER_BYTE
        self._running: dict[object, int] = {}
        self._waiting: dict[object, int] = {}

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def expected_wait_s(self) -> float:
        """How long one that comes now would wait: what is ahead of it, half of what is being worked on included."""
        if len(self._running) + len(self._waiting) < self._at_once:
            return 0.0
        ahead = sum(self._waiting.values()) + sum(self._running.values()) / 2
        return ahead * self._s_per_byte / self._at_once

    @asynccontextmanager
    async def turn(self, weight_bytes: int) -> AsyncIterator[None]:
        """Within it, it is the caller's turn. Raises Overloaded where that would take too long."""
        if (wait_s := self.expected_wait_s()) > self._wait_s:
            raise Overloaded("work is waiting already for as long as anything may wait (max_wait_s)", wait_s)
        mark = object()
        self._waiting[mark] = weight_bytes
        try:
            await self._turns.acquire()
        finally:
            del self._waiting[mark]
        self._running[mark] = weight_bytes
        began_s = self._clock()
        try:
            yield
            took = (self._clock() - began_s) / max(weight_bytes, 1)
            self._s_per_byte += _NEWEST * (took - self._s_per_byte)
        finally:
            del self._running[mark]
            self._turns.release()


@dataclass(slots=True)
class _Ticket:
    """What one request holds until its answer is over."""

    body_bytes: int = 0
    counted: bool = False


_TICKET: Final[ContextVar[_Ticket | None]] = ContextVar("admission_ticket", default=None)


class Admission:
    """Of one server process. All of it is called on its event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._small = Lane(SMALL_AT_ONCE, limits.wait_s)
        self._large = Lane(limits.large_at_once, limits.wait_s)
        self._requests = 0
        self._body_bytes = 0

    def around(self, app: ASGIApp) -> ASGIApp:
        """`app`, every request of which gives back what it held when its answer is over, however that ends."""

        async def admitted(scope: Scope, receive: Receive, send: Send) -> None:
            with self._ticket():
                await app(scope, receive, send)

        return admitted

    def grow(self, more_bytes: int) -> None:
        """`more_bytes` of the body of the request at hand are about to be held. Raises Overloaded where there is no room.

        A body that is alone is never refused: whether it is too large by itself is `max_body_bytes`' to say.
        """
        ticket = _TICKET.get()
        if ticket is None:  # a request that is served by no app of ours
            return
        if not ticket.counted:
            if self._requests >= self._limits.requests:
                raise Overloaded(f"{self._requests:,} requests are under way, as many as may be (max_requests)", 1.0)
            ticket.counted = True
            self._requests += 1
        if self._body_bytes > ticket.body_bytes and self._body_bytes + more_bytes > self._limits.body_bytes:
            reason = "the bodies of requests under way fill the memory that they may have (max_bodies_bytes)"
            raise Overloaded(reason, max(1.0, self._large.expected_wait_s()))
        ticket.body_bytes += more_bytes
        self._body_bytes += more_bytes

    @property
    def body_bytes(self) -> int:
        """Of the request at hand; 0 where none was read."""
        ticket = _TICKET.get()
        return ticket.body_bytes if ticket else 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Within it, the body of the request at hand may be worked on. Raises Overloaded."""
        size = self.body_bytes
        async with (self._large if size >= LARGE_BYTES else self._small).turn(FIXED_BYTES + size):
            yield

    def depths(self) -> tuple[tuple[str, str, Callable[[], float]], ...]:
        """What is under way: name, meaning and how to read it, for metrics."""
        return (
            ("admitted_requests", "Requests with a body that are under way.", lambda: float(self._requests)),
            ("admitted_body_bytes", "Bytes of their bodies.", lambda: float(self._body_bytes)),
            ("small_waiting", "Small requests that wait for their turn.", lambda: float(self._small.waiting)),
            ("large_waiting", "Large requests that wait for their turn.", lambda: float(self._large.waiting)),
            ("large_wait_seconds", "How long a large request would wait.", self._large.expected_wait_s),
        )

    @contextmanager
    def _ticket(self) -> Iterator[None]:
        ticket = _Ticket()
        token = _TICKET.set(ticket)
        try:
            yield
        finally:
            _TICKET.reset(token)
            self._body_bytes -= ticket.body_bytes
            self._requests -= ticket.counted
