"""`trimtab webhooks`: what was delivered and what was not, deliveries sent again, addresses enabled again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from trimtab.console import ConfigOption, JsonOption, fail, out, told
from trimtab.database import Database
from trimtab.settings import Settings
from trimtab.webhooks.outbox import Outbox
from trimtab.webhooks.schedule import State
from trimtab.webhooks.signing import Secrets

app = typer.Typer(
    help="Deliveries of webhooks: list them, send them again, enable an address again.", no_args_is_help=True
)

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of deliveries (msg_...), from `list`.")]


@app.command("list")
def show(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 100,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the latest deliveries, and the addresses to which nothing is sent because they answered 410."""
    with _outbox(config) as outbox:
        deliveries, disabled = outbox.list(state, limit), outbox.disabled()
    if as_json:
        out.print_json(
            data={
                "deliveries": [each.to_dict() for each in deliveries],
                "disabled": [asdict(each) for each in disabled],
            }
        )
        return
    table = Table("id", "event", "about", "address", "state", "attempts", "last answer", "next or last", box=None)
    for each in deliveries:
        moment = each.due_at if each.state == "pending" else each.ended_at or each.created_at
        answer = " ".join(filter(None, ("" if each.status is None else str(each.status), each.detail)))
        row = (each.id, each.type, each.subject, each.url, each.state, str(each.attempts), answer, _when(moment))
        table.add_row(*(escape(cell) for cell in row))
    out.print(table if deliveries else "no deliveries")
    for address in disabled:
        out.print(escape(f"disabled since {_when(address.at)}: {address.url} of tenant {address.tenant or '(none)'}"))


@app.command()
def replay(ids: Ids, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send deliveries again, under the same ids; a server that runs does it within a second or so."""
    with _outbox(config) as outbox:
        done = [id for id in ids if outbox.replay(id, time.time())]
    if as_json:
        out.print_json(data={"replayed": done})
    else:
        out.print(f"{len(done)} of {len(ids)} will be sent again")
    if missing := [id for id in ids if id not in done]:
        fail(
            f"not sent again: {', '.join(missing)}; there is no such delivery, or its address is disabled (`list` says)"
        )


@app.command()
def enable(
    url: Annotated[str, typer.Argument(help="The address, as `list` shows it.")],
    tenant: Annotated[
        str | None, typer.Option(help="Only for this tenant; else for all that have it disabled.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send to an address again that answered 410, beginning with what was withheld from it."""
    with _outbox(config) as outbox:
        wanted = [each for each in outbox.disabled() if each.url == url and tenant in (None, each.tenant)]
        pending = sum(outbox.enable(each.tenant, url, time.time()) or 0 for each in wanted)
    if not wanted:
        fail(f"{url} is not disabled; `trimtab webhooks list` shows what is")
    if as_json:
        out.print_json(data={"enabled": [each.tenant for each in wanted], "pending": pending})
    else:
        out.print(f"enabled for {len(wanted)} tenant(s); {pending} withheld deliveries will be sent")


@app.command()
def secrets(
    tenant: Annotated[str, typer.Argument(help="The tenant, as `list --json` names it.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the secrets that a tenant's receivers check webhooks with. Needs the server's own in its environment."""
    with told():
        settings = Settings.load(config) if config else Settings()
        server = Secrets.read(os.environ, settings.webhook_secret_env, settings.webhook_secret_file)
    if not server.keys:
        fail(f"there is no secret: set {settings.webhook_secret_env}, or webhook_secret_file in the settings")
    found = server.of_tenant(tenant)
    if as_json:
        out.print_json(data={"secrets": found})
    else:
        out.print("\n".join(found))


@contextmanager
def _outbox(config: Path | None) -> Iterator[Outbox]:
    with told():
        database = Database((Settings.load(config) if config else Settings()).database)
        try:
            outbox = Outbox(database)
            outbox.create()
            yield outbox
        finally:
            database.close()


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
