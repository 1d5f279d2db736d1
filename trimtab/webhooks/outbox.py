"""The outbox: deliveries as rows in the database, written with what they tell of.

Whoever delivers claims rows for a while; a process that dies keeps nothing, for the claims of the dead run out. Times are
seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trimtab.database import Database
from trimtab.webhooks.events import Event
from trimtab.webhooks.schedule import Attempt, State, Verdict

CLAIM_S: Final = 60.0
"""How long a claim holds: longer than an attempt may take."""
KEEP_S: Final = 7 * 24 * 3_600.0
"""How long a delivery that is over is kept, for `list` and `replay`."""

TABLES: Final = sa.MetaData()

_DELIVERIES: Final = sa.Table(
    "webhook_deliveries",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("due_at", sa.Double, nullable=False),  # of one that is claimed: when the claim runs out
    sa.Column("ended_at", sa.Double),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("webhook_deliveries_due", "state", "due_at"),
    sa.Index("webhook_deliveries_ended", "ended_at"),
)

_DISABLED: Final = sa.Table(
    "webhook_disabled",
    TABLES,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one address. `attempts` counts those that were begun, the claimed one included.

    `url` may hold a secret of the receiver's, and `body` a result: neither is in its repr.
    """

    id: str
    tenant: str
    url: str = field(repr=False)
    type: str
    subject: str
    state: State
    created_at: float
    due_at: float
    ended_at: float | None
    attempts: int
    status: int | None
    detail: str
    body: bytes = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the body, for a program."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "body"}


@dataclass(frozen=True, slots=True)
class Disabled:
    """An address that said 410 for this tenant."""

    tenant: str
    url: str
    at: float


