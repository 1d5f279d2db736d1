"""`trimtab keys`: virtual keys and teams, made, shown, changed and withdrawn. It works on the database itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape
from rich.table import Table

from trimtab.access import described
from trimtab.access.counters import Counters
from trimtab.access.key import Limits
from trimtab.access.keys import Keys
from trimtab.access.opening import counters_of
from trimtab.access.spending import Past
from trimtab.access.usage import usage
from trimtab.console import ConfigOption, JsonOption, fail, out, told
from trimtab.database import Database
from trimtab.options import checked
from trimtab.settings import Settings
from trimtab.sharing.log import Unreachable

app = typer.Typer(
    help="Virtual keys: make, show, change, rotate and revoke them; and their teams.", no_args_is_help=True
)
team_app = typer.Typer(help="Teams of keys, with budgets and limits of their own.", no_args_is_help=True)
app.add_typer(team_app, name="team")

Name = Annotated[str, typer.Argument(metavar="NAME")]
TeamOption = Annotated[str | None, typer.Option(help="The team; its budgets and limits hold besides.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help='A pattern of models, such as "gpt-*"; may be repeated.')
]
Allow = Annotated[list[str] | None, typer.Option(help="A provider that may be asked; may be repeated.")]
Deny = Annotated[list[str] | None, typer.Option(help="A provider that may not be asked; may be repeated.")]
Regions = Annotated[list[str] | None, typer.Option("--region", help="Where providers may compute; may be repeated.")]
Budgets = Annotated[
    list[str] | None, typer.Option("--budget", help="Dollars by period, such as month=100; day, week, month or total.")
]
Rpm = Annotated[int | None, typer.Option("--rpm", help="Requests a minute.")]
Tpm = Annotated[int | None, typer.Option("--tpm", help="Tokens a minute.")]
Expires = Annotated[str | None, typer.Option(help='When it ends: a span such as "30d", or a moment.')]
Metadata = Annotated[list[str] | None, typer.Option("--metadata", help="A note, such as owner=ada; may be repeated.")]
Unlimited = Annotated[
    list[str] | None, typer.Option("--clear", help="A field to have no value any more, such as models.")
]
Disabled = Annotated[
    bool | None, typer.Option("--disabled/--enabled", help="Whether it is refused for the time being.")
]

_CLEAR: Final[dict[str, Any]] = {"budgets": {}, "deny": [], "regions": [], "metadata": {}}


@app.command()
def create(
    name: Name,
    team: TeamOption = None,
    models: Models = None,
    allow: Allow = None,
    deny: Deny = None,
    regions: Regions = None,
    budgets: Budgets = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    expires: Expires = None,
    metadata: Metadata = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its secret is printed this once and kept nowhere."""
    given = _given(team, models, allow, deny, regions, budgets, rpm, tpm, expires, metadata)
    with _opened(config) as (keys, _, _), told():
        asked = checked(described.KeyIn, {"name": name, **given}, None)
        key, secret = described.new_key(keys, asked, time.time())
    _print_secret(key.to_dict(), secret, as_json)


