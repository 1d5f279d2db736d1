"""Counters in a database: one transaction for all requests that came while the last one was written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from trimtab.access.counters import KEPT_S, MINUTE_S, Answer, Ask, Budget, End, Meter, decide
from trimtab.database import Database
from trimtab.sharing.log import Unreachable

TABLES: Final = sa.MetaData()
_METERS: Final = sa.Table(
    "access_meters",
    TABLES,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("spent", sa.BigInteger, nullable=False, default=0),
    sa.Column("reserved", sa.BigInteger, nullable=False, default=0),
    sa.Column("full_at", sa.Double, nullable=False, default=0.0),
    sa.Column("ends_at", sa.Double, index=True),
)
_HOLDS: Final = sa.Table(
    "access_holds",
    TABLES,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("until", sa.Double, nullable=False, index=True),
    sa.Column("if_lost", sa.BigInteger, nullable=False),
    sa.Column("held", sa.Text, nullable=False),
)
_WRITE: Final = (
    sa.update(_METERS)
    .where(_METERS.c.name == sa.bindparam("b_name"))
    .values(spent=sa.bindparam("b_spent"), reserved=sa.bindparam("b_reserved"), full_at=sa.bindparam("b_full_at"))
)


class DatabaseCounters:
    """Over SQLite or PostgreSQL. The tables are made at the first use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert
        self._there = False

    def reserve(self, asks: Sequence[Ask], now: float) -> list[Answer]:
        with self._writing() as connection:
            budgets = {each.meter for ask in asks for each in ask.budgets}
            rates = {each.meter for ask in asks for each in ask.rates}
            meters = self._locked(connection, budgets | rates)
            if missing := sorted(rates - set(meters)):
                connection.execute(self._insert(_METERS).on_conflict_do_nothing(), [{"name": each} for each in missing])
                meters = self._locked(connection, budgets | rates)
            answers = [decide(ask, meters, now) for ask in asks]
            held = [_row(ask) for ask, answer in zip(asks, answers, strict=True) if answer.reserved]
            if held:
                _write(connection, meters)
                connection.execute(sa.insert(_HOLDS), held)
            return answers

    def settle(self, ends: Sequence[End], now: float) -> set[str]:
        with self._writing() as connection:
            ids = [each.id for each in ends]
            # what is deleted is ours: whoever settles the same at once waits, and finds nothing
            gone = sa.delete(_HOLDS).where(_HOLDS.c.id.in_(ids)).returning(_HOLDS.c.id, _HOLDS.c.held)
            holds = {row.id: json.loads(row.held) for row in connection.execute(gone)}
            if not holds:
                return set()
            names = {name for held in holds.values() for name in (*held["budgets"], *(r[0] for r in held["rates"]))}
            meters = self._locked(connection, names)
            for end in ends:
                if end.id in holds:
                    _give_back(meters, holds.pop(end.id), end)
                    holds[end.id] = None
            _write(connection, meters)
            return set(holds)

    def seed(self, spent: Mapping[Budget, int]) -> None:
        rows = [{"name": each.meter, "spent": pico, "ends_at": each.ends_at} for each, pico in spent.items()]
        with self._writing() as connection:
            connection.execute(self._insert(_METERS).on_conflict_do_nothing(), rows)

    def renew(self, ids: Sequence[str], until: float) -> None:
        with self._writing() as connection:
            connection.execute(sa.update(_HOLDS).where(_HOLDS.c.id.in_(list(ids))).values(until=until))

    def lost(self, now: float, limit: int = 100) -> list[tuple[str, int]]:
        query = sa.select(_HOLDS.c.id, _HOLDS.c.if_lost).where(_HOLDS.c.until < now).limit(limit)
        with self._writing() as connection:
            connection.execute(sa.delete(_METERS).where(_METERS.c.ends_at < now - KEPT_S))
            return [(row.id, row.if_lost) for row in connection.execute(query)]

    def read(self, budgets: Sequence[Budget]) -> list[tuple[int, int] | None]:
        with self._writing() as connection:
            query = sa.select(_METERS).where(_METERS.c.name.in_([each.meter for each in budgets]))
            found = {row.name: (row.spent, row.reserved) for row in connection.execute(query)}
        return [found.get(each.meter) for each in budgets]

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            if not self._there:
                self._database.create(TABLES)
                self._there = True
            with self._database.begin() as connection:
                yield connection
        except SQLAlchemyError as error:  # its text may hold an address
            raise Unreachable(f"the counters' database: {type(error).__name__}") from None

    def _locked(self, connection: sa.Connection, names: set[str]) -> dict[str, Meter]:
        # in one order for everybody, so that two who lock at once do not wait for each other in a circle
        query = sa.select(_METERS).where(_METERS.c.name.in_(sorted(names))).order_by(_METERS.c.name).with_for_update()
        return {row.name: Meter(row.spent, row.reserved, row.full_at) for row in connection.execute(query)}


def _row(ask: Ask) -> dict[str, Any]:
    budgets = [each.meter for each in ask.budgets]
    rates = [[each.meter, each.cost, each.per_minute] for each in ask.rates if each.what == "tokens"]
    held = {"amount": ask.amount_pico, "budgets": budgets, "rates": rates}
    return {"id": ask.id, "until": ask.until, "if_lost": ask.if_lost_pico, "held": json.dumps(held)}


def _give_back(meters: Mapping[str, Meter], held: Mapping[str, Any], end: End) -> None:
    for name in held["budgets"]:
        if (meter := meters.get(name)) is not None:  # its period may be long over
            meter.reserved_pico -= held["amount"]
            meter.spent_pico += end.amount_pico
    if end.tokens is not None:
        for name, cost, per_minute in held["rates"]:
            if (meter := meters.get(name)) is not None:
                meter.full_at += (end.tokens - cost) * MINUTE_S / per_minute


def _write(connection: sa.Connection, meters: Mapping[str, Meter]) -> None:
    rows = [
        {"b_name": name, "b_spent": each.spent_pico, "b_reserved": each.reserved_pico, "b_full_at": each.full_at}
        for name, each in meters.items()
    ]
    if rows:
        connection.execute(_WRITE, rows)
