"""Near: questions that were asked before, in other words. Their vectors find them, and the guards say which are the same.

The questions of a group (one caller, and all but the question the same) are a log in the store, whose entries are numbered
and written once, so that workers and hosts which share a store add to one log and each reads what the others wrote. A log
lasts two lifetimes of an answer, and then a new one has long begun.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import numpy as np

from retrieval import Encoder, Passage
from retrieval.encoder import Vectors
from retrieval.index import VectorIndex
from retrieval.store import Store
from trimtab.answers.guards import difference

MIN_COSINE: Final = 0.7
"""Below it two questions are not compared. The guards decide: no cosine tells a question from its opposite."""
CANDIDATES: Final = 16
MAX_QUESTIONS: Final = 20_000
"""Held in memory, about 40 MB; of more, the groups that were asked longest ago are read anew when they are asked again."""
MAX_IN_LOG: Final = 5_000
"""Of one group in one lifetime; questions after that are not noted."""

_AT_ONCE: Final = 64
_NAME_BYTES: Final = 32


class Near:
    """Blocking; safe to share between threads."""

    def __init__(
        self, store: Store, encoder: Encoder, lifetime_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._lock = threading.Lock()
        self._logs: OrderedDict[bytes, _Log] = OrderedDict()

    def alike(self, group: bytes, question: str) -> list[bytes]:
        """The names of answers to the same question in other words, the nearest first."""
        vector = self._vectors([question])
        epoch, found = self._epoch(), []
        with self._lock:
            for log in (self._read(group, epoch), self._read(group, epoch - 1)):
                found += log.nearest(vector)
        return [name for _, name, asked in sorted(found, reverse=True) if difference(question, asked) is None]

    def note(self, group: bytes, question: str, name: bytes) -> None:
        """An answer to `question` lies under `name`."""
        epoch = self._epoch()
        record = name + question.encode("utf-8", "backslashreplace")
        with self._lock:
            while (log := self._read(group, epoch)).size < MAX_IN_LOG:
                if self._store.add(_place(group, epoch, log.size), record, 2 * self._lifetime_s):
                    break  # else another worker was faster, and is read first

    def _epoch(self) -> int:
        return int(self._clock() / self._lifetime_s)

    def _read(self, group: bytes, epoch: int) -> _Log:
        """The log with what others wrote meanwhile."""
        key = _place(group, epoch, -1)
        log = self._logs.setdefault(key, _Log())
        self._logs.move_to_end(key)
        more, batch = True, 1  # there is seldom anything new
        while more and log.size < MAX_IN_LOG:
            places = [_place(group, epoch, log.size + n) for n in range(batch)]
            batch = _AT_ONCE
            there = self._store.get(places)
            records = []
            for place in places:
                if place not in there:
                    break
                records.append(there[place])
            more = len(records) == len(places)
            if records:
                asked = [record[_NAME_BYTES:].decode("utf-8", "replace") for record in records]
                log.add([record[:_NAME_BYTES] for record in records], asked, self._vectors(asked))
        while len(self._logs) > 1 and sum(each.size for each in self._logs.values()) > MAX_QUESTIONS:
            self._logs.popitem(last=False)
        return log

    def _vectors(self, questions: list[str]) -> Vectors:
        passages = [Passage(each, ((0, len(each)),)) for each in questions]
        return np.concatenate(self._encoder.encode(passages))


class _Log:
    """What is known of one log: names and questions by number, and the index of their vectors."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._asked: list[str] = []
        self._index: VectorIndex | None = None

    @property
    def size(self) -> int:
        return len(self._names)

    def add(self, names: list[bytes], asked: list[str], vectors: Vectors) -> None:
        self._names += names
        self._asked += asked
        if self._index is None:
            self._index = VectorIndex(vectors)
        else:
            self._index.add(vectors)

    def nearest(self, vector: Vectors) -> list[tuple[float, bytes, str]]:
        if self._index is None:
            return []
        scores, rows = self._index.search(vector, min(CANDIDATES, self.size))
        pairs = zip(scores[0].tolist(), rows[0].tolist(), strict=True)
        return [(score, self._names[row], self._asked[row]) for score, row in pairs if row >= 0 and score >= MIN_COSINE]


def _place(group: bytes, epoch: int, number: int) -> bytes:
    return hashlib.sha256(group + f"/{epoch}/{number}".encode()).digest()
