"""Report: what was found, what each change would save, and what all of them together would. Plain data for JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from routing.offers import plain
from trimtab.analysis.findings import FINDERS
from trimtab.analysis.recordings import Recording
from trimtab.analysis.study import Finding, Study
from trimtab.analysis.wording import printable

MAX_NAMED: Final = 50
"""Requests that a report names of one finding; their count is always whole."""

MAX_PROBLEMS: Final = 20
MAX_ID_CHARS: Final = 100


@dataclass(frozen=True, slots=True)
class Row:
    """A finding with its dollars. `saved_usd` is over the recording and `day_usd` a day of it (None where no times are
    recorded). `unpriced` counts its requests whose price nobody knows: they are in no dollar."""

    finding: Finding
    models: tuple[str, ...]
    requests: tuple[str, ...]
    places: tuple[str, ...]
    saved_usd: Decimal
    day_usd: Decimal | None
    unpriced: int


@dataclass(frozen=True, slots=True)
class Report:
    """`rows` by what they save, the largest first. `together_usd`: every request priced once after all changes to it, which
    is less than the sum of the rows where they overlap. `spent_usd` is what the recording cost at list prices."""

    source: str
    requests: int
    groups: int
    passed: int
    more: bool
    problems: tuple[str, ...]
    shapes: tuple[tuple[str, int], ...]
    unpriced: tuple[tuple[str, int], ...]
    window: tuple[datetime, datetime] | None
    days: Decimal | None
    spent_usd: Decimal
    billed: int
    together_usd: Decimal
    rows: tuple[Row, ...]

    @property
    def together_day_usd(self) -> Decimal | None:
        return None if self.days is None else self.together_usd / self.days

    def to_dict(self) -> dict[str, Any]:
        """Dollars as decimal texts, exact over the recording, and to a hundredth of a cent a day."""
        return {
            "source": self.source,
            "requests": self.requests,
            "requests_with_a_bill": self.billed,
            "groups": self.groups,
            "shapes": dict(self.shapes),
            "passed_over": self.passed,
            "more_not_read": self.more,
            "unreadable": len(self.problems),
            "problems": list(self.problems[:MAX_PROBLEMS]),
            "unpriced": dict(self.unpriced),
            "from": None if self.window is None else self.window[0].isoformat(),
            "until": None if self.window is None else self.window[1].isoformat(),
            "days": None if self.days is None else plain(round(self.days, 4)),
            "spent_usd": plain(self.spent_usd),
            "together_usd": plain(self.together_usd),
            "together_usd_per_day": _a_day(self.together_day_usd),
            "findings": [_row(row) for row in self.rows],
        }


def _row(row: Row) -> dict[str, Any]:
    found = row.finding
    return {
        "kind": found.kind,
        "models": list(row.models),
        "title": found.title,
        "change": found.advice,
        "saved_usd": plain(row.saved_usd),
        "saved_usd_per_day": _a_day(row.day_usd),
        "tokens": found.tokens,
        "basis": found.basis,
        "reckoned": found.reckoned,
        "requests": len(row.requests),
        "request_ids": list(row.requests[:MAX_NAMED]),
        "places": list(row.places[:MAX_NAMED]),
        "unpriced_requests": row.unpriced,
        "excerpts": list(found.excerpts),
    }


def _a_day(amount_usd: Decimal | None) -> str | None:
    return None if amount_usd is None else plain(round(amount_usd, 4))


def reported(
    study: Study,
    recording: Recording,
    source: str,
    problems: Sequence[str] = (),
    *,
    excerpts: bool = True,
    told: Callable[[str], None] = lambda _: None,
) -> Report:
    """The report on a study. `told` hears what is looked for next. CPU-bound."""
    rows: list[Row] = []
    for looks_for, finder in FINDERS.items():
        told(looks_for)
        rows += [_reckoned(study, found if excerpts else replace(found, excerpts=())) for found in finder(study)]
    rows = sorted((row for row in rows if row.saved_usd >= 0), key=lambda row: (-row.saved_usd, -len(row.requests)))
    costs = [study.cost_usd(i) for i in range(len(study.requests))]
    unpriced: dict[str, int] = {}
    for request, cost in zip(study.requests, costs, strict=True):
        if cost is None:
            name = printable(request.model)
            unpriced[name] = unpriced.get(name, 0) + 1
    return Report(
        source=printable(source),
        requests=len(study.requests),
        groups=len(study.groups),
        passed=recording.passed,
        more=recording.more,
        problems=tuple(printable(each) for each in (*recording.problems, *problems)),
        shapes=tuple(recording.shapes.items()),
        unpriced=tuple(unpriced.items()),
        window=study.window,
        days=study.days,
        spent_usd=sum((cost for cost in costs if cost is not None), Decimal(0)),
        billed=sum(request.usage is not None for request in study.requests),
        together_usd=study.saved_usd(_in_turn(rows)),
        rows=tuple(rows),
    )


def _in_turn(rows: Iterable[Row]) -> Iterable[Any]:
    """The changes of all rows, those that save most first: what one of them takes out, no later one takes out again."""
    return (change for row in rows if row.saved_usd > 0 for change in row.finding.changes)


def _reckoned(study: Study, found: Finding) -> Row:
    numbers = list(dict.fromkeys(change.request for change in found.changes))
    found = replace(
        found,
        title=printable(found.title),
        advice=printable(found.advice),
        excerpts=tuple(printable(each) for each in found.excerpts),
    )
    saved = study.saved_usd(found.changes)
    return Row(
        finding=found,
        models=tuple(dict.fromkeys(printable(study.requests[i].model) for i in numbers)),
        requests=tuple(printable(study.requests[i].id, MAX_ID_CHARS) for i in numbers),
        places=tuple(printable(study.requests[i].where) for i in numbers),
        saved_usd=saved,
        day_usd=None if study.days is None else saved / study.days,
        unpriced=sum(study.cost_usd(i) is None for i in numbers),
    )
