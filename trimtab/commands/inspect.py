"""`trimtab inspect`: what trimtab takes for context in a request, what it protects, and why."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from compressor.inspection import Inspection, Span
from trimtab.console import FileArgument, JsonOption, err, fail, out, read_text, told
from trimtab.inspecting import inspected


def inspect(
    file: FileArgument = "-",
    surface: Annotated[
        str | None,
        typer.Option(
            help="chat, messages, responses or embeddings; without it, the one whose shape the request has.",
            autocompletion=lambda: ["chat", "messages", "responses", "embeddings"],
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which spans of a request are context, which are protected, and why. Nothing is ranked or sent."""
    with told():
        try:
            body = json.loads(read_text(file))
        except (ValueError, RecursionError):
            fail(f"{file}: is not JSON; give the body of a request")
        if not isinstance(body, dict):
            fail(f"{file}: is not a JSON object; give the body of a request")
        found = inspected(body, surface)
    if as_json:
        out.print_json(data=found.to_dict())
        return
    out.print(_table(found))
    read = (
        f"{found.query_from}: {found.query}" if found.query.strip() else "none: only what costs nothing to lose may go"
    )
    out.print(Text.assemble(("question  ", "bold"), read))
    if found.cached_until is not None:
        out.print(Text.assemble(("cached    ", "bold"), f"up to {found.cached_until or 'the tools'}"))
    err.print(f"{found.trimmable_tokens:,} tokens may be cut, {found.protected_tokens:,} are protected", style="dim")


def _table(found: Inspection) -> Table:
    table = Table(title=f"a request of {found.api}")
    for name in ("where", "role", "characters", "what"):
        table.add_column(name)
    table.add_column("tokens", justify="right")
    table.add_column("title")
    for span in found.spans:
        table.add_row(*_row(span), style=None if span.trimmable else "dim")
    return table


def _row(span: Span) -> tuple[str | Text, ...]:
    where = span.path or ("before the conversation" if span.turn == -1 else f"message {span.turn}")
    at = f"{span.start:,}-{span.end:,}" if span.path else ""
    what = span.form if span.trimmable else span.reason.partition(":")[0]
    # Text, because titles and paths are the caller's and may look like markup.
    return (
        Text(where),
        Text(span.role),
        at,
        Text(f"cut: {what}" if span.trimmable else what),
        f"{span.tokens:,}",
        Text(span.title),
    )
