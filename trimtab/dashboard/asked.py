"""Asked: what the address of the overview asks to see, and the addresses that ask for something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from trimtab.errors import BadRequest
from trimtab.ledger.figures import FILTERS, Scope

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Span:
    """A range that can be chosen: so many steps of time, of which the one under way is the last."""

    name: str
    words: str
    step_ms: int
    steps: int

    @property
    def step_words(self) -> str:
        return "hour" if self.step_ms == HOUR_MS else "day"

    def starts(self, now: datetime) -> tuple[int, ...]:
        """The beginnings of the steps, milliseconds since 1970: whole hours or days in UTC."""
        last = int(now.timestamp() * 1000) // self.step_ms
        return tuple((last - back) * self.step_ms for back in reversed(range(self.steps)))


SPANS: Final = (
    Span("24h", "24 h", HOUR_MS, 24),
    Span("7d", "7 d", HOUR_MS, 7 * 24),
    Span("30d", "30 d", DAY_MS, 30),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """`filters` are (name, value) pairs of those that are set; `before` is the number that the listed requests are below."""

    span: Span = SPANS[0]
    filters: tuple[tuple[str, str], ...] = ()
    before: int | None = None

    @staticmethod
    def of(query: Mapping[str, str]) -> Asked:
        """What a form sends: a filter that is "" is not set; "=" asks for requests that have none. Raises BadRequest."""
        name = query.get("range", SPANS[0].name)
        span = next((each for each in SPANS if each.name == name), None)
        if span is None:
            raise BadRequest("range", f"must be one of {', '.join(each.name for each in SPANS)}, not {name[:20]!r}")
        before = query.get("before", "")
        if before and not (before.isascii() and before.isdigit() and len(before) < 19):
            raise BadRequest("before", "must be a number of the ledger")
        filters = tuple((each, query[each]) for each in FILTERS if query.get(each))
        return Asked(span, filters, int(before) if before else None)

    def scope(self, now: datetime) -> Scope:
        # NUL is a character that PostgreSQL has not
        values = {name: "" if value == "=" else value.replace("\0", "") for name, value in self.filters}
        return Scope(self.span.starts(now)[0], **values)

    def value(self, name: str) -> str:
        """What a filter is set to; "" where it is not."""
        return dict(self.filters).get(name, "")

    def url(self) -> str:
        pairs = [] if self.span is SPANS[0] else [("range", self.span.name)]
        pairs += self.filters
        pairs += [] if self.before is None else [("before", str(self.before))]
        return f"/?{urlencode(pairs)}" if pairs else "/"

    def narrowed(self, name: str, value: str) -> Asked:
        """The same with one filter set to `value` of a column."""
        others = tuple(each for each in self.filters if each[0] != name)
        return replace(self, filters=(*others, (name, value or "=")), before=None)

    def older(self, number: int) -> Asked:
        return replace(self, before=number)

    def newest(self) -> Asked:
        return replace(self, before=None)


def moment_of(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
