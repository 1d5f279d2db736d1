"""An encoder that needs no model: vectors are a pure function of the words, and it counts what it was asked."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence

import numpy as np

from retrieval import Passage
from retrieval.encoder import Vectors

DIMENSION = 32


class WordEncoder:
    """The mean of one random direction a word, and a little of the title: texts that share words are near each other."""

    def __init__(self, identity: str = "words", delay_s: float = 0) -> None:
        self.identity = identity
        self.delay_s = delay_s
        self.asked: list[Passage] = []
        self._lock = threading.Lock()

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        time.sleep(self.delay_s)
        with self._lock:
            self.asked.extend(passages)
        return [
            np.array([self._vector(p.text[s:e], p.title) for s, e in p.spans]).reshape(-1, DIMENSION) for p in passages
        ]

    def _vector(self, text: str, title: str) -> Vectors:
        words = text.lower().split()
        total = np.sum([direction(word) for word in words] or [np.zeros(DIMENSION)], axis=0)
        total = total + (0.1 * direction(title) if title and words else 0)
        norm = np.linalg.norm(total)
        return np.asarray(total / norm if norm else total, np.float32)


def direction(word: str) -> Vectors:
    seed = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
