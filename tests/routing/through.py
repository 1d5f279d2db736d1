"""The official OpenAI client in front of a Router, in one process: what its user sees of a provider of any wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx2
import openai

from routing.forwarding import Reply, Router, Timeouts
from tests.loopback import LoopbackProvider
from tests.routing.asking import offer, router


class _Chunks(httpx2.AsyncByteStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._reply.chunks is not None
        async for chunk in self._reply.chunks:
            yield chunk

    async def aclose(self) -> None:
        await self._reply.aclose()


class RouterTransport(httpx2.AsyncBaseTransport):
    """Answers a client's requests by the Router. `replies` holds what it gave."""

    def __init__(self, calls: Router, model: str) -> None:
        self._calls = calls
        self._model = model
        self.replies: list[Reply] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(await request.aread())
        reply = await self._calls.forward(
            body, (offer("a", self._model),), bool(body.get("stream")), dict(request.headers)
        )
        self.replies.append(reply)
        if reply.body is not None:
            return httpx2.Response(reply.status, headers=dict(reply.headers), content=reply.body)
        return httpx2.Response(reply.status, headers=dict(reply.headers), stream=_Chunks(reply))


def through(
    server: LoopbackProvider, model: str, ask: Callable[[openai.AsyncOpenAI], Coroutine[Any, Any, Any]]
) -> tuple[Any, Reply]:
    """What `ask` gives with a client whose provider is `server`, and the Router's last reply."""

    async def go() -> tuple[Any, Reply]:
        # Patient: the first use of the client takes its time, and the faults here are immediate.
        async with router(server, timeouts=Timeouts()) as calls:
            transport = RouterTransport(calls, model)
            http = httpx2.AsyncClient(transport=transport)
            async with openai.AsyncOpenAI(
                api_key="any", base_url="http://trimtab.test/v1", http_client=http, max_retries=0
            ) as client:
                return await ask(client), transport.replies[-1]

    return asyncio.run(go())
