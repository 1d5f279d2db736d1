"""One request through a Router to loopback providers, as the tests of forwarding make it. Timeouts are short."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any

import httpx

from routing.attempts import Attempt, RetryPolicy
from routing.catalog import Provider
from routing.forwarding import Reply, Router, Timeouts
from routing.offers import Offer
from tests.loopback import OPENAI, LoopbackProvider

QUICK = Timeouts(connect_ms=500, first_byte_ms=300, idle_ms=300, answer_ms=400, total_ms=5_000)
NO_WAIT = RetryPolicy(base_ms=1.0, cap_ms=2.0)
AUTHORITIES = ssl.create_default_context()
KEY = "sk-loopback-0123456789"
BODY: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "Where is Paris? Ärgernis €"}]}
STREAM = {**BODY, "stream": True}


def offer(provider: str, model: str = "m", processing: str = "sync") -> Offer:
    return Offer(provider, model, processing, (), None, "test")


def provider(name: str, base_url: str, *, kind: str = "openai", api_key_env: str | None = None) -> Provider:
    return Provider(name, kind, base_url, api_key_env, ("m",))  # type: ignore[arg-type]


def router(
    *servers: LoopbackProvider, timeouts: Timeouts = QUICK, policy: RetryPolicy = NO_WAIT, **more: Any
) -> Router:
    """A router whose providers are called a, b, ... in the servers' order. Those that want a key have KEY."""
    named = {
        name: provider(
            name,
            server.base_url,
            kind=server.tongue.kind,
            api_key_env=None if server.tongue is OPENAI else "TRIMTAB_TEST_KEY",
        )
        for name, server in zip("abcdef", servers, strict=False)
    }
    more.setdefault("environ", {"TRIMTAB_TEST_KEY": KEY})
    # Reading the certificate authorities takes 25 ms, and nothing here speaks TLS.
    return Router(named, policy, timeouts, transport=httpx.AsyncHTTPTransport(verify=AUTHORITIES), **more)


def ask(
    *servers: LoopbackProvider,
    body: dict[str, Any] = BODY,
    offers: tuple[Offer, ...] | None = None,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> tuple[Reply, bytes]:
    """One request, and all of its answer."""

    async def go() -> tuple[Reply, bytes]:
        async with router(*servers, **more) as calls:
            chosen = offers or tuple(offer(name) for name, _ in zip("abcdef", servers, strict=False))
            async with await calls.forward(body, chosen, bool(body.get("stream")), headers) as reply:
                if reply.chunks is None:
                    assert reply.body is not None
                    return reply, reply.body
                return reply, b"".join([chunk async for chunk in reply.chunks])

    return asyncio.run(go())


def direct(server: LoopbackProvider, body: dict[str, Any]) -> bytes:
    """What a client gets that asks the server itself for the model that the offers name."""
    return httpx.post(f"{server.base_url}/chat/completions", json={**body, "model": "m"}, verify=AUTHORITIES).content


def events(content: bytes) -> list[Any]:
    """The data of each event; [DONE] as it is. Comments are left out."""
    found = [block.removeprefix(b"data: ") for block in content.split(b"\n\n") if block and block[:1] != b":"]
    return [json.loads(data) if data != b"[DONE]" else data for data in found]


def told(attempts: tuple[Attempt, ...]) -> list[tuple[str, str, int | None]]:
    return [(one.provider, one.outcome, one.status) for one in attempts]
