"""Watching: tells open pages that there is something new, over server-sent events.

While at least one page is open, the process looks once a second for new lines in the ledger (any process may have written
them) and at its providers' circuit breakers. An event says that something changed and how many requests are new, never
what: the page asks for itself again. So what waits for a slow client is one event at most, however much happens.

An event's id is the number of the ledger's last line. A page says which one it was made with, and a browser that comes
back which one it was told of last, so that none is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Final

import orjson
from sqlalchemy.exc import SQLAlchemyError

EVERY_S: Final = 1.0
SILENT_S: Final = 15.0
"""After which a comment is sent, so that whatever stands between keeps the connection and a gone client is noticed."""
REORDERED: Final = 256
"""On PostgreSQL a line may become visible after ones with higher numbers: those of so many back are looked for too."""
MOST_COUNTED: Final = 10_000
"""Of the requests that came between a page and its events."""
_RETRY_MS: Final = 2_000


class Seen:
    """Which lines of the ledger were seen, by their numbers; the first look counts none as new."""

    def __init__(self, last: int) -> None:
        self.last = last
        self._recent: set[int] | None = None

    @property
    def after(self) -> int:
        """Numbers above this one are to be shown to `new`."""
        return max(0, self.last - REORDERED)

    def new(self, numbers: tuple[int, ...]) -> int:
        """How many of `numbers` were not there before."""
        came = 0 if self._recent is None else len(set(numbers) - self._recent)
        self.last = max((self.last, *numbers))
        self._recent = {each for each in numbers if each > self.after}
        return came


class Watch:
    """One for a process. `last` and `above` ask the ledger, `other` is whatever else a page shows that may change."""

    def __init__(
        self,
        last: Callable[[], Awaitable[int]],
        above: Callable[[int], Awaitable[tuple[int, ...]]],
        other: Callable[[], Awaitable[Hashable]],
        every_s: float = EVERY_S,
    ) -> None:
        self._last, self._above, self._other, self._every_s = last, above, other, every_s
        self._waiting: set[_Viewer] = set()
        self._seen: Seen | None = None
        self._others: Hashable = None
        self._one_at_a_time = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def viewers(self) -> int:
        return len(self._waiting)

    async def events(self, after: int | None = None) -> AsyncIterator[bytes]:
        """One page's events, until it goes or the process does. `after` is the last line that it knows of."""
        viewer = _Viewer()
        try:
            with suppress(SQLAlchemyError):
                await self._look(viewer, after)
            self._waiting.add(viewer)
            if self._looking is None:
                self._looking = asyncio.create_task(self._go_on_looking())
            yield b"retry: %d\n\n" % _RETRY_MS
            while not self._closed:
                # not wait_for: Python 3.11's loses a cancellation that comes together with the news
                with suppress(TimeoutError):
                    async with asyncio.timeout(SILENT_S):
                        await viewer.news.wait()
                yield viewer.taken(0 if self._seen is None else self._seen.last)
        finally:
            self._waiting.discard(viewer)
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = self._seen = None

    def close(self) -> None:
        """End every page's events: the server waits for open answers before it goes."""
        self._closed = True
        for viewer in self._waiting:
            viewer.news.set()

    async def _go_on_looking(self) -> None:
        while True:
            with suppress(SQLAlchemyError):  # a ledger that is away: what came meanwhile is seen when it is back
                await self._look()
            await asyncio.sleep(self._every_s)

    async def _look(self, newcomer: _Viewer | None = None, after: int | None = None) -> None:
        """Tell those who wait of new lines, and the newcomer, from now on among them, of those above `after`."""
        async with self._one_at_a_time:
            before, self._others = self._others, await self._other()
            if self._waiting and self._others != before:
                self._tell(0)
            seen = self._seen = self._seen or Seen(await self._last())
            start = seen.after if after is None else max(after, seen.last - MOST_COUNTED)
            numbers = await self._above(min(start, seen.after))
            if came := seen.new(tuple(each for each in numbers if each > seen.after)):
                self._tell(came)
            if newcomer is not None:
                self._waiting.add(newcomer)
                if after is not None and (missed := sum(each > start for each in numbers)):
                    newcomer.tell(missed)

    def _tell(self, requests: int) -> None:
        for viewer in self._waiting:
            viewer.tell(requests)


class _Viewer:
    """What waits for one page."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self._requests = 0

    def tell(self, requests: int) -> None:
        self._requests += requests
        self.news.set()

    def taken(self, last: int) -> bytes:
        """The event that waits; a comment where none does. `last` is the ledger's last line."""
        if not self.news.is_set():
            return b": still here\n\n"
        told = orjson.dumps({"requests": self._requests})
        self._requests = 0
        self.news.clear()
        return b"id: %d\nevent: changed\ndata: %s\n\n" % (last, told)
