"""Queries: lines of the ledger and their totals. Blocking; right on SQLite and PostgreSQL alike."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from trimtab.database import Database
from trimtab.ledger.entries import DETAILS, ENTRIES, TABLES, Entry, at_ms, entry_of, usd

DAY_MS: Final = 86_400_000
MOST_AT_ONCE: Final = 5_000

_C: Final = ENTRIES.c
GROUPS: Final[Mapping[str, Any]] = {
    "provider": _C.provider,
    "model": _C.model,
    "model-asked": _C.model_asked,
    "processing": _C.processing,
    "surface": _C.surface,
    "outcome": _C.outcome,
    "tenant": _C.tenant,
    "key": _C.key,
    "team": _C.team,
    "route": _C.route,
    "user": _C.user,
    "day": _C.at_ms - _C.at_ms % DAY_MS,
}
"""What totals can be made by. A day is one of UTC, as providers bill."""

_COUNTS: Final = (
    *("tokens_before", "tokens_after", "input_tokens_billed", "output_tokens_billed"),
    *("cache_read_tokens_billed", "cache_write_tokens_billed"),
)
_DOLLARS: Final = ("cost", "baseline", "saved", "cache_loss")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which lines: of `since` up to but without `until`, and with these values in these columns. `tag` is a pair of
    `metadata`, that was sent with the request. `tenant` None: everybody's."""

    since: datetime | None = None
    until: datetime | None = None
    tenant: str | None = None
    provider: str | None = None
    model: str | None = None
    key: str | None = None
    team: str | None = None
    route: str | None = None
    user: str | None = None
    outcome: str | None = None
    answered: bool | None = None
    negative: bool = False
    tag: tuple[str, str] | None = None

    def clauses(self) -> list[Any]:
        """The conditions, to be joined by and."""
        names = ("tenant", "provider", "model", "key", "team", "route", "user", "outcome", "answered")
        found: list[Any] = [_C[name] == getattr(self, name) for name in names if getattr(self, name) is not None]
        if self.since is not None:
            found.append(_C.at_ms >= at_ms(self.since))
        if self.until is not None:
            found.append(_C.at_ms < at_ms(self.until))
        if self.negative:
            found.append(_C.saved_pico < 0)
        return found


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over lines: dollars exactly, tokens as far as they are known. `name` is the group's, "" for all of them."""

    name: str
    requests: int
    answered: int
    tokens_before: int
    tokens_after: int
    input_tokens_billed: int
    output_tokens_billed: int
    cache_read_tokens_billed: int
    cache_write_tokens_billed: int
    cost_usd: Decimal
    baseline_usd: Decimal
    saved_usd: Decimal
    cache_loss_usd: Decimal


def lines(database: Database, wanted: Filter = Filter(), limit: int = 50) -> list[Entry]:
    """The latest lines, newest first, without their details."""
    query = sa.select(ENTRIES).where(*wanted.clauses()).order_by(_C.at_ms.desc(), _C.number.desc())
    with database.read() as connection:
        if wanted.tag is None:
            return [entry_of(row) for row in connection.execute(query.limit(limit)).mappings()]
        found: list[Entry] = []
        for row in connection.execution_options(stream_results=True).execute(_with_detail(query)).mappings():
            if _has_tag(row["detail"], wanted.tag):
                found.append(entry_of(row))
                if len(found) == limit:
                    break
        return found


def line(database: Database, receipt_id: str) -> Entry | None:
    """One request's line with its details; None where there is none. The beginning of an id will do, if only one begins so."""
    query = _with_detail(sa.select(ENTRIES).where(_C.receipt_id.startswith(receipt_id, autoescape=True))).limit(2)
    with database.read() as connection:
        rows = connection.execute(query).mappings().all()
    whole = [row for row in rows if row["receipt_id"] == receipt_id] or rows
    return entry_of(whole[0], whole[0]["detail"]) if len(whole) == 1 else None


def totals(database: Database, by: str | None = None, wanted: Filter = Filter()) -> list[Total]:
    """The sums of each group, dearest first (days: latest first); of all lines where `by` is None.

    `by` is one of `GROUPS`, or "metadata:NAME" for the values of a caller's own tag.
    """
    if wanted.tag is not None or (by is not None and by.startswith("metadata:")):
        return _totals_by_tag(database, by, wanted)
    group = sa.literal("") if by is None else GROUPS[by]
    query = sa.select(group.label("name"), *_sums()).where(*wanted.clauses())
    if by is not None:
        query = query.group_by(group)
    with database.read() as connection:
        rows = connection.execute(query).mappings().all()
    found = [_total(row, _day(row["name"]) if by == "day" else str(row["name"])) for row in rows]
    return _in_order(found, by)


