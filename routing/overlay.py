"""The overlay: what a price list cannot say, from a small TOML file of our own (docs/prices.md is its reference).

Weekdays and holidays, models and boundaries that the list lacks, regional uplifts, negotiated prices, machines paid by
the hour. Entries apply from top to bottom, the shipped file before the user's; an entry of the user's with the name of
a shipped one stands in its place. Knows nothing of genai-prices: what a list says comes in as an offer.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Context, Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from routing.offers import AMOUNTS, Offer, Rates
from routing.stated import SCOPE_FIELDS, Scope, Stated

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PRICES = ("multiplier", "price_at", "tiers", "hourly")
_WINDOW_FIELDS = ("weekdays", "dates", "hours")
_ENTRY_FIELDS = (*SCOPE_FIELDS, *_WINDOW_FIELDS, *_PRICES, "context_window_tokens", "source")
_TIER_FIELDS = (
    "above_tokens",
    "from_tokens",
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "request_usd",
)
_HOURLY_FIELDS = ("usd_per_hour", "input_tokens_per_second", "output_tokens_per_second")
_HOURS = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_TIME = re.compile(r"(\d\d):(\d\d)")
_DAY_MINUTES = 24 * 60
_DIVISION = Context(prec=28)
"""A rate by the hour becomes one by the token to 28 digits, whatever the caller's decimal context is."""


@dataclass(frozen=True, slots=True)
class Window:
    """When an entry counts, by the clock of its zone: on any of `weekdays` (0 is Monday) or `dates`, in any of `hours`.

    `hours` are minutes of the day, the end excluded; one that ends before it begins goes on past midnight. Both the day
    and the hour are those of the moment itself. An empty part is no condition.
    """

    weekdays: frozenset[int] = frozenset()
    dates: frozenset[date] = frozenset()
    hours: tuple[tuple[int, int], ...] = ()

    def holds(self, local: datetime) -> bool:
        if (self.weekdays or self.dates) and local.weekday() not in self.weekdays and local.date() not in self.dates:
            return False
        minute = local.hour * 60 + local.minute
        return not self.hours or any(
            begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in self.hours
        )

    def __str__(self) -> str:
        days = [WEEKDAYS[day].capitalize() for day in sorted(self.weekdays)]
        days += [f"{day}" for day in sorted(self.dates)]
        hours = [f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in self.hours]
        return " ".join(filter(None, (", ".join(days), ", ".join(hours))))


