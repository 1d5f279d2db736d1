"""A persistent collection: register texts once, then search them with a question.

SQLite holds the truth (ids, texts, vectors); the FAISS index in memory is made from it and follows what other processes
write. An accepted `add` is on disk when it returns.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.encoder import Encoder, Passage, Vectors
from retrieval.index import VectorIndex

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS texts (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered text. `id` is the caller's; adding it again replaces the text."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A registered text with its inner product to the query."""

    entry: Entry
    score: float


class EncoderMismatch(ValueError):
    """The collection was built with another encoder: its vectors and the query's would not be comparable."""


_WAL_TRIES = 200
_WAL_PAUSE_S = 0.05


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. Where another process is doing the same at this moment, SQLite refuses at once,
    whatever the timeout says, so it is asked again, for ten seconds. Raises sqlite3.OperationalError after that."""
    for tries_left in reversed(range(_WAL_TRIES)):
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or not tries_left:
                raise
            time.sleep(_WAL_PAUSE_S)


class Collection:
    """Texts under `file`, searchable by meaning. Threads may share it; processes may open the same file.

    >>> collection.add([Entry("limits-3", "Uploads may be 5 GB.", "Limits")])      # doctest: +SKIP
    >>> collection.search("how large may a file be?", k=1)[0].entry.id             # doctest: +SKIP
    'limits-3'
    """

    def __init__(self, file: Path, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)
        _write_ahead(self._db)
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('encoder', ?)", (encoder.identity,))
        (built_with,) = self._db.execute("SELECT value FROM meta WHERE name = 'encoder'").fetchone()
        if built_with != encoder.identity:
            self._db.close()
            raise EncoderMismatch(
                f"{file} was built with {built_with!r}; open it with that encoder or use another file"
            )
        self._seen_version = (-1, -1)
        self._ids: list[str] = []
        self._index: VectorIndex | None = None

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._db.execute("SELECT COUNT(*) FROM texts").fetchone()
        return int(count)

    def add(self, entries: Sequence[Entry]) -> None:
        """Register `entries`, in one transaction. An id that is there already gets the new text."""
        passages = [Passage(e.text, ((0, len(e.text)),), e.title) for e in entries]
        vectors = [v[0].astype(np.float16).tobytes() for v in self._encoder.encode(passages)]
        rows = [(e.id, e.title, e.text, v) for e, v in zip(entries, vectors, strict=True)]
        with self._lock, self._transaction():
            self._db.executemany("DELETE FROM texts WHERE id = ?", [(e.id,) for e in entries])
            self._db.executemany("INSERT OR REPLACE INTO texts (id, title, text, vector) VALUES (?, ?, ?, ?)", rows)

    def delete(self, ids: Iterable[str]) -> int:
        """Remove texts by id; how many there were. Unknown ids are no error."""
        with self._lock, self._transaction():
            return sum(self._db.execute("DELETE FROM texts WHERE id = ?", (i,)).rowcount for i in ids)

    def search(self, query: str, k: int) -> list[Hit]:
        """The `k` texts nearest to `query`, best first; fewer when the collection is smaller."""
        vector = self._encoder.encode([Passage(query, ((0, len(query)),))])[0]
        with self._lock:
            index = self._refreshed_index()
            if index is None or k < 1:
                return []
            scores, rows = index.search(vector, min(k, len(index)))
            found = [(self._ids[row], float(score)) for score, row in zip(scores[0], rows[0], strict=True) if row >= 0]
            return [hit for id_, score in found if (hit := self._hit(id_, score)) is not None]

    def close(self) -> None:
        """Close the file. The collection cannot be used after it."""
        self._db.close()

    def _hit(self, id_: str, score: float) -> Hit | None:
        row = self._db.execute("SELECT title, text FROM texts WHERE id = ?", (id_,)).fetchone()
        return Hit(Entry(id_, row[1], row[0]), score) if row else None

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def _refreshed_index(self) -> VectorIndex | None:
        """The index as of the database now. Rebuilt when anything was written, here or by another process: FAISS graphs
        cannot delete, and a rebuild of 10,000 rows takes a tenth of a second."""
        (theirs,) = self._db.execute("PRAGMA data_version").fetchone()
        version = (int(theirs), self._db.total_changes)
        if version != self._seen_version:
            rows = self._db.execute("SELECT id, vector FROM texts ORDER BY row").fetchall()
            self._ids = [id_ for id_, _ in rows]
            self._index = VectorIndex(_unpacked([v for _, v in rows])) if rows else None
            self._seen_version = version
        return self._index


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK if the block raises."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("ROLLBACK" if kind else "COMMIT")


def _unpacked(blobs: Sequence[bytes]) -> Vectors:
    return np.frombuffer(b"".join(blobs), np.float16).reshape(len(blobs), -1).astype(np.float32)
