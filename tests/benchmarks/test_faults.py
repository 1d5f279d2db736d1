"""The fault campaign: its books and its table, and one fault of it against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks.fault_clients import Asked, Load, books
from benchmarks.fault_disks import spill_damaged
from benchmarks.fault_provider import BillingProvider
from benchmarks.fault_rig import Finding, Served
from benchmarks.faults import section
from tests.trimtab.asking import serving_of
from trimtab import Trimtab
from trimtab.database import Database
from trimtab.ledger.entries import TABLES, Entry, record_of, write
from trimtab.settings import Settings


@pytest.fixture
def provider() -> Iterator[BillingProvider]:
    with BillingProvider() as provider:
        yield provider


def test_the_books_find_what_is_lost_unbooked_and_double(tmp_path: Path, provider: BillingProvider) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    database = Database(url)
    database.create(TABLES)
    booked = ("a-fine", "a-double", "a-double", "other-1")
    lines = [
        Entry(f"rcpt_{n}", datetime.now(UTC), "m", user=user, billed_usd=Decimal("0.01"))
        for n, user in enumerate(booked)
    ]
    write(database, [record_of(each) for each in lines])
    database.close()
    provider.bill.update({"a-fine": 1, "a-double": 1, "a-lost": 1, "a-gone": 2})
    asked = [Asked(user, 200, 0, 0.1) for user in ("a-fine", "a-double", "a-lost")]
    made = books(provider, url, ["a"], [*asked, Asked("a-gone", 503, 0, 0.1)])
    assert (made.answered, made.billed, made.booked) == (3, 5, 3)
    assert (made.lost, made.unbooked, made.double) == ({"a-lost"}, 3, 1)


def test_the_table_says_what_was_not_kept_and_what_was_skipped() -> None:
    found = [Finding("a", "p", "o", True), Finding("b", "p", "o", False), Finding("c", "", "no root", None)]
    made = section(found)
    assert [row[3] for row in made.tables[0].rows] == ["yes", "NO", "skipped"]
    assert "1 of 2 promises" in made.tables[0].note


def test_a_damaged_spill_before_a_server(tmp_path: Path, provider: BillingProvider) -> None:
    seller = {"name": "p", "kind": "openai", "base_url": provider.base_url, "models": ["m"], "api_key_env": None}
    seller["prices"] = {"input_mtok": "2", "output_mtok": "10"}
    made = Settings.of(
        {"providers": [seller], "data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache")}
    )
    with serving_of(Trimtab(made)) as client:
        served = Served(str(client.base_url).rstrip("/"), 0, tmp_path / "log")
        with Load(served.url, "any", "first", at_once=1) as load:
            while not load.asked:
                pass
        assert set(load.statuses) == {200}
        found = spill_damaged(served, provider, tmp_path)
    assert found.kept, found.observed
