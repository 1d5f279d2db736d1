"""Reconciling: a provider's export held against the ledger, and in words what explains a difference.

The arithmetic is pure (`compare`, `explanations`); `ours` reads the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

import sqlalchemy as sa

from trimtab.database import Database
from trimtab.ledger.entries import ENTRIES, usd
from trimtab.ledger.exports import Used, model_name
from trimtab.ledger.queries import DAY_MS, Filter

By = Literal["day-model", "model", "day", "total"]
FIGURES: Final = ("requests", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "usd")


@dataclass(frozen=True, slots=True)
class Sums:
    """One side's figures. None: this side does not say. `unbilled` counts answered requests whose bill is not known; their
    dollars are those that were expected, `unbilled_usd`. `failed` counts the requests that nobody answered."""

    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    usd: Decimal | None = None
    unbilled: int = 0
    unbilled_usd: Decimal = Decimal(0)
    failed: int = 0

    def plus(self, other: Sums) -> Sums:
        return Sums(*(_added(getattr(self, each.name), getattr(other, each.name)) for each in fields(Sums)))


def _added(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other


@dataclass(frozen=True, slots=True)
class Row:
    """A day and a model ("" where they are not told apart), on both sides; None where a side has nothing of it."""

    day: str
    model: str
    theirs: Sums | None
    ours: Sums | None

    def difference(self, name: str) -> Any:
        """Theirs less ours; None where the export does not say. Nothing on a side counts as 0."""
        their = 0 if self.theirs is None else getattr(self.theirs, name)
        if their is None:
            return None
        return their - ((getattr(self.ours, name) if self.ours else None) or 0)

    def exceeds(self, tolerance: Decimal, least_usd: Decimal, figures: Sequence[str]) -> bool:
        """Whether any of the figures differs by more than that share; of dollars, `least_usd` may differ in any case."""
        return any(self._exceeds(name, tolerance, least_usd) for name in figures)

    def _exceeds(self, name: str, tolerance: Decimal, least_usd: Decimal) -> bool:
        difference = self.difference(name)
        if difference is None:
            return False
        larger = max((getattr(side, name) or 0 for side in (self.theirs, self.ours) if side is not None), default=0)
        return bool(abs(difference) > max(tolerance * larger, least_usd if name == "usd" else 0))


def theirs(rows: Iterable[Used]) -> dict[tuple[str, str], Sums]:
    """An export's rows by day and model."""
    found: dict[tuple[str, str], Sums] = {}
    for row in rows:
        sums = Sums(*(getattr(row, name) for name in FIGURES))
        key = (row.day, row.model)
        found[key] = found[key].plus(sums) if key in found else sums
    return found


def ours(database: Database, provider: str, since: str, until: str) -> dict[tuple[str, str], Sums]:
    """The ledger's sums of one provider by day and model, from the day `since` to the day `until`, both of them in UTC."""
    c = ENTRIES.c
    day = c.at_ms - c.at_ms % DAY_MS
    answered = sa.case((c.answered, 1), else_=0)
    unbilled = sa.and_(c.answered, c.billed_pico.is_(None))
    wanted = Filter(provider=provider).clauses()
    query = (
        sa.select(
            day.label("day"),
            c.model,
            sa.func.sum(answered).label("requests"),
            *(sa.func.sum(c[f"{name}_billed"]).label(name) for name in FIGURES[1:5]),
            sa.func.sum(c.cost_pico).label("usd"),
            sa.func.sum(sa.case((unbilled, 1), else_=0)).label("unbilled"),
            sa.func.sum(sa.case((unbilled, c.cost_pico), else_=0)).label("unbilled_usd"),
            sa.func.sum(1 - answered).label("failed"),
        )
        .where(*wanted, c.at_ms >= _ms(since), c.at_ms < _ms(until) + DAY_MS)
        .group_by(day, c.model)
    )
    found: dict[tuple[str, str], Sums] = {}
    with database.read() as connection:
        for row in connection.execute(query).mappings():
            counts = {name: int(row[name] or 0) for name in (*FIGURES[:5], "unbilled", "failed")}
            dollars = {name: usd(row[name] or 0) or Decimal(0) for name in ("usd", "unbilled_usd")}
            sums = Sums(**counts, **dollars)  # type: ignore[arg-type]
            key = (_name(int(row["day"])), model_name(row["model"]))
            found[key] = found[key].plus(sums) if key in found else sums
    return found


def providers(database: Database) -> list[str]:
    """The names of all providers in the ledger."""
    with database.read() as connection:
        return sorted(connection.execute(sa.select(ENTRIES.c.provider).distinct()).scalars())


