"""A provider on loopback that fails when it is told to: an HTTP server in the caller's event loop.

It answers chat completions, whole or streaming, with the same short text and the same bill. What it does to a request is
asked of `fault()` when the request has been read, so a script can be by time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

Fault = Literal["up", "slow", "errors", "resets", "hangs", "429, says when", "429, silent"]
SERVES: tuple[Fault, ...] = ("up", "slow")

SLOW_S = 0.12
RETRY_AFTER_MS = 300
INPUT_TOKENS = 2_000
OUTPUT_TOKENS = 300

_USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}
_FRAME = {"id": "chatcmpl-chaos", "created": 1_790_000_000, "model": "m"}


class FaultyProvider:
    """The server, as an asynchronous context manager. `received` are the times, by the loop's clock, of its requests."""

    def __init__(self, fault: Callable[[], Fault]) -> None:
        self._fault = fault
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.received: list[float] = []
        self.base_url = ""

    async def __aenter__(self) -> FaultyProvider:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while await self._answer(await _request(reader), reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is done, or the run is over
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        fault = self._fault()
        self.received.append(asyncio.get_running_loop().time())
        if fault == "resets":
            writer.transport.abort()
            return False
        if fault == "hangs":
            await reader.read()  # until the client gives up
            return False
        if fault == "errors":
            _send(writer, 503, _error("overloaded"))
        elif fault in ("429, says when", "429, silent"):
            says = f"retry-after-ms: {RETRY_AFTER_MS}\r\n" if fault == "429, says when" else ""
            _send(writer, 429, _error("rate_limit_exceeded"), says)
        else:
            if fault == "slow":
                await asyncio.sleep(SLOW_S)
            _send(writer, 200, *(_stream() if asked.get("stream") else (_whole(), "")))
        await writer.drain()
        return True


async def _request(reader: asyncio.StreamReader) -> Any:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    return json.loads(await reader.readexactly(length))


def _send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: str = "") -> None:
    kind = "" if "content-type" in headers else "content-type: application/json\r\n"
    writer.write(f"HTTP/1.1 {status} Chaos\r\n{kind}{headers}content-length: {len(body)}\r\n\r\n".encode() + body)


def _error(code: str) -> bytes:
    return json.dumps({"error": {"message": "scripted", "type": "server_error", "param": None, "code": code}}).encode()


def _whole() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "All is well."}, "finish_reason": "stop"}
    return json.dumps({**_FRAME, "object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()


def _stream() -> tuple[bytes, str]:
    frame = {**_FRAME, "object": "chat.completion.chunk"}
    delta = {"index": 0, "delta": {"role": "assistant", "content": "All is well."}, "finish_reason": "stop"}
    chunks = [{**frame, "choices": [delta]}, {**frame, "choices": [], "usage": _USAGE}]
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return b"".join([*events, b"data: [DONE]\n\n"]), "content-type: text/event-stream\r\n"
