"""Clients that behave badly, on bare sockets: those that fall silent, and those that hang up."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks.fault_provider import MODEL
from benchmarks.load import children

_AT_ONCE: Final = 250


def wire(key: str, user: str) -> bytes:
    """A request as it goes over the wire."""
    body = json.dumps({"model": MODEL, "user": user, "messages": [{"role": "user", "content": f"Is it so, {user}?"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: trimtab\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


@contextmanager
def half_open(url: str, key: str, count: int) -> Iterator[None]:
    """Within it, so many connections are open on which a part of a request was sent: none of it, half of its headers, or
    half of its body."""
    address = urlsplit(url)
    whole = wire(key, "half-client")
    with ExitStack() as stack:
        for number in range(count):
            opened = stack.enter_context(socket.create_connection((address.hostname or "", address.port or 0), 10))
            opened.sendall(whole[: (0, 60, len(whole) - 20)[number % 3]])
        yield


def hang_up(url: str, key: str, name: str, count: int, draw: random.Random) -> None:
    """So many clients, each of which sends its request and goes within half a second."""
    moments = [draw.uniform(0.0, 0.5) for _ in range(count)]
    asyncio.run(_hang_up(url, key, name, moments))


async def _hang_up(url: str, key: str, name: str, moments: list[float]) -> None:
    address = urlsplit(url)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, stays_s: float) -> None:
        async with turns:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(address.hostname, address.port)
                writer.write(wire(key, f"{name}-{number}"))
                await asyncio.sleep(stays_s)
                writer.transport.abort()

    await asyncio.gather(*(one(number, stays_s) for number, stays_s in enumerate(moments)))


def open_files(pid: int) -> int:
    """Of a process and its children. Linux only."""
    return sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in (pid, *children(pid)))