def _in_order(found: list[Total], by: str | None) -> list[Total]:
    if by == "day":
        return sorted(found, key=lambda each: each.name, reverse=True)
    return sorted(found, key=lambda each: (-each.cost_usd, each.name))


def _sums() -> list[Any]:
    return [
        sa.func.count().label("requests"),
        sa.func.sum(sa.case((_C.answered, 1), else_=0)).label("answered"),
        *(sa.func.sum(_C[name]).label(name) for name in _COUNTS),
        *(sa.func.sum(_C[f"{name}_pico"]).label(f"{name}_pico") for name in _DOLLARS),
    ]


def _total(row: Mapping[Any, Any], name: str) -> Total:
    counts = {each: int(row[each] or 0) for each in ("requests", "answered", *_COUNTS)}
    dollars = {f"{each}_usd": usd(row[f"{each}_pico"] or 0) for each in _DOLLARS}
    return Total(name=name, **counts, **dollars)  # type: ignore[arg-type]


def _day(ms: Any) -> str:
    return f"{datetime.fromtimestamp(int(ms) // 1000, UTC):%Y-%m-%d}"


def _totals_by_tag(database: Database, by: str | None, wanted: Filter) -> list[Total]:
    """Tags are in the details: they are read line by line, since the engines' words for JSON differ."""
    own = by.partition(":")[2] if by is not None and by.startswith("metadata:") else None
    group = sa.literal("") if by is None or own is not None else GROUPS[by]
    query = _with_detail(sa.select(ENTRIES, group.label("name")).where(*wanted.clauses()))
    sums: dict[str, dict[str, int]] = {}
    with database.read() as connection:
        for row in connection.execution_options(stream_results=True).execute(query).mappings():
            if wanted.tag is not None and not _has_tag(row["detail"], wanted.tag):
                continue
            name = str(row["name"]) if own is None else _metadata(row["detail"]).get(own, "")
            group_sums = sums.setdefault(_day(name) if by == "day" else name, {})
            values = {"requests": 1, "answered": int(row["answered"])}
            values |= {each: row[each] or 0 for each in (*_COUNTS, *(f"{each}_pico" for each in _DOLLARS))}
            for each, value in values.items():
                group_sums[each] = group_sums.get(each, 0) + value
    return _in_order([_total(row, name) for name, row in sums.items()], by)


def _with_detail(query: sa.Select[Any]) -> sa.Select[Any]:
    joined = ENTRIES.outerjoin(DETAILS, DETAILS.c.receipt_id == _C.receipt_id)
    return query.add_columns(DETAILS.c.detail).select_from(joined)


def _metadata(detail: bytes | None) -> Mapping[str, str]:
    found = json.loads(detail).get("metadata") if detail else None
    return found if isinstance(found, dict) else {}


def _has_tag(detail: bytes | None, tag: tuple[str, str]) -> bool:
    return _metadata(detail).get(tag[0]) == tag[1]


def details(database: Database, wanted: Filter = Filter()) -> Iterator[Entry]:
    """Every line with its details, oldest first, for whoever analyses them; read in parts, so that a month fits."""
    after: tuple[int, int] = (-1, -1)
    while True:
        later = sa.or_(_C.at_ms > after[0], sa.and_(_C.at_ms == after[0], _C.number > after[1]))
        query = sa.select(ENTRIES).where(*wanted.clauses(), later).order_by(_C.at_ms, _C.number).limit(500)
        with database.read() as connection:
            rows: Sequence[Any] = connection.execute(_with_detail(query)).mappings().all()
        yield from (
            entry_of(row, row["detail"]) for row in rows if wanted.tag is None or _has_tag(row["detail"], wanted.tag)
        )
        if len(rows) < 500:
            return
        after = rows[-1]["at_ms"], rows[-1]["number"]


def prune(database: Database, days: float, now: datetime) -> int:
    """Delete lines older than `days`, in several short transactions, and give how many."""
    before = at_ms(now - timedelta(days=days))
    database.create(TABLES)
    deleted = 0
    while True:
        oldest = sa.select(_C.number).where(_C.at_ms < before).order_by(_C.at_ms).limit(MOST_AT_ONCE)
        with database.begin() as connection:
            count = connection.execute(sa.delete(ENTRIES).where(_C.number.in_(oldest))).rowcount
            deleted += count
            if count < MOST_AT_ONCE:
                connection.execute(sa.delete(DETAILS).where(DETAILS.c.at_ms < before))
                return deleted
