"""Replies: a provider's answer as the caller gets it, whole or as a stream that is still under way.

Also the journal in which a request's attempts are kept while it lasts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from routing.attempts import Attempt, Outcome
from routing.calls import FAILURES, Call, explain
from routing.conversion import ConvertedReader
from routing.offers import Offer, Usage
from routing.streams import StreamReader
from routing.tongues import Retelling
from routing.wires import Reported, Wire

_AFTER_DONE_S: Final = 1.0
"""How long to let a connection come to its end whose stream is over, so that it can be used again."""


class Journal:
    """The attempts of one request, and its clock. Shared by the call and by the stream that outlives it.

    `ended` is told of each attempt when it has come to its end, once, with the output tokens if the provider said them.
    """

    __slots__ = ("_began_s", "_ended", "attempts")

    def __init__(self, ended: Callable[[Attempt, int | None], None]) -> None:
        self._began_s = time.monotonic()
        self._ended = ended
        self.attempts: list[Attempt] = []

    @property
    def elapsed_ms(self) -> float:
        return (time.monotonic() - self._began_s) * 1000.0

    def note(
        self,
        offer: Offer,
        started_ms: float,
        status: int | None,
        outcome: Outcome,
        detail: str,
        retry_after_ms: float | None = None,
        reported: Reported | None = None,
    ) -> None:
        """Add an attempt that has just come to its end."""
        attempt = Attempt(
            provider=offer.provider,
            model=offer.model,
            processing=offer.processing,
            started_ms=started_ms,
            latency_ms=self.elapsed_ms - started_ms,
            status=status,
            outcome=outcome,
            detail=detail,
            retry_after_ms=retry_after_ms,
        )
        self.attempts.append(attempt)
        self._tell(attempt, reported)

    def note_stream(self, offer: Offer, started_ms: float, status: int) -> None:
        """Add an attempt whose first byte is about to go out."""
        self.note(offer, started_ms, status, "streaming", "")
        last = self.attempts[-1]
        self.attempts[-1] = replace(last, first_byte_ms=last.latency_ms)

    def end_stream(self, outcome: Outcome, detail: str, reported: Reported | None) -> None:
        """Bring the latest attempt to its end."""
        last = self.attempts[-1]
        latency_ms = self.elapsed_ms - last.started_ms
        self.attempts[-1] = attempt = replace(last, latency_ms=latency_ms, outcome=outcome, detail=detail)
        self._tell(attempt, reported)

    def _tell(self, attempt: Attempt, reported: Reported | None) -> None:
        if attempt.outcome != "streaming":
            self._ended(attempt, None if reported is None else reported.usage.output_tokens)


class Reply:
    """A provider's answer: either `body` (whole) or `chunks` (a stream, to be iterated once).

    `status` and `body` are the provider's, unchanged, a 4xx that is the caller's included (converted where a provider
    speaks another wire than OpenAI's); `headers` are those worth keeping, in lower case. `attempts`, `usage` and
    `reasoning_tokens` are as of now: with a stream, complete when it is exhausted. `usage` is None where the provider
    said nothing (for streams, OpenAI does on `include_usage` only; the others always).

    Close it, with `aclose()` or `async with`, however the iteration ended: that gives the connection back, and cuts it
    if the stream is not over.
    """

    __slots__ = ("_chunks", "_journal", "_relay", "_reported", "body", "headers", "offer", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        offer: Offer,
        journal: Journal,
        content: bytes | Relay,
        reported: Reported | None = None,
        told: Retelling | None = None,
    ) -> None:
        """`told` tells a stream in another tongue."""
        self.status = status
        self.headers = headers
        self.offer = offer
        self.body = content if isinstance(content, bytes) else None
        self._relay = None if isinstance(content, bytes) else content
        self._chunks = self._relay if told is None or self._relay is None else _retold(self._relay, told)
        self._journal = journal
        self._reported = reported

    @property
    def chunks(self) -> AsyncIterator[bytes] | None:
        return self._chunks

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return tuple(self._journal.attempts)

    @property
    def usage(self) -> Usage | None:
        reported = self._reported if self._relay is None else self._relay.reported
        return None if reported is None else reported.usage

    @property
    def reasoning_tokens(self) -> int:
        """Part of `usage.output_tokens`; 0 where the provider says nothing."""
        reported = self._reported if self._relay is None else self._relay.reported
        return 0 if reported is None else reported.reasoning_tokens

    async def aclose(self) -> None:
        if self._relay is not None:
            self._relay.close()

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def _retold(relay: Relay, telling: Retelling) -> AsyncIterator[bytes]:
    async for chunk in relay:
        if told := telling.feed(chunk):
            yield told
    if told := telling.end():
        yield told


class Relay:
    """A provider's stream, under way: `open` it, `start` it, iterate it, close it.

    A class and not a generator: a generator that was never started does not run its `finally`, and the connection would
    leak when the client hangs up before the first read.
    """

    __slots__ = ("_call", "_ended", "_error_event", "_idle_ms", "_journal", "_ready", "_total_ms", "reader", "reported")

    def __init__(
        self,
        call: Call,
        wire: Wire,
        journal: Journal,
        *,
        idle_ms: float,
        total_ms: float,
        include_usage: bool = False,
    ) -> None:
        """`include_usage` is what the caller asked for; it matters where the events are made here."""
        self._call = call
        self._journal = journal
        self._idle_ms = idle_ms
        self._total_ms = total_ms
        self._ended = False
        self._ready: list[bytes] = []
        self.reported: Reported | None = None
        self._error_event = wire.tongue.error_event

        def notice(event: Mapping[str, Any]) -> None:
            self._notice(wire.read_usage(event))

        self.reader: StreamReader | ConvertedReader
        if wire.conversion is None:
            self.reader = StreamReader(wire.progress(), notice)
        else:
            self.reader = ConvertedReader(wire.conversion, include_usage, int(time.time()), notice)

    def _notice(self, reported: Reported | None) -> None:
        self.reported = reported or self.reported

    async def open(self) -> None:
        """Read up to the first event. Leaves `reader.failure` set, or raises one of FAILURES, if there is none."""
        reader = self.reader
        while not reader.events and reader.failure is None:
            chunk = await self._call.read()
            self._ready.append(reader.end() if chunk is None else reader.feed(chunk))

    def start(self, offer: Offer, started_ms: float, status: int) -> None:
        """Take over: the first byte is about to go out."""
        self._journal.note_stream(offer, started_ms, status)

    def __aiter__(self) -> Relay:
        return self

    async def __anext__(self) -> bytes:
        if self._ready:
            ready = b"".join(self._ready)
            self._ready.clear()
            if ready:
                return ready
        while not self._ended:
            if ready := await self._advance():
                return ready
        raise StopAsyncIteration

    async def _advance(self) -> bytes:
        reader = self.reader
        if reader.failure is not None:
            return self._finish("cut_off", reader.failure)
        if reader.done:
            last = reader.end()
            self._finish("ok", "")
            return last
        left_ms = self._total_ms - self._journal.elapsed_ms
        if left_ms <= 0:
            return self._finish("cut_off", "the time for the whole request is over")
        limit_s = min(self._idle_ms, left_ms) / 1000.0
        try:
            chunk = await self._call.read(limit_s)
        except FAILURES as error:
            if reader.finished:
                last = reader.closing()
                self._finish("ok", "")
                return last
            return self._finish("cut_off", explain(error)[1])
        except asyncio.CancelledError:
            self.close()
            raise
        if self._ended:  # closed by another task while this one was waiting
            return b""
        if chunk is not None:
            return reader.feed(chunk)
        ready = reader.end()
        if reader.failure is None:
            self._finish("ok", "")
        return ready

    def _finish(self, outcome: Outcome, detail: str) -> bytes:
        """Record, and cut what may still come; gives what the client must be told."""
        self._ended = True
        if self.reader.done:
            self._linger()
        else:
            self._call.cancel()
        self._journal.end_stream(outcome, detail, self.reported)
        if outcome != "cut_off" or self.reader.error is not None:
            return b""
        return self._error_event(f"The provider's stream broke off: {detail}.", "stream_cut_off")

    def _linger(self) -> None:
        """Let the call read its connection to the end. Nobody waits for that: the client has heard the end mark."""
        task = self._call.task
        if not task.done():
            timer = asyncio.get_running_loop().call_later(_AFTER_DONE_S, self._call.cancel)
            task.add_done_callback(lambda _: timer.cancel())

    def close(self) -> None:
        """Cut the connection if there is more to come. Needs no await, so nothing can come between."""
        if self._ended:
            return
        reader = self.reader
        if reader.finished:
            reader.closing()  # for the usage: nobody hears the rest
            self._finish("ok", "")
        elif reader.failure is not None:
            self._finish("cut_off", reader.failure)  # a client that was told so by the provider's error event, and left
        else:
            self._finish("abandoned", "")
