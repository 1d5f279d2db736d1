"""`trimtab prices`: what a model costs now, when it costs something else, and who says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from routing.catalog import Catalog
from routing.errors import UnknownModel
from routing.offers import Offer, plain
from routing.overlay import WEEKDAYS, Entry, overlay_with
from trimtab.console import ConfigOption, JsonOption, model_names, out, told
from trimtab.errors import BadSettings
from trimtab.settings import Settings

SERVICES = ("sync", "flex", "priority", "batch")
OverlayOption = Annotated[Path | None, typer.Option("--prices", help="An overlay of your own (docs/prices.md).")]
_WEEK_HOURS = 7 * 24
_MINUTE = timedelta(minutes=1)


def catalog_of(config: Path | None, overlay: Path | None) -> Catalog:
    """The catalog that a command prices with. Raises BadSettings that names the file and the entry."""
    settings = Settings.load(config) if config else Settings()
    try:
        return Catalog(settings.providers, overlay_with(overlay or settings.price_overlay))
    except ValueError as error:
        raise BadSettings(str(error)) from None


def prices(
    model: Annotated[str, typer.Argument(help="A model, such as claude-haiku-5-5.", autocompletion=model_names)],
    config: ConfigOption = None,
    overlay: OverlayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a model costs now: each service class and price boundary, in dollars per million tokens."""
    now = datetime.now(UTC)
    with told():
        catalog = catalog_of(config, overlay)
        offers = catalog.offers([model], now, SERVICES)
        weeks = {offer: tuple(_week(catalog, offer, now)) for offer in offers}
        entries = {offer: _entries(catalog, offer, now) for offer in offers}
    if as_json:
        out.print_json(data=[row for offer in offers for row in _rows(offer, weeks[offer], entries[offer])])
        return
    versions = dict.fromkeys(offer.prices_version for offer in offers)
    out.print(_table(f"{model}: dollars per million tokens ({'; '.join(versions)})", offers))
    for offer in offers:
        if len(weeks[offer]) > 1:
            out.print(_hours_table(offer, weeks[offer]))
    for entry in dict.fromkeys(entry for offer in offers for entry in entries[offer]):
        out.print(escape(f"overlay {entry.version}, {_said(entry)}"), style="dim")


def _table(title: str, offers: Sequence[Offer]) -> Table:
    table = Table(title=escape(title))
    for name in ("provider", "class", "input above", "input", "cache read", "cache write", "output"):
        table.add_column(name, justify="left" if name in ("provider", "class") else "right")
    for offer in offers:
        for row in _rates(offer):
            above = row["above_tokens"]
            figures = (row[f"{name}_usd_per_mtok"] for name in ("input", "cache_read", "cache_write", "output"))
            table.add_row(escape(offer.provider), offer.processing, f"{above:,}" if above >= 0 else "", *figures)
    return table


def _hours_table(offer: Offer, week: Sequence[tuple[Offer, str]]) -> Table:
    table = Table(title=escape(f"{offer.provider} {offer.processing}, the next seven days in UTC"))
    table.add_column("when")
    for name in ("input", "cache read", "output"):
        table.add_column(name, justify="right")
    for priced, when in week:
        row = _rates(priced)[0]
        figures = (row[f"{name}_usd_per_mtok"] for name in ("input", "cache_read", "output"))
        table.add_row(when, *figures)
    return table


