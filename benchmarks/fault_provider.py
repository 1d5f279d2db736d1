"""A provider that keeps a bill: a real HTTP server in a thread, which answers chat completions and does to each what its
`user` says.

"drip-7" is answered a byte a second, "half-7" in half and then never again, "hang-7" not at all, "slow-7" after a third of
a second, and every other `user` at once. Whatever is answered is billed, as providers do: a client that has gone by then
pays too. It knows no idempotency keys, as OpenAI does not.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from types import TracebackType
from typing import Final

INPUT_TOKENS: Final = 100
OUTPUT_TOKENS: Final = 100
SLOW_S: Final = 0.3
MODEL: Final = "m"
_USAGE: Final = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}


class BillingProvider:
    """The server, as a context manager. `bill` counts the answers that each `user` was billed for; `failing` has every
    request answered with 503, which is not billed."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.bill: Counter[str] = Counter()
        self.failing = False
        self.base_url = ""
        self._host = host
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="billing provider", daemon=True)
        self._begun = threading.Event()

    def __enter__(self) -> BillingProvider:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connected, self._host, 0, backlog=1_024))
        self.base_url = f"http://{self._host}:{server.sockets[0].getsockname()[1]}/v1"
        self._begun.set()
        self._loop.run_forever()
        server.close()
        for task in self._open:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._open, return_exceptions=True))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                lengths = (line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(next(lengths, b":0").split(b":")[1]))
                await self._answer(str(json.loads(body).get("user", "")), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is done, or the run is over
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        does = user.partition("-")[0]
        if does == "hang":
            await reader.read()  # until the client gives up
        if self.failing:
            error = b'{"error":{"message":"scripted","type":"server_error","param":null,"code":"overloaded"}}'
            writer.write(_framed(503, error))
            await writer.drain()
            return
        if does == "slow":
            await asyncio.sleep(SLOW_S)
        self.bill[user] += 1
        answer = _framed(200, _completion(user))
        if does == "half":
            writer.write(answer[: len(answer) // 2])
            await writer.drain()
            await reader.read()
        if does == "drip":
            for at in range(len(answer)):
                writer.write(answer[at : at + 1])
                await writer.drain()
                await asyncio.sleep(1.0)
        writer.write(answer)
        await writer.drain()


def _framed(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Fault\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _completion(user: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": f"So it is, {user}."}, "finish_reason": "stop"}
    frame = {"id": "chatcmpl-fault", "object": "chat.completion", "created": 1_790_000_000, "model": MODEL}
    return json.dumps({**frame, "choices": [choice], "usage": _USAGE}).encode()
