"""Shipments: jobs that were handed to a provider as one batch, from the intent to the last result.

    intended --> shipped --> collected
        `----------'-------> undone        (nothing of it came to be, or what did is not to be had)

An intent is written before the provider is asked, under a key of ours that goes along: after a crash the provider is asked
whether it knows the key before anything is sent again. Moments are seconds since 1970. Blocking, as `Jobs` is.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from routing.promotion import Turnaround
from trimtab.database import Database
from trimtab.deferred.job import BODIES, JOBS, OPEN, SHIPPED, WAITING, Job, job_of

INTENDED: Final = "intended"
COLLECTED: Final = "collected"
UNDONE: Final = "undone"
UNDER_WAY: Final = (INTENDED, SHIPPED)

REMEMBERED: Final = 50
"""How many of a provider's shipments tell how long its batches take."""

METADATA: Final = sa.MetaData()
SHIPMENTS: Final = sa.Table(
    "deferred_shipments",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("provider", sa.String, nullable=False),
    sa.Column("offer", sa.Text, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("provider_batch_id", sa.String),
    sa.Column("jobs", sa.Integer, nullable=False),
    sa.Column("deadline_at", sa.Double, nullable=False),
    sa.Column("intended_at", sa.Double, nullable=False),
    sa.Column("recalled_at", sa.Double),
    sa.Column("ended_at", sa.Double),
    sa.Column("due_at", sa.Double, nullable=False),
    sa.Column("lease_owner", sa.String),
    sa.Column("lease_until", sa.Double, nullable=False),
    sa.Index("deferred_shipments_due", "state", "due_at"),
    sa.Index("deferred_shipments_ended", "provider", "ended_at"),
    sa.Index("deferred_shipments_lease", "lease_owner"),
)


@dataclass(frozen=True, slots=True)
class Shipment:
    """One provider's batch. `id` is our key, `offer` (JSON) what it buys at, `deadline_at` the earliest of its jobs."""

    id: str
    provider: str
    offer: str
    state: str
    jobs: int
    deadline_at: float
    intended_at: float
    provider_batch_id: str | None = None
    recalled_at: float | None = None


def new_key() -> str:
    """A key that no provider has seen, within what all of them take."""
    return "".join(secrets.choice(_LETTERS) for _ in range(24))


_LETTERS: Final = string.ascii_lowercase + string.digits


class Shipments:
    """The shipments in one database, beside its jobs. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self) -> None:
        """The tables that are not there yet."""
        self._database.create(METADATA)

    def intend(self, shipment: Shipment, plans: Mapping[str, str], owner: str, now: float, lease_s: float) -> set[str]:
        """Write down that these jobs (with what is noted on each) are about to be handed over by `owner`, whose they are.
        Gives those that are taken along: one that was cancelled since is not. With none, nothing is written."""
        mine = (JOBS.c.lease_owner == owner) & (JOBS.c.state == WAITING)
        values: dict[str, Any] = {
            "plan": sa.bindparam("b_plan"),
            "shipment_id": shipment.id,
            "state": SHIPPED,
            "lane": "batch",
        }
        values |= {"lease_owner": None, "lease_until": 0.0, "attempts": JOBS.c.attempts + 1}
        with self._database.begin() as connection:
            asked = sa.select(JOBS.c.id).where(mine, JOBS.c.id.in_(list(plans))).with_for_update()
            taken = set(connection.scalars(asked))
            if taken:
                rows = [{"b_id": job_id, "b_plan": plans[job_id]} for job_id in taken]
                connection.execute(sa.update(JOBS).where(JOBS.c.id == sa.bindparam("b_id")).values(**values), rows)
                row = {name: getattr(shipment, name) for name in Shipment.__slots__} | {"jobs": len(taken)}
                leased = {"due_at": now, "lease_owner": owner, "lease_until": now + lease_s}
                connection.execute(sa.insert(SHIPMENTS).values(**row, **leased))
        return taken

    def claim(self, owner: str, now: float, lease_s: float, limit: int) -> tuple[Shipment, ...]:
        """Up to `limit` shipments that are due, for `owner` alone until the lease is over or given back."""
        due = (SHIPMENTS.c.due_at <= now) & (SHIPMENTS.c.lease_until <= now)
        with self._database.begin() as connection:
            asked = sa.select(SHIPMENTS).where(SHIPMENTS.c.state.in_(UNDER_WAY), due).order_by(SHIPMENTS.c.due_at)
            rows = connection.execute(asked.limit(limit).with_for_update(skip_locked=True)).all()
            leased = sa.update(SHIPMENTS).where(SHIPMENTS.c.id.in_([row.id for row in rows]))
            connection.execute(leased.values(lease_owner=owner, lease_until=now + lease_s))
        return tuple(_shipment(row) for row in rows)

    def note(self, shipment_id: str, owner: str, **values: Any) -> None:
        """Note values of its columns, where it is still the owner's."""
        mine = (SHIPMENTS.c.id == shipment_id) & (SHIPMENTS.c.lease_owner == owner)
        with self._database.begin() as connection:
            connection.execute(sa.update(SHIPMENTS).where(mine).values(**values))

    def put_off(self, shipment_id: str, owner: str, due_at: float, **values: Any) -> None:
        """Note values, and give it back until `due_at`."""
        self.note(shipment_id, owner, **values, due_at=due_at, lease_owner=None, lease_until=0.0)

    def renew(self, owner: str, shipment_ids: Collection[str], now: float, lease_s: float) -> None:
        """A longer lease for those of them that are the owner's."""
        mine = (SHIPMENTS.c.lease_owner == owner) & (SHIPMENTS.c.lease_until > now)
        where = mine & SHIPMENTS.c.id.in_(list(shipment_ids))
        with self._database.begin() as connection:
            connection.execute(sa.update(SHIPMENTS).where(where).values(lease_until=now + lease_s))

    def release(self, owner: str) -> None:
        """Give back all that is the owner's, as it goes."""
        with self._database.begin() as connection:
            where = SHIPMENTS.c.lease_owner == owner
            connection.execute(sa.update(SHIPMENTS).where(where).values(lease_owner=None, lease_until=0.0))

    def close(self, shipment_id: str, state: str, now: float, *, seen: bool = True) -> int:
        """End it as COLLECTED or UNDONE: its jobs that are not over wait again. How many they are.

        `seen`: how long it took tells how long its provider's batches take. What is undone was no attempt.
        """
        left = (JOBS.c.shipment_id == shipment_id) & JOBS.c.state.in_(OPEN)
        back = {**_BACK, "due_at": now, "attempts": JOBS.c.attempts - int(state == UNDONE)}
        with self._database.begin() as connection:
            ended = {"state": state, "ended_at": now if seen else None, "lease_owner": None, "lease_until": 0.0}
            connection.execute(sa.update(SHIPMENTS).where(SHIPMENTS.c.id == shipment_id).values(**ended))
            return connection.execute(sa.update(JOBS).where(left).values(**back)).rowcount

    def take_out(self, shipment_id: str, job_ids: Collection[str], now: float) -> None:
        """Jobs whose lines were not answered wait again."""
        self._take_out(shipment_id, JOBS.c.id.in_(list(job_ids)), now)

    def take_out_before(self, shipment_id: str, deadline_at: float, now: float) -> None:
        """Jobs with an earlier deadline wait again, whatever becomes of their lines."""
        self._take_out(shipment_id, JOBS.c.deadline_at <= deadline_at, now)

    def _take_out(self, shipment_id: str, which: sa.ColumnElement[bool], now: float) -> None:
        here = (JOBS.c.shipment_id == shipment_id) & (JOBS.c.state == SHIPPED)
        with self._database.begin() as connection:
            connection.execute(sa.update(JOBS).where(here, which).values(**_BACK, due_at=now))

    def sweep(self, before: float) -> None:
        """Forget those that were handed over before then and are done with."""
        old = SHIPMENTS.c.state.not_in(UNDER_WAY) & (SHIPMENTS.c.intended_at <= before)
        with self._database.begin() as connection:
            connection.execute(sa.delete(SHIPMENTS).where(old))

    def jobs(self, job_ids: Collection[str]) -> dict[str, tuple[Job, bytes]]:
        """Jobs as they are now, in it or not, each with its body."""
        together = JOBS.join(BODIES, BODIES.c.job_id == JOBS.c.id)
        asked = sa.select(JOBS, BODIES.c.content).select_from(together).where(JOBS.c.id.in_(list(job_ids)))
        with self._database.read() as connection:
            return {row.id: (job_of(row), bytes(row.content)) for row in connection.execute(asked)}

    def open_jobs(self, shipment_id: str) -> tuple[int, Job | None]:
        """How many jobs are in it still, and the one of them with the earliest deadline."""
        where = (JOBS.c.shipment_id == shipment_id) & (JOBS.c.state == SHIPPED)
        with self._database.read() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(JOBS).where(where)) or 0
            row = connection.execute(sa.select(JOBS).where(where).order_by(JOBS.c.deadline_at).limit(1)).one_or_none()
        return count, None if row is None else job_of(row)

    def overdue(self, shipment_id: str, now: float, limit: int) -> Sequence[str]:
        """Jobs in it whose deadline has passed."""
        where = (JOBS.c.shipment_id == shipment_id) & (JOBS.c.state == SHIPPED) & (JOBS.c.deadline_at <= now)
        with self._database.read() as connection:
            return connection.scalars(sa.select(JOBS.c.id).where(where).limit(limit)).all()

    def known(self, provider: str) -> Collection[str]:
        """The provider's ids of batches that are known to be ours."""
        where = (SHIPMENTS.c.provider == provider) & SHIPMENTS.c.provider_batch_id.is_not(None)
        recent = sa.select(SHIPMENTS.c.provider_batch_id).where(where).order_by(SHIPMENTS.c.intended_at.desc())
        with self._database.read() as connection:
            return set(connection.scalars(recent.limit(_KNOWN)))

    def turnarounds(self) -> dict[str, Turnaround]:
        """By provider, how long its latest batches took."""
        took: dict[str, Turnaround] = {}
        with self._database.read() as connection:
            names = connection.scalars(sa.select(SHIPMENTS.c.provider).distinct()).all()
            for name in names:
                where = (SHIPMENTS.c.provider == name) & SHIPMENTS.c.ended_at.is_not(None)
                asked = sa.select(SHIPMENTS).where(where).order_by(SHIPMENTS.c.ended_at.desc()).limit(REMEMBERED)
                rows = connection.execute(asked).all()
                took[name] = Turnaround(
                    seen_s=tuple(sorted(row.ended_at - row.intended_at for row in rows if row.recalled_at is None)),
                    longer_s=tuple(
                        sorted(row.recalled_at - row.intended_at for row in rows if row.recalled_at is not None)
                    ),
                )
        return took


_KNOWN: Final = 10_000
_BACK: Final[Mapping[str, Any]] = {"state": WAITING, "shipment_id": None, "lease_owner": None, "lease_until": 0.0}


def _shipment(row: Any) -> Shipment:
    return Shipment(**{name: getattr(row, name) for name in Shipment.__slots__})
