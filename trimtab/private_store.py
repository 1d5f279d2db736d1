"""The private store: bytes on disk for a while, each found again only by the caller for whom it was stored.

Bytes alone are stored, under digests, with a checksum; nothing is unpickled. A folder that cannot be used costs what would
have been found there, never an answer. Threads and processes may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import diskcache

from retrieval.vectors import RawDisk
from trimtab.caller import Caller

_DISK_TROUBLE: Final = (sqlite3.Error, diskcache.Timeout, OSError)


def name_of(caller: Caller, *parts: str) -> bytes:
    """What is stored under `parts` for this caller is found by."""
    digest = hashlib.sha256()
    for part in (caller.tenant, *parts):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


class PrivateStore:
    """One diskcache folder, opened at its first use. At `size_limit_bytes` the oldest entries go."""

    def __init__(self, folder: Path, size_limit_bytes: int) -> None:
        self._folder = folder
        self._size_limit_bytes = size_limit_bytes
        self._opened: diskcache.Cache | None = None

    def _cache(self) -> diskcache.Cache:
        """Raises one of _DISK_TROUBLE."""
        if self._opened is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else's to read
            self._opened = diskcache.Cache(
                str(self._folder),
                disk=RawDisk,
                size_limit=self._size_limit_bytes,
                eviction_policy="least-recently-stored",
                timeout=5,
            )
        return self._opened

    def read(self, name: bytes) -> bytes | None:
        """What was written under `name`; None where it is gone, damaged or was never there."""
        try:
            raw, checksum = self._cache().get(name, tag=True)
        except _DISK_TROUBLE:
            return None
        return raw if isinstance(raw, bytes) and checksum == zlib.crc32(raw) else None

    def write(self, entries: Mapping[bytes, bytes], lifetime_s: float) -> None:
        """All of them in one transaction."""
        with contextlib.suppress(*_DISK_TROUBLE), self._cache().transact():
            for name, raw in entries.items():
                self._cache().set(name, raw, expire=lifetime_s, tag=zlib.crc32(raw))

    def close(self) -> None:
        """Release the files."""
        if self._opened is not None:
            self._opened.close()
