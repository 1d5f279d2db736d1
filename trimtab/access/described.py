"""Described: a key or a team as an administrator describes it, over HTTP or on the command line. Checked here, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.access.key import Key, Limits, Team
from trimtab.access.keys import Keys
from trimtab.access.secrets import check_strong
from trimtab.errors import BadRequest
from trimtab.options import seconds_until

MOST_PAIRS: Final = 16

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200)]
Dollars = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
PerMinute = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Period = Literal["day", "week", "month", "total"]
Tags = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class _Limited(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    budgets: dict[Period, Dollars] = {}
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    disabled: bool = False
    metadata: Tags = {}


class TeamChange(_Limited):
    """What of a team can be changed; what is not given stays."""


class TeamIn(_Limited):
    """A new team."""

    name: Name


class KeyChange(_Limited):
    """What of a key can be changed; what is not given stays. `expires`: seconds, a span such as "30d", or a moment."""

    team: Name | None = None
    models: Names | None = None
    allow: Names | None = None
    deny: Names = []
    regions: Names = []
    expires: float | Annotated[str, Field(max_length=64)] | None = None


class KeyIn(KeyChange):
    """A new key. `key` is a secret of your own, if you insist; a weak one is refused."""

    name: Name
    key: Annotated[str, Field(max_length=1_000)] | None = None


class RotateIn(BaseModel):
    """`grace_s`: how long the old secret is good beside the new one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grace_s: Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)] = 0.0


def new_key(keys: Keys, asked: KeyIn, now: float) -> tuple[Key, str]:
    """Keep it; its secret comes with it, once. Raises BadRequest."""
    if asked.key is not None:
        check_strong(asked.key)
    return keys.create(_changed(keys, Key("", asked.name), asked, now), now, asked.key)


def change_key(keys: Keys, name: str, asked: KeyChange, now: float) -> Key:
    """Raises BadRequest."""
    changed = _changed(keys, keys.find(name), asked, now)
    keys.change(changed)
    return changed


def new_team(keys: Keys, asked: TeamIn, now: float) -> Team:
    """Raises BadRequest."""
    return keys.create_team(_changed_team(Team("", asked.name), asked), now)


def change_team(keys: Keys, name: str, asked: TeamChange) -> Team:
    """Raises BadRequest."""
    changed = _changed_team(keys.team(name), asked)
    keys.change_team(changed)
    return changed


def _changed(keys: Keys, key: Key, asked: KeyChange, now: float) -> Key:
    given, rules = asked.model_fields_set, key.rules
    for name in ("models", "allow"):
        if name in given:
            listed: Sequence[str] | None = getattr(asked, name)
            some = None if listed is None else tuple(listed)
            rules = replace(rules, models=some) if name == "models" else replace(rules, allow=some)
    if "deny" in given:
        rules = replace(rules, deny=tuple(asked.deny))
    if "regions" in given:
        rules = replace(rules, regions=tuple(asked.regions))
    key = replace(key, rules=rules, **_common(key.limits, asked))
    if "team" in given:
        # Its tenant changes with it: what it left behind stays with the team that it was in.
        key = replace(key, team=None if asked.team is None else keys.team(asked.team, "team"))
    if "expires" in given:
        key = replace(key, expires_at=None if asked.expires is None else now + _seconds(asked.expires, now))
    return key


def _changed_team(team: Team, asked: TeamChange | TeamIn) -> Team:
    return replace(team, **_common(team.limits, asked))


def _common(limits: Limits, asked: _Limited) -> dict[str, Any]:
    given = asked.model_fields_set
    if "budgets" in given:
        budgets: Mapping[str, Decimal] = {str(period): usd for period, usd in asked.budgets.items()}
        limits = replace(limits, budgets=budgets)
    for name in ("requests_per_minute", "tokens_per_minute"):
        if name in given:
            limits = replace(limits, **{name: getattr(asked, name)})
    return {"limits": limits} | {name: getattr(asked, name) for name in ("disabled", "metadata") if name in given}


def _seconds(expires: float | str, now: float) -> float:
    try:
        seconds = seconds_until(expires, datetime.fromtimestamp(now, UTC))
    except ValueError as error:
        raise BadRequest("expires", str(error)) from None
    if not 0 < seconds < 100 * 366 * 86_400:
        raise BadRequest("expires", "must be a moment to come, in less than a hundred years")
    return seconds
