"""A store over Redis: what one host has, all hosts have."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

import redis

from trimtab.sharing.log import Unreachable
from trimtab.sharing.redis_server import RedisServer

LIFETIME_S: Final = 7 * 86_400.0
"""Of what is stored without one: nothing stays for ever, so that the server's memory is bounded by its use."""

_AT_ONCE: Final = 256
"""Names in a command: one that is long keeps every other client waiting."""
_CHECKSUM_BYTES: Final = 4


class RedisStore:
    """A `retrieval.store.Store`. `area` names what is stored, and is part of every key: "trimtab:vectors:3f..."."""

    def __init__(self, server: RedisServer, area: str) -> None:
        self._server = server
        self._prefix = f"trimtab:{area}:"

    def get(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        left = iter(names)
        with contextlib.suppress(Unreachable):
            while some := list(islice(left, _AT_ONCE)):
                keys = [self._key(name) for name in some]
                sealed = self._server.ask(lambda client, keys=keys: client.mget(keys))  # type: ignore[misc]
                for name, each in zip(some, sealed, strict=True):
                    if (value := _opened(each)) is not None:
                        found[name] = value
        return found

    def set(self, entries: Mapping[bytes, bytes], lifetime_s: float | None = None) -> None:
        lifetime_ms = _ms(LIFETIME_S if lifetime_s is None else lifetime_s)
        left = iter(entries.items())
        with contextlib.suppress(Unreachable):
            while some := list(islice(left, _AT_ONCE)):
                pipeline = [(self._key(name), _sealed(value)) for name, value in some]
                self._server.ask(lambda client, pairs=pipeline: _set(client, pairs, lifetime_ms))  # type: ignore[misc]

    def add(self, name: bytes, value: bytes, lifetime_s: float) -> bool:
        with contextlib.suppress(Unreachable):
            added = self._server.ask(
                lambda client: client.set(self._key(name), _sealed(value), px=_ms(lifetime_s), nx=True)
            )
            return bool(added)
        return True

    def delete(self, names: Iterable[bytes]) -> None:
        if keys := [self._key(name) for name in names]:
            with contextlib.suppress(Unreachable):
                self._server.ask(lambda client: client.unlink(*keys))

    def close(self) -> None:
        self._server.close()

    def _key(self, name: bytes) -> str:
        return self._prefix + name.hex()


def _set(client: redis.Redis, pairs: list[tuple[str, bytes]], lifetime_ms: int) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for key, value in pairs:
            pipeline.set(key, value, px=lifetime_ms)
        pipeline.execute()


def _ms(lifetime_s: float) -> int:
    return max(1, round(lifetime_s * 1000))


def _sealed(value: bytes) -> bytes:
    return zlib.crc32(value).to_bytes(_CHECKSUM_BYTES, "big") + value


def _opened(sealed: object) -> bytes | None:
    if not isinstance(sealed, bytes):
        return None
    value = sealed[_CHECKSUM_BYTES:]
    return value if sealed[:_CHECKSUM_BYTES] == zlib.crc32(value).to_bytes(_CHECKSUM_BYTES, "big") else None