@dataclass(frozen=True, slots=True)
class Entry:
    """One correction. Exactly one of the four is set:

    `tiers`: the price itself (`hourly` in the file comes to this too), whatever the list says or does not say.
    `price_at`: the list's price of another time of the same day (a minute of the day), which is how a weekend without
    peak hours is said without repeating a figure. `multiplier`: what stands there so far, times this.
    """

    name: str
    scope: Scope
    window: Window
    version: str
    source: str
    tiers: tuple[Rates, ...] = ()
    price_at: int | None = None
    multiplier: Decimal | None = None
    context_window_tokens: int | None = None

    def applies(self, sellers: tuple[str, ...], model: str, service: str, now: datetime) -> bool:
        return self.scope.covers(sellers, model, service, now) and self.window.holds(now.astimezone(self.scope.zone))

    def hour_of(self, now: datetime) -> datetime:
        """The moment of `now`'s day, in the entry's zone, whose price counts instead."""
        hour, minute = divmod(self.price_at or 0, 60)
        return now.astimezone(self.scope.zone).replace(hour=hour, minute=minute, second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class Overlay:
    """Entries in the order in which they apply; none of them: the price lists as they are."""

    entries: tuple[Entry, ...] = ()

    @staticmethod
    def load(file: str | Path) -> Overlay:
        """The overlay of a TOML file. Raises ValueError that names the file, the entry, the field and the fix."""
        try:
            table = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{file}: cannot be read ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: is not TOML ({error})") from None
        return Overlay.of(table, str(file))

    @staticmethod
    def of(table: Mapping[str, Any], file: str) -> Overlay:
        """The overlay of a file's table: `version`, and the entries, each written [[overlay]]."""
        whole = Stated(table, file, ("version", "overlay"))
        version = whole.text("version")
        tables = whole.get("overlay") if "overlay" in whole else ()
        if not isinstance(tables, (list, tuple)):
            raise ValueError(f"{file}: overlay must be a list of tables, each written [[overlay]]")
        entries = tuple(_entry(each, f"{file}: overlay[{number}]", version) for number, each in enumerate(tables))
        names = [entry.name for entry in entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{file}: two entries are called {twice[0]!r}; give each a name of its own")
        return Overlay(entries)

    def under(self, upper: Overlay) -> Overlay:
        """Both, `upper` winning: its entries come last, and one of the same name replaces ours."""
        taken = {entry.name for entry in upper.entries}
        return Overlay((*(entry for entry in self.entries if entry.name not in taken), *upper.entries))

    def applying(self, sellers: tuple[str, ...], model: str, service: str, now: datetime) -> tuple[Entry, ...]:
        """The entries that make the price of `model` at `now`: from the last one with a price of its own onwards.

        `sellers` are the names that the seller goes by: its own, and its price list's.
        """
        found = [entry for entry in self.entries if entry.applies(sellers, model, service, now)]
        afresh = [at for at, entry in enumerate(found) if entry.tiers or entry.price_at is not None]
        return tuple(found[afresh[-1] :] if afresh else found)

    def quote(
        self,
        sellers: tuple[str, ...],
        model: str,
        service: str,
        now: datetime,
        listed: Callable[[datetime], Offer | None],
    ) -> Offer | None:
        """The offer of `sellers[0]` for `model`: what the list says at a moment (`listed`), corrected.

        `listed` is not asked where an entry states the price itself, and may raise what it likes. None: not sold so.
        """
        entries = self.applying(sellers, model, service, now)
        if not entries:
            return listed(now)
        first = entries[0]
        offer: Offer | None
        if first.tiers:
            offer = Offer(sellers[0], model, service, first.tiers, first.context_window_tokens, "")
        else:
            offer = listed(now if first.price_at is None else first.hour_of(now))
        if offer is None:
            return None
        tiers = offer.tiers
        for entry in entries:
            if entry.multiplier is not None:
                tiers = _times(tiers, entry.multiplier)
        versions = dict.fromkeys(f"overlay {entry.version}" for entry in entries)
        return replace(offer, tiers=tiers, prices_version=" + ".join(filter(None, (offer.prices_version, *versions))))

    def stating(self, asked: str) -> tuple[tuple[str, str], ...]:
        """(seller, model) of every entry that states a price for exactly the name `asked`, or for "seller/model".

        A pattern does not count without its seller: it would price any name that anybody invents.
        """
        pin, _, rest = asked.partition("/")
        found: list[tuple[str, str]] = []
        for entry in self.entries:
            if not entry.tiers:
                continue
            if asked in entry.scope.models:
                found.append((entry.scope.provider, asked))
            elif entry.scope.provider == pin and rest and entry.scope.sells(rest):
                found.append((pin, rest))
        return tuple(dict.fromkeys(found))


@cache
def shipped_overlay() -> Overlay:
    """What genai-prices cannot say and is sourced: the file overlay.toml beside this module."""
    return Overlay.load(Path(__file__).with_name("overlay.toml"))


def overlay_with(file: str | Path | None) -> Overlay:
    """The shipped overlay, under the user's where there is one. Raises what `Overlay.load` does."""
    return shipped_overlay() if file is None else shipped_overlay().under(Overlay.load(file))


def _entry(table: object, where: str, version: str) -> Entry:
    name = table.get("name") if isinstance(table, Mapping) else None
    stated = Stated(table, f"{where} {name!r}" if isinstance(name, str) else where, _ENTRY_FIELDS)
    stated.need("name")
    kind = stated.one_of(*_PRICES)
    own_price = kind in ("tiers", "hourly")
    if "context_window_tokens" in stated and not own_price:
        stated.refuse("context_window_tokens", "left out, unless the entry has tiers or hourly")
    return Entry(
        name=stated.text("name"),
        # A price of its own is that of the standard class unless it says otherwise; a correction is one of them all.
        scope=Scope.of(stated, ("sync",) if own_price else ()),
        window=_window(stated),
        version=version,
        source=stated.text("source") if "source" in stated else "",
        tiers=_tiers(stated) if kind == "tiers" else _hourly(stated) if kind == "hourly" else (),
        price_at=_minute(stated) if kind == "price_at" else None,
        multiplier=stated.amount("multiplier") if kind == "multiplier" else None,
        context_window_tokens=stated.whole("context_window_tokens", 1) if "context_window_tokens" in stated else None,
    )


def _window(stated: Stated) -> Window:
    weekdays = stated.texts("weekdays", allowed=WEEKDAYS)
    dates = stated.get("dates") if "dates" in stated else ()
    if not isinstance(dates, (list, tuple)) or not all(type(each) is date for each in dates):
        stated.refuse("dates", "a list of dates such as 2026-10-01, without quotes")
    return Window(
        frozenset(WEEKDAYS.index(day) for day in weekdays),
        frozenset(dates),
        tuple(_hours(stated, each) for each in stated.texts("hours")),
    )


def _hours(stated: Stated, text: str) -> tuple[int, int]:
    found = _HOURS.fullmatch(text)
    begin, end = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
    minutes_good = found is not None and int(found[2]) < 60 and int(found[4]) < 60
    if not minutes_good or begin == end or begin >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise ValueError(f'{stated.where}: hours must each be written like "01:00-04:00" (up to 24:00), not {text!r}')
    return begin, end


def _minute(stated: Stated) -> int:
    found = _TIME.fullmatch(stated.text("price_at"))
    if found is None or int(found[1]) > 23 or int(found[2]) > 59:
        stated.refuse("price_at", 'a time of day such as "12:00"')
    return int(found[1]) * 60 + int(found[2])


def _tiers(stated: Stated) -> tuple[Rates, ...]:
    tables = stated.get("tiers")
    if not isinstance(tables, (list, tuple)) or not tables:
        raise ValueError(f"{stated.where}: tiers must be a list of one or more tables")
    rows = [_tier(Stated(each, f"{stated.where} tiers[{at}]", _TIER_FIELDS), at) for at, each in enumerate(tables)]
    for at, (lower, upper) in enumerate(pairwise(rows), 1):
        if upper.above_tokens <= lower.above_tokens:
            raise ValueError(f"{stated.where} tiers[{at}]: must begin above the tier before it")
    return tuple(rows)


def _tier(stated: Stated, at: int) -> Rates:
    if at == 0:
        for name in ("above_tokens", "from_tokens"):
            if name in stated:
                stated.refuse(name, "left out of the first tier, which begins at nothing")
        above_tokens = -1
    elif stated.one_of("above_tokens", "from_tokens") == "above_tokens":
        above_tokens = stated.whole("above_tokens", 0)
    else:
        above_tokens = stated.whole("from_tokens", 1) - 1  # "200,000 and more" is "above 199,999"
    stated.need("input_mtok", "output_mtok")
    input_mtok = stated.amount("input_mtok")
    return Rates(
        above_tokens=above_tokens,
        input_usd=input_mtok.scaleb(-6),
        output_usd=stated.amount("output_mtok").scaleb(-6),
        cache_read_usd=stated.amount("cache_read_mtok", default=input_mtok).scaleb(-6),
        cache_write_usd=stated.amount("cache_write_mtok", default=input_mtok).scaleb(-6),
        request_usd=stated.amount("request_usd", default=Decimal(0)),
    )


def _hourly(stated: Stated) -> tuple[Rates, ...]:
    """Dollars an hour over tokens an hour. A cached token costs what an input token does: the machine runs anyway."""
    hourly = Stated(stated.get("hourly"), f"{stated.where} hourly", _HOURLY_FIELDS)
    hourly.need(*_HOURLY_FIELDS)
    usd_per_second = _DIVISION.divide(hourly.amount("usd_per_hour"), Decimal(3600))
    input_usd, output_usd = (
        _DIVISION.divide(usd_per_second, hourly.amount(f"{side}_tokens_per_second", above_zero=True))
        for side in ("input", "output")
    )
    return (Rates(-1, input_usd, output_usd, input_usd, input_usd),)


def _times(tiers: Sequence[Rates], multiplier: Decimal) -> tuple[Rates, ...]:
    return tuple(replace(row, **{name: getattr(row, name) * multiplier for name in AMOUNTS}) for row in tiers)
