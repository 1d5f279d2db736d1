"""Calls: one HTTP exchange with a provider, and the one map from httpx's errors to our outcomes.

A call runs in a task of its own, inside an anyio scope. Whoever waits for it may be cancelled at any moment and is never
inside httpx then: httpcore 1.0 shields its clean-up from anyio's cancellation only, and a plain `task.cancel()` (that of
asyncio.timeout too) makes it lose connections for good (encode/httpcore#658, #830, #1093; two in a thousand in a trial).
"""

from __future__ import annotations

import asyncio
from typing import Final

import anyio
import httpx

from routing.attempts import Outcome
from routing.connections import Lender
from routing.streams import Garbage

_AHEAD_BYTES: Final = 2**20
"""How far a call reads ahead of whoever waits for it, before it lets TCP hold the provider back."""

# The first row that fits names the outcome. str(error) is never shown: it may hold a header's value or an address.
TRANSPORT_FAILURES: Final[tuple[tuple[type[Exception], Outcome, str], ...]] = (
    (httpx.ConnectTimeout, "timeout", "no connection in time"),
    (httpx.PoolTimeout, "timeout", "no free connection in time"),
    (httpx.TimeoutException, "timeout", "no answer in time"),
    (TimeoutError, "timeout", "no answer in time"),
    (httpx.ConnectError, "connect_failed", "no connection"),
    (httpx.ProxyError, "connect_failed", "the proxy refused"),
    (httpx.NetworkError, "connection_lost", "the connection was cut"),
    (httpx.RemoteProtocolError, "connection_lost", "the connection was cut, or its HTTP is broken"),
    (httpx.LocalProtocolError, "rejected", "the request is not possible in HTTP"),
    (httpx.UnsupportedProtocol, "rejected", "base_url is neither http nor https"),
    (httpx.DecodingError, "bad_response", "the content encoding is broken"),
    (httpx.TransportError, "connection_lost", "the connection failed"),
    (Garbage, "bad_response", "the content is broken"),
)
FAILURES: Final = tuple(row[0] for row in TRANSPORT_FAILURES)


def explain(error: Exception) -> tuple[Outcome, str]:
    """The outcome and detail of one of FAILURES. Garbage explains itself in words of ours."""
    outcome, detail = next(row[1:] for row in TRANSPORT_FAILURES if isinstance(error, row[0]))
    return outcome, str(error) if isinstance(error, Garbage) else detail


class Call:
    """One exchange, under way from the moment it is made. `slots` bounds how many connections there are at once.

    `head()`, then `read()` until None. Both raise what went wrong in httpx (see FAILURES) and may be cancelled. Ends by
    itself when the answer has been read, else by `cancel()`.
    """

    __slots__ = ("_held_bytes", "_parts", "_response", "_room", "_scope", "_waiter", "task")

    def __init__(self, lender: Lender, request: httpx.Request, slots: asyncio.Semaphore, slot_s: float):
        self._response: httpx.Response | None = None
        self._parts: list[bytes] = []
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._scope = anyio.CancelScope()
        self.task = asyncio.create_task(self._run(lender, request, slots, slot_s))
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report one that nobody waits for any more
        self._wake()

    async def _run(self, lender: Lender, request: httpx.Request, slots: asyncio.Semaphore, slot_s: float) -> None:
        with self._scope:
            if slots.locked():
                with anyio.move_on_after(slot_s) as waiting:
                    await slots.acquire()
                if waiting.cancelled_caught:
                    raise httpx.PoolTimeout("")
            else:
                await slots.acquire()  # at once: no timer for it
            client = lender.take(request.url)
            try:
                self._response = await client.send(request, stream=True)
                self._wake()
                # Decoded where a server compresses against our wish, else the bytes as they came.
                async for part in self._response.aiter_bytes():
                    self._parts.append(part)
                    self._held_bytes += len(part)
                    self._wake()
                    while self._held_bytes > _AHEAD_BYTES:
                        self._room.clear()
                        await self._room.wait()
            finally:
                if self._response is not None:
                    await self._response.aclose()
                lender.give_back(request.url, client)
                slots.release()

    async def head(self) -> httpx.Response:
        """The response when its headers are there. Its content is read by `read()` only."""
        while self._response is None:
            if self.task.done():
                self.task.result()
                raise httpx.CloseError("")  # cancelled
            await self._more()
        return self._response

    async def read(self, limit_s: float | None = None) -> bytes | None:
        """What has arrived since the last read, in one piece, waiting if there is nothing; None at the end.

        Raises TimeoutError if nothing comes within `limit_s`.
        """
        while not self._parts:
            if self.task.done():
                self.task.result()
                return None
            await self._more(limit_s)
        content = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held_bytes = 0
        self._room.set()
        return content

    async def _more(self, limit_s: float | None = None) -> None:
        # One future and one timer, since this runs for every event of every stream: an asyncio.Event within an
        # asyncio.timeout takes some 4 us more.
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if limit_s is None else loop.call_later(limit_s, _expire, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cancel(self) -> None:
        """Cut the connection if the answer is not over; what waits for it sees its end. Cleans up in its own time."""
        self._scope.cancel()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
