"""Figures: what the ledger adds up to over a span of time, for the dashboard.

Every sum is made by the database over whole pico-dollars, so it is exact and no row of a month is read for it. Blocking.
The statements say the same on SQLite and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from routing.offers import Rates
from trimtab.database import Database
from trimtab.ledger.entries import DETAILS, ENTRIES, Entry, entry_of, usd

_E: Final = ENTRIES.c

FILTERS: Final = ("key", "team", "route", "user", "provider", "model")
"""What a scope may be narrowed to; columns of the ledger."""

NEAR: Final = 20
"""An input is near a price boundary where it is at most a twentieth (5 %) above or below it."""

QUANTILES: Final = (10, 50, 90)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which requests: those since a moment (milliseconds since 1970), and of them those that agree with every filter that is
    not None ("" is a value: requests without a key, a team or a route)."""

    since_ms: int
    key: str | None = None
    team: str | None = None
    route: str | None = None
    user: str | None = None
    provider: str | None = None
    model: str | None = None

    def where(self) -> sa.ColumnElement[bool]:
        wanted = [_E[name] == value for name in FILTERS if (value := getattr(self, name)) is not None]
        return sa.and_(_E.at_ms >= self.since_ms, *wanted)

    def without(self, name: str) -> Scope:
        """The same with one filter lifted."""
        return replace(self, **{name: None})  # type: ignore[arg-type] # each filter takes it


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over requests. `saved_usd` is net and may be negative: the sum over the `compared` requests, for which both sides
    are known; `untouched_usd` is what those would have cost untouched, and so `untouched_usd - saved_usd` what they did.
    `spent_usd` is over all. `dearer` counts those that cost more than untouched, `dearer_usd` is by how much, above 0.
    Input tokens include those read from and written to caches."""

    requests: int = 0
    answered: int = 0
    compared: int = 0
    spent_usd: Decimal = Decimal(0)
    untouched_usd: Decimal = Decimal(0)
    saved_usd: Decimal = Decimal(0)
    cache_loss_usd: Decimal = Decimal(0)
    dearer: int = 0
    dearer_usd: Decimal = Decimal(0)
    tokens_before: int = 0
    tokens_after: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def _ones(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    return _sum(sa.case((condition, 1), else_=0))


_COMPARED: Final = _E.saved_pico.is_not(None)
_DEARER: Final = sa.and_(_COMPARED, _E.saved_pico < 0)
_CUT: Final = _E.tokens_before.is_not(None) & _E.tokens_after.is_not(None)
_TOTALS: Final[Mapping[str, sa.ColumnElement[Any]]] = {
    "requests": sa.func.count(),
    "answered": _ones(_E.answered.is_(sa.true())),
    "compared": _ones(_COMPARED),
    "spent_usd": _sum(_E.cost_pico),
    "untouched_usd": _sum(sa.case((_COMPARED, _E.baseline_pico))),
    "saved_usd": _sum(_E.saved_pico),
    "cache_loss_usd": _sum(_E.cache_loss_pico),
    "dearer": _ones(_DEARER),
    "dearer_usd": _sum(sa.case((_DEARER, -_E.saved_pico))),
    "tokens_before": _sum(sa.case((_CUT, _E.tokens_before))),
    "tokens_after": _sum(sa.case((_CUT, _E.tokens_after))),
    "input_tokens": _sum(_E.input_tokens_billed),
    "output_tokens": _sum(_E.output_tokens_billed),
    "cache_read_tokens": _sum(_E.cache_read_tokens_billed),
    "cache_write_tokens": _sum(_E.cache_write_tokens_billed),
}
_COLUMNS: Final = tuple(column.label(name) for name, column in _TOTALS.items())


def _totals(row: sa.RowMapping) -> Totals:
    return Totals(**_figures(row, Totals))


def _figures(row: sa.RowMapping, kind: type[Totals | Part]) -> dict[str, Any]:
    """The values of a row by the names of the fields that they are for."""
    values: dict[str, Any] = {}
    for each in fields(kind):
        value = row[each.name]
        values[each.name] = usd(value) if each.name.endswith("_usd") else value if each.name == "name" else int(value)
    return values


def totals(database: Database, scope: Scope) -> Totals:
    """Of the whole scope."""
    with database.read() as connection:
        return _totals(connection.execute(sa.select(*_COLUMNS).where(scope.where())).mappings().one())


@dataclass(frozen=True, slots=True)
class Part:
    """The requests with one value in a column: some of `Totals`, because a sum more of each part is a second of a month."""

    name: str
    requests: int
    compared: int
    spent_usd: Decimal
    saved_usd: Decimal
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int


_PART: Final = tuple(_TOTALS[each.name].label(each.name) for each in fields(Part) if each.name != "name")


def by(database: Database, scope: Scope, column: str, limit: int = 50) -> tuple[Part, ...]:
    """By the values of a column out of `FILTERS`, those that cost most first."""
    of = _E[column]
    asked = sa.select(of.label("name"), *_PART).where(scope.where()).group_by(of)
    asked = asked.order_by(_TOTALS["spent_usd"].desc(), sa.func.count().desc(), of).limit(limit)
    with database.read() as connection:
        return tuple(Part(**_figures(row, Part)) for row in connection.execute(asked).mappings())


def over_time(database: Database, scope: Scope, step_ms: int) -> dict[int, Totals]:
    """By spans of `step_ms` milliseconds, under the beginning of each (milliseconds since 1970); those without a request
    are left out."""
    span = (_E.at_ms // step_ms).label("span")
    asked = sa.select(span, *_COLUMNS).where(scope.where()).group_by(span)
    with database.read() as connection:
        return {int(row["span"]) * step_ms: _totals(row) for row in connection.execute(asked).mappings()}


def coverage_over_time(database: Database, scope: Scope, step_ms: int) -> dict[int, tuple[float, ...]]:
    """The quantiles in percent of `QUANTILES`, by nearest rank, of the coverage estimates in each span; as `over_time`.

    What was not cut has a coverage of 1 and says nothing: only requests of which something was cut count.
    """
    span = (_E.at_ms // step_ms).label("span")
    return {int(row[0]) * step_ms: tuple(float(each) for each in row[2:]) for row in _quantiles(database, scope, span)}


def coverage(database: Database, scope: Scope) -> tuple[int, tuple[float, ...]]:
    """How many requests were cut, and the quantiles of `QUANTILES` of their coverage estimates; () where there are none."""
    rows = _quantiles(database, scope, sa.literal(0).label("span"))
    return (int(rows[0][1]), tuple(float(each) for each in rows[0][2:])) if rows else (0, ())


def _quantiles(database: Database, scope: Scope, span: sa.Label[Any]) -> Sequence[Any]:
    cut = _CUT & (_E.tokens_after < _E.tokens_before) & _E.coverage_estimate.is_not(None)
    ranked = (
        sa.select(
            span,
            _E.coverage_estimate.label("value"),
            sa.func.row_number().over(partition_by=span.element, order_by=_E.coverage_estimate).label("rank"),
            sa.func.count().over(partition_by=span.element).label("size"),
        )
        .where(scope.where(), cut)
        .subquery()
    )
    at = [(ranked.c.size * percent + 99) // 100 for percent in QUANTILES]  # the nearest rank, rounded up
    values = [sa.func.max(sa.case((ranked.c.rank == rank, ranked.c.value))) for rank in at]
    asked = sa.select(ranked.c.span, sa.func.max(ranked.c.size), *values).group_by(ranked.c.span)
    with database.read() as connection:
        return connection.execute(asked).all()


@dataclass(frozen=True, slots=True)
class Seller:
    """What is bought in one place: a model at a provider in a service class."""

    provider: str
    model: str
    processing: str


@dataclass(frozen=True, slots=True)
class Sums:
    """Tokens and dollars billed by one seller; `input_tokens` are those neither read from nor written to a cache."""

    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    billed_usd: Decimal

    def at(self, rates: Rates) -> Decimal:
        """What they cost at one row of prices: exact, because within a row a price is the same for every token."""
        return (
            rates.input_usd * self.input_tokens
            + rates.output_usd * self.output_tokens
            + rates.cache_read_usd * self.cache_read_tokens
            + rates.cache_write_usd * self.cache_write_tokens
            + rates.request_usd * self.calls
        )


_READ: Final = sa.func.coalesce(_E.cache_read_tokens_billed, 0)
_WRITTEN: Final = sa.func.coalesce(_E.cache_write_tokens_billed, 0)
_SUMS: Final = (
    sa.func.count(),
    _sum(_E.input_tokens_billed - _READ - _WRITTEN),
    _sum(_E.output_tokens_billed),
    _sum(_READ),
    _sum(_WRITTEN),
    _sum(_E.billed_pico),
)
_SELLER: Final = (_E.provider, _E.model, _E.processing)
_BILLED: Final = _E.billed_pico.is_not(None) & _E.input_tokens_billed.is_not(None)


def _sums(row: Sequence[Any]) -> Sums:
    calls, read, out, cached, written = (int(each) for each in row[:5])
    return Sums(calls, read, out, cached, written, usd(row[5]) or Decimal(0))


def sellers(database: Database, scope: Scope) -> tuple[Seller, ...]:
    """Who billed anything."""
    with database.read() as connection:
        asked = sa.select(*_SELLER).where(scope.where(), _BILLED).distinct().order_by(*_SELLER)
        return tuple(Seller(*row) for row in connection.execute(asked))


def bought(
    database: Database, scope: Scope, boundaries: Mapping[Seller, Sequence[int]]
) -> dict[tuple[Seller, int], Sums]:
    """What was billed by each seller, by the row of prices that each call's input falls into: 0 below the first of the
    seller's `boundaries` (which ascend), 1 above it, and so on."""
    rows = [
        (sa.and_(_is(seller), _E.input_tokens_billed > bound), number + 1)
        for seller, bounds in boundaries.items()
        for number, bound in reversed(tuple(enumerate(bounds)))
    ]
    row = (sa.case(*rows, else_=0) if rows else sa.literal(0)).label("price_row")
    asked = sa.select(*_SELLER, row, *_SUMS).where(scope.where(), _BILLED).group_by(*_SELLER, row)
    with database.read() as connection:
        return {(Seller(*each[:3]), int(each[3])): _sums(each[4:]) for each in connection.execute(asked)}


