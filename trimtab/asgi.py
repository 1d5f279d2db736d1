"""The ASGI middleware: for those who run a gateway of their own, before whatever forwards its requests.

    app = TrimtabMiddleware(app)

Thin: it reads the body, and the trimming is done elsewhere, in a thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import anyio.to_thread
import orjson

from trimtab.errors import problem_of
from trimtab.pipeline import Trimtab
from trimtab.trimming import TrimmedContent, default_trimtab, is_chat, trim_content

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RECEIPT: Final = "trimtab"
"""The key of the scope under which the app finds the receipt."""


class TrimtabMiddleware:
    """Trims the bodies of requests to `.../chat/completions` and `.../messages`; all else, and every answer, passes as it is.

    `app` finds the receipt, as far as it is known before the answer, as `scope["trimtab"]` (a `Receipt`). A `trimtab`
    object in a body holds options and is taken out; where it asks for what cannot be had, the caller is told so in
    OpenAI's shape. Where trimming fails otherwise, the original body goes on and the receipt says so. A body beyond the
    settings' `max_body_bytes` goes on as it came.
    """

    def __init__(self, app: App, trimtab: Trimtab | None = None) -> None:
        self._app = app
        self._trimtab = trimtab

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        kind = headers.get(b"content-type", b"").decode("latin-1")
        packed = headers.get(b"content-encoding", b"identity") != b"identity"
        if scope["type"] != "http" or packed or not is_chat(scope["method"], scope["path"], kind):
            return await self._app(scope, receive, send)
        trimtab = self._trimtab or default_trimtab()
        read, content = await _whole(receive, trimtab.settings.max_body_bytes)
        if content is None:
            return await self._app(scope, _replayed(read, receive), send)
        try:
            trimmed = await anyio.to_thread.run_sync(lambda: trim_content(trimtab, scope["path"], content))
        except Exception as error:
            if (problem := problem_of(error)) is None:
                raise
            return await _answer(send, problem.status, orjson.dumps(problem.body))
        if trimmed is None:
            return await self._app(scope, _replayed(read, receive), send)
        body: Message = {"type": "http.request", "body": trimmed.content, "more_body": False}
        return await self._app(_rescoped(scope, trimmed), _replayed([body], receive), send)


async def _whole(receive: Receive, limit_bytes: int) -> tuple[list[Message], bytes | None]:
    """The messages that were read, and their body; None where there is more of it, or the client has gone."""
    read: list[Message] = []
    content = bytearray()
    while True:
        message = await receive()
        read.append(message)
        if message["type"] != "http.request":
            return read, None
        content += message.get("body", b"")
        if len(content) > limit_bytes:
            return read, None
        if not message.get("more_body", False):
            return read, bytes(content)


def _replayed(read: list[Message], receive: Receive) -> Receive:
    """What was read already, then what is still to come."""
    left = iter(read)

    async def next_message() -> Message:
        message = next(left, None)
        return await receive() if message is None else message

    return next_message


def _rescoped(scope: Scope, trimmed: TrimmedContent) -> Scope:
    headers = [
        (name, value) for name, value in scope["headers"] if name not in (b"content-length", b"transfer-encoding")
    ]
    length = (b"content-length", str(len(trimmed.content)).encode())
    return {**scope, "headers": [*headers, length], RECEIPT: trimmed.request.receipt}


async def _answer(send: Send, status: int, content: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
