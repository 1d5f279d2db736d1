"""Spending: what crashed processes left is settled, ends outlive counters that are away, and both rules for that hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from trimtab.access.counters import Answer, Ask, Budget, End
from trimtab.access.spending import Past, Spending, WhenAway
from trimtab.access.sql_counters import DatabaseCounters
from trimtab.caller import Caller
from trimtab.database import Database
from trimtab.deferred.job import JOBS
from trimtab.deferred.jobs import Jobs, NewJob, Outcome
from trimtab.errors import BadRequest
from trimtab.ledger.entries import ENTRIES, TABLES
from trimtab.sharing.log import Unreachable

ONE = Budget("key", "billing", "month", 0.0, 1e11, 1_000)


class Away(DatabaseCounters):
    """Counters that can be away."""

    away = False

    def reserve(self, asks: Sequence[Ask], now: float) -> list[Answer]:
        self._check()
        return super().reserve(asks, now)

    def settle(self, ends: Sequence[End], now: float) -> set[str]:
        self._check()
        return super().settle(ends, now)

    def _check(self) -> None:
        if self.away:
            raise Unreachable("away")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'trimtab.sqlite'}")


@pytest.fixture
def counters(tmp_path: Path) -> Away:
    return Away(Database(f"sqlite:///{tmp_path / 'counters.sqlite'}", durable=False))


def spending(counters: Away, database: Database, when_away: WhenAway = "refuse", at: float = 100.0) -> Spending:
    return Spending(counters, Past(database), when_away, lambda: at)


def ask(id: str, amount: int, until: float = 160.0) -> Ask:
    return Ask(id, amount, amount, (ONE,), (), until)


def entered(database: Database, receipt_id: str, pico: int) -> None:
    row = {
        column.name: "" if str(column.type) == "TEXT" else 0
        for column in ENTRIES.c
        if not column.nullable and column.name != "number"
    }
    row |= {"receipt_id": receipt_id, "key": "billing", "at_ms": 1_000, "cost_pico": pico, "answered": True}
    database.create(TABLES)
    with database.begin() as connection:
        connection.execute(ENTRIES.insert(), row)


def test_a_meter_begins_with_what_the_ledger_says(counters: Away, database: Database) -> None:
    entered(database, "rcpt_before", 300)

    async def run() -> None:
        async with spending(counters, database).serving():
            pass

    async def work() -> Answer:
        over = spending(counters, database)
        answer = await over.reserve(ask("rcpt_1", 701))
        assert answer.refused == ONE
        return await over.reserve(ask("rcpt_2", 700))

    assert asyncio.run(work()).reserved
    assert counters.read([ONE]) == [(300, 700)]
    asyncio.run(run())
    database.close()


def test_what_a_dead_process_reserved_is_settled_by_another(counters: Away, database: Database) -> None:
    counters.seed({ONE: 0})
    known, unknown = ask("rcpt_known", 100, 10.0), ask("rcpt_unknown", 50, 10.0)
    assert all(each.reserved for each in counters.reserve([known, unknown], 0.0))
    entered(database, "rcpt_known", 30)
    spending(counters, database).sweep()
    # the ledger knows what the first cost; the second may have been billed in full
    assert counters.read([ONE]) == [(80, 0)]
    counters.close()
    database.close()


def test_a_job_keeps_what_is_reserved_for_it_as_long_as_it_is_open(counters: Away, database: Database) -> None:
    jobs = Jobs(database)
    jobs.create()
    new = NewJob(Caller("t", "billing"), "/v1/chat/completions", b"{}", 1e9)
    (accepted,) = jobs.accept([new], 0.0)
    counters.seed({ONE: 0})
    counters.reserve([Ask(accepted.id, 100, 0, (ONE,), (), 10.0), Ask("def_none", 7, 0, (ONE,), (), 10.0)], 0.0)
    over = spending(counters, database)
    over.sweep()
    assert counters.read([ONE]) == [(0, 100)]
    jobs.finish([Outcome(accepted.id, "completed", 200, b"{}", '{"billed_cost_usd": "0.000000000042"}')], 1.0)
    spending(counters, database, at=1_000.0).sweep()
    assert counters.read([ONE]) == [(42, 0)]
    with database.read() as connection:
        assert connection.execute(JOBS.select()).one().state == "completed"
    counters.close()
    database.close()


def test_a_job_that_is_tried_again_is_reserved_once(counters: Away, database: Database) -> None:
    counters.seed({ONE: 0})

    async def work() -> None:
        over = spending(counters, database)
        async with over.serving():
            for amount in (600, 700):  # together they would not fit
                assert (await over.reserve(ask("def_1", amount))).reserved
            assert counters.read([ONE]) == [(0, 700)]
            over.settle(End("def_1", 5))
            await settled(counters, 5)

    asyncio.run(work())
    database.close()


async def settled(counters: Away, pico: int) -> None:
    """Within 20 seconds."""
    for _ in range(400):
        if counters.read([ONE]) == [(pico, 0)]:
            return
        await asyncio.sleep(0.05)
    assert counters.read([ONE]) == [(pico, 0)]


def test_counters_that_are_away_refuse_and_ends_wait_for_them(counters: Away, database: Database) -> None:
    counters.seed({ONE: 0})

    async def work() -> None:
        over = spending(counters, database)
        async with over.serving():
            assert (await over.reserve(ask("rcpt_1", 100))).reserved
            counters.away = True
            over.settle(End("rcpt_1", 60))
            with pytest.raises(BadRequest) as refused:
                await over.reserve(ask("rcpt_2", 1))
            assert refused.value.status == 503
            counters.away = False
            await settled(counters, 60)

    asyncio.run(work())
    database.close()


def test_or_they_allow_and_count_what_was_spent_without_them(counters: Away, database: Database) -> None:
    counters.seed({ONE: 0})
    counters.away = True

    async def work() -> None:
        over = spending(counters, database, "allow")
        async with over.serving():
            assert (await over.reserve(ask("rcpt_1", 5_000))).reserved
            counters.away = False
            over.settle(End("rcpt_1", 2_000))
            await settled(counters, 2_000)

    asyncio.run(work())
    database.close()
