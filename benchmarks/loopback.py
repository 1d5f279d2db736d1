"""A provider on loopback that answers every chat completion with the same bytes, in a process of its own.

`python -m benchmarks.loopback` prints its URL and serves until it is stopped. As little work as a server can do, so that
what is measured is the gateway in front of it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TEXT = "The limit is 5 GB."

_ANSWER = json.dumps(
    {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "loopback-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 8, "total_tokens": 38},
    }
).encode()
_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_ANSWER),
    _ANSWER,
)

_EVENTS = (
    b'data: {"id":"chatcmpl-loopback","object":"chat.completion.chunk","created":1790000000,"model":"loopback-model",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"%s"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    % TEXT.encode()
)
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_EVENTS),
    _EVENTS,
)
REFUSE = b"refuse this one"
"""What a body says that is to be answered with an error."""
_ERROR = b'{"error":{"message":"refused","type":"invalid_request_error","param":null,"code":"refused"}}'
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_ERROR),
    _ERROR,
)


@contextmanager
def loopback_provider() -> Iterator[str]:
    """The base URL (`http://127.0.0.1:PORT/v1`) of a provider in a child process."""
    child = subprocess.Popen([sys.executable, "-m", "benchmarks.loopback"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield child.stdout.readline().strip()
    finally:
        child.terminate()
        child.wait(10)
        if child.stdout is not None:
            child.stdout.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            fields = head.lower().split(b"\r\n")
            length = next((int(f.split(b":")[1]) for f in fields if f.startswith(b"content-length:")), 0)
            body = await reader.readexactly(length)
            writer.write(_REFUSAL if REFUSE in body else _STREAM if b'"stream":true' in body else _RESPONSE)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client is done
    finally:
        writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
