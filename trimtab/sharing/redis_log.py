"""The log over Redis: a stream, read as it grows."""

from __future__ import annotations

from typing import Any, Final

import redis

from trimtab.sharing.log import AT_ONCE, KEPT_S, Read, Unreachable
from trimtab.sharing.redis_server import RedisServer

MOST_KEPT: Final = 20_000
"""Messages: some minutes of a busy installation, and of an idle one all of KEPT_S."""


class RedisLog:
    """A stream of Redis. `server` waits longer than any `read` does."""

    def __init__(self, server: RedisServer, name: str = "trimtab:events") -> None:
        self._server = server
        self._name = name
        self._unsure = True  # whether this is still the stream that a position is of

    def append(self, message: bytes) -> None:
        self._server.ask(lambda client: self._append(client, message))

    def read(self, position: str, wait_s: float) -> Read:
        try:
            if self._unsure and position:
                position = self._server.ask(lambda client: self._within(client, position))
            self._unsure = False
            block_ms = max(1, round(wait_s * 1000)) if wait_s > 0 else None
            after: dict[Any, Any] = {self._name: position or "0-0"}
            found: Any = self._server.ask(lambda client: client.xread(after, count=AT_ONCE, block=block_ms))
        except Unreachable:
            self._unsure = True
            raise
        entries: list[tuple[bytes, dict[bytes, bytes]]] = found[0][1] if found else []
        return Read([fields[b"m"] for _, fields in entries], entries[-1][0].decode() if entries else position)

    def close(self) -> None:
        self._server.close()

    def _append(self, client: redis.Redis, message: bytes) -> None:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.xadd(self._name, {"m": message}, maxlen=MOST_KEPT, approximate=True)
            pipeline.expire(self._name, round(KEPT_S))  # of the whole: an idle installation leaves nothing behind
            pipeline.execute()

    def _within(self, client: redis.Redis, position: str) -> str:
        """`position`, or the beginning where the stream is another one: a server that kept nothing over a restart, with a
        clock that went back, would number what is new below what was read."""
        try:
            last = client.xinfo_stream(self._name)["last-generated-id"].decode()
        except redis.ResponseError:  # there is none
            return ""
        return "" if _number(last) < _number(position) else position


def _number(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split("-"))
