"""Stores by what is in them: on the disk of this host, and in the Redis that the settings name, for all hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retrieval.store import DiskStore, Store, Tiers
from trimtab.errors import BadSettings
from trimtab.settings import Settings

if TYPE_CHECKING:
    from trimtab.sharing.redis_server import RedisServer

_CONVERSATIONS_BYTES: Final = 256 * 2**20


class Stores:
    """One for a process. An `area` names what is stored: a folder of the cache directory, and a part of Redis's keys."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: RedisServer | None = None
        if settings.redis_url is not None:
            try:
                from trimtab.sharing.redis_server import RedisServer  # here, since most have no need of the package
            except ImportError:
                raise BadSettings("redis_url: Redis needs its driver: pip install 'trimtab[redis]'") from None
            self._server = RedisServer(settings.redis_url)

    def near(self, area: str, size_limit_bytes: int) -> Store:
        """For what never changes under its name: this host's disk, and behind it what all hosts share."""
        disk = DiskStore(self._settings.cache_dir / area, size_limit_bytes)
        return disk if self._server is None else Tiers(disk, self._redis(area))

    def one(self, area: str, size_limit_bytes: int) -> Store:
        """For what may change or go: one place, the same for all who share."""
        return (
            DiskStore(self._settings.cache_dir / area, size_limit_bytes) if self._server is None else self._redis(area)
        )

    def conversations(self) -> Store | None:
        """Where other workers find what was sent of a conversation; None where there are no others."""
        return self.one("conversations", _CONVERSATIONS_BYTES) if self._settings.shares else None

    def _redis(self, area: str) -> Store:
        from trimtab.sharing.redis_store import RedisStore

        assert self._server is not None
        return RedisStore(self._server, area)
