"""Tables and worst cases in a terminal, and progress bars while they are being made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.sections import Progress, Section

_FIGURE_CHARS = 16


@contextmanager
def progress_bars(console: Console) -> Iterator[Progress]:
    """A `Progress` that shows one bar at a time for each thing that is run."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:

        def progress(what: str, steps: int) -> Callable[[], None]:
            task = bars.add_task(what, total=steps)

            def step() -> None:
                bars.advance(task)
                if bars.tasks[[t.id for t in bars.tasks].index(task)].finished:
                    bars.update(task, visible=False)

            return step

        yield progress


def show(section: Section, console: Console) -> None:
    console.rule(section.title)
    for note in section.notes:
        console.print(Text(note, style="dim"))
    for table in (table for table in section.tables if not table.wide):
        drawn = RichTable(title=table.title, caption=table.note or None, title_justify="left", caption_justify="left")
        for number, name in enumerate(table.headers):
            # without a least width, one long text leaves the figures beside it a digit a line
            widest = max((len(row[number]) for row in table.rows), default=0)
            drawn.add_column(name, overflow="fold", min_width=min(widest, _FIGURE_CHARS))
        for row in table.rows:
            drawn.add_row(*(Text(cell) for cell in row), style="bold" if row[0].startswith("trimtab") else None)
        console.print(drawn)
    for excerpt in section.excerpts:
        console.print(Text(excerpt.title, style="bold"))
        console.print(Text(excerpt.text + "\n"))
