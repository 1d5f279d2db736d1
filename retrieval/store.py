"""Stores: bytes by name, for a while. Trouble with a store costs a miss and never an answer.

A name is a digest of all that the value depends on, and of whoever may find it. Every value stands beside a checksum, so
that a damaged one is a miss and never a wrong value; nothing is unpickled. `DiskStore` is for the processes of one host;
whoever has a server that several hosts share writes another `Store` over it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import diskcache

_TROUBLE: Final = (sqlite3.Error, diskcache.Timeout, OSError)


class Store(Protocol):
    """Safe to share between threads. Blocking: call it in a thread beside an event loop. Nothing here raises."""

    def get(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        """What is there under these names: those that are gone, damaged or were never there are left out."""
        ...

    def set(self, entries: Mapping[bytes, bytes], lifetime_s: float | None = None) -> None:
        """Keep all of them for `lifetime_s`, or until there is no room; in place of what was there."""
        ...

    def add(self, name: bytes, value: bytes, lifetime_s: float) -> bool:
        """Keep it where nothing is under that name, in one step: of several who try, one succeeds. Whether it did; True,
        too, where the store cannot be asked: nobody waits for what is out of order."""
        ...

    def delete(self, names: Iterable[bytes]) -> None:
        """Have nothing under these names any more."""
        ...

    def close(self) -> None:
        """Release files and connections. A store may be used again; it reopens itself."""
        ...


class RawDisk(diskcache.Disk):
    """Bytes in, bytes out, and nothing else. diskcache would unpickle a row that says it is a pickle, so that whoever can
    write to the folder could run code here; this reads such a row as absent."""

    def store(self, value: Any, read: bool, key: Any = diskcache.core.UNKNOWN) -> Any:
        if not isinstance(value, bytes):
            raise TypeError(f"only bytes are stored, not {type(value).__name__}")
        return super().store(value, read, key=key)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode not in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY):
            raise OSError("not raw bytes")  # what diskcache itself raises for a value that is gone: a miss
        return super().fetch(mode, filename, value, read)


class DiskStore:
    """A `Store` in a folder, opened at its first use; the processes of a host may share it. At `size_limit_bytes` what was
    stored first goes first. A folder that cannot be used (read-only, another program's) costs what would have been found."""

    def __init__(self, folder: Path, size_limit_bytes: int) -> None:
        self._folder = folder
        self._size_limit_bytes = size_limit_bytes
        self._opening = threading.Lock()
        self._opened: diskcache.Cache | None = None

    def get(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        found = {}
        for name in names:
            with contextlib.suppress(*_TROUBLE):
                raw, checksum = self._cache().get(name, tag=True)
                if isinstance(raw, bytes) and checksum == zlib.crc32(raw):
                    found[name] = raw
        return found

    def set(self, entries: Mapping[bytes, bytes], lifetime_s: float | None = None) -> None:
        # in one transaction: a commit costs more than what it commits
        with contextlib.suppress(*_TROUBLE), self._cache().transact():
            for name, value in entries.items():
                self._cache().set(name, value, expire=lifetime_s, tag=zlib.crc32(value))

    def add(self, name: bytes, value: bytes, lifetime_s: float) -> bool:
        with contextlib.suppress(*_TROUBLE):
            return bool(self._cache().add(name, value, expire=lifetime_s, tag=zlib.crc32(value)))
        return True

    def delete(self, names: Iterable[bytes]) -> None:
        with contextlib.suppress(*_TROUBLE), self._cache().transact():
            for name in names:
                self._cache().delete(name)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _cache(self) -> diskcache.Cache:
        """Raises one of _TROUBLE."""
        with self._opening:
            if self._opened is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else's to read
                # least-recently-stored, not -used: the latter writes to the database on every read
                self._opened = diskcache.Cache(
                    str(self._folder),
                    disk=RawDisk,
                    size_limit=self._size_limit_bytes,
                    eviction_policy="least-recently-stored",
                    timeout=5,
                )
            return self._opened


class Tiers:
    """A `Store` of two: what is found in `far` alone is kept in `near`, for `near_s` at most. Whether something may be
    added is for `far` to say. What was changed or deleted elsewhere is still found in `near` until then."""

    def __init__(self, near: Store, far: Store, near_s: float | None = None) -> None:
        self._near = near
        self._far = far
        self._near_s = near_s

    def get(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        wanted = tuple(names)
        found = self._near.get(wanted)
        missing = [name for name in wanted if name not in found]
        if missing and (fetched := self._far.get(missing)):
            self._near.set(fetched, self._near_s)
            found |= fetched
        return found

    def set(self, entries: Mapping[bytes, bytes], lifetime_s: float | None = None) -> None:
        self._near.set(entries, lifetime_s)
        self._far.set(entries, lifetime_s)

    def add(self, name: bytes, value: bytes, lifetime_s: float) -> bool:
        return self._far.add(name, value, lifetime_s)

    def delete(self, names: Iterable[bytes]) -> None:
        wanted = tuple(names)
        self._near.delete(wanted)
        self._far.delete(wanted)

    def close(self) -> None:
        self._near.close()
        self._far.close()
