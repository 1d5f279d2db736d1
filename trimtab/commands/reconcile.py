"""`trimtab reconcile`: a provider's usage export against the ledger, day by day and model by model."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from routing.offers import plain
from trimtab.commands.ledger import ledger_of
from trimtab.console import ConfigOption, JsonOption, fail, out, read_text, told
from trimtab.database import Database
from trimtab.errors import BadRequest
from trimtab.ledger.exports import Used, read_export
from trimtab.ledger.reconcile import FIGURES, By, Row, compare, explanations, ours, providers, theirs


def reconcile(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Exports of one provider; - is standard input.")
    ],
    provider: Annotated[
        str | None, typer.Option(help="The provider's name in the ledger; without it, as the export shows.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="What a column of another kind of CSV is called: day=Date, usd=Amount, ...")
    ] = None,
    by: Annotated[By, typer.Option(help="What is compared apart from each other.")] = "day-model",
    tolerance: Annotated[float, typer.Option(min=0, help="The difference that may be, in percent.")] = 1.0,
    tolerance_usd: Annotated[float, typer.Option(min=0, help="Dollars by which a row may differ in any case.")] = 0.01,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a provider's usage export against the ledger. Exit status 1 where they differ by more than the tolerance.

    Reads OpenAI's usage and costs and Anthropic's usage and cost reports, as JSON and as CSV, and any other CSV. Usage and
    costs of the same days may be given together.
    """
    with told():
        used, kind = _exports(files, column or [])
        share, least_usd = Decimal(str(tolerance)) / 100, Decimal(str(tolerance_usd))
        days = sorted(each.day for each in used)
        with ledger_of(config) as database:
            name = provider or _named(kind, database)
            own = ours(database, name, days[0], days[-1])
    their = theirs(used)
    rows = compare(their, own, by)
    (total,) = compare(their, own, "total")
    # dollars where the export has any, since discounts are in nothing else; else tokens
    figures = ("usd",) if any(each.usd is not None for each in used) else ("input_tokens", "output_tokens")
    apart = [row for row in rows if row.exceeds(share, least_usd, figures)]
    differs = bool(apart) or total.exceeds(share, least_usd, figures)
    words = explanations(rows, share) if differs else []
    if as_json:
        told_rows = [{**_data(row), "exceeds": row in apart} for row in rows]
        head = {"provider": name, "from": days[0], "to": days[-1], "differs": differs}
        out.print_json(data={**head, "rows": told_rows, "total": _data(total), "explanations": words})
    else:
        out.print(_table(f"{name}, {days[0]} to {days[-1]} (UTC): theirs / ours / difference", rows, apart, total))
        for sentence in words:
            out.print(escape(f"- {sentence}"))
        verdict = "differs by more than" if differs else "agrees within"
        out.print(f"{verdict} {tolerance:g} %", style="red" if differs else "green")
    raise typer.Exit(1 if differs else 0)


def _exports(files: Sequence[str], columns: Sequence[str]) -> tuple[list[Used], str]:
    named: dict[str, str] = {}
    for each in columns:
        name, equals, column = each.partition("=")
        if not equals:
            raise BadRequest("--column", f"is written NAME=COLUMN, not {each[:40]!r}")
        named[name] = column
    used: list[Used] = []
    kinds = set()
    for file in files:
        try:
            export = read_export(read_text(file), named)
        except BadRequest as error:
            fail(f"{file}: {error}")
        used += export.rows
        kinds.add(export.provider)
    if not used:
        fail(f"{', '.join(files)}: nothing was used in the days of the export")
    return used, kinds.pop() if len(kinds) == 1 else ""


def _named(kind: str, database: Database) -> str:
    known = providers(database)
    found = [kind] if kind in known else known if not kind else []
    if len(found) != 1:
        fail(f"say with --provider whose export this is; the ledger knows {', '.join(known) or 'none'}")
    return found[0]


def _data(row: Row) -> dict[str, Any]:
    data: dict[str, Any] = {"day": row.day, "model": row.model}
    for name in FIGURES:
        sides = (row.theirs and getattr(row.theirs, name), row.ours and getattr(row.ours, name), row.difference(name))
        data[name] = dict(zip(("theirs", "ours", "difference"), map(_plain, sides), strict=True))
    return data


def _plain(value: Any) -> Any:
    return plain(value) if isinstance(value, Decimal) else value


def _table(title: str, rows: Sequence[Row], apart: Sequence[Row], total: Row) -> Table:
    table = Table(title=escape(title), box=box.SIMPLE_HEAD)
    table.add_column("day and model", overflow="fold")
    for name in ("requests", "input tokens", "output tokens", "dollars"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, f"{row.day}\n{row.model}".strip() or "all", row in apart))
    if len(rows) > 1:
        table.add_section()
        table.add_row(*_cells(total, "all", red=False), style="bold")
    return table


def _cells(row: Row, name: str, red: bool) -> list[str | Text]:
    cells: list[str | Text] = [name]
    for figure in ("requests", "input_tokens", "output_tokens", "usd"):
        their = None if row.theirs is None else getattr(row.theirs, figure)
        own = None if row.ours is None else getattr(row.ours, figure)
        difference = row.difference(figure)
        style = "red" if red and difference else "dim" if not difference else "yellow"
        lines = (
            _shown(their, figure),
            "\n",
            _shown(own, figure),
            "\n",
            (_shown(difference, figure, signed=True), style),
        )
        cells.append(Text.assemble(*lines))
    return cells


def _shown(value: Any, figure: str, signed: bool = False) -> str:
    if value is None:
        return "-"
    sign = "-" if value < 0 else "+" if signed and value > 0 else ""
    return f"{sign}${abs(value):,.4f}" if figure == "usd" else f"{sign}{abs(value):,.0f}"