def _ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def _name(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%d}"


_KEYS: Final[Mapping[By, Callable[[str, str], tuple[str, str]]]] = {
    "day-model": lambda day, model: (day, model),
    "model": lambda _, model: ("", model),
    "day": lambda day, _: (day, ""),
    "total": lambda *_: ("", ""),
}


def compare(
    their: Mapping[tuple[str, str], Sums], own: Mapping[tuple[str, str], Sums], by: By = "day-model"
) -> list[Row]:
    """Both sides beside each other. An export that does not tell models apart is compared by the day."""
    if not any(model for _, model in their):
        by = "total" if by in ("total", "model") else "day"
    sides = [_grouped(side, _KEYS[by]) for side in (their, own)]
    # what was tried and never answered is no entry of a bill
    keys = sorted(key for key in {*sides[0], *sides[1]} if key in sides[0] or (sides[1][key].requests or 0) > 0)
    return [Row(*key, sides[0].get(key), sides[1].get(key)) for key in keys]


def _grouped(
    side: Mapping[tuple[str, str], Sums], key: Callable[[str, str], tuple[str, str]]
) -> dict[tuple[str, str], Sums]:
    grouped: dict[tuple[str, str], Sums] = {}
    for (day, model), sums in side.items():
        name = key(day, model)
        grouped[name] = grouped[name].plus(sums) if name in grouped else sums
    return grouped


def explanations(rows: Sequence[Row], tolerance: Decimal) -> list[str]:
    """What may explain the differences, in sentences, the plainest first. Empty where there is nothing to explain."""
    found: list[str] = []
    alone = [row for row in rows if row.ours is None]
    if alone:
        spent = sum(((row.theirs.usd or Decimal(0)) for row in alone if row.theirs), Decimal(0))
        found.append(
            f"{_listed(alone)}: in the export and not in the ledger (${spent:,.4f}). These requests did not pass through "
            "trimtab, or not with its ledger on: another application uses the same account, or the ledger was begun later."
        )
    unknown = [row for row in rows if row.theirs is None]
    if unknown:
        found.append(
            f"{_listed(unknown)}: in the ledger and not in the export. The export is of another account, project or "
            "workspace, it was filtered, or it was made before the provider had counted these (that takes up to a day)."
        )
    both = [row for row in rows if row.theirs is not None and row.ours is not None]
    found += _of_requests(both)
    found += _of_bills(both, tolerance)
    if not found and any(row.exceeds(tolerance, Decimal(0), FIGURES) for row in rows):
        found.append(
            "The same number of requests, and other tokens: nothing in the ledger explains it. Compare a single day, and ask "
            "the provider for an export by API key."
        )
    return found


def _of_requests(rows: Sequence[Row]) -> list[str]:
    found = []
    more = sum(max(0, row.difference("requests") or 0) for row in rows)
    fewer = sum(max(0, -(row.difference("requests") or 0)) for row in rows)
    if more:
        found.append(
            f"They count {more:,} requests more than the ledger has. Some did not pass through trimtab; a request is also "
            "counted anew for each round in which the model asks to see more of what was cut, and for each attempt that "
            "failed after it was read and was made again elsewhere."
        )
    if fewer:
        found.append(
            f"The ledger has {fewer:,} requests more than they count. A request belongs to the day on which it came, and "
            "they may count it on the day on which it ended: compare with --by model. Or the export is filtered."
        )
    return found


def _of_bills(rows: Sequence[Row], tolerance: Decimal) -> list[str]:
    found = []
    unbilled = sum(row.ours.unbilled for row in rows if row.ours)
    if unbilled:
        spent = sum((row.ours.unbilled_usd for row in rows if row.ours), Decimal(0))
        found.append(
            f"{unbilled:,} answers in the ledger came without a bill (streams that broke off, or that did not ask for "
            f"usage): their ${spent:,.4f} are what was expected, and their tokens are not in the sums."
        )
    none = Decimal(0)
    priced = [
        row
        for row in rows
        if row.exceeds(tolerance, none, ("usd",))
        and not row.exceeds(tolerance, none, ("input_tokens", "output_tokens"))
    ]
    known = [row for row in priced if row.theirs and row.theirs.input_tokens is not None]
    if known:
        found.append(
            f"{_listed(known)}: the tokens agree and the dollars do not. The prices differ: a discount, a credit, tax, "
            "another service class, or a price that changed; trimtab prices MODEL shows what the ledger reckons with."
        )
    return found


def _listed(rows: Sequence[Row], most: int = 4) -> str:
    names = [" ".join(each for each in (row.day, row.model) if each) or "in all" for row in rows]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
