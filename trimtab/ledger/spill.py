"""Spill: records that the database cannot take now, in files, until it can.

Each file is written once, as a whole, and never changed: so any process may take up any file, also one that another left
behind when it was killed. Taking one up twice is safe, since the ledger knows every receipt's line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

from trimtab.ledger.entries import Record

logger = logging.getLogger("trimtab")

_REFUSED: Final = ".refused"


class Spill:
    """A folder of files. Safe to share between threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, records: Sequence[Record]) -> None:
        """Keep the records. They are on disk when this returns. Raises OSError."""
        self._write(records, ".jsonl")

    def refuse(self, records: Sequence[Record]) -> None:
        """Keep records that the database will never take, for a person to look at. Raises OSError."""
        self._write(records, _REFUSED)

    def oldest(self) -> Path | None:
        """The file that was written first; None where there is none."""
        return min(self.folder.glob("*.jsonl"), key=lambda each: each.name, default=None)

    def read(self, file: Path) -> list[Record]:
        """Its records; none where another process has taken it up meanwhile. Where some of it cannot be read (a disk that
        lies about what it has written), that is said, and the whole file is kept as `.refused` beside the others."""
        try:
            lines = file.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        records, damaged = [], 0
        for line in lines:
            try:
                read = orjson.loads(line)
                records.append((dict(read["row"]), orjson.dumps(read["detail"])))
            except (ValueError, KeyError, TypeError):
                damaged += 1
        if damaged:
            kept = file.with_suffix(_REFUSED)
            logger.error("%d lines of the ledger in a file are damaged; it is kept as %s", damaged, kept)
            with contextlib.suppress(FileExistsError):
                os.link(file, kept)
        return records

    def drop(self, file: Path) -> None:
        """Its records are in the database."""
        file.unlink(missing_ok=True)

    def _write(self, records: Sequence[Record], suffix: str) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{suffix}"
        fresh = file.with_suffix(".part")
        fresh.touch(mode=0o600, exist_ok=False)
        try:
            with fresh.open("wb") as out:
                for row, detail in records:
                    out.write(orjson.dumps({"row": row, "detail": orjson.Fragment(detail)}) + b"\n")
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(file)
        except OSError:  # a disk that is full is not to be filled with beginnings
            fresh.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # Windows opens no folder, and needs no such call
            _sync_folder(self.folder)


def _sync_folder(folder: Path) -> None:
    """So that the file's name is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
