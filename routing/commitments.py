"""Commitments: capacity that is paid for whether it is used or not, so that using it costs nothing more.

`committed` is pure: an offer, a commitment and what was used of it go in, the offer as the commitment makes it comes
out. What is left shows up as one more price boundary, so that a plan needs to know nothing of commitments: it cuts to
just under it where that pays. `Drawdown` counts what was used, in this process.
"""

from __future__ import annotations

import math
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

from routing.offers import Offer, Rates, Usage, price
from routing.stated import SCOPE_FIELDS, Scope, Stated

Period = Literal["hour", "day", "month"]

_FIELDS = (*SCOPE_FIELDS, "per", "tokens", "usd", "output_weight", "price_usd")
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Commitment:
    """So much of a provider's models in every hour, day or month of the calendar; what is left at its end is lost.

    `amount` is tokens, or, where `in_dollars`, dollars at list prices. An output token counts as `output_weight` input
    tokens (some providers' provisioned throughput is sold so); cached tokens count like any others. `price_usd` is
    what a period costs.
    """

    name: str
    scope: Scope
    per: Period
    amount: Decimal
    in_dollars: bool
    price_usd: Decimal
    output_weight: Decimal = Decimal(1)

    def covers(self, offer: Offer, at: datetime) -> bool:
        return self.scope.covers((offer.provider,), offer.model, offer.processing, at)

    def period(self, at: datetime) -> datetime:
        """The beginning of the period that `at` lies in, by the calendar of the commitment's zone."""
        local = at.astimezone(self.scope.zone)
        if self.per == "hour":
            begin = local.replace(minute=0, second=0, microsecond=0)
        else:
            day = local.date() if self.per == "day" else local.date().replace(day=1)
            begin = datetime.combine(day, time(0), self.scope.zone)
        # In UTC: of two moments in one zone, Python compares the clocks, and a clock that is put back shows an hour twice.
        return begin.astimezone(UTC)

    def periods(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """The beginning of every period, from that of `first` to that of `last`, in which the commitment runs at all."""
        begin = self.period(first)
        while begin <= last:
            end = self._next(begin)
            starts_later = self.scope.begins is not None and self.scope.begins >= end
            is_over = self.scope.ends is not None and self.scope.ends <= begin
            if not starts_later and not is_over:
                yield begin
            begin = end

    def _next(self, begin: datetime) -> datetime:
        if self.per == "hour":
            return begin + timedelta(hours=1)
        days = 1 if self.per == "day" else 31  # 31 days after the 1st is some day of the next month
        day = begin.astimezone(self.scope.zone).date() + timedelta(days=days)
        return self.period(datetime.combine(day, time(12), self.scope.zone))

    def drawn(self, tiers: Sequence[Rates], offer: Offer, usage: Usage) -> Decimal:
        """How much of the commitment `usage` takes, at the list prices `tiers` of `offer`."""
        if self.in_dollars:
            return price(replace(offer, tiers=tuple(tiers)), usage)
        return usage.input_tokens + self.output_weight * usage.output_tokens


def committed(offer: Offer, commitment: Commitment, used: Decimal, now: datetime, output_tokens: int = 0) -> Offer:
    """`offer` with what `commitment` still pays for: free up to the largest input that is covered, list prices above.

    A request is covered whole or not at all. It is covered if what is left of the period covers its whole input and the
    `output_tokens` that it is expected to answer with, so the remainder of a period that is too small for a request is
    not used for it; a smaller one may take it. In dollars, all of the input is reckoned as uncached, and from the first
    size on that is not covered nothing is.

    40,000 tokens left and 1,000 expected: free up to 39,000 tokens of input. The offer is unchanged where the
    commitment does not speak of it at `now`, or nothing is left that any request could take.

    Raises ValueError for an offer without prices or a negative `used`.
    """
    if not offer.tiers:
        raise ValueError(f"the offer {offer.provider}/{offer.model} has no prices")
    if used < 0:
        raise ValueError(f"used must be 0 or more, not {used}")
    if not commitment.covers(offer, now):
        return offer
    listed = offer.list_tiers or offer.tiers
    left = commitment.amount - used
    if commitment.in_dollars:
        covered_tokens = _affordable_tokens(listed, left, output_tokens)
    else:
        covered_tokens = math.floor(left - commitment.output_weight * output_tokens)
    if covered_tokens < 0:
        return offer
    free = Rates(-1, _ZERO, _ZERO, _ZERO, _ZERO)
    last_under = [row for row in listed if row.above_tokens <= covered_tokens][-1]
    above = [row for row in listed if row.above_tokens > covered_tokens]
    tiers = (free, replace(last_under, above_tokens=covered_tokens), *above)
    version = f"{offer.prices_version} + commitment {commitment.name}"
    return replace(offer, tiers=tiers, prices_version=version, commitment=commitment.name, list_tiers=listed)


class Drawdown:
    """What is used of each commitment in its present period. For one process; safe to share between threads.

    A process that starts again, and another one beside it that is not told (`tell`, `draw`), know nothing of what was used
    before: what they quote is then too much for the rest of the period, and the provider's own meter decides.
    """

    def __init__(self, commitments: Iterable[Commitment]) -> None:
        self._commitments = {each.name: each for each in commitments}
        self._lock = threading.Lock()
        self._used: dict[str, tuple[datetime, Decimal]] = {}
        self.tell: Callable[[str, Decimal, datetime], None] | None = None

    def used(self, name: str, now: datetime) -> Decimal:
        """What was drawn from the commitment `name` in the period that `now` lies in."""
        begin = self._commitments[name].period(now)
        with self._lock:
            since, used = self._used.get(name, (begin, _ZERO))
        return used if since == begin else _ZERO

    def quoted(self, offers: Iterable[Offer], output_tokens: int, now: datetime) -> tuple[Offer, ...]:
        """The offers as the commitments make them. Of several for one offer, the one that covers the largest input
        counts; of equal ones, the first."""
        return tuple(self._quoted(offer, output_tokens, now) for offer in offers)

    def bill(self, offer: Offer, usage: Usage, now: datetime) -> Decimal:
        """Count what `usage` takes of the commitment of an offer from `quoted`, and give the amount: 0 where the request
        was not covered. An answer longer than expected, or a dear cache write, is covered still: more may be used than there was.

        `now` is when the request was made: one of a period that is over is counted no more.
        """
        commitment = self._commitments.get(offer.commitment)
        if commitment is None or usage.input_tokens > offer.boundaries[0]:
            return _ZERO
        drawn = commitment.drawn(offer.list_tiers, offer, usage)
        self.draw(commitment.name, drawn, now)
        if self.tell is not None:
            self.tell(commitment.name, drawn, now)
        return drawn

    def draw(self, name: str, amount: Decimal, now: datetime) -> None:
        """Count an amount that was drawn from the commitment `name`, here or by another process; nothing if there is none."""
        commitment = self._commitments.get(name)
        if commitment is None:
            return
        begin = commitment.period(now)
        with self._lock:
            since, used = self._used.get(name, (begin, _ZERO))
            if since <= begin:
                self._used[name] = (begin, amount + (used if since == begin else _ZERO))

    def _quoted(self, offer: Offer, output_tokens: int, now: datetime) -> Offer:
        best = offer
        for name, commitment in self._commitments.items():
            tried = committed(offer, commitment, self.used(name, now), now, output_tokens)
            if tried.commitment and (not best.commitment or tried.boundaries[0] > best.boundaries[0]):
                best = tried
        return best


def load_commitments(file: str | Path) -> tuple[Commitment, ...]:
    """The commitments of a TOML file. Raises ValueError that names the file, the entry, the field and the fix."""
    try:
        table = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: is not TOML ({error})") from None
    whole = Stated(table, str(file), ("commitments",))
    whole.need("commitments")
    return commitments_of(whole.get("commitments"), str(file))


def commitments_of(tables: object, file: str = "") -> tuple[Commitment, ...]:
    """The commitments of a list of tables, each written [[commitments]]; errors begin with `file`, where it is given."""
    where = f"{file}: commitments" if file else "commitments"
    if not isinstance(tables, (list, tuple)):
        raise ValueError(f"{where} must be a list of tables, each written [[commitments]]")
    found = tuple(_commitment(table, f"{where}[{number}]") for number, table in enumerate(tables))
    names = [each.name for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{where}: two commitments are called {twice[0]!r}; give each a name of its own")
    return found


def _commitment(table: Any, where: str) -> Commitment:
    name = table.get("name") if isinstance(table, Mapping) else None
    stated = Stated(table, f"{where} {name!r}" if isinstance(name, str) else where, _FIELDS)
    stated.need("name", "per", "price_usd")
    unit = stated.one_of("tokens", "usd")
    per = stated.text("per")
    if per not in get_args(Period):
        stated.refuse("per", f"one of {', '.join(get_args(Period))}")
    if "output_weight" in stated and unit == "usd":
        stated.refuse("output_weight", "left out where the commitment is in dollars")
    return Commitment(
        name=stated.text("name"),
        scope=Scope.of(stated, ("sync",)),
        per=per,  # type: ignore[arg-type]  # one of them, as was just checked
        amount=stated.amount(unit, above_zero=True),
        in_dollars=unit == "usd",
        price_usd=stated.amount("price_usd"),
        output_weight=stated.amount("output_weight", default=Decimal(1)),
    )


def _affordable_tokens(tiers: Sequence[Rates], left_usd: Decimal, output_tokens: int) -> int:
    """The largest input such that it and every smaller one cost `left_usd` or less with that output; -1 for none."""
    affordable = -1
    for row, above in zip_longest(tiers, tiers[1:]):
        last = _ENDLESS_TOKENS if above is None else above.above_tokens
        rest_usd = left_usd - row.output_usd * output_tokens - row.request_usd
        if rest_usd < row.input_usd * (row.above_tokens + 1):
            return affordable
        # As fractions: a rounded quotient could be one token too many.
        most = last if row.input_usd == 0 else math.floor(Fraction(rest_usd) / Fraction(row.input_usd))
        affordable = min(most, last)
        if affordable < last:
            return affordable
    return affordable


_ENDLESS_TOKENS = 10**12
"""More than any context window: where the last row ends."""
