"""Load: one request after another on each of some connections, with as little work as a client can do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Offered:
    """What came of a load: how long it took, and of each answer its status and how long it took."""

    seconds: float
    answers: tuple[tuple[int, float], ...]

    @property
    def per_s(self) -> float:
        return len(self.answers) / self.seconds

    @property
    def failed(self) -> int:
        return sum(status >= 400 for status, _ in self.answers)

    def percentile_ms(self, share: float) -> float:
        times = sorted(ms for _, ms in self.answers)
        return times[min(len(times) - 1, int(share * len(times)))]


def wire(url: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> bytes:
    """A POST as it goes over the wire to `url` (`http://127.0.0.1:PORT/v1`)."""
    parts = urlsplit(url)
    content = json.dumps(body, separators=(",", ":")).encode()
    fields = {"host": parts.netloc, "content-type": "application/json", "content-length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in (fields | dict(headers or {})).items())
    return f"POST {parts.path}{path} HTTP/1.1\r\n{head}\r\n".encode() + content


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """The status of the answer, once all of it is there."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), None)
    if length is not None:
        await reader.readexactly(int(length.split(b":")[1]))
    else:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return int(head.split(b" ", 2)[1])


async def offer(url: str, next_request: Callable[[], bytes], connections: int, seconds: float) -> Offered:
    """As many requests as are answered within `seconds`, one at a time on each of the connections."""
    parts = urlsplit(url)
    answers: list[tuple[int, float]] = []
    began = time.perf_counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            request = next_request()
            try:
                status = await ask(reader, writer, request)
            except (asyncio.IncompleteReadError, ConnectionError):  # servers end a connection after some requests
                writer.close()
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                status = await ask(reader, writer, request)
            answers.append((status, (time.perf_counter() - sent) * 1000))
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(connections)))
    return Offered(time.perf_counter() - began, tuple(answers))