@app.command("list")
def list_keys(team: TeamOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the keys."""
    with _opened(config) as (keys, _, _), told():
        found = [each.to_dict() for each in keys.listed(team)]
    if as_json:
        out.print_json(data={"object": "list", "data": found})
        return
    table = Table("name", "team", "begins with", "models", "budgets", "rpm", "tpm", "state", box=None)
    for each in found:
        models = "all" if each["models"] is None else ", ".join(each["models"])
        state = "disabled" if each["disabled"] else "expired" if _expired(each) else "active"
        team_name, rates = each["team"] or "", (each["requests_per_minute"], each["tokens_per_minute"])
        row = (each["name"], team_name, each["hint"], models, _budgets(each), *map(_figure, rates), state)
        table.add_row(*(escape(cell) for cell in row))
    out.print(table if found else "no keys")


@app.command()
def show(name: Name, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show a key, and what it has spent."""
    with _opened(config) as (keys, counters, past), told():
        key = keys.find(name)
        _print({**key.to_dict(), "usage": _usage(counters, past, "key", name, key.limits)}, as_json)


@app.command()
def update(
    name: Name,
    team: TeamOption = None,
    models: Models = None,
    allow: Allow = None,
    deny: Deny = None,
    regions: Regions = None,
    budgets: Budgets = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    expires: Expires = None,
    metadata: Metadata = None,
    disabled: Disabled = None,
    clear: Unlimited = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a key; what is not given stays. It holds within seconds."""
    given = _given(team, models, allow, deny, regions, budgets, rpm, tpm, expires, metadata, disabled, clear)
    with _opened(config) as (keys, _, _), told():
        asked = checked(described.KeyChange, given, None)
        _print(described.change_key(keys, name, asked, time.time()).to_dict(), as_json)


@app.command()
def rotate(
    name: Name,
    grace: Annotated[str, typer.Option(help="How long the old secret is good beside the new one, in seconds.")] = "0",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a key a new secret."""
    with _opened(config) as (keys, _, _), told():
        asked = checked(described.RotateIn, {"grace_s": _number(grace, "--grace")}, None)
        key = keys.find(name)
        secret = keys.rotate(key, time.time(), asked.grace_s)
        key = keys.find(name)
    _print_secret(key.to_dict(), secret, as_json)


@app.command()
def revoke(name: Name, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete a key. Servers refuse it within seconds."""
    with _opened(config) as (keys, _, _), told():
        keys.delete(keys.find(name))
    out.print_json(data={"name": name, "deleted": True}) if as_json else out.print(f"{name} is revoked")


@team_app.command("create")
def create_team(
    name: Name,
    budgets: Budgets = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    metadata: Metadata = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a team."""
    given = _given(budgets=budgets, rpm=rpm, tpm=tpm, metadata=metadata)
    with _opened(config) as (keys, _, _), told():
        asked = checked(described.TeamIn, {"name": name, **given}, None)
        _print(described.new_team(keys, asked, time.time()).to_dict(), as_json)


@team_app.command("list")
def list_teams(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the teams."""
    with _opened(config) as (keys, _, _), told():
        found = [each.to_dict() for each in keys.teams()]
    if as_json:
        out.print_json(data={"object": "list", "data": found})
        return
    table = Table("name", "budgets", "rpm", "tpm", "state", box=None)
    for each in found:
        rates = (each["requests_per_minute"], each["tokens_per_minute"])
        row = (each["name"], _budgets(each), *map(_figure, rates), "disabled" if each["disabled"] else "active")
        table.add_row(*(escape(cell) for cell in row))
    out.print(table if found else "no teams")


@team_app.command("show")
def show_team(name: Name, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show a team, and what its keys have spent together."""
    with _opened(config) as (keys, counters, past), told():
        team = keys.team(name)
        _print({**team.to_dict(), "usage": _usage(counters, past, "team", name, team.limits)}, as_json)


@team_app.command("update")
def update_team(
    name: Name,
    budgets: Budgets = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    metadata: Metadata = None,
    disabled: Disabled = None,
    clear: Unlimited = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a team; what is not given stays."""
    given = _given(budgets=budgets, rpm=rpm, tpm=tpm, metadata=metadata, disabled=disabled, clear=clear)
    with _opened(config) as (keys, _, _), told():
        _print(described.change_team(keys, name, checked(described.TeamChange, given, None)).to_dict(), as_json)


@team_app.command("delete")
def delete_team(name: Name, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete a team that has no keys."""
    with _opened(config) as (keys, _, _), told():
        keys.delete_team(keys.team(name))
    out.print_json(data={"name": name, "deleted": True}) if as_json else out.print(f"{name} is deleted")


@contextmanager
def _opened(config: Path | None) -> Iterator[tuple[Keys, Counters, Past]]:
    with told():
        settings = Settings.load(config) if config else Settings()
        database = Database(settings.database)
        counters = counters_of(settings)
        try:
            keys = Keys(database)
            keys.create_tables()
            yield keys, counters, Past(database)
        finally:
            counters.close()
            database.close()


def _usage(counters: Counters, past: Past, kind: str, name: str, limits: Limits) -> list[dict[str, Any]]:
    try:
        return usage(counters, past, kind, name, limits, time.time())
    except Unreachable as error:
        fail(f"what was spent cannot be read: {error}")


def _given(
    team: str | None = None,
    models: list[str] | None = None,
    allow: list[str] | None = None,
    deny: list[str] | None = None,
    regions: list[str] | None = None,
    budgets: list[str] | None = None,
    rpm: int | None = None,
    tpm: int | None = None,
    expires: str | None = None,
    metadata: list[str] | None = None,
    disabled: bool | None = None,
    clear: list[str] | None = None,
) -> dict[str, Any]:
    """What was given, by the names of the admin API's fields."""
    fields = {
        "team": team,
        "models": models,
        "allow": allow,
        "deny": deny,
        "regions": regions,
        "budgets": _pairs(budgets, "--budget"),
        "requests_per_minute": rpm,
        "tokens_per_minute": tpm,
        "expires": expires,
        "metadata": _pairs(metadata, "--metadata"),
        "disabled": disabled,
    }
    for name in clear or ():
        if name not in fields:
            fail(f"--clear: {name} is no field; there are {', '.join(fields)}")
    given = {name: value for name, value in fields.items() if value not in (None, [], {})}
    return {name: _CLEAR.get(name) for name in clear or ()} | given


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = [each.partition("=") for each in given or ()]
    if bad := [name for name, mark, _ in pairs if not mark]:
        fail(f"{option}: write it as name=value, and not {bad[0]!r}")
    return {name: value for name, _, value in pairs}


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        fail(f"{option} must be a number of seconds")


def _print(table: dict[str, Any], as_json: bool) -> None:
    if as_json:
        out.print_json(data=table)
        return
    rows = Table(show_header=False, box=None)
    for name, value in table.items():
        if name not in ("object", "usage") and value not in (None, [], {}, ""):
            rows.add_row(name, escape(str(value)))
    for each in table.get("usage", ()):
        amounts = " ".join(f"{what} ${each[f'{what}_usd']}" for what in ("spent", "reserved", "left", "budget"))
        rows.add_row(f"this {each['period']}" if each["period"] != "total" else "in total", amounts)
    out.print(rows)


def _print_secret(table: dict[str, Any], secret: str, as_json: bool) -> None:
    if as_json:
        out.print_json(data={**table, "key": secret})
        return
    out.print(escape(secret), highlight=False)
    out.print(f"That is the key of {escape(table['name'])}. Keep it now: it is not shown again.", style="dim")


def _budgets(table: dict[str, Any]) -> str:
    return ", ".join(
        f"${usd} a {period}" if period != "total" else f"${usd}" for period, usd in table["budgets"].items()
    )


def _figure(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _expired(table: dict[str, Any]) -> bool:
    return table["expires_at"] is not None and table["expires_at"] <= time.time()
