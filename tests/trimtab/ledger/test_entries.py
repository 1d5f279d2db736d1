"""Entries in both databases: what is written comes back, sums are exact, and writing twice is writing once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.trimtab.ledger.made import NOW, made, written
from trimtab.database import Database
from trimtab.ledger.entries import (
    ENTRIES,
    MOST_PICO,
    TABLES,
    Entry,
    at_ms,
    moment_of,
    pico,
    record_of,
    usd,
    write,
)
from trimtab.ledger.queries import GROUPS, Filter, details, line, lines, prune, totals

FIGURES = ("cost_usd", "baseline_usd", "saved_usd", "cache_loss_usd")


def total_of(entries: list[Entry], name: str) -> Decimal:
    return sum((getattr(each, name) for each in entries if getattr(each, name) is not None), Decimal(0))


@given(st.decimals(-1_000_000, 1_000_000, places=12))
def test_dollars_are_kept_to_the_pico_dollar(amount: Decimal) -> None:
    assert usd(pico(amount)) == amount


def test_finer_dollars_are_rounded_and_larger_ones_bounded() -> None:
    assert (pico(Decimal("0.0000000000005")), pico(Decimal("0.0000000000015"))) == (0, 2)
    assert pico(Decimal("1E9")) == MOST_PICO


@given(st.integers(-100_000, 100_000))
def test_a_moment_is_kept_to_the_millisecond(hours: int) -> None:
    there = NOW + timedelta(hours=hours, microseconds=123_456)
    assert moment_of(at_ms(there)) == there.replace(microsecond=123_000)


def test_what_is_written_comes_back(database: Database) -> None:
    entries = made(120)
    written(database, entries)
    assert list(details(database)) == sorted(entries, key=lambda each: at_ms(each.at))
    assert lines(database, limit=3) == [replace(each, detail={}) for each in entries[:-4:-1]]
    assert line(database, entries[7].receipt_id) == entries[7]
    assert line(database, entries[7].receipt_id[:20]) == entries[7]
    assert line(database, "rcpt_") is None


def test_writing_again_adds_nothing(database: Database) -> None:
    records = [record_of(each) for each in made(30)]
    database.create(TABLES)
    write(database, records[:20])
    write(database, [*records, records[3]])
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(ENTRIES)).scalar() == 30


def test_sums_are_exact(database: Database) -> None:
    entries = made(500, seed=1)
    written(database, entries)
    (total,) = totals(database)
    for name in FIGURES:
        assert getattr(total, name) == total_of(entries, name)
    assert total.requests == 500
    assert total.baseline_usd - total.saved_usd == total.cost_usd
    assert total.saved_usd > 0
    assert any(each.saved_usd is not None and each.saved_usd < 0 for each in entries)


@pytest.mark.parametrize("by", [*GROUPS, "metadata:feature"])
def test_groups_add_up_to_the_whole(database: Database, by: str) -> None:
    entries = made(80, seed=2, tenants=("a", "b"))
    written(database, entries)
    found = totals(database, by)
    (whole,) = totals(database)
    assert sum(each.requests for each in found) == 80
    for name in FIGURES:
        assert sum(getattr(each, name) for each in found) == getattr(whole, name)
    if by in ("provider", "model", "user"):
        oracle = {
            value: [each for each in entries if getattr(each, by) == value]
            for value in {getattr(e, by) for e in entries}
        }
        assert {each.name: each.cost_usd for each in found} == {v: total_of(es, "cost_usd") for v, es in oracle.items()}


def test_filters(database: Database) -> None:
    entries = made(200, seed=3, tenants=("a", "b"))
    written(database, entries)
    since, until = NOW - timedelta(days=5), NOW - timedelta(days=2)

    def ids(wanted: Filter) -> set[str]:
        return {each.receipt_id for each in lines(database, wanted, 1_000)}

    def those(good: object) -> set[str]:
        assert callable(good)
        return {each.receipt_id for each in entries if good(each)}

    assert ids(Filter(since, until)) == those(lambda e: since <= e.at < until)
    assert ids(Filter(tenant="a", user="ada")) == those(lambda e: e.tenant == "a" and e.user == "ada")
    assert ids(Filter(negative=True)) == those(lambda e: e.saved_usd is not None and e.saved_usd < 0) != set()
    assert ids(Filter(answered=False)) == those(lambda e: not e.answered) != set()
    assert len(ids(Filter(tag=("feature", "search")))) == 200
    assert ids(Filter(tag=("feature", "other"))) == set()
    (tagged,) = totals(database, None, Filter(since, until, tag=("feature", "search")))
    assert tagged.requests == len(those(lambda e: since <= e.at < until))


def test_old_lines_are_pruned_with_their_details(database: Database) -> None:
    entries = made(100, seed=4)
    written(database, entries)
    old = [each for each in entries if each.at < NOW - timedelta(days=7)]
    assert prune(database, 7, NOW) == len(old) > 10
    assert len(list(details(database))) == 100 - len(old)
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM ledger_details")).scalar() == 100 - len(old)
    assert prune(database, 7, NOW) == 0


def test_any_number_of_tokens_can_be_written(database: Database) -> None:
    """A provider can bill any number; it must not cost the line."""
    written(database, [replace(made(1)[0], output_tokens_billed=10**30, detail={"huge": 2**70, "half": "\ud800"})])
    (entry,) = lines(database)
    assert entry.output_tokens_billed == MOST_PICO
