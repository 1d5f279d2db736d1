"""`trimtab ledger`: what every request cost, and what was saved by it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from routing.offers import plain
from trimtab.console import ConfigOption, JsonOption, fail, out, told
from trimtab.database import Database
from trimtab.errors import BadRequest
from trimtab.ledger import queries
from trimtab.ledger.entries import TABLES, Entry
from trimtab.ledger.queries import GROUPS, Filter, Total
from trimtab.settings import Settings
from trimtab.tables import plan_table

app = typer.Typer(help="What every request cost, and what was saved: lines, totals, one request, and pruning.")

SinceOption = Annotated[
    str | None, typer.Option("--since", help="A day or a moment (2026-11-24, 2026-11-24T10:00), or an age: 7d, 24h.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="The same; itself not counted.")]
TagOption = Annotated[str | None, typer.Option("--tag", help="NAME=VALUE of the request's metadata.")]
ProviderOption = Annotated[str | None, typer.Option("--provider", help="Only of this provider.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only of this model.")]
KeyOption = Annotated[str | None, typer.Option("--key", help="Only of this key.")]
TeamOption = Annotated[str | None, typer.Option("--team", help="Only of this team.")]
RouteOption = Annotated[str | None, typer.Option("--route", help="Only of this route.")]
UserOption = Annotated[str | None, typer.Option("--user", help="Only of this user.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Only of this tenant.")]
OutcomeOption = Annotated[str | None, typer.Option("--outcome", help="Only of this outcome.")]
NegativeOption = Annotated[bool, typer.Option("--negative", help="Only what cost more than it would have.")]


@contextmanager
def ledger_of(config: Path | None) -> Iterator[Database]:
    """The ledger's database, its tables there. Ends the command where it cannot be read."""
    with told():
        settings = Settings.load(config) if config else Settings()
        database = Database(settings.database)
    try:
        database.create(TABLES)
        yield database
    except SQLAlchemyError as error:  # its message may quote the URL, and a password in it
        fail(f"the database of the ledger cannot be used ({type(error).__name__}); see data_dir and database_url")
    finally:
        database.close()


