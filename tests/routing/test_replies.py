"""Streams after their first byte, against real servers on loopback: broken off, hung up on, and never leaked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import httpx
import pytest

import routing.forwarding
import routing.replies
from routing.attempts import RetryPolicy
from routing.errors import ProvidersFailed
from routing.forwarding import Reply, Router, Timeouts
from tests import loopback
from tests.loopback import LoopbackProvider, Step
from tests.routing.asking import (
    BODY,
    STREAM,
    ask,
    direct,
    events,
    offer,
    provider,
    router,
    told,
)

# --- after the first byte -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "detail"),
    [
        (loopback.cut(2), "the connection was cut, or its HTTP is broken"),
        (loopback.stall(2), "no answer in time"),
        (loopback.garbage(after_events=2), "not JSON"),
    ],
    ids=["cut", "stall", "garbage"],
)
def test_a_stream_that_breaks_after_two_events_ends_with_an_error_event(step: Step, detail: str) -> None:
    with LoopbackProvider([step, loopback.ok()]) as bad, LoopbackProvider() as other:
        reply, content = ask(bad, other, body=STREAM)
        whole = direct(bad, STREAM)
        assert other.requests == [], "after the first byte nobody else is asked"
        assert bad.wait_for_connections(0)
    expected = loopback.stream_events({**STREAM, "model": "m"}, loopback.ok())[:2]
    assert content.startswith(b"".join(expected))
    assert whole.startswith(b"".join(expected))
    *relayed, last = events(content)
    assert len(relayed) == 2
    assert set(last) == {"error"}
    assert last["error"]["type"] == "upstream_error"
    assert last["error"]["code"] == "stream_cut_off"
    assert b"[DONE]" not in content
    assert told(reply.attempts) == [("a", "cut_off", 200)]
    assert reply.attempts[0].detail == detail
    assert detail in last["error"]["message"]


def test_a_stream_that_simply_ends_counts_as_cut() -> None:
    two = b"".join(loopback.stream_events({**STREAM, "model": "m"}, loopback.ok())[:2])
    with LoopbackProvider([loopback.raw(two)]) as server:
        reply, content = ask(server, body=STREAM)
    assert content.startswith(two)
    assert events(content)[-1]["error"]["code"] == "stream_cut_off"
    assert [one.outcome for one in reply.attempts] == ["cut_off"]


def test_a_stream_that_drips_for_ever_is_ended_by_the_total() -> None:
    with LoopbackProvider([Step(text="word " * 200, fault="drip", gap_s=0.0005)]) as server:
        timeouts = Timeouts(first_byte_ms=5_000, idle_ms=1_000, total_ms=1_000)
        began = time.monotonic()
        reply, content = ask(server, body=STREAM, timeouts=timeouts)
    assert time.monotonic() - began < 3.0
    assert events(content)[-1]["error"]["code"] == "stream_cut_off"
    assert [one.outcome for one in reply.attempts] == ["cut_off"]


def test_the_providers_own_error_event_is_relayed_as_it_is() -> None:
    first = loopback.stream_events({**STREAM, "model": "m"}, loopback.ok())[0]
    own = b'data: {"error":{"message":"overloaded","code":502}}\n\n'
    with LoopbackProvider([loopback.raw(first + own + first)]) as server:
        reply, content = ask(server, body=STREAM)
    assert content == first + own
    assert [one.outcome for one in reply.attempts] == ["cut_off"]


@pytest.mark.parametrize("tail", [b"d", b": comment", b"data: {", b'data: {"choices":[]}'])
def test_half_a_line_is_not_glued_to_the_error_event(tail: bytes) -> None:
    first = loopback.stream_events({**STREAM, "model": "m"}, loopback.ok())[0]
    with LoopbackProvider([loopback.raw(first + tail)]) as server:
        _, content = ask(server, body=STREAM)
    assert content.startswith(first)
    assert [set(event) for event in events(content)[1:]] == [{"error"}]


def test_a_finish_reason_is_enough_where_done_is_missing() -> None:
    sent = b"".join(loopback.stream_events({**STREAM, "model": "m"}, loopback.ok())[:-1])
    with LoopbackProvider([loopback.raw(sent)]) as server:
        reply, content = ask(server, body=STREAM)
    assert content == sent
    assert [one.outcome for one in reply.attempts] == ["ok"]


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r", b"\n"])
def test_comments_line_ends_and_a_missing_last_one_pass_to_the_byte(line_end: bytes) -> None:
    sent = b": hello\n\n" + b"".join(loopback.stream_events({**STREAM, "model": "m"}, loopback.ok()))
    sent = sent.rstrip(b"\n").replace(b"\n", line_end)
    with LoopbackProvider([loopback.raw(sent)]) as server:
        reply, content = ask(server, body=STREAM)
    assert content == sent
    assert [one.outcome for one in reply.attempts] == ["ok"]


def test_events_are_relayed_when_they_arrive() -> None:
    async def go() -> list[float]:
        async with router(server) as calls, await calls.forward(STREAM, (offer("a"),), True) as reply:
            assert reply.chunks is not None
            assert [one.outcome for one in reply.attempts] == ["streaming"]
            return [time.monotonic() async for _ in reply.chunks]

    with LoopbackProvider([loopback.ok(gap_s=0.05)]) as server:
        times = asyncio.run(go())
    assert len(times) > 4
    assert times[-1] - times[0] > 0.1, "not all at the end"


class _LeftOpen(httpx.AsyncByteStream):
    """A whole stream, end mark included, whose connection stays open."""

    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in loopback.stream_events({**STREAM, "model": "m"}, loopback.ok()):
            yield event
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True


def test_after_the_end_mark_nobody_waits_for_the_connection_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing.replies, "_AFTER_DONE_S", 0.3)
    stream = _LeftOpen()
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)

    async def go() -> float:
        one = {"a": provider("a", "https://x.test/v1")}
        async with Router(one, transport=httpx.MockTransport(lambda _: answer)) as calls:
            reply = await calls.forward(STREAM, (offer("a"),), True)
            assert reply.chunks is not None
            began = time.monotonic()
            content = b"".join([chunk async for chunk in reply.chunks])
            took_s = time.monotonic() - began
            await reply.aclose()
            assert content.endswith(b"data: [DONE]\n\n")
            assert [one.outcome for one in reply.attempts] == ["ok"]
            assert not stream.closed, "it has a moment to end by itself, and can be used again then"
            await asyncio.sleep(0.5)
            assert stream.closed, "and no longer"
            return took_s

    assert asyncio.run(go()) < 0.2


# --- hanging up ---------------------------------------------------------------------------------------------------


def closing(how: Callable[[Reply], Coroutine[Any, Any, None]], step: Step) -> Reply:
    """Open a stream that goes on, leave it in some way, and see the provider's connection closed while we live on."""

    async def go() -> Reply:
        async with router(server, timeouts=Timeouts(idle_ms=20_000, first_byte_ms=20_000)) as calls:
            reply = await calls.forward(STREAM, (offer("a"),), True)
            await how(reply)
            assert await asyncio.to_thread(server.requests[0].hung_up.wait, 2.0)
            assert await asyncio.to_thread(server.wait_for_connections, 0, 2.0)
            return reply

    with LoopbackProvider([step]) as server:
        return asyncio.run(go())


