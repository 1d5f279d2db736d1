"""Logs: what several workers write for each other, in one order, for some minutes. Over Redis or over the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

import redis
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from trimtab.database import Database
from trimtab.sharing.redis_server import RedisServer, Unreachable

KEPT_S: Final = 600.0
"""How long a message can be read: what a worker that begins has to go by."""
MOST_KEPT: Final = 20_000
"""Messages in a Redis: some minutes of a busy installation, and of an idle one all of KEPT_S."""

_AT_ONCE: Final = 500
_POLL_S: Final = 0.1
_PRUNE_S: Final = 60.0


class Read(NamedTuple):
    """Messages, in their order, and the position after the last of them."""

    messages: Sequence[bytes]
    position: str


class Log(Protocol):
    """Used by two threads at most: one appends, one reads. Both methods raise Unreachable."""

    def append(self, message: bytes) -> None:
        """Write one message at the end."""
        ...

    def read(self, position: str, wait_s: float) -> Read:
        """What stands after `position` ("" for the beginning), some hundred messages at most. Where there is nothing, it
        waits about `wait_s` for something."""
        ...

    def close(self) -> None:
        """Release the connections."""
        ...


class RedisLog:
    """A stream of Redis. `server` waits longer than any `read` does."""

    def __init__(self, server: RedisServer, name: str = "trimtab:events") -> None:
        self._server = server
        self._name = name
        self._unsure = True  # whether this is still the stream that a position is of

    def append(self, message: bytes) -> None:
        self._server.ask(lambda client: self._append(client, message))

    def read(self, position: str, wait_s: float) -> Read:
        try:
            if self._unsure and position:
                position = self._server.ask(lambda client: self._within(client, position))
            self._unsure = False
            block_ms = max(1, round(wait_s * 1000)) if wait_s > 0 else None
            after: dict[Any, Any] = {self._name: position or "0-0"}
            found: Any = self._server.ask(lambda client: client.xread(after, count=_AT_ONCE, block=block_ms))
        except Unreachable:
            self._unsure = True
            raise
        entries: list[tuple[bytes, dict[bytes, bytes]]] = found[0][1] if found else []
        return Read([fields[b"m"] for _, fields in entries], entries[-1][0].decode() if entries else position)

    def close(self) -> None:
        self._server.close()

    def _append(self, client: redis.Redis, message: bytes) -> None:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.xadd(self._name, {"m": message}, maxlen=MOST_KEPT, approximate=True)
            pipeline.expire(self._name, round(KEPT_S))  # of the whole: an idle installation leaves nothing behind
            pipeline.execute()

    def _within(self, client: redis.Redis, position: str) -> str:
        """`position`, or the beginning where the stream is another one: a server that kept nothing over a restart, with a
        clock that went back, would number what is new below what was read."""
        try:
            last = client.xinfo_stream(self._name)["last-generated-id"].decode()
        except redis.ResponseError:  # there is none
            return ""
        return "" if _number(last) < _number(position) else position


def _number(position: str) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split("-"))


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
                    rows = connection.execute(query.order_by(_EVENTS.c.id).limit(_AT_ONCE)).all()
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
