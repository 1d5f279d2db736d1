"""Vectors that are never computed twice: an encoder in front of another, with a disk between them.

A passage's vectors are kept under the digest of all that they depend on (encoder, title, text, spans), as raw float16,
in one diskcache folder that threads and processes share. float16 costs less than .001 of cosine and halves the disk.
A checksum stands beside each entry, so that a damaged one is a miss and never a wrong vector.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diskcache
import numpy as np

from retrieval.encoder import Encoder, Passage, Vectors

DEFAULT_SIZE_LIMIT_BYTES = 2 * 1024**3

_DISK_TROUBLE = (sqlite3.Error, diskcache.Timeout, OSError)


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


class CachedEncoder:
    """An `Encoder` that asks `inner` only for passages it has not seen. Safe to share between threads and processes.

    `inner` is asked by one thread at a time, so that two that want the same new passage do not both encode it.
    `encoded_passages` counts what it was really asked for. A cache that cannot be opened, read or written costs time,
    never an answer: the passage is encoded again. Oldest entries go first when `size_limit_bytes` is reached.
    """

    def __init__(self, inner: Encoder, folder: Path, size_limit_bytes: int = DEFAULT_SIZE_LIMIT_BYTES) -> None:
        self._inner = inner
        self._cache = _opened(folder, size_limit_bytes)
        self._lock = threading.Lock()
        self.encoded_passages = 0

    @property
    def identity(self) -> str:
        return self._inner.identity

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        keys = [self._key(passage) for passage in passages]
        by_key = dict(zip(keys, passages, strict=True))
        found = {key: v for key, p in by_key.items() if (v := self._read(key, len(p.spans))) is not None}
        if len(found) < len(by_key):
            found |= self._encoded({key: p for key, p in by_key.items() if key not in found})
        return [found[key] for key in keys]

    def close(self) -> None:
        """Release the files. The cache may be used again; it reopens itself."""
        if self._cache is not None:
            self._cache.close()

    def _encoded(self, missing: dict[bytes, Passage]) -> dict[bytes, Vectors]:
        with self._lock:
            # another thread may have encoded some of them while this one waited
            found = {key: v for key, p in missing.items() if (v := self._read(key, len(p.spans))) is not None}
            still = [key for key in missing if key not in found]
            fresh = self._inner.encode([missing[key] for key in still]) if still else []
            self.encoded_passages += len(fresh)
            for key, vectors in zip(still, fresh, strict=True):
                half = vectors.astype(np.float16)
                self._write(key, half.tobytes())
                found[key] = half.astype(np.float32)  # as a later read will see it: cold and warm rank alike
        return found

    def _key(self, passage: Passage) -> bytes:
        spans = np.asarray(passage.spans, np.int64).tobytes()
        digest = hashlib.blake2b(digest_size=20)
        for part in (self.identity.encode(), passage.title.encode("utf-8", "surrogatepass"), spans):
            digest.update(len(part).to_bytes(8, "big") + part)
        digest.update(passage.text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def _read(self, key: bytes, rows: int) -> Vectors | None:
        if self._cache is None or rows == 0:
            return None
        try:
            raw, checksum = self._cache.get(key, tag=True)
        except _DISK_TROUBLE:
            return None
        if not isinstance(raw, bytes) or checksum != zlib.crc32(raw):
            return None
        return np.frombuffer(raw, np.float16).reshape(rows, -1).astype(np.float32)

    def _write(self, key: bytes, raw: bytes) -> None:
        if self._cache is not None:
            with contextlib.suppress(*_DISK_TROUBLE):
                self._cache.set(key, raw, tag=zlib.crc32(raw))


def _opened(folder: Path, size_limit_bytes: int) -> diskcache.Cache | None:
    """The cache in `folder`, or None where there cannot be one: a read-only disk, another program's file."""
    with contextlib.suppress(*_DISK_TROUBLE):
        # least-recently-stored, not -used: the latter writes to the database on every read
        return diskcache.Cache(
            str(folder), disk=RawDisk, size_limit=size_limit_bytes, eviction_policy="least-recently-stored", timeout=5
        )
    return None
