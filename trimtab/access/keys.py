"""Keys: the virtual keys and teams of one database. Blocking: call it in a thread beside an event loop.

A name is for good: it stands in the ledger, and budgets go by it. What a key owns goes by its id, which is never given twice.
"""

from __future__ import annotations

import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from trimtab.access.key import Key, Limits, Team
from trimtab.access.rules import Rules
from trimtab.access.secrets import digest_of, hint_of, new_secret
from trimtab.database import Database
from trimtab.errors import BadRequest

TABLES: Final = sa.MetaData()
_TEAMS: Final = sa.Table(
    "access_teams",
    TABLES,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("limits", sa.Text, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
_KEYS: Final = sa.Table(
    "access_keys",
    TABLES,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("team", sa.String, sa.ForeignKey("access_teams.id"), index=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("old_digest", sa.String, index=True),
    sa.Column("old_until", sa.Double),
    sa.Column("hint", sa.String, nullable=False),
    sa.Column("limits", sa.Text, nullable=False),
    sa.Column("rules", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
_JOINED: Final = sa.select(_KEYS, *(column.label(f"team_{column.name}") for column in _TEAMS.c)).select_from(
    _KEYS.outerjoin(_TEAMS, _TEAMS.c.id == _KEYS.c.team)
)


class Keys:
    """Safe to share between threads; processes share them through the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_tables(self) -> None:
        """The tables that are not there yet."""
        self._database.create(TABLES)

    # --- keys ------------------------------------------------------------------------------------------------------------

    def create(self, key: Key, now: float, chosen: str | None = None) -> tuple[Key, str]:
        """Keep a new key, as `key` describes it; gives it with its secret, which is nowhere else. `chosen` is a secret of the
        operator's own, which was found strong. Raises BadRequest for a name or a secret that there is."""
        secret = new_secret() if chosen is None else chosen
        made = replace(key, id=f"key_{uuid.uuid4().hex}", created_at=now, hint="" if chosen else hint_of(secret))
        row = {"id": made.id, "name": made.name, "digest": digest_of(secret), "hint": made.hint, "created_at": now}
        self._insert(_KEYS, row | _columns(made), made.name)
        return made, secret

    def find(self, name: str) -> Key:
        """Raises BadRequest where there is none of that name."""
        found = self.named(name)
        if found is None:
            raise BadRequest("name", f"no key is called {name[:64]!r}", "key_not_found", status=404)
        return found

    def named(self, name: str) -> Key | None:
        with self._database.read() as connection:
            row = connection.execute(_JOINED.where(_KEYS.c.name == name)).one_or_none()
        return None if row is None else _key(row)

    def of_secret(self, digest: str, now: float) -> Key | None:
        """The key whose secret has this digest; one that was rotated is found by its old one until that is over."""
        old = (_KEYS.c.old_digest == digest) & (_KEYS.c.old_until > now)
        with self._database.read() as connection:
            row = connection.execute(_JOINED.where((_KEYS.c.digest == digest) | old)).first()
        if row is None or not any(hmac.compare_digest(digest, each or "") for each in (row.digest, row.old_digest)):
            return None
        return _key(row)

    def listed(self, team: str | None = None, after: str = "", limit: int = 1_000) -> list[Key]:
        """By name, from the one behind `after` on."""
        query = _JOINED.where(_KEYS.c.name > after).order_by(_KEYS.c.name).limit(limit)
        if team is not None:
            query = query.where(_TEAMS.c.name == team)
        with self._database.read() as connection:
            return [_key(row) for row in connection.execute(query)]

    def change(self, key: Key) -> None:
        """Keep a key as it now is; its name and id stay."""
        with self._database.begin() as connection:
            connection.execute(sa.update(_KEYS).where(_KEYS.c.id == key.id).values(**_columns(key)))

    def rotate(self, key: Key, now: float, grace_s: float = 0.0) -> str:
        """A new secret; the old one is good for `grace_s` more."""
        secret = new_secret()
        values = {"digest": digest_of(secret), "hint": hint_of(secret), "old_digest": _KEYS.c.digest}
        with self._database.begin() as connection:
            changed = sa.update(_KEYS).where(_KEYS.c.id == key.id).values(**values, old_until=now + grace_s)
            connection.execute(changed)
        return secret

    def delete(self, key: Key) -> None:
        with self._database.begin() as connection:
            connection.execute(sa.delete(_KEYS).where(_KEYS.c.id == key.id))

    # --- teams -----------------------------------------------------------------------------------------------------------

    def create_team(self, team: Team, now: float) -> Team:
        """Raises BadRequest for a name that there is."""
        made = replace(team, id=f"team_{uuid.uuid4().hex}", created_at=now)
        row = {"id": made.id, "name": made.name, "created_at": now}
        self._insert(_TEAMS, row | _team_columns(made), made.name)
        return made

    def team(self, name: str, param: str = "name") -> Team:
        """Raises BadRequest where there is none of that name."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(_TEAMS).where(_TEAMS.c.name == name)).one_or_none()
        if row is None:
            raise BadRequest(param, f"no team is called {name[:64]!r}", "team_not_found", status=404)
        return _team(row._mapping, "")

    def teams(self, after: str = "", limit: int = 1_000) -> list[Team]:
        query = sa.select(_TEAMS).where(_TEAMS.c.name > after).order_by(_TEAMS.c.name).limit(limit)
        with self._database.read() as connection:
            return [_team(row._mapping, "") for row in connection.execute(query)]

    def change_team(self, team: Team) -> None:
        with self._database.begin() as connection:
            connection.execute(sa.update(_TEAMS).where(_TEAMS.c.id == team.id).values(**_team_columns(team)))

    def delete_team(self, team: Team) -> None:
        """Raises BadRequest while it has keys."""
        with self._database.begin() as connection:
            if connection.execute(sa.select(_KEYS.c.id).where(_KEYS.c.team == team.id).limit(1)).first() is not None:
                raise BadRequest("name", "this team has keys; delete them first", "team_in_use", status=409)
            connection.execute(sa.delete(_TEAMS).where(_TEAMS.c.id == team.id))

    def _insert(self, table: sa.Table, row: Mapping[str, Any], name: str) -> None:
        try:
            with self._database.begin() as connection:
                connection.execute(sa.insert(table), row)
        except IntegrityError:  # its text would hold the row
            reason = f"{name[:64]!r} is taken, or the key of that secret is there"
            raise BadRequest("name", reason, "already_exists", status=409) from None


def limits_of(table: Mapping[str, Any]) -> Limits:
    """Limits from what `Limits.to_dict` wrote."""
    budgets = {period: Decimal(usd) for period, usd in table["budgets"].items()}
    return Limits(budgets, table["requests_per_minute"], table["tokens_per_minute"])


def _columns(key: Key) -> dict[str, Any]:
    told = key.to_dict()
    rules = {name: told[name] for name in ("models", "allow", "deny", "regions")}
    return {
        "team": None if key.team is None else key.team.id,
        "limits": json.dumps(key.limits.to_dict()),
        "rules": json.dumps(rules),
        "expires_at": key.expires_at,
        "disabled": key.disabled,
        "metadata": json.dumps(dict(key.metadata)),
    }


def _team_columns(team: Team) -> dict[str, Any]:
    limits, metadata = json.dumps(team.limits.to_dict()), json.dumps(dict(team.metadata))
    return {"limits": limits, "disabled": team.disabled, "metadata": metadata}


def _key(row: Any) -> Key:
    rules = json.loads(row.rules)
    models, allow = (None if rules[name] is None else tuple(rules[name]) for name in ("models", "allow"))
    return Key(
        row.id,
        row.name,
        None if row.team_id is None else _team(row._mapping, "team_"),
        limits_of(json.loads(row.limits)),
        Rules(models, allow, tuple(rules["deny"]), tuple(rules["regions"])),
        row.expires_at,
        row.disabled,
        json.loads(row._mapping["metadata"]),
        row.hint,
        row.created_at,
    )


def _team(row: Mapping[Any, Any], prefix: str) -> Team:
    id, name, limits, disabled, metadata, created_at = (row[f"{prefix}{column.name}"] for column in _TEAMS.c)
    return Team(id, name, limits_of(json.loads(limits)), disabled, json.loads(metadata), created_at)
