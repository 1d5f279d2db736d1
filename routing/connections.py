"""Connections: those to the providers, kept from call to call.

Each call that is under way has a client of httpx to itself, with a pool of one connection. Not one client for all: for
every call, twice, its pool looks through all its connections and asks the kernel after each idle one (httpcore 1.0.9,
`_assign_requests_to_connections`). At sixteen calls at once that was a third of all that a small request cost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import httpx

IDLE_S: Final = 30.0
"""How long a connection is kept without a call; then it is closed, and never used again."""
MAX_IDLE: Final = 64
"""Of a router, to all providers together."""

# HTTP/1.1 only: httpx's HTTP/2 is pure Python and slower, and a cut connection would end every stream on it.
_LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=IDLE_S)


class Lender(Protocol):
    """Lends clients to calls."""

    def take(self, url: httpx.URL) -> httpx.AsyncClient:
        """A client for one call to `url`. To be given back."""
        ...

    def give_back(self, url: httpx.URL, client: httpx.AsyncClient) -> None:
        """The call is over, however it ended: the client's own pool has dropped a connection that is of no more use."""
        ...


class Shared:
    """One client for every call, for whoever makes few at once."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    def take(self, url: httpx.URL) -> httpx.AsyncClient:
        return self._client

    def give_back(self, url: httpx.URL, client: httpx.AsyncClient) -> None:
        pass


class _Client(httpx.AsyncClient):
    """Keeps no cookies: a provider's are no tenant's business, and reading them took a twentieth of a call."""

    @property
    def cookies(self) -> httpx.Cookies:
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, cookies: object) -> None:
        raise AttributeError("this client keeps no cookies")


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        pass


_NO_COOKIES: Final = _NoCookies()


class Connections:
    """Of one event loop. How many are used at once is for whoever uses them to bound.

    `transport` is there for tests: every call goes through it.
    """

    def __init__(
        self, transport: httpx.AsyncBaseTransport | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._tls = httpx.create_ssl_context()  # made once: reading the certificates takes 30 ms
        self._idle: dict[tuple[str, bytes], deque[tuple[float, httpx.AsyncClient]]] = {}
        self._idle_count = 0
        self._look_at_s = 0.0
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> tuple[httpx.AsyncClient, ...]:
        """The clients that no call has."""
        return tuple(client for each in self._idle.values() for _, client in each)

    def take(self, url: httpx.URL) -> httpx.AsyncClient:
        """A client that is connected to where `url` leads, if there is one."""
        waiting = self._idle.get((url.scheme, url.netloc))
        if waiting:
            self._idle_count -= 1
            return waiting.pop()[1]  # the one used last, so that those too many grow old
        return _Client(transport=self._transport, verify=self._tls, limits=_LIMITS, follow_redirects=False)

    def give_back(self, url: httpx.URL, client: httpx.AsyncClient) -> None:
        now_s = self._clock()
        self._idle.setdefault((url.scheme, url.netloc), deque()).append((now_s, client))
        self._idle_count += 1
        if now_s >= self._look_at_s or self._idle_count > MAX_IDLE:
            self._look_at_s = now_s + IDLE_S
            self._close_old(now_s)

    def _close_old(self, now_s: float) -> None:
        """Close what was not used for IDLE_S, and what there is beyond MAX_IDLE, those unused for longest first."""
        oldest_first = sorted((at_s, place) for place, each in self._idle.items() for at_s, _ in each)
        for number, (at_s, place) in enumerate(oldest_first):
            if now_s - at_s < IDLE_S and len(oldest_first) - number <= MAX_IDLE:
                break
            _, client = self._idle[place].popleft()
            self._idle_count -= 1
            closing = asyncio.create_task(client.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._idle = {place: each for place, each in self._idle.items() if each}

    async def aclose(self) -> None:
        """Drop all of them. No call may be under way."""
        idle, self._idle, self._idle_count = self.idle, {}, 0
        await asyncio.gather(*(each.aclose() for each in idle), *self._closing)
