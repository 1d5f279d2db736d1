"""The overview: everything on the page at `/`. `read` asks the database, `overview` makes of it what the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa

from routing.catalog import Catalog
from trimtab.dashboard import charts
from trimtab.dashboard.asked import Asked, moment_of
from trimtab.dashboard.charts import Chart
from trimtab.dashboard.market import (
    Health,
    Known,
    NewPrices,
    PriceStep,
    Repriced,
    healths,
    new_prices,
    offers_now,
    price_steps,
    repriced,
)
from trimtab.database import Database
from trimtab.deferred import job
from trimtab.ledger import figures
from trimtab.ledger.figures import FILTERS, Line, Part, PriceList, Scope, Totals

PAGE = 25
"""Requests on a page."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The deferred lane: what is `waiting` and what is `running` (a worker or a provider's batch has it) now, and of what was
    accepted within the window what is `done`, what of it was `promoted` (bought at once, since its deadline would not wait)
    and what has `failed` (expired included)."""

    waiting: int = 0
    running: int = 0
    done: int = 0
    promoted: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What the ledger holds of the scope, as it was read. `by` has the values of each filter's column among the requests
    that agree with all *other* filters, `last` is the number of the ledger's last line; 0: it has none."""

    totals: Totals
    by: Mapping[str, tuple[Part, ...]]
    by_step: Mapping[int, Totals]
    cut: int
    coverage: tuple[float, ...]
    coverage_by_step: Mapping[int, tuple[float, ...]]
    price_lists: tuple[PriceList, ...]
    repriced: tuple[Repriced, ...]
    steps: tuple[PriceStep, ...]
    lines: tuple[Line, ...]
    deferred: Deferred
    last: int


def read(database: Database, asked: Asked, now: datetime, catalog: Catalog) -> Figures:
    """Blocking. Each figure is a statement of its own: between two of them a request may be added. `last` is read first, so
    that whoever asks what came after it is told of every request that a figure may lack."""
    last = figures.last_number(database)
    scope, step_ms = asked.scope(now), asked.span.step_ms
    sellers = figures.sellers(database, scope)
    offers = offers_now(catalog, sellers, now)
    bought = figures.bought(database, scope, {seller: offer.boundaries for seller, offer in offers.items()})
    cut, coverage = figures.coverage(database, scope)
    return Figures(
        figures.totals(database, scope),
        {name: figures.by(database, scope.without(name), name) for name in FILTERS},
        figures.over_time(database, scope, step_ms),
        cut,
        coverage,
        figures.coverage_over_time(database, scope, step_ms),
        figures.price_lists(database, scope),
        repriced(bought, offers),
        price_steps(figures.boundaries(database, scope), offers),
        figures.latest(database, scope, PAGE + 1, asked.before),
        _deferred(database, scope, now),
        last,
    )


def _deferred(database: Database, scope: Scope, now: datetime) -> Deferred:
    column = job.JOBS.c
    wanted = [column.caller_key == scope.key] if scope.key is not None else []
    wanted += [column.team == scope.team] if scope.team is not None else []
    recent = column.state.in_(job.OPEN) | (column.accepted_at >= scope.since_ms / 1000)
    leased = sa.case(((column.state == job.WAITING) & (column.lease_until > now.timestamp()), 1), else_=0).label(
        "leased"
    )
    asked = sa.select(column.state, leased, column.lane, sa.func.count()).where(recent, *wanted)
    with database.read() as connection:
        rows = connection.execute(asked.group_by(column.state, leased, column.lane)).all()

    def count(*states: str, lane: str | None = None, leased: int = 0) -> int:
        return sum(
            many for state, held, bought, many in rows if state in states and held == leased and lane in (None, bought)
        )

    return Deferred(
        count(job.WAITING),
        count(job.SHIPPED) + count(job.WAITING, leased=1),
        count(job.COMPLETED),
        count(job.COMPLETED, lane="sync"),
        count(job.FAILED, job.EXPIRED),
        count(job.CANCELLED),
    )


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Totals by the values of one column; `most_usd` is the largest spending of them, for bars."""

    name: str
    title: str
    label: str
    rows: tuple[Part, ...]
    most_usd: Decimal


_BREAKDOWNS = (
    ("provider", "By provider", "Provider"),
    ("model", "By model", "Model"),
    ("route", "By tag", "Tag (route)"),
    ("user", "By user", "User"),
    ("team", "By team", "Team"),
    ("key", "By key", "Key"),
)


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows. `untouched_share` and the like are left to the page: they are quotients of what is here."""

    asked: Asked
    since: datetime
    now: datetime
    figures: Figures
    options: Mapping[str, tuple[str, ...]]
    charts: Mapping[str, Chart]
    breakdowns: tuple[Breakdown, ...]
    healths: tuple[Health, ...]
    new_prices: tuple[NewPrices, ...]
    lines: tuple[Line, ...]
    older_url: str | None
    state: str = ""

    @property
    def totals(self) -> Totals:
        return self.figures.totals

    @property
    def now_usd(self) -> Decimal:
        """What all that has a price today costs at it."""
        return sum((each.now_usd for each in self.figures.repriced if each.now_usd is not None), Decimal(0))

    @property
    def billed_usd(self) -> Decimal:
        """What was billed of it."""
        return sum((each.billed_usd for each in self.figures.repriced if each.now_usd is not None), Decimal(0))


def overview(asked: Asked, now: datetime, found: Figures, providers: tuple[str, ...], known: Known) -> Overview:
    """Pure. `providers` are the configured ones' names, `known` what health says of each that was called."""
    starts, span = asked.span.starts(now), asked.span
    drawn = (
        charts.money(starts, span, found.by_step),
        charts.saved(starts, span, found.by_step),
        charts.context(starts, span, found.by_step),
        charts.coverages(starts, span, found.coverage_by_step),
    )
    lines = found.lines[:PAGE]
    older = asked.older(lines[-1].number).url() if len(found.lines) > PAGE else None
    return Overview(
        asked,
        moment_of(starts[0]),
        now,
        found,
        {name: _options(asked, name, found.by[name]) for name in FILTERS},
        {chart.id: chart for chart in drawn},
        tuple(each for row in _BREAKDOWNS if (each := _breakdown(asked, *row, found.by[row[0]])) is not None),
        healths(providers, known),
        new_prices(found.price_lists),
        lines,
        older,
    )


def _options(asked: Asked, name: str, values: tuple[Part, ...]) -> tuple[str, ...]:
    """What a filter can be set to, by name; nothing where there is no choice. "=" stands for requests that have none."""
    options = {each.name or "=" for each in values} | ({asked.value(name)} - {""})
    return tuple(sorted(options)) if options - {"="} else ()


def _breakdown(asked: Asked, name: str, title: str, label: str, values: tuple[Part, ...]) -> Breakdown | None:
    wanted = asked.value(name)
    rows = tuple(each for each in values if not wanted or (each.name or "=") == wanted)
    if not any(each.name for each in rows):
        return None  # a table with one row, "none", says nothing
    return Breakdown(name, title, label, rows, max(each.spent_usd for each in rows))
