"""`trimtab doctor`: is everything there that `trimtab serve` will need, and what is to be done about what is not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from trimtab.checkup import Finding, State, examined
from trimtab.console import ConfigOption, JsonOption, err, out, told

_STYLES: Final[Mapping[State, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    config: ConfigOption = None,
    host: Annotated[str, typer.Option(help="The address that the server will listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Its port.")] = 8400,
    online: Annotated[
        bool, typer.Option("--online", help="Ask each provider for its list of models, which costs nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration, keys, models, caches, database, ports and prices, and say what to do about each fault.

    Ends with status 1 where something would keep the server from doing its work. Keys are never printed.
    """
    with told():
        findings = []
        with err.status("Checking") as status:
            for finding in examined(config, os.environ, host, port, online=online):
                findings.append(finding)
                status.update(f"Checked {finding.check}")
    if as_json:
        out.print_json(data=[asdict(each) for each in findings])
    else:
        out.print(_table(findings))
    if any(each.state == "fail" for each in findings):
        raise typer.Exit(1)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("check")
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    for each in findings:
        # Text and not markup: names, paths and messages are the user's.
        found = Text(each.found)
        if each.fix:
            found.append(f"\n-> {each.fix}", "dim" if each.state == "ok" else _STYLES[each.state])
        table.add_row(Text(each.check), Text(each.state, _STYLES[each.state]), found)
    return table