def _is(seller: Seller) -> sa.ColumnElement[bool]:
    return sa.and_(*(_E[name] == getattr(seller, name) for name in Seller.__slots__))


@dataclass(frozen=True, slots=True)
class PriceList:
    """A price version that requests of a seller were billed at, and when it was first and last seen."""

    seller: Seller
    version: str
    first: datetime
    last: datetime
    calls: int
    billed_usd: Decimal


def price_lists(database: Database, scope: Scope, limit: int = 50) -> tuple[PriceList, ...]:
    """The latest first."""
    first, last = sa.func.min(_E.at_ms), sa.func.max(_E.at_ms)
    asked = sa.select(*_SELLER, _E.prices_version, first, last, sa.func.count(), _sum(_E.billed_pico))
    asked = asked.where(scope.where(), _BILLED).group_by(*_SELLER, _E.prices_version)
    asked = asked.order_by(first.desc(), *_SELLER).limit(limit)
    with database.read() as connection:
        return tuple(
            PriceList(
                Seller(*row[:3]), row[3], _moment(row[4]), _moment(row[5]), int(row[6]), usd(row[7]) or Decimal(0)
            )
            for row in connection.execute(asked)
        )


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Boundary:
    """The answered requests of one seller around one price boundary: at most 5 % above it (`over`, `over_sums`), at most
    5 % below it (`under`), and those that the cut brought from above it to below (`brought_under`)."""

    seller: Seller
    tokens: int
    over: int
    over_tokens: int
    over_sums: Sums
    under: int
    brought_under: int


