"""Tables for the terminal that more than one command prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


def plan_table(chosen: Mapping[str, Any], runners_up: Sequence[Mapping[str, Any]], limit: int = 8) -> Table:
    """The chosen candidate and the nearest runners-up of a /v1/plan answer: what each would cost, and why it lost.

    The reason stands under the offer: in a column of its own it leaves no room for the figures in 80 columns.
    """
    table = Table(title="Plan", box=box.SIMPLE_HEAD)
    table.add_column("offer", overflow="fold")
    for name in ("context", "input", "cost", "coverage"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in (chosen, *runners_up[:limit]):
        service = "" if each["processing"] == "sync" else f" ({each['processing']})"
        table.add_row(
            Text.assemble(f"{each['provider']}/{each['model']}{service}\n", (each.get("why", "chosen"), "dim")),
            f"{each['budget_tokens']:,}",
            f"{each['input_tokens']:,}",
            f"${each['expected_cost_usd']}",
            f"{each['coverage_estimate']:.2f}",
            style=None if "why" in each else "bold",
        )
    if len(runners_up) > limit:
        table.caption = f"and {len(runners_up) - limit} more; --json shows all"
    return table
