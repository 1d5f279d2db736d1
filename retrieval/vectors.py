"""Vectors that are never computed twice: an encoder in front of another, with a store between them.

A passage's vectors are kept under the digest of all that they depend on (encoder, title, text, spans), as raw float16.
float16 costs less than .001 of cosine and halves what is stored.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import numpy as np

from retrieval.encoder import Encoder, Passage, Vectors
from retrieval.store import Store

DEFAULT_SIZE_LIMIT_BYTES = 2 * 1024**3

_APART: Final[ContextVar[str]] = ContextVar("vectors_apart", default="")


@contextmanager
def vectors_apart(owner: str) -> Iterator[None]:
    """Within this context, and in threads that run in it, vectors are kept for `owner` alone: how fast a text is encoded
    tells nobody else that it was encoded before."""
    token = _APART.set(owner)
    try:
        yield
    finally:
        _APART.reset(token)


def keep_vectors_apart(owner: str) -> None:
    """`vectors_apart`, to the end of this context: of the task that answers a request."""
    _APART.set(owner)


def owner_apart() -> str:
    """For whom alone vectors are kept in this context; "" for everybody."""
    return _APART.get()


class CachedEncoder:
    """An `Encoder` that asks `inner` only for passages it has not seen. Safe to share between threads and processes.

    `inner` is asked by one thread at a time, so that two that want the same new passage do not both encode it.
    `encoded_passages` counts what it was really asked for, of the `asked_passages` that came. A store that cannot be
    read or written costs time, never an answer: the passage is encoded again.
    """

    def __init__(self, inner: Encoder, store: Store) -> None:
        self._inner = inner
        self._store = store
        self._lock = threading.Lock()
        self._counting = threading.Lock()  # not the other, which is held while a passage is encoded
        self.asked_passages = 0
        self.encoded_passages = 0

    @property
    def identity(self) -> str:
        return self._inner.identity

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        with self._counting:
            self.asked_passages += len(passages)
        keys = [self._key(passage) for passage in passages]
        by_key = dict(zip(keys, passages, strict=True))
        found = self._read(by_key)
        if len(found) < len(by_key):
            found |= self._encoded({key: p for key, p in by_key.items() if key not in found})
        return [found[key] for key in keys]

    def counted(self, asked: int, encoded: int) -> None:
        """Count passages that another process asked for, and encoded, on behalf of this one."""
        with self._counting:
            self.asked_passages += asked
            self.encoded_passages += encoded

    def close(self) -> None:
        """Release what the store holds. It may be used again."""
        self._store.close()

    def _encoded(self, missing: Mapping[bytes, Passage]) -> dict[bytes, Vectors]:
        with self._lock:
            found = self._read(missing)  # another thread may have encoded some of them while this one waited
            still = [key for key in missing if key not in found]
            fresh = self._inner.encode([missing[key] for key in still]) if still else []
            self.encoded_passages += len(fresh)
            half = {key: vectors.astype(np.float16) for key, vectors in zip(still, fresh, strict=True)}
            if half:
                self._store.set({key: each.tobytes() for key, each in half.items()})
        # as a later read will see them: cold and warm rank alike
        return found | {key: each.astype(np.float32) for key, each in half.items()}

    def _key(self, passage: Passage) -> bytes:
        spans = np.asarray(passage.spans, np.int64).tobytes()
        owner = _APART.get()
        secret = hashlib.sha256(owner.encode()).digest() if owner else b""
        digest = hashlib.blake2b(digest_size=20, key=secret)
        for part in (self.identity.encode(), passage.title.encode("utf-8", "surrogatepass"), spans):
            digest.update(len(part).to_bytes(8, "big") + part)
        digest.update(passage.text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def _read(self, wanted: Mapping[bytes, Passage]) -> dict[bytes, Vectors]:
        found = self._store.get([key for key, passage in wanted.items() if passage.spans])
        return {
            key: np.frombuffer(raw, np.float16).reshape(len(wanted[key].spans), -1).astype(np.float32)
            for key, raw in found.items()
        }