def boundaries(database: Database, scope: Scope) -> tuple[Boundary, ...]:
    """Those with a request near them, the most missed first. `over_tokens` is by how many tokens those above are above."""
    above = _E.over_boundary_tokens
    over = (above > 0) & (above * NEAR <= _E.boundary_tokens)
    under = (above <= 0) & (-above * NEAR <= _E.boundary_tokens)
    brought = (above <= 0) & _CUT & (above + _E.tokens_before - _E.tokens_after > 0)
    sums = (
        _ones(over),
        *(_sum(sa.case((over, column))) for column in _OF_OVER),
    )
    asked = sa.select(*_SELLER, _E.boundary_tokens, *sums, _sum(sa.case((over, above))), _ones(under), _ones(brought))
    asked = asked.where(scope.where(), _BILLED, _E.boundary_tokens.is_not(None), over | under | brought)
    asked = asked.group_by(*_SELLER, _E.boundary_tokens).order_by(_ones(over).desc(), *_SELLER)
    with database.read() as connection:
        return tuple(
            Boundary(
                Seller(*row[:3]), int(row[3]), int(row[4]), int(row[10]), _sums(row[4:10]), int(row[11]), int(row[12])
            )
            for row in connection.execute(asked)
        )


_OF_OVER: Final = (
    _E.input_tokens_billed - _READ - _WRITTEN,
    _E.output_tokens_billed,
    _READ,
    _WRITTEN,
    _E.billed_pico,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One request and its number in the ledger."""

    number: int
    entry: Entry


def latest(database: Database, scope: Scope, limit: int, before: int | None = None) -> tuple[Line, ...]:
    """The latest written first: those below the number `before`, where it is given. Without their details."""
    asked = sa.select(ENTRIES).where(scope.where())
    if before is not None:
        asked = asked.where(_E.number < before)
    with database.read() as connection:
        rows = connection.execute(asked.order_by(_E.number.desc()).limit(limit)).mappings()
        return tuple(Line(int(row["number"]), entry_of(row)) for row in rows)


def one(database: Database, receipt_id: str) -> Entry | None:
    """One request with its detail; None where the ledger has none of that id."""
    asked = sa.select(ENTRIES, DETAILS.c.detail)
    asked = asked.select_from(ENTRIES.outerjoin(DETAILS, DETAILS.c.receipt_id == _E.receipt_id))
    with database.read() as connection:
        row = connection.execute(asked.where(_E.receipt_id == receipt_id)).mappings().one_or_none()
    return None if row is None else entry_of(row, None if row["detail"] is None else bytes(row["detail"]))


def numbers_above(database: Database, number: int) -> tuple[int, ...]:
    """The numbers of the entries above `number`, ascending. On PostgreSQL one may become visible after a higher one."""
    asked = sa.select(_E.number).where(_E.number > number).order_by(_E.number)
    with database.read() as connection:
        return tuple(connection.scalars(asked))


def last_number(database: Database) -> int:
    """The highest number in the ledger; 0 for an empty one."""
    with database.read() as connection:
        return int(connection.scalar(sa.select(sa.func.max(_E.number))) or 0)