async def _before_the_first_read(reply: Reply) -> None:
    await reply.aclose()
    await reply.aclose()


async def _in_the_middle(reply: Reply) -> None:
    assert reply.chunks is not None
    async with reply:
        await anext(reply.chunks)


async def _cancelled_while_reading(reply: Reply) -> None:
    async def read() -> None:
        assert reply.chunks is not None
        async for _ in reply.chunks:
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _in_a_cancelled_scope(reply: Reply) -> None:
    """As an ASGI framework does it when the client is gone: every await in the scope is cancelled again."""
    assert reply.chunks is not None
    with anyio.move_on_after(0.05):
        async for _ in reply.chunks:
            pass


async def _from_another_task(reply: Reply) -> None:
    async def read() -> list[bytes]:
        assert reply.chunks is not None
        return [chunk async for chunk in reply.chunks]

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    await reply.aclose()
    assert not [chunk for chunk in await task if b"error" in chunk]


@pytest.mark.parametrize(
    "how",
    [
        _before_the_first_read,
        _in_the_middle,
        _cancelled_while_reading,
        _in_a_cancelled_scope,
        _from_another_task,
    ],
)
def test_a_client_that_hangs_up_closes_the_providers_connection(
    how: Callable[[Reply], Coroutine[Any, Any, None]],
) -> None:
    reply = closing(how, loopback.stall(2))
    assert [one.outcome for one in reply.attempts] == ["abandoned"]


