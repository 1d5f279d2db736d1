"""Charts: tables that a script draws. What a chart shows is what its table says, and the table is there without a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from routing.offers import plain
from trimtab.dashboard import shown
from trimtab.dashboard.asked import HOUR_MS, Span, moment_of
from trimtab.ledger.figures import Totals

Draw = Literal["line", "dashed", "area", "edge", "signed", "point"]


@dataclass(frozen=True, slots=True)
class Column:
    """A series: `draw` is how, `colour` a colour of the style sheet's, `band` how many columns further on the series stands
    that a band reaches to (0: none)."""

    label: str
    draw: Draw
    colour: str
    band: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it is read, and as a program reads it ("" where it is not known)."""

    text: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """`x` and `y` name the units of the axes. Every row is its x and a cell for each column."""

    id: str
    title: str
    x_label: str
    x: Literal["time", "tokens"]
    y: Literal["usd", "tokens", "share"]
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def usd(amount_usd: Decimal | None) -> Cell:
    return Cell(shown.dollars(amount_usd), "" if amount_usd is None else plain(amount_usd))


def tokens(number: int | None) -> Cell:
    return Cell(shown.count(number), "" if number is None else str(number))


def estimate(coverage: float | None) -> Cell:
    return Cell(shown.coverage(coverage), "" if coverage is None else repr(coverage))


def _step(span: Span, at_ms: int) -> Cell:
    at = moment_of(at_ms)
    return Cell(shown.hour(at) if span.step_ms == HOUR_MS else shown.day(at), str(at_ms // 1000))


def over_time(
    chart_id: str,
    title: str,
    y: Literal["usd", "tokens", "share"],
    columns: Sequence[Column],
    starts: Sequence[int],
    span: Span,
    cells: Callable[[int], tuple[Cell, ...]],
) -> Chart:
    """A row for each start of a step, which `cells` gives the figures of."""
    rows = tuple((_step(span, start), *cells(start)) for start in starts)
    return Chart(chart_id, title, f"{span.step_words.capitalize()} (UTC)", "time", y, tuple(columns), rows)


def money(starts: Sequence[int], span: Span, by_step: Mapping[int, Totals]) -> Chart:
    columns = (Column("Spent", "area", "billed"), Column("Untouched", "dashed", "untouched"))

    def cells(start: int) -> tuple[Cell, ...]:
        sums = by_step.get(start, Totals())
        return usd(sums.spent_usd), usd(sums.untouched_usd)

    return over_time("money", f"Spent, by the {span.step_words}", "usd", columns, starts, span, cells)


def saved(starts: Sequence[int], span: Span, by_step: Mapping[int, Totals]) -> Chart:
    columns = (Column("Saved, net", "signed", "good"),)

    def cells(start: int) -> tuple[Cell, ...]:
        return (usd(by_step.get(start, Totals()).saved_usd),)

    return over_time("saved", f"Saved, net, by the {span.step_words}", "usd", columns, starts, span, cells)


def context(starts: Sequence[int], span: Span, by_step: Mapping[int, Totals]) -> Chart:
    columns = (Column("After", "area", "billed"), Column("Before", "dashed", "untouched"))

    def cells(start: int) -> tuple[Cell, ...]:
        sums = by_step.get(start, Totals())
        return tokens(sums.tokens_after), tokens(sums.tokens_before)

    title = f"Context tokens before and after, by the {span.step_words}"
    return over_time("context", title, "tokens", columns, starts, span, cells)


def coverages(starts: Sequence[int], span: Span, by_step: Mapping[int, tuple[float, ...]]) -> Chart:
    columns = (
        Column("90 % of requests keep at most", "edge", "billed", band=2),
        Column("Median", "line", "billed"),
        Column("10 % of requests keep at most", "edge", "billed"),
    )

    def cells(start: int) -> tuple[Cell, ...]:
        low, middle, high = by_step.get(start) or (None, None, None)
        return estimate(high), estimate(middle), estimate(low)

    title = f"Evidence expected to be kept, by the {span.step_words}"
    return over_time("coverage", title, "share", columns, starts, span, cells)


def curve(points: Sequence[Sequence[Any]], chosen: tuple[int, float] | None) -> Chart:
    """One request's coverage curve, and the point on it that was chosen."""
    marks = {} if chosen is None else {chosen[0]: chosen[1]}
    at = sorted({*(int(budget) for budget, _ in points), *marks})
    known = {int(budget): float(coverage) for budget, coverage in points}
    rows = tuple((tokens(each), estimate(known.get(each)), estimate(marks.get(each))) for each in at)
    columns = (Column("Coverage", "line", "billed"), Column("Chosen", "point", "bad"))
    return Chart("curve", "Coverage by context budget", "Context tokens", "tokens", "share", columns, rows)