def moment_of(text: str | None, now: datetime, name: str) -> datetime | None:
    """A moment that somebody typed: a date, a date and time (UTC where it names no zone), or an age. Raises BadRequest.

    >>> moment_of("36h", datetime(2026, 11, 24, 12, tzinfo=UTC), "--since")
    datetime.datetime(2026, 11, 23, 0, 0, tzinfo=datetime.timezone.utc)
    """
    if text is None:
        return None
    if age := re.fullmatch(r"(\d{1,6})([dhm])", text):
        unit = {"d": "days", "h": "hours", "m": "minutes"}[age[2]]
        return now - timedelta(**{unit: int(age[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(name, f"is a date such as 2026-11-24 or an age such as 7d, not {text[:40]!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _filter(now: datetime, since: str | None, until: str | None, tag: str | None, **named: Any) -> Filter:
    pair = None
    if tag is not None:
        name, equals, value = tag.partition("=")
        if not equals:
            raise BadRequest("--tag", "is written NAME=VALUE")
        pair = (name, value)
    return Filter(moment_of(since, now, "--since"), moment_of(until, now, "--until"), tag=pair, **named)


@app.callback(invoke_without_command=True)
def latest(context: typer.Context, config: ConfigOption = None) -> None:
    """What every request cost, and what was saved: lines, totals, one request, and pruning."""
    if context.invoked_subcommand is None:
        list_lines(config=config)


@app.command("list")
def list_lines(
    since: SinceOption = None,
    until: UntilOption = None,
    provider: ProviderOption = None,
    model: ModelOption = None,
    key: KeyOption = None,
    team: TeamOption = None,
    route: RouteOption = None,
    user: UserOption = None,
    tenant: TenantOption = None,
    outcome: OutcomeOption = None,
    tag: TagOption = None,
    negative: NegativeOption = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many lines.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List requests, the latest first."""
    named = {"provider": provider, "model": model, "key": key, "team": team, "route": route, "user": user}
    named |= {"tenant": tenant, "outcome": outcome}
    with told(), ledger_of(config) as database:
        wanted = _filter(datetime.now(UTC), since, until, tag, negative=negative, **named)
        found = queries.lines(database, wanted, limit)
    if as_json:
        out.print_json(data=[entry_data(each) for each in found])
        return
    table = _table("Latest requests", ("when (UTC)", "model"), ("tokens", "cost", "saved", "ms"))
    for each in found:
        table.add_row(
            f"{each.at:%m-%d %H:%M:%S}",
            Text.assemble(f"{each.provider}/{each.model}", "\n", (_marks(each), "dim")),
            f"{_short(each.tokens_before)} > {_short(each.tokens_after)}",
            _usd(each.cost_usd),
            _signed(each.saved_usd),
            f"{(each.trimtab_ms or 0) + (each.provider_ms or 0):,.0f}",
        )
    out.print(table)
    if not found:
        out.print("no line fits; the ledger is written while trimtab serves (docs/ledger.md)", style="dim")


@app.command()
def totals(
    by: Annotated[str | None, typer.Option(help=f"{', '.join(GROUPS)}, or metadata:NAME for a tag.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    provider: ProviderOption = None,
    model: ModelOption = None,
    key: KeyOption = None,
    team: TeamOption = None,
    route: RouteOption = None,
    user: UserOption = None,
    tenant: TenantOption = None,
    outcome: OutcomeOption = None,
    tag: TagOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add requests up, in all or by what they have in common."""
    named = {"provider": provider, "model": model, "key": key, "team": team, "route": route, "user": user}
    named |= {"tenant": tenant, "outcome": outcome}
    with told(), ledger_of(config) as database:
        if by is not None and by not in GROUPS and not by.startswith("metadata:"):
            raise BadRequest("--by", f"is one of {', '.join(GROUPS)}, or metadata:NAME; not {by[:40]!r}")
        found = queries.totals(database, by, _filter(datetime.now(UTC), since, until, tag, **named))
        whole = (
            found
            if by is None
            else queries.totals(database, None, _filter(datetime.now(UTC), since, until, tag, **named))
        )
    if as_json:
        out.print_json(data=[_plain_data(asdict(each)) for each in found])
        return
    table = _table("Totals" if by is None else f"Totals by {by}", (by or "all",), _TOTALS)
    for each in found:
        table.add_row(*_total_row(each, escape(each.name) or ("all" if by is None else "(none)")))
    if by is not None and len(found) > 1:
        table.add_section()
        table.add_row(*_total_row(whole[0], "all"), style="bold")
    out.print(table)


_TOTALS: Final = ("requests", "tokens", "cost", "baseline", "saved", "%")


def _total_row(total: Total, name: str) -> Sequence[str | Text]:
    share = 100 * total.saved_usd / total.baseline_usd if total.baseline_usd else Decimal(0)
    return (
        name,
        f"{total.requests:,}",
        f"{_short(total.tokens_before)} > {_short(total.tokens_after)}",
        _usd(total.cost_usd),
        _usd(total.baseline_usd),
        _signed(total.saved_usd),
        _signed(share, lambda amount: f"{amount:.1f}%"),
    )


@app.command()
def show(
    receipt_id: Annotated[str, typer.Argument(help="A receipt's id, or its beginning.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one request: its figures, its attempts, the plan, and what was cut."""
    with ledger_of(config) as database:
        entry = queries.line(database, receipt_id)
    if entry is None:
        fail(f"no line (or more than one) begins with {receipt_id[:60]!r}; trimtab ledger list shows ids with --json")
    if as_json:
        out.print_json(data={**entry_data(entry), "detail": entry.detail})
        return
    table = Table(title=entry.receipt_id, box=box.SIMPLE_HEAD, show_header=False)
    for name, value in entry_data(entry).items():
        if value not in (None, "", "0") and name != "receipt_id":
            red = name == "saved_usd" and str(value).startswith("-")
            table.add_row(name, Text(str(value), style="red" if red else ""))
    out.print(table)
    detail = entry.detail
    for each in detail.get("attempts", ()):
        words = (
            f"{each['provider']}/{each['model']}: {each['outcome']} after {each['latency_ms']:.0f} ms {each['detail']}"
        )
        out.print(escape(words.rstrip()))
    for each in detail.get("cut", ()):
        out.print(
            escape(f"cut {each['id']}: {each['tokens_before']:,} > {each['tokens_after']:,} tokens ({each['digest']})")
        )
    for note in detail.get("notes", ()):
        out.print(escape(f"note: {note}"), style="yellow")
    if plan := detail.get("plan"):
        out.print(plan_table(plan["chosen"], plan["runners_up"]))


@app.command()
def prune(
    days: Annotated[
        float | None, typer.Option(min=0, help="Delete what is older; ledger_days of the settings.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete old lines now. A server does so every hour."""
    with told():
        kept_days = days if days is not None else (Settings.load(config) if config else Settings()).ledger_days
        if kept_days is None:
            fail("ledger_days is not set: say with --days how old a line may be")
    with ledger_of(config) as database:
        deleted = queries.prune(database, kept_days, datetime.now(UTC))
    if as_json:
        out.print_json(data={"deleted": deleted})
    else:
        out.print(f"{deleted:,} lines older than {kept_days:g} days deleted")


def entry_data(entry: Entry) -> dict[str, Any]:
    """The entry as plain JSON, without its details: dollars as decimal strings."""
    return _plain_data({name: getattr(entry, name) for name in Entry.__slots__ if name != "detail"})


def _plain_data(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))  # it has to fit into 80 columns
    for name in left:
        table.add_column(escape(name), overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _marks(entry: Entry) -> str:
    outcome = "" if entry.outcome == "ok" else f"{entry.status} {entry.outcome}"
    service = "" if entry.processing in ("", "sync") else entry.processing
    return " ".join(each for each in (entry.receipt_id[:13], service, entry.route, entry.user, outcome) if each)


def _short(tokens: int | None) -> str:
    """A large count in three digits or so.

    >>> _short(999), _short(45_200), _short(4_281_067)
    ('999', '45.2k', '4.3M')
    """
    if tokens is None:
        return "?"
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if tokens >= size:
            return f"{tokens / size:.1f}{letter}"
    return str(tokens)


def _usd(amount_usd: Decimal | None) -> str:
    if amount_usd is None:
        return "?"
    sign = "-" if amount_usd < 0 else ""
    digits = 2 if abs(amount_usd) >= 1 else 4 if abs(amount_usd) >= Decimal("0.01") else 6
    return f"{sign}${abs(amount_usd):,.{digits}f}"


def _signed(amount: Decimal | None, shown: Callable[[Decimal | None], str] = _usd) -> Text:
    """Green above zero, red below: what was lost is shown like what was saved."""
    if amount is None:
        return Text("?", style="dim")
    return Text(shown(amount), style="red" if amount < 0 else "green" if amount > 0 else "")
