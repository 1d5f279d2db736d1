"""Key: what a virtual key and a team are, and what they may spend. Frozen, and without any secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from routing.offers import plain
from trimtab.access.rules import EVERYTHING, Rules
from trimtab.caller import Caller

PERIODS: Final = ("day", "week", "month", "total")
"""Of UTC: a week begins on Monday, and what is "total" never renews."""
NEVER: Final = 253_402_300_799.0
"""The last second of the year 9999."""


def period_at(period: str, now: float) -> tuple[float, float]:
    """Begin and end of the period that `now` is in, in seconds since 1970.

    >>> period_at("day", 86_400.0 * 2 + 5)
    (172800.0, 259200.0)
    """
    if period == "total":
        return 0.0, NEVER
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        begin, end = midnight, midnight + timedelta(days=1)
    elif period == "week":
        begin = midnight - timedelta(days=midnight.weekday())
        end = begin + timedelta(days=7)
    else:
        begin = midnight.replace(day=1)
        end = (begin + timedelta(days=32)).replace(day=1)
    return begin.timestamp(), end.timestamp()


@dataclass(frozen=True, slots=True)
class Limits:
    """`budgets` are dollars by period; the rates hold for a minute. None is no limit."""

    budgets: Mapping[str, Decimal] = field(default_factory=dict)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "budgets": {period: plain(usd) for period, usd in self.budgets.items()},
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
        }


@dataclass(frozen=True, slots=True)
class Team:
    """`id` is its tenant's name, `name` what people call it."""

    id: str
    name: str
    limits: Limits = Limits()
    disabled: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "object": "team",
            "name": self.name,
            "tenant": self.id,
            **self.limits.to_dict(),
            "disabled": self.disabled,
            "metadata": dict(self.metadata),
            "created_at": int(self.created_at),
        }


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key. `hint` is the beginning of its secret, where we made it."""

    id: str
    name: str
    team: Team | None = None
    limits: Limits = Limits()
    rules: Rules = EVERYTHING
    expires_at: float | None = None
    disabled: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    hint: str = ""
    created_at: float = 0.0

    @property
    def caller(self) -> Caller:
        """The team owns what its keys leave behind."""
        if self.team is None:
            return Caller(self.id, self.name)
        return Caller(self.team.id, self.name, self.team.name)

    def to_dict(self) -> dict[str, Any]:
        rules = self.rules
        return {
            "object": "key",
            "name": self.name,
            "team": None if self.team is None else self.team.name,
            "tenant": self.caller.tenant,
            "hint": self.hint,
            "models": None if rules.models is None else list(rules.models),
            "allow": None if rules.allow is None else list(rules.allow),
            "deny": list(rules.deny),
            "regions": list(rules.regions),
            **self.limits.to_dict(),
            "expires_at": None if self.expires_at is None else int(self.expires_at),
            "disabled": self.disabled,
            "metadata": dict(self.metadata),
            "created_at": int(self.created_at),
        }