def test_hanging_up_before_the_first_byte_closes_it_too() -> None:
    async def go() -> None:
        async with router(server, timeouts=Timeouts()) as calls:
            task = asyncio.create_task(calls.forward(STREAM, (offer("a"),), True))
            assert await asyncio.to_thread(_until, lambda: bool(server.requests))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.requests[0].hung_up.wait, 2.0)

    with LoopbackProvider([loopback.hang()]) as server:
        asyncio.run(go())


def _until(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 2.0
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def test_no_connection_is_lost_however_the_callers_end() -> None:
    """Cancelled, timed out or served at random moments: httpx's pool must come out empty-handed. It did not while a
    cancellation could reach httpcore: 2 of 1,000."""
    chance = random.Random(7)
    timeouts = Timeouts(first_byte_ms=40, answer_ms=40, idle_ms=30)
    steps = [
        loopback.ok(gap_s=chance.choice((0, 0, 0.001, 0.04)), delay_s=chance.choice((0, 0.002, 0.04)))
        for _ in range(3_000)
    ]
    ends: set[str] = set()

    async def one(calls: Router, stream: bool) -> None:
        await asyncio.sleep(chance.random())
        try:
            async with (
                asyncio.timeout(chance.random() * 0.1),
                await calls.forward({**BODY, "stream": stream}, (offer("a"),), stream) as reply,
            ):
                if reply.chunks is not None:
                    async for _ in reply.chunks:
                        pass
            ends.add(reply.attempts[-1].outcome)
        except TimeoutError:
            ends.add("gone")

    async def go() -> None:
        async with router(server, timeouts=timeouts) as calls:
            await asyncio.gather(*(one(calls, stream=bool(number % 2)) for number in range(300)))
            if calls._calls:
                await asyncio.wait([call.task for call in calls._calls], timeout=2.0)
            for client in calls._connections.idle:
                pool = client._transport._pool  # type: ignore[attr-defined]
                assert pool._requests == []
                assert all(connection.is_idle() for connection in pool.connections)
            assert calls._slots._value == routing.forwarding.MAX_CONNECTIONS

    with LoopbackProvider(steps) as server:
        asyncio.run(go())
    assert {"ok", "gone"} <= ends


def test_a_full_house_is_a_timeout_and_not_a_queue_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routing.forwarding.MAX_CONNECTIONS", 1)

    async def go() -> None:
        timeouts = Timeouts(connect_ms=50, answer_ms=5_000)
        async with router(server, timeouts=timeouts, policy=RetryPolicy(max_attempts=1)) as calls:
            first = asyncio.create_task(calls.forward(BODY, (offer("a"),), False))
            assert await asyncio.to_thread(_until, lambda: bool(server.requests))
            with pytest.raises(ProvidersFailed) as failed:
                await calls.forward(BODY, (offer("a"),), False)
            assert failed.value.attempts[0].detail == "no free connection in time"
            assert (await first).status == 200
            assert (await calls.forward(BODY, (offer("a"),), False)).status == 200

    with LoopbackProvider([loopback.ok(delay_s=0.3)]) as server:
        asyncio.run(go())


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_one_connection_serves_many_requests(body: dict[str, Any]) -> None:
    async def go() -> int:
        async with router(server) as calls:
            for _ in range(5):
                async with await calls.forward(body, (offer("a"),), bool(body.get("stream"))) as reply:
                    if reply.chunks is not None:
                        async for _ in reply.chunks:
                            pass
            return server.open_connections

    with LoopbackProvider() as server:
        assert asyncio.run(go()) == 1
        assert len(server.requests) == 5
        assert server.wait_for_connections(0), "closing the router drops them"
