"""The log over the database: a small table, asked ten times a second, pruned."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from trimtab.database import Database
from trimtab.sharing.log import AT_ONCE, KEPT_S, Read, Unreachable

_POLL_S: Final = 0.1
_PRUNE_S: Final = 60.0

_TABLES: Final = sa.MetaData()
_EVENTS: Final = sa.Table(
    "trimtab_events",
    _TABLES,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at_s", sa.Float, nullable=False, index=True),
    sa.Column("message", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,  # or numbers would come again once everything is pruned
)

_APPENDING: Final = 0x74726574  # any number, the same for every process


class SqlLog:
    """A small table of the database. Nothing in it is worth a wait for the disk: a crash of the database's machine may cost
    the last messages."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._pruned_s = float("-inf")
        self._created = False
        if database.is_sqlite:
            sa.event.listen(database.engine, "connect", _careless)

    def append(self, message: bytes) -> None:
        now_s = self._clock()
        try:
            self._create()
            with self._database.begin() as connection:
                if not self._database.is_sqlite:
                    # Rows must become visible in the order of their numbers, or a reader would pass one by for good.
                    connection.execute(sa.text("SET LOCAL synchronous_commit TO OFF"))
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_APPENDING)))
                connection.execute(sa.insert(_EVENTS).values(at_s=now_s, message=message))
                if abs(now_s - self._pruned_s) > _PRUNE_S:
                    connection.execute(sa.delete(_EVENTS).where(_EVENTS.c.at_s < now_s - KEPT_S))
                    self._pruned_s = now_s
        except sa.exc.SQLAlchemyError as error:
            raise Unreachable(f"the database: {type(error).__name__}") from None

    def read(self, position: str, wait_s: float) -> Read:
        after = int(position or 0)
        query = sa.select(_EVENTS.c.id, _EVENTS.c.message).where(_EVENTS.c.id > after)
        ends_s = time.monotonic() + wait_s
        try:
            self._create()
            while True:
                with self._database.read() as connection:
                    rows = connection.execute(query.order_by(_EVENTS.c.id).limit(AT_ONCE)).all()
                left_s = ends_s - time.monotonic()
                if rows or left_s <= 0:
                    return Read([row.message for row in rows], str(rows[-1].id if rows else after))
                time.sleep(min(_POLL_S, left_s))
        except sa.exc.SQLAlchemyError as error:
            raise Unreachable(f"the database: {type(error).__name__}") from None

    def close(self) -> None:
        self._database.close()

    def _create(self) -> None:
        if not self._created:
            self._database.create(_TABLES)
            self._created = True


def _careless(connection: DBAPIConnection, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()
