"""Files: what batches read and write. Their bytes lie in a folder, and what is known of them in the database.

A file is written once and never changed. It has a name of ours on disk, whatever its caller calls it. Its bytes are on disk
before its row is, and the row goes before they do: after a crash there may be bytes without a row, which `sweep` removes,
and never a row without bytes. Several hosts may share a database if they share the folder too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import sqlalchemy as sa

from trimtab.database import Database
from trimtab.deferred.pages import Asked, Page, new_id, read_page
from trimtab.errors import BadRequest

MAX_BYTES: Final = 200 * 2**20
"""OpenAI's limit for the input of a batch."""
KEPT_S: Final = 30 * 24 * 3600
"""How long a file is kept if nothing else is said: OpenAI's 30 days."""
ABANDONED_S: Final = 24 * 3600.0
"""Bytes without a row are left alone for so long: another host may be writing them."""

PURPOSES: Final = ("batch", "batch_output")

_WRITING: Final = "writing-"

_TABLES = sa.MetaData()
_FILES = sa.Table(
    "files",
    _TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index("files_of_a_tenant", "tenant", "id"),
    sa.Index("files_by_expiry", "expires_at"),
)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a file. `filename` is its caller's word for it, and no path; moments are seconds since 1970."""

    id: str
    tenant: str
    purpose: str
    filename: str
    size_bytes: int
    created_at: int
    expires_at: int

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size_bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Writing:
    """A file that is being written. Nobody finds it before `Files.keep`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self.path = path
        self.size_bytes = 0

    def write(self, part: bytes) -> None:
        self._file.write(part)
        self.size_bytes += len(part)

    def settle(self) -> None:
        """All of it is on disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())


class Files:
    """The files of every tenant. Blocking: call it in a thread beside an event loop. Safe to share between threads.

    `clock` gives seconds since 1970; no file is kept for longer than `most_s`.
    """

    def __init__(
        self, database: Database, folder: Path, clock: Callable[[], float] = time.time, most_s: float = KEPT_S
    ) -> None:
        self._most_s = int(most_s)
        self._database = database
        self._folder = folder
        self._clock = clock

    def create(self) -> None:
        """The table and the folder, where they are not there yet."""
        self._database.create(_TABLES)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else's to read

    def new_id(self) -> str:
        return new_id("file-", self._clock())

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """A new file to write. What is not kept is gone at the end."""
        path = self._folder / new_id(_WRITING, self._clock())
        with path.open("xb") as file:
            try:
                yield Writing(file, path)
            finally:
                path.unlink(missing_ok=True)

    def keep(
        self,
        writing: Writing,
        tenant: str,
        filename: str,
        purpose: str,
        lifetime_s: int = KEPT_S,
        id: str | None = None,
    ) -> StoredFile:
        """The file, durable once this returns. Under an `id` that is there already nothing changes, so that whoever does
        not know whether he was done may do it again."""
        created_at = int(self._clock())
        lifetime_s = min(lifetime_s, self._most_s)
        found = StoredFile(
            id or self.new_id(), tenant, purpose, filename, writing.size_bytes, created_at, created_at + lifetime_s
        )
        writing.settle()
        with self._database.begin() as connection:
            held = connection.execute(sa.select(_FILES).where(_FILES.c.id == found.id)).one_or_none()
            if held is not None:
                return _stored(held)
            writing.path.rename(self.path(found.id))
            _sync_folder(self._folder)
            connection.execute(sa.insert(_FILES).values(asdict(found)))
        return found

    def find(self, tenant: str, id: str) -> StoredFile:
        """The file that this tenant has under `id`. Raises BadRequest (404)."""
        chosen = sa.select(_FILES).where(_FILES.c.id == id, *self._those_of(tenant))
        with self._database.read() as connection:
            row = connection.execute(chosen).one_or_none()
        if row is None:
            raise no_such_file(id)
        return _stored(row)

    def page(self, tenant: str, asked: Asked, purpose: str | None = None) -> Page[StoredFile]:
        """A page of this tenant's files, of one `purpose` where one is given."""
        conditions = self._those_of(tenant)
        if purpose is not None:
            conditions = (*conditions, _FILES.c.purpose == purpose)
        with self._database.read() as connection:
            return read_page(connection, _FILES, conditions, asked, _stored)

    def path(self, id: str) -> Path:
        """Where the bytes of a file lie that was found."""
        return self._folder / id

    def delete(self, tenant: str, id: str) -> None:
        """Raises BadRequest (404) where this tenant has no such file."""
        with self._database.begin() as connection:
            gone = connection.execute(sa.delete(_FILES).where(_FILES.c.id == id, *self._those_of(tenant)))
            if gone.rowcount == 0:
                raise no_such_file(id)
        self.path(id).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the files whose time is over, and bytes that a crash has left behind."""
        now_s = self._clock()
        with self._database.begin() as connection:
            expired = connection.scalars(sa.select(_FILES.c.id).where(_FILES.c.expires_at <= int(now_s))).all()
            connection.execute(sa.delete(_FILES).where(_FILES.c.expires_at <= int(now_s)))
        for each in expired:
            self.path(each).unlink(missing_ok=True)
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process sweeps too
                if now_s - path.stat().st_mtime > ABANDONED_S and not self._is_known(path.name):
                    path.unlink()

    def _is_known(self, id: str) -> bool:
        with self._database.read() as connection:
            return connection.execute(sa.select(_FILES.c.id).where(_FILES.c.id == id)).first() is not None

    def _those_of(self, tenant: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (_FILES.c.tenant == tenant, _FILES.c.expires_at > int(self._clock()))


def _stored(row: sa.Row[Any]) -> StoredFile:
    return StoredFile(**row._mapping)


def no_such_file(id: str) -> BadRequest:
    reason = f"there is no file {id[:100]!r} (GET /v1/files lists those there are)"
    return BadRequest("file_id", reason, "file_not_found", status=404)


def _sync_folder(folder: Path) -> None:
    """The names in a folder are on disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
