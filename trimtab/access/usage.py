"""Usage: what a key or a team has spent, reserved and left in each of its periods. Blocking."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from routing.offers import plain
from trimtab.access.counters import Counters
from trimtab.access.gate import budgets_in
from trimtab.access.key import Limits
from trimtab.access.spending import Past


def usage(counters: Counters, past: Past, kind: str, name: str, limits: Limits, now: float) -> list[dict[str, Any]]:
    """One row for each budget; a meter that has not begun is told from the ledger. Raises Unreachable."""
    budgets = budgets_in(kind, name, limits, now)
    rows = []
    for budget, found in zip(budgets, counters.read(budgets) if budgets else (), strict=True):
        spent, reserved = (past.spent_pico(budget), 0) if found is None else found
        amounts = {"budget": budget.cap_pico, "spent": spent, "reserved": reserved}
        amounts["left"] = max(0, budget.cap_pico - spent - reserved)
        dollars = {f"{each}_usd": plain(Decimal(pico).scaleb(-12)) for each, pico in amounts.items()}
        renews_at = None if budget.period == "total" else int(budget.ends_at)
        rows.append({"period": budget.period, **dollars, "renews_at": renews_at})
    return rows
