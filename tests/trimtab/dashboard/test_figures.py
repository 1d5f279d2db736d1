"""Figures against an independent reckoning: every entry, one by one, in Python, in exact dollars. On both engines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from routing.offers import Offer, Rates, Usage, price
from tests.trimtab.ledger.made import NOW, made, written
from trimtab.dashboard.market import price_steps, repriced
from trimtab.database import Database
from trimtab.ledger import figures
from trimtab.ledger.entries import TABLES, Entry
from trimtab.ledger.figures import FILTERS, Part, Scope, Seller, Totals

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def entries_made() -> list[Entry]:
    """Some of everything: near boundaries, unknown prices, nothing cut, nobody answered."""
    entries = made(400, seed=7, days=3.0)
    for at, over in zip(range(0, 400, 9), [-6_000, -5_000, -1, 0, 1, 4_999, 5_000, 5_001] * 20, strict=False):
        each = entries[at]
        tokens = 100_000 + over
        before = each.tokens_after or 0
        billed = {"input_tokens_billed": tokens} if each.answered else {}
        entries[at] = replace(
            each, boundary_tokens=100_000, over_boundary_tokens=over, tokens_before=before + 3_000, **billed
        )
    unpriced = {"cost_usd": None, "billed_usd": None, "saved_usd": None, "baseline_usd": None, "cache_loss_usd": None}
    entries[5] = replace(entries[5], **unpriced)
    entries[6] = replace(entries[6], tokens_after=entries[6].tokens_before)
    entries[7] = replace(entries[7], coverage_estimate=None, tokens_before=None, tokens_after=None)
    return entries


ENTRIES = entries_made()
SINCE_MS = int(NOW.timestamp() * 1000) - 2 * DAY_MS
SCOPES = (
    Scope(0),
    Scope(SINCE_MS),
    Scope(SINCE_MS, model="gpt-5-mini"),
    Scope(SINCE_MS, key="web", team=""),
    Scope(SINCE_MS, route="faq", user="ada", provider="anthropic"),
    Scope(SINCE_MS, model="nobody's"),
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    file = tmp_path_factory.mktemp("figures") / "ledger.sqlite"
    url = f"sqlite:///{file}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    database.create(TABLES)
    with database.begin() as connection:
        for table in reversed(TABLES.sorted_tables):
            connection.execute(sa.delete(table))
    written(database, ENTRIES)
    yield database
    database.close()


def at_ms(entry: Entry) -> int:
    return round(entry.at.timestamp() * 1000)


def within(scope: Scope) -> list[Entry]:
    wanted = {name: getattr(scope, name) for name in FILTERS if getattr(scope, name) is not None}
    return [
        each
        for each in ENTRIES
        if at_ms(each) >= scope.since_ms and all(getattr(each, name) == value for name, value in wanted.items())
    ]


def dollars(amounts: Iterable[Decimal | None]) -> Decimal:
    return sum((each for each in amounts if each is not None), Decimal(0))


def tokens(counts: Iterable[int | None]) -> int:
    return sum(each or 0 for each in counts)


def summed(entries: Sequence[Entry]) -> Totals:
    compared = [each for each in entries if each.saved_usd is not None]
    losers = [each for each in compared if each.saved_usd is not None and each.saved_usd < 0]
    cut = [each for each in entries if each.tokens_before is not None and each.tokens_after is not None]
    return Totals(
        len(entries),
        sum(each.answered for each in entries),
        len(compared),
        dollars(each.cost_usd for each in entries),
        dollars(each.baseline_usd for each in compared),
        dollars(each.saved_usd for each in entries),
        dollars(each.cache_loss_usd for each in entries),
        len(losers),
        -dollars(each.saved_usd for each in losers),
        tokens(each.tokens_before for each in cut),
        tokens(each.tokens_after for each in cut),
        tokens(each.input_tokens_billed for each in entries),
        tokens(each.output_tokens_billed for each in entries),
        tokens(each.cache_read_tokens_billed for each in entries),
        tokens(each.cache_write_tokens_billed for each in entries),
    )


def quantiles(entries: Sequence[Entry]) -> tuple[float, ...]:
    values = sorted(
        each.coverage_estimate
        for each in entries
        if each.coverage_estimate is not None
        and each.tokens_before is not None
        and each.tokens_after is not None
        and each.tokens_after < each.tokens_before
    )
    return tuple(values[math.ceil(len(values) * percent / 100) - 1] for percent in (10, 50, 90)) if values else ()


@pytest.mark.parametrize("scope", SCOPES)
def test_totals(database: Database, scope: Scope) -> None:
    assert figures.totals(database, scope) == summed(within(scope))


def test_what_was_saved_is_net() -> None:
    sums = summed(ENTRIES)
    assert sums.dearer > 0
    assert sums.saved_usd + sums.dearer_usd > sums.saved_usd


@pytest.mark.parametrize("column", FILTERS)
@pytest.mark.parametrize("scope", SCOPES[:4])
def test_by_column(database: Database, scope: Scope, column: str) -> None:
    found = figures.by(database, scope, column)
    names = {getattr(each, column) for each in within(scope)}
    assert {each.name for each in found} == names
    for part in found:
        sums = summed([each for each in within(scope) if getattr(each, column) == part.name])
        assert asdict(part) == {each.name: getattr(sums, each.name, part.name) for each in fields(Part)}
    spent = [part.spent_usd for part in found]
    assert spent == sorted(spent, reverse=True)


@pytest.mark.parametrize("step_ms", [HOUR_MS, DAY_MS])
@pytest.mark.parametrize("scope", SCOPES)
def test_over_time(database: Database, scope: Scope, step_ms: int) -> None:
    spans: dict[int, list[Entry]] = {}
    for each in within(scope):
        spans.setdefault(at_ms(each) // step_ms * step_ms, []).append(each)
    assert figures.over_time(database, scope, step_ms) == {start: summed(each) for start, each in spans.items()}
    expected = {start: quantiles(each) for start, each in spans.items() if quantiles(each)}
    assert figures.coverage_over_time(database, scope, step_ms) == expected


@pytest.mark.parametrize("scope", SCOPES)
def test_coverage(database: Database, scope: Scope) -> None:
    many, found = figures.coverage(database, scope)
    assert found == quantiles(within(scope))
    assert (many > 0) == bool(found)


RATES = (
    Rates(-1, *(Decimal(each).scaleb(-6) for each in ("0.1", "0.5", "0.01", "0.125")), Decimal("0.001")),
    Rates(100_000, *(Decimal(each).scaleb(-6) for each in ("0.5", "2.5", "0.05", "0.625")), Decimal("0.001")),
)


def offers_of(entries: Sequence[Entry]) -> dict[Seller, Offer]:
    """Two rows of prices for everybody but one, who sells no more."""
    names = {(each.provider, each.model, each.processing) for each in entries}
    return {Seller(*name): Offer(*name, RATES, None, "today") for name in names if name[1] != "gemini-3-flash"}


def usage_of(entry: Entry, input_tokens: int | None = None) -> Usage:
    billed = entry.input_tokens_billed if input_tokens is None else input_tokens
    read, wrote = entry.cache_read_tokens_billed or 0, entry.cache_write_tokens_billed or 0
    return Usage(billed or 0, entry.output_tokens_billed or 0, read, wrote)


def billed(entries: Sequence[Entry]) -> list[Entry]:
    return [each for each in entries if each.billed_usd is not None and each.input_tokens_billed is not None]


@pytest.mark.parametrize("scope", SCOPES)
def test_todays_prices_are_those_of_each_request_by_itself(database: Database, scope: Scope) -> None:
    entries = billed(within(scope))
    offers = offers_of(ENTRIES)
    sellers = figures.sellers(database, scope)
    assert set(sellers) == {Seller(each.provider, each.model, each.processing) for each in entries}
    rows = repriced(figures.bought(database, scope, {seller: offers[seller].boundaries for seller in offers}), offers)
    assert {row.seller for row in rows} == set(sellers)
    for row in rows:
        own = [each for each in entries if Seller(each.provider, each.model, each.processing) == row.seller]
        assert (row.calls, row.billed_usd) == (len(own), dollars(each.billed_usd for each in own))
        offer = offers.get(row.seller)
        expected = None if offer is None else dollars(price(offer, usage_of(each)) for each in own)
        assert row.now_usd == expected


def test_without_any_boundary(database: Database) -> None:
    bought = figures.bought(database, Scope(0), {})
    assert {row for _, row in bought} == {0}
    assert sum(sums.calls for sums in bought.values()) == len(billed(ENTRIES))


@pytest.mark.parametrize("scope", SCOPES)
def test_near_misses(database: Database, scope: Scope) -> None:
    offers = offers_of(ENTRIES)
    rows = {
        (row.boundary.seller, row.boundary.tokens): row
        for row in price_steps(figures.boundaries(database, scope), offers)
    }
    groups: dict[tuple[Seller, int], list[Entry]] = {}
    for each in billed(within(scope)):
        if each.boundary_tokens is not None:
            seller = Seller(each.provider, each.model, each.processing)
            groups.setdefault((seller, each.boundary_tokens), []).append(each)
    for key, entries in groups.items():
        seller, bound = key
        above = [(each, each.over_boundary_tokens or 0) for each in entries]
        over = [(each, by) for each, by in above if 0 < by <= bound // 20]
        under = [each for each, by in above if -(bound // 20) <= by <= 0]
        brought = [e for e, by in above if by <= 0 and by + (e.tokens_before or 0) - (e.tokens_after or 0) > 0]
        assert (key in rows) == bool(over or under or brought)
        if key not in rows:
            continue
        found = rows[key].boundary
        assert (found.over, found.under, found.brought_under) == (len(over), len(under), len(brought))
        assert found.over_tokens == sum(by for _, by in over)
        offer = offers.get(seller)
        if offer is None or bound != 100_000:
            assert rows[key].cost_usd is None
        else:
            steps = (price(offer, usage_of(e)) - price(offer, usage_of(e, 100_000)) for e, _ in over)
            assert rows[key].cost_usd == dollars(steps)


def test_price_lists(database: Database) -> None:
    found = figures.price_lists(database, Scope(0))
    assert sum(each.calls for each in found) == len(billed(ENTRIES))
    for each in found:
        own = [e for e in billed(ENTRIES) if Seller(e.provider, e.model, e.processing) == each.seller]
        assert (each.first, each.last) == (min(e.at for e in own), max(e.at for e in own))
        assert each.billed_usd == dollars(e.billed_usd for e in own)


def test_pages_of_requests_are_all_of_them_once(database: Database) -> None:
    seen: list[str] = []
    before: int | None = None
    while lines := figures.latest(database, SCOPES[1], 37, before):
        seen += [line.entry.receipt_id for line in lines]
        before = lines[-1].number
    assert seen == [each.receipt_id for each in reversed(ENTRIES) if each in within(SCOPES[1])]


def test_one_request_is_whole(database: Database) -> None:
    assert figures.one(database, ENTRIES[3].receipt_id) == ENTRIES[3]
    assert figures.one(database, "rcpt_nobody's") is None


def test_following(database: Database) -> None:
    last = figures.last_number(database)
    assert figures.numbers_above(database, last) == ()
    assert len(figures.numbers_above(database, last - 5)) == 5


def test_an_empty_ledger_has_figures_too(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'empty.sqlite'}")
    database.create(TABLES)
    scope = Scope(int(datetime.now(UTC).timestamp()))
    assert figures.totals(database, scope) == Totals()
    assert figures.coverage(database, scope) == (0, ())
    assert (figures.last_number(database), figures.latest(database, scope, 5)) == (0, ())
    database.close()