class Outbox:
    """Blocking: call it in a thread beside an event loop. Safe to share between threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> None:
        """The tables that are not there yet."""
        self._database.create(TABLES)

    def put(self, connection: sa.Connection, tenant: str, url: str, event: Event, now: float) -> str:
        """Write the event into the transaction of `connection`: with its commit it will be delivered, at least once.

        Gives the webhook-id. An event that was put before is not put again. `url` was checked by `OutboundRules.check`.
        """
        id = event.id_for(tenant)
        row = {
            "id": id,
            "tenant": tenant,
            "url": url,
            "type": event.type,
            "subject": event.subject,
            "body": event.body(),
            "state": "disabled" if _is_disabled(connection, tenant, url) else "pending",
            "created_at": now,
            "due_at": now,
            "attempts": 0,
            "detail": "",
        }
        row["ended_at"] = now if row["state"] == "disabled" else None
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        connection.execute(insert(_DELIVERIES).values(row).on_conflict_do_nothing(index_elements=["id"]))
        return id

    def next_due(self) -> float | None:
        """When the next attempt is due; None where nothing is pending. Waits for no writer."""
        soonest = sa.select(sa.func.min(_DELIVERIES.c.due_at)).where(_DELIVERIES.c.state == "pending")
        with self._database.read() as connection:
            return cast("float | None", connection.scalar(soonest))

    def claim(self, now: float, limit: int, per_tenant: int, busy: Collection[str] = ()) -> tuple[Delivery, ...]:
        """Up to `limit` deliveries that are due, the longest overdue first, for CLAIM_S seconds nobody else's.

        Not more than `per_tenant` of one tenant, and none of the tenants in `busy`: a receiver that hangs holds up its
        own tenant only.
        """
        due = (_DELIVERIES.c.state == "pending") & (_DELIVERIES.c.due_at <= now) & _DELIVERIES.c.tenant.not_in(busy)
        turn = sa.func.row_number().over(partition_by=_DELIVERIES.c.tenant, order_by=_DELIVERIES.c.due_at)
        ranked = sa.select(_DELIVERIES.c.id, turn.label("turn")).where(due).subquery()
        fair = sa.select(ranked.c.id).where(ranked.c.turn <= per_tenant)
        free = (
            sa.select(_DELIVERIES)
            .where(_DELIVERIES.c.id.in_(fair), due)
            .order_by(_DELIVERIES.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)  # SQLite has no such words, and needs none: it has one writer
        )
        with self._database.begin() as connection:
            rows = connection.execute(free).mappings().all()
            claimed = {"due_at": now + CLAIM_S, "attempts": _DELIVERIES.c.attempts + 1}
            mine = _DELIVERIES.c.id.in_([row["id"] for row in rows])
            connection.execute(sa.update(_DELIVERIES).where(mine).values(claimed))
        return tuple(_delivery({**row, "due_at": now + CLAIM_S, "attempts": row["attempts"] + 1}) for row in rows)

    def settle(self, delivery: Delivery, attempt: Attempt, verdict: Verdict, now: float) -> None:
        """Write down how a claimed delivery's attempt ended. Does nothing where another has claimed it since, or has
        replayed it, unless it was delivered."""
        ours = (_DELIVERIES.c.id == delivery.id) & (_DELIVERIES.c.state == "pending")
        if verdict.state != "delivered":
            ours &= _DELIVERIES.c.attempts == delivery.attempts
        values = {
            "state": verdict.state,
            "due_at": now + verdict.wait_s,
            "ended_at": None if verdict.state == "pending" else now,
            "status": attempt.status,
            "detail": attempt.detail,
        }
        with self._database.begin() as connection:
            connection.execute(sa.update(_DELIVERIES).where(ours).values(values))
            if verdict.gone:
                self._disable(connection, delivery, now)

    def _disable(self, connection: sa.Connection, delivery: Delivery, now: float) -> None:
        row = {"tenant": delivery.tenant, "url": delivery.url, "at": now}
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        connection.execute(insert(_DISABLED).values(row).on_conflict_do_nothing())
        rest = _at(_DELIVERIES, delivery.tenant, delivery.url) & (_DELIVERIES.c.state == "pending")
        withheld = {"state": "disabled", "ended_at": now, "detail": "the receiver said 410"}
        connection.execute(sa.update(_DELIVERIES).where(rest).values(withheld))

    def list(self, state: str | None = None, limit: int = 100) -> tuple[Delivery, ...]:
        """The latest deliveries, the newest first."""
        newest = sa.select(_DELIVERIES).order_by(_DELIVERIES.c.created_at.desc(), _DELIVERIES.c.id).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(newest if state is None else newest.where(_DELIVERIES.c.state == state))
            return tuple(_delivery(row) for row in rows.mappings())

    def disabled(self) -> tuple[Disabled, ...]:
        """The addresses to which nothing is sent."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(_DISABLED).order_by(_DISABLED.c.at)).mappings()
            return tuple(Disabled(**row) for row in rows)

    def replay(self, id: str, now: float) -> bool:
        """Send it again, from the beginning of the schedule, under the same webhook-id. False where there is none, or its
        address is disabled."""
        row = sa.select(_DELIVERIES.c.tenant, _DELIVERIES.c.url).where(_DELIVERIES.c.id == id)
        with self._database.begin() as connection:
            found = connection.execute(row).one_or_none()
            if found is None or _is_disabled(connection, *found):
                return False
            connection.execute(sa.update(_DELIVERIES).where(_DELIVERIES.c.id == id).values(_anew(now)))
            return True

    def enable(self, tenant: str, url: str, now: float) -> int | None:
        """Send to the address again, and what was withheld from it. How many that are; None where it is not disabled."""
        withheld = _at(_DELIVERIES, tenant, url) & (_DELIVERIES.c.state == "disabled")
        with self._database.begin() as connection:
            if not connection.execute(sa.delete(_DISABLED).where(_at(_DISABLED, tenant, url))).rowcount:
                return None
            return connection.execute(sa.update(_DELIVERIES).where(withheld).values(_anew(now))).rowcount

    def sweep(self, now: float) -> int:
        """Drop what has been over for KEEP_S seconds; how many that were."""
        with self._database.begin() as connection:
            return connection.execute(sa.delete(_DELIVERIES).where(_DELIVERIES.c.ended_at < now - KEEP_S)).rowcount


def _anew(now: float) -> dict[str, Any]:
    return {"state": "pending", "due_at": now, "ended_at": None, "attempts": 0, "status": None, "detail": ""}


def _at(table: sa.Table, tenant: str, url: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.tenant == tenant, table.c.url == url)


def _is_disabled(connection: sa.Connection, tenant: str, url: str) -> bool:
    return connection.execute(sa.select(_DISABLED.c.at).where(_at(_DISABLED, tenant, url))).first() is not None


def _delivery(row: Any) -> Delivery:
    return Delivery(**row)
