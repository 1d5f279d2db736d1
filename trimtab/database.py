"""The database: what must outlive the process (ledger, deferred jobs, keys), in SQLite, or in PostgreSQL where several hosts
share it.

The tables are declared where they are used, in SQLAlchemy Core, which says the same to both engines. Blocking: call it in
a thread beside an event loop. Safe to share between threads, and a SQLite file between processes of one host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from trimtab.errors import BadSettings

BUSY_TIMEOUT_MS: Final = 30_000
"""How long a writer waits for another before it gives up."""

_PATIENCE: Final = {"connect_timeout": 3, "tcp_user_timeout": 4_000}
"""Of libpq, in s and ms, unless the URL says otherwise: a PostgreSQL behind a link that drops all packets would else hold a
request for as long as TCP sends again, a quarter of an hour."""

_DRIVERS: Final = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class Database:
    """One database by its URL: "sqlite:////var/lib/trimtab/trimtab.sqlite", "postgresql://user@host/name".

    `durable` False: a SQLite file may lose the last moments at a power failure, never its order, and writes faster.
    Else what is committed is on disk (SQLite: write-ahead log, synchronous FULL; PostgreSQL: as its server is set, which is on by
    default). Raises BadSettings for a URL that is none and for a missing driver; connects at the first use.
    """

    def __init__(self, url: str, *, durable: bool = True) -> None:
        try:
            parsed = sa.make_url(url)
            named = _DRIVERS.get(parsed.get_backend_name())
            if named is None:
                raise BadSettings("database_url: must begin with sqlite:// or postgresql://")
            given = {} if named == "sqlite" else {k: v for k, v in _PATIENCE.items() if k not in parsed.query}
            self.engine = sa.create_engine(
                parsed.set(drivername=named), pool_pre_ping=named != "sqlite", connect_args=given
            )
        except (ArgumentError, NoSuchModuleError):  # its message would quote the URL, and a password in it
            raise BadSettings(
                "database_url: is not a database URL; write it like sqlite:////path/to/file or postgresql://user@host/name"
            ) from None
        except ImportError:
            raise BadSettings("database_url: PostgreSQL needs its driver: pip install 'trimtab[postgres]'") from None
        self.is_sqlite = named == "sqlite"
        if self.is_sqlite:
            if parsed.database not in (None, "", ":memory:"):
                Path(str(parsed.database)).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            sa.event.listen(self.engine, "connect", _configured if durable else _relaxed)
            sa.event.listen(self.engine, "begin", _begin_immediately)

    def create(self, tables: sa.MetaData) -> None:
        """The tables that are not there yet. Two processes may do so at once."""
        with self.engine.begin() as connection:
            if not self.is_sqlite:  # PostgreSQL's CREATE TABLE IF NOT EXISTS is no protection from another's
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
            tables.create_all(connection)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction, committed at the end and rolled back at an exception. On SQLite it holds the write lock from the
        start, so that what is read in it stays true until it is written."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads: a writer does not wait for it, nor it for a writer."""
        with self.engine.connect().execution_options(trimtab_reads=True) as connection:
            yield connection

    def close(self) -> None:
        """Release the connections."""
        self.engine.dispose()


_CREATING: Final = 0x7472696D  # any number, the same for every process: "trim"


def _configured(connection: DBAPIConnection, _: Any) -> None:
    # sqlite3 would begin its transactions itself, and late: the lock must be there before the first read
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _relaxed(connection: DBAPIConnection, record: Any) -> None:
    _configured(connection, record)
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin_immediately(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get("trimtab_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
