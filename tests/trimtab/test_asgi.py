"""The ASGI middleware before a gateway that echoes: its app gets less context, and everything else as it came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.trimtab.payloads import EVIDENCE, asking, stuffed
from trimtab import Trimtab, TrimtabMiddleware


async def echo(request: Request) -> Response:
    content = await request.body()
    receipt = request.scope.get("trimtab")
    headers = {
        "x-length": request.headers.get("content-length", ""),
        "x-receipt": "" if receipt is None else receipt.id,
    }
    if receipt is not None:
        headers |= {"x-before": str(receipt.tokens_before), "x-after": str(receipt.tokens_after)}
    return Response(content, headers=headers)


PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/embeddings")
GATEWAY = Starlette(routes=[Route(path, echo, methods=["POST"]) for path in PATHS])


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab()


def posted(trimtab: Trimtab, path: str = PATHS[0], **content: Any) -> httpx.Response:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(TrimtabMiddleware(GATEWAY, trimtab))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post(path, **content)

    return asyncio.run(post())


@pytest.mark.parametrize("path", PATHS[:2])
def test_the_app_gets_less_context(trimtab: Trimtab, path: str) -> None:
    answer = posted(trimtab, path, json=asking(max_tokens=9, trimtab={"ratio": 0.3}))
    sent = answer.json()
    assert sent.keys() == {"model", "messages", "max_tokens"}
    assert EVIDENCE in sent["messages"][0]["content"]
    assert len(sent["messages"][0]["content"]) < 0.5 * len(stuffed())
    assert answer.headers["x-length"] == str(len(answer.content))
    assert int(answer.headers["x-after"]) <= 0.3 * int(answer.headers["x-before"])


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("/v1/embeddings", json.dumps(asking()).encode(), "application/json"),
        ("/v1/chat/completions", json.dumps(asking()).encode(), "text/plain"),
        ("/v1/chat/completions", b"{no json", "application/json"),
        ("/v1/chat/completions", b"[1, 2]", "application/json"),
        ("/v1/chat/completions", b"", "application/json"),
    ],
)
def test_all_else_passes_as_it_is(trimtab: Trimtab, path: str, content: bytes, kind: str) -> None:
    answer = posted(trimtab, path, content=content, headers={"content-type": kind})
    assert answer.content == content
    assert answer.headers["x-receipt"] == ""


def test_a_request_without_context_keeps_its_bytes(trimtab: Trimtab) -> None:
    content = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}, indent=3).encode()
    answer = posted(trimtab, content=content, headers={"content-type": "application/json"})
    assert answer.content == content
    assert answer.headers["x-receipt"]


def test_a_body_in_parts(trimtab: Trimtab) -> None:
    async def parts() -> AsyncIterator[bytes]:
        content = json.dumps(asking()).encode()
        for at in range(0, len(content), 1000):
            yield content[at : at + 1000]

    answer = posted(trimtab, content=parts(), headers={"content-type": "application/json"})
    assert len(answer.json()["messages"][0]["content"]) < len(stuffed())


def test_a_body_beyond_the_limit_goes_on_whole() -> None:
    content = json.dumps(asking()).encode()
    answer = posted(Trimtab(max_body_bytes=5000), content=content, headers={"content-type": "application/json"})
    assert answer.content == content
    assert answer.headers["x-receipt"] == ""


def test_a_packed_body_goes_on_as_it_is(trimtab: Trimtab) -> None:
    headers = {"content-type": "application/json", "content-encoding": "br"}
    assert posted(trimtab, content=b"packed", headers=headers).content == b"packed"


def test_a_mistake_in_the_options_is_told(trimtab: Trimtab) -> None:
    answer = posted(trimtab, json=asking(trimtab={"ratio": 2}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "trimtab.ratio"


def test_a_defect_costs_no_answer(trimtab: Trimtab, monkeypatch: Any) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(trimtab, "ranks", SimpleNamespace(rank=broken))
    answer = posted(trimtab, json=asking())
    assert answer.json() == asking()


def test_other_protocols_and_a_client_that_leaves_reach_the_app() -> None:
    """Lifespan events have no headers; a client may hang up within its body."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["type"], [await receive() for _ in range(2)]))

    async def run() -> None:
        middleware = TrimtabMiddleware(app, Trimtab())
        started = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        left = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

        async def startup() -> Any:
            return next(started)

        async def leaving() -> Any:
            return next(left)

        async def send(_: Any) -> None:
            raise AssertionError

        await middleware({"type": "lifespan"}, startup, send)
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        await middleware(scope, leaving, send)

    asyncio.run(run())
    assert [kind for kind, _ in seen] == ["lifespan", "http"]
    assert [message["type"] for message in seen[1][1]] == ["http.request", "http.disconnect"]


def test_it_is_a_middleware_to_starlette(trimtab: Trimtab) -> None:
    app = Starlette(routes=[Route("/v1/chat/completions", lambda request: JSONResponse({}), methods=["POST"])])
    app.add_middleware(TrimtabMiddleware, trimtab=trimtab)

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post("/v1/chat/completions", json=asking())

    assert asyncio.run(post()).json() == {}
