"""What a suite hands back: tables and plots for people, records for machines. Knows nothing of how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Progress = Callable[[str, int], Callable[[], None]]
"""`progress(what, steps)` opens a bar; what it returns is called after every step."""


def silent(what: str, steps: int) -> Callable[[], None]:
    """A `Progress` that shows nothing."""
    return lambda: None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under `headers`. `note` is read with it; `readme` marks what belongs in the README's results, `wide`
    what is too wide for a terminal and stands in the report only."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    readme: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one line, with a band where `low` and `high` are given; `marked` draws points without a line."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    points_only: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A case shown with its text."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """One suite's outcome. `records` are flat JSON objects; whatever depends on time is in fields that end in `_ms` or
    `_per_s`, so that two runs of one seed can be compared without them."""

    suite: str
    title: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    excerpts: tuple[Excerpt, ...] = ()
    records: tuple[Mapping[str, Any], ...] = field(default=())


def timeless(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records without the fields that depend on time: equal for two runs of one seed."""
    return [{k: v for k, v in record.items() if not k.endswith(("_ms", "_per_s"))} for record in records]
