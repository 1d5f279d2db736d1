"""`trimtab analyze`: recorded requests in, what to restructure and what it would save out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from trimtab.analysis import BadRecording, Prices, Recording, Report, read, reported, studied
from trimtab.analysis.page import page
from trimtab.analysis.recordings import recording_files
from trimtab.analysis.shapes.receipts import ledger_entries
from trimtab.analysis.wording import dollars
from trimtab.commands.prices import OverlayOption
from trimtab.console import ConfigOption, JsonOption, err, fail, out, told
from trimtab.database import Database
from trimtab.ledger.entries import TABLES
from trimtab.pipeline import Trimtab
from trimtab.settings import Settings

_SHOWN_PLACES = 3
_SHOWN_PROBLEMS = 5


def analyze(
    source: Annotated[Path | None, typer.Argument(help="A file of recorded requests, or a folder of them.")] = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Read trimtab's own ledger instead: counts, no texts.")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report as one HTML file, too.")] = None,
    consider: Annotated[
        list[str] | None, typer.Option("--consider", help="A cheaper model that you would use; may be repeated.")
    ] = None,
    excerpts: Annotated[bool, typer.Option("--excerpts/--no-excerpts", help="Quote a few words of prompts.")] = True,
    limit: Annotated[int, typer.Option(min=1, help="Read at most this many requests.")] = 10_000,
    overlay: OverlayOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what to restructure in recorded requests, and what it would save."""
    if (source is None) == (not ledger):
        fail("say what to read: a FILE or FOLDER of recorded requests, or --ledger for trimtab's own")
    with told():
        try:
            report = _analysed(source, consider or [], excerpts, limit, overlay, config)
        except BadRecording as error:
            fail(str(error))
        if html is not None:
            try:
                html.write_text(page(report), encoding="utf-8")
            except OSError as error:
                fail(f"{html}: cannot be written ({error.strerror})")
    if as_json:
        out.print_json(data=report.to_dict())
    else:
        out.print(_shown(report), soft_wrap=False)
        _show_what_was_left_out(report)
    if html is not None:
        err.print(Text(f"report written to {html}"), style="dim")


def _analysed(
    source: Path | None,
    consider: list[str],
    excerpts: bool,
    limit: int,
    overlay: Path | None,
    config: Path | None,
) -> Report:
    settings = Settings.load(config) if config else Settings()
    if overlay is not None:
        settings = replace(settings, price_overlay=overlay)
    trimtab = Trimtab(settings)
    with _progress() as progress:
        recording = _from_ledger(settings, limit) if source is None else _from_files(source, limit, progress)
        looking = progress.add_task("counting tokens", total=None)
        considered = (*consider, *settings.auto.candidates, *(each.model for each in trimtab.catalog.models()))
        prices = Prices(trimtab.catalog, datetime.now(UTC))
        study, problems = studied(
            recording.requests, prices, lambda: trimtab.encoder, lambda: trimtab.difficulty, considered
        )
        return reported(
            study,
            recording,
            "the ledger" if source is None else source.name,
            problems,
            excerpts=excerpts,
            told=lambda what: progress.update(looking, description=f"looking for {what}"),
        )


@contextmanager
def _progress() -> Iterator[Progress]:
    """On standard error and gone when done; nothing where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield progress


def _from_files(source: Path, limit: int, progress: Progress) -> Recording:
    size = sum(file.stat().st_size for file in recording_files(source))
    reading = progress.add_task(f"reading {source.name}", total=size)
    recording = read(source, limit, lambda done: progress.advance(reading, done))
    progress.remove_task(reading)
    return recording


def _from_ledger(settings: Settings, limit: int) -> Recording:
    recording = Recording()
    database = Database(settings.database)
    try:
        database.create(TABLES)
        recording.requests += ledger_entries(database, limit)
    except SQLAlchemyError as error:  # its message would quote the database's address
        raise BadRecording(
            f"the ledger cannot be read ({type(error).__name__}); see database_url and data_dir"
        ) from None
    finally:
        database.close()
    recording.shapes["trimtab (ledger)"] = len(recording.requests)
    if not recording.requests:
        raise BadRecording("the ledger holds no request that was answered and billed yet")
    return recording


def _shown(report: Report) -> Group:
    parts: list[Table | Text | Padding] = [_summary(report)]
    if not report.rows:
        parts.append(Text("Nothing to restructure was found.", style="bold"))
    for number, row in enumerate(report.rows, 1):
        found = row.finding
        saved = "no dollars" if not row.saved_usd else dollars(row.saved_usd if row.day_usd is None else row.day_usd)
        a_day = " a day" if row.saved_usd and row.day_usd is not None else ""
        parts.append(
            Text.assemble(
                "\n",
                (f"{number}. {saved}{a_day}", "bold green" if row.saved_usd else "bold"),
                "  ",
                (found.title, "bold"),
            )
        )
        more = len(row.places) - _SHOWN_PLACES
        places = ", ".join(row.places[:_SHOWN_PLACES]) + (f" and {more:,} more" if more > 0 else "")
        body = Text.assemble(found.advice, "\n", *((f"“{quoted}”\n", "italic") for quoted in found.excerpts))
        body.append(f"{found.basis}: {found.reckoned}.\n{places}", style="dim")
        parts.append(Padding(body, (0, 0, 0, 3)))
    return Group(*parts)


def _summary(report: Report) -> Table:
    table = Table(title=Text(report.source, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    window = "no times recorded"
    if report.window is not None:
        first, last = report.window
        window = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    table.add_row("requests", f"{report.requests:,} ({report.billed:,} with a bill)")
    table.add_row("recorded", window)
    table.add_row("spent, at list prices", dollars(report.spent_usd))
    if report.rows:
        a_day = "" if report.together_day_usd is None else f" ({dollars(report.together_day_usd)} a day)"
        table.add_row(
            Text("all changes together, at most", style="bold"),
            Text(f"{dollars(report.together_usd)}{a_day}", style="bold green"),
        )
        table.caption = Text("findings overlap: their dollars may not be added up", style="dim")
        table.caption_justify = "left"
    return table


def _show_what_was_left_out(report: Report) -> None:
    for problem in report.problems[:_SHOWN_PROBLEMS]:
        err.print(Text(problem), style="dim")
    if report.problems:
        shown = f" (the first {_SHOWN_PROBLEMS} are above)" if len(report.problems) > _SHOWN_PROBLEMS else ""
        were = "1 entry was" if len(report.problems) == 1 else f"{len(report.problems):,} entries were"
        err.print(f"{were} left out{shown}", style="yellow")
    for model, count in report.unpriced:
        err.print(Text(f"no price is known for {model}: its requests ({count:,}) are in no dollar"), style="yellow")
    if report.more:
        err.print(f"there were more: this is about the first {report.requests:,}; see --limit", style="yellow")