def _rows(offer: Offer, week: Sequence[tuple[Offer, str]], entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    hours = [{"when": when, **_rates(priced)[0]} for priced, when in week] if len(week) > 1 else []
    for row in _rates(offer):
        yield {
            "provider": offer.provider,
            "model": offer.model,
            "processing": offer.processing,
            **row,
            "prices_version": offer.prices_version,
            "overlay": [_said(entry) for entry in entries],
            "week": hours if row["above_tokens"] < 0 else [],
        }


def _rates(offer: Offer) -> list[dict[str, Any]]:
    return [
        {
            "above_tokens": rates.above_tokens,
            **{
                f"{name}_usd_per_mtok": plain(getattr(rates, f"{name}_usd") * 1_000_000)
                for name in ("input", "cache_read", "cache_write", "output")
            },
        }
        for rates in offer.tiers
    ]


def _said(entry: Entry) -> str:
    """The entry in one line: its name, when it counts, and its source."""
    when = f" ({entry.window} {entry.scope.zone})" if str(entry.window) else ""
    return f"{entry.name!r}{when}{': ' if entry.source else ''}{entry.source}"


def _midnight(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _entries(catalog: Catalog, offer: Offer, now: datetime) -> list[Entry]:
    """The overlay's entries that make a price of the offer at any hour of the week."""
    hours = (_midnight(now) + timedelta(hours=hour) for hour in range(_WEEK_HOURS))
    return list(dict.fromkeys(entry for hour in (now, *hours) for entry in catalog.corrections(offer, hour)))


def _week(catalog: Catalog, offer: Offer, now: datetime) -> Iterator[tuple[Offer, str]]:
    """Every price of the seven days from today's midnight UTC, dearest last, and when it counts.

    Found by asking for every hour, and between two hours that differ for the minute: what counts is what would be
    charged, whether the price list says so or the overlay. A price that counts for less than an hour can be missed.
    """
    begin = _midnight(now)

    def at(moment: datetime) -> Offer | None:
        try:
            offers = catalog.offers([f"{offer.provider}/{offer.model}"], moment, [offer.processing])
        except UnknownModel:  # an overlay's entry begins or ends within the week
            return None
        return next((each for each in offers if each.provider == offer.provider), None)

    spans: dict[tuple[Any, ...], list[tuple[datetime, datetime]]] = {}
    shown: dict[tuple[Any, ...], Offer] = {}
    since, priced = begin, at(begin)
    for hour in range(1, _WEEK_HOURS + 1):
        moment = begin + timedelta(hours=hour)
        following = at(moment) if hour < _WEEK_HOURS else None
        if hour < _WEEK_HOURS and _same(priced, following):
            continue
        turn = moment
        if hour < _WEEK_HOURS:
            while _same(at(turn - _MINUTE), following) and turn > moment - timedelta(hours=1):
                turn -= _MINUTE
        if priced is not None:
            spans.setdefault(priced.tiers, []).append((since, turn))
            shown.setdefault(priced.tiers, priced)
        since, priced = turn, following
    for tiers in sorted(spans, key=lambda tiers: tiers[0].input_usd):
        yield shown[tiers], _when(spans[tiers])


def _same(one: Offer | None, other: Offer | None) -> bool:
    return (one and one.tiers) == (other and other.tiers)


def _when(spans: Sequence[tuple[datetime, datetime]]) -> str:
    """The spans by the day: days with the same hours stand together, as in "Mon-Fri 01:00-04:00, 06:00-10:00"."""
    hours: dict[int, list[str]] = {}
    for begin, end in spans:
        day = begin
        while day < end:
            midnight = (day + timedelta(days=1)).replace(hour=0, minute=0)
            until = min(end, midnight)
            hours.setdefault(day.weekday(), []).append(
                f"{day:%H:%M}-{'24:00' if until == midnight else f'{until:%H:%M}'}"
            )
            day = until
    by_hours: dict[str, list[int]] = {}
    for weekday in sorted(hours):
        by_hours.setdefault(", ".join(hours[weekday]), []).append(weekday)
    parts = [f"{_days(days)} {text}" for text, days in by_hours.items()]
    return "; ".join(part.removesuffix(" 00:00-24:00") for part in parts)


def _days(days: Sequence[int]) -> str:
    names = [WEEKDAYS[day].capitalize() for day in days]
    together = len(days) > 2 and days[-1] - days[0] == len(days) - 1
    return f"{names[0]}-{names[-1]}" if together else ", ".join(names)
