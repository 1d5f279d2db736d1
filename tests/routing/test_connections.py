"""Connections: one client for a call, the last used first, and none kept for long."""

from __future__ import annotations

import asyncio

import httpx

from routing.connections import IDLE_S, MAX_IDLE, Connections

HERE, THERE = httpx.URL("https://a.test/v1/x"), httpx.URL("https://b.test/v1/x")


def test_a_client_serves_one_call_at_a_time_and_the_last_used_serves_the_next() -> None:
    async def go() -> None:
        connections = Connections()
        first, second = connections.take(HERE), connections.take(HERE)
        assert first is not second
        connections.give_back(HERE, first)
        connections.give_back(HERE, second)
        assert connections.take(THERE) not in (first, second), "it is connected elsewhere"
        assert connections.take(HERE) is second
        assert connections.idle == (first,)
        await connections.aclose()
        assert first.is_closed
        assert not second.is_closed, "a call has it"

    asyncio.run(go())


def test_what_is_not_used_is_closed_and_so_is_what_is_too_much() -> None:
    now_s = 0.0

    async def go() -> None:
        nonlocal now_s
        connections = Connections(clock=lambda: now_s)
        many = [connections.take(HERE) for _ in range(MAX_IDLE + 2)]
        for client in many:
            connections.give_back(HERE, client)
        assert len(connections.idle) == MAX_IDLE
        now_s = IDLE_S + 1
        fresh = connections.take(THERE)
        connections.give_back(THERE, fresh)
        assert connections.idle == (fresh,)
        await asyncio.sleep(0)
        await connections.aclose()
        assert all(client.is_closed for client in (*many, fresh))

    asyncio.run(go())


def test_a_providers_cookies_are_not_kept() -> None:
    async def go() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, headers={"set-cookie": "session=1"}))
        client = Connections(transport).take(HERE)
        await client.get(HERE)
        assert not client.cookies

    asyncio.run(go())
