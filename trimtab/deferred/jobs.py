"""Jobs: the requests that may wait, and what became of them. The store of the deferred lane.

A job is one request with a deadline: a single one that was answered with a 202, or one line of a batch. It is accepted
once, worked on under leases by any number of processes, and finished once: the first result that is written is the one
that counts, whoever wrote it.

Moments are seconds since 1970. Nothing here reads a clock. Blocking: call it in a thread beside an event loop.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trimtab.caller import Caller
from trimtab.database import Database
from trimtab.deferred.job import (
    BODIES,
    CANCELLED,
    COMPLETED,
    EXPIRED,
    FAILED,
    HEADERS,
    JOBS,
    METADATA,
    OPEN,
    OVER,
    RESULTS,
    SHIPPED,
    WAITING,
    Accepted,
    Counts,
    Job,
    NewJob,
    Outcome,
    job_of,
)

__all__ = [
    "CANCELLED",
    "CHUNK_BYTES",
    "CHUNK_JOBS",
    "COMPLETED",
    "EXPIRED",
    "FAILED",
    "JOBS",
    "METADATA",
    "OPEN",
    "OVER",
    "RESULTS",
    "SHIPPED",
    "WAITING",
    "Accepted",
    "Counts",
    "Finished",
    "Job",
    "Jobs",
    "NewJob",
    "Outcome",
    "fingerprint_of",
    "in_chunks",
]

CHUNK_JOBS: Final = 500
CHUNK_BYTES: Final = 8 * 2**20
"""How much one transaction takes, of jobs that come in a stream."""


Finished = Callable[[sa.Connection, Job], None]
"""Is told of every job with a `callback_url` that is over, within the transaction that ends it: what it writes through the
connection is there exactly if the end is. It must be quick, call nothing outside, and raise nothing."""


class Jobs:
    """The jobs in one database. Safe to share between threads; processes share them through the database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.finished: list[Finished] = []
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    def create(self) -> None:
        """The tables that are not there yet."""
        self.database.create(METADATA)

    def accept(self, jobs: Sequence[NewJob], now: float) -> tuple[Accepted, ...]:
        """Write them down, all or none; when this returns they are on disk. One `Accepted` for each, in order.

        A stream of them goes in by `in_chunks`. A second one under the same `idempotency_key` (of its tenant and surface) or
        `custom_id` (of its batch) is the first one's.
        """
        rows = [_row(each, now) for each in jobs]
        if not rows:
            return ()
        ids = [row["id"] for row in rows]
        with self.database.begin() as connection:
            connection.execute(self._insert(JOBS).on_conflict_do_nothing(), rows)
            written = set(connection.scalars(sa.select(JOBS.c.id).where(JOBS.c.id.in_(ids))))
            bodies = [
                {"job_id": row["id"], "content": each.body}
                for each, row in zip(jobs, rows, strict=True)
                if row["id"] in written
            ]
            if bodies:
                connection.execute(sa.insert(BODIES), bodies)
            return tuple(
                Accepted(row["id"], True, line=each.line) if row["id"] in written else _first(connection, each, row)
                for each, row in zip(jobs, rows, strict=True)
            )

    def find(self, job_id: str, tenant: str) -> Job | None:
        """A tenant's job; None where it is nobody's or another's."""
        where = (JOBS.c.id == job_id) & (JOBS.c.tenant == tenant)
        with self.database.read() as connection:
            row = connection.execute(sa.select(JOBS).where(where)).one_or_none()
        return None if row is None else job_of(row)

    def under_key(self, caller: Caller, surface: str, idempotency_key: str) -> tuple[Job, str] | None:
        """The job that was accepted under this key, and the fingerprint of what it asked."""
        where = (
            (JOBS.c.tenant == caller.tenant) & (JOBS.c.surface == surface) & (JOBS.c.idempotency_key == idempotency_key)
        )
        with self.database.read() as connection:
            row = connection.execute(sa.select(JOBS).where(where)).one_or_none()
        return None if row is None else (job_of(row), row.fingerprint)

    def bodies(self, job_ids: Collection[str]) -> dict[str, bytes]:
        """The requests' bodies as they came, by job id."""
        return self._contents(BODIES, job_ids)

    def results(self, job_ids: Collection[str]) -> dict[str, bytes]:
        """The answers, without receipts, of those that have one."""
        return self._contents(RESULTS, job_ids)

    def _contents(self, table: sa.Table, job_ids: Collection[str]) -> dict[str, bytes]:
        with self.database.read() as connection:
            rows = connection.execute(
                sa.select(table.c.job_id, table.c.content).where(table.c.job_id.in_(list(job_ids)))
            )
            return {row.job_id: bytes(row.content) for row in rows}

    def of_batch(
        self, batch_id: str, states: Collection[str] = OVER, after_line: int = -1
    ) -> Iterator[tuple[Job, bytes | None]]:
        """A batch's jobs in these states in the order of their lines, each with its answer, if it has one. A few at a time
        are held in memory, and no transaction lasts between them."""
        while True:
            where = (JOBS.c.batch_id == batch_id) & JOBS.c.state.in_(list(states)) & (JOBS.c.line > after_line)
            together = JOBS.outerjoin(RESULTS, RESULTS.c.job_id == JOBS.c.id)
            with self.database.read() as connection:
                asked = sa.select(JOBS, RESULTS.c.content).select_from(together).where(where)
                rows = connection.execute(asked.order_by(JOBS.c.line).limit(_READ_JOBS)).all()
            for row in rows:
                yield job_of(row), None if row.content is None else bytes(row.content)
            if len(rows) < _READ_JOBS:
                return
            after_line = rows[-1].line

    def counts(self, batch_id: str) -> Counts:
        with self.database.read() as connection:
            asked = sa.select(JOBS.c.state, sa.func.count()).where(JOBS.c.batch_id == batch_id).group_by(JOBS.c.state)
            return Counts(**dict(connection.execute(asked).all()))

    def claim(self, owner: str, now: float, lease_s: float, limit: int = CHUNK_JOBS) -> tuple[Job, ...]:
        """Up to `limit` waiting jobs that are due, those with the earliest deadline first, for `owner` alone until the lease
        is over. A job that must be looked at later is put off (`put_off`); one whose owner died comes back by itself."""
        where = (JOBS.c.state == WAITING) & (JOBS.c.due_at <= now) & (JOBS.c.lease_until <= now)
        with self.database.begin() as connection:
            asked = sa.select(JOBS).where(where).order_by(JOBS.c.deadline_at).limit(limit)
            rows = connection.execute(asked.with_for_update(skip_locked=True)).all()
            leased = sa.update(JOBS).where(JOBS.c.id.in_([row.id for row in rows]))
            connection.execute(leased.values(lease_owner=owner, lease_until=now + lease_s))
        return tuple(job_of(row) for row in rows)

    def renew(self, owner: str, job_ids: Collection[str], now: float, lease_s: float) -> None:
        """A longer lease for those of them that are the owner's. What it lost while it was held up is lost."""
        mine = (JOBS.c.lease_owner == owner) & (JOBS.c.lease_until > now)
        ids = list(job_ids)
        for start in range(0, len(ids), CHUNK_JOBS):
            where = mine & JOBS.c.id.in_(ids[start : start + CHUNK_JOBS])
            with self.database.begin() as connection:
                connection.execute(sa.update(JOBS).where(where).values(lease_until=now + lease_s))

    def release(self, owner: str) -> None:
        """Give back all that is the owner's, as it goes."""
        with self.database.begin() as connection:
            where = JOBS.c.lease_owner == owner
            connection.execute(sa.update(JOBS).where(where).values(lease_owner=None, lease_until=0.0))

    def put_off(self, owner: str, due: Iterable[tuple[str, float, str | None]], tried: bool = False) -> None:
        """Give back jobs of the owner's: (id, when to look at it again, what to note as `plan`). `tried`: it was attempted."""
        rows = [{"b_id": job_id, "b_due": due_at, "b_plan": plan} for job_id, due_at, plan in due]
        if not rows:
            return
        where = (JOBS.c.id == sa.bindparam("b_id")) & (JOBS.c.lease_owner == owner) & (JOBS.c.state == WAITING)
        values: dict[str, Any] = {"due_at": sa.bindparam("b_due"), "plan": sa.bindparam("b_plan")}
        values |= {"attempts": JOBS.c.attempts + int(tried), "lease_owner": None, "lease_until": 0.0}
        with self.database.begin() as connection:
            connection.execute(sa.update(JOBS).where(where).values(**values), rows)

    def finish(self, outcomes: Sequence[Outcome], now: float) -> set[str]:
        """End jobs. Gives the ids of those that this ended: one that was over before stays as it is."""
        # In one order for everybody, so that two who write at once do not wait for each other in a circle.
        outcomes = sorted(outcomes, key=lambda each: each.job_id)
        with self.database.begin() as connection:
            ends = [each for each in outcomes if self._ended(connection, each, now)]
            results = [{"job_id": each.job_id, "content": each.content} for each in ends if each.content is not None]
            if results:
                connection.execute(sa.insert(RESULTS), results)
            ended = {each.job_id for each in ends}
            self._tell(connection, ended)
        return ended

    def amend(self, changes: Mapping[str, Callable[[Job], str | None]]) -> None:
        """Change the receipts of jobs that are over: by id, what makes the new one of the job as it is; None for no change."""
        with self.database.begin() as connection:
            where = JOBS.c.id.in_(list(changes)) & JOBS.c.state.in_(OVER)
            for row in connection.execute(sa.select(JOBS).where(where).with_for_update()).all():
                if (receipt := changes[row.id](job_of(row))) is not None:
                    connection.execute(sa.update(JOBS).where(JOBS.c.id == row.id).values(receipt=receipt))

    def cancelled(self, job_ids: Collection[str]) -> Sequence[str]:
        """Those of them that were cancelled."""
        where = JOBS.c.id.in_(list(job_ids)) & (JOBS.c.state == CANCELLED)
        with self.database.read() as connection:
            return connection.scalars(sa.select(JOBS.c.id).where(where)).all()

    def cancel(self, job_id: str, tenant: str, now: float) -> Job | None:
        """The tenant's job, cancelled unless it is over already; None where there is none."""
        where = (JOBS.c.id == job_id) & (JOBS.c.tenant == tenant)
        with self.database.begin() as connection:
            if self._cancel(connection, where, now):
                self._tell(connection, {job_id})
            row = connection.execute(sa.select(JOBS).where(where)).one_or_none()
        return None if row is None else job_of(row)

    def cancel_batch(self, batch_id: str, now: float) -> int:
        """Cancel what is left of a batch; how many jobs that was. What a provider was given of them is called back by the
        lane."""
        with self.database.begin() as connection:
            return self._cancel(connection, JOBS.c.batch_id == batch_id, now)

    def sweep(self, before: float) -> None:
        """Forget the single requests that were over by then, and all that was kept of them. Lines go with their batch."""
        old = (JOBS.c.finished_at <= before) & JOBS.c.state.in_(OVER) & JOBS.c.batch_id.is_(None)
        while self._forget(old):
            pass

    def forget_batch(self, batch_id: str) -> None:
        """Forget a batch's jobs, which are over, and all that was kept of them."""
        while self._forget(JOBS.c.batch_id == batch_id):
            pass

    def _forget(self, which: sa.ColumnElement[bool]) -> int:
        """A few of them, so that nobody waits long for the database. How many they were."""
        with self.database.begin() as connection:
            ids = connection.scalars(sa.select(JOBS.c.id).where(which).limit(CHUNK_JOBS)).all()
            for column in (BODIES.c.job_id, RESULTS.c.job_id, JOBS.c.id):
                connection.execute(sa.delete(column.table).where(column.in_(ids)))
        return len(ids)

    def _cancel(self, connection: sa.Connection, where: sa.ColumnElement[bool], now: float) -> int:
        values = {"state": CANCELLED, "finished_at": now, "error": "was cancelled", "lease_until": 0.0}
        return connection.execute(sa.update(JOBS).where(where, JOBS.c.state.in_(OPEN)).values(**values)).rowcount

    def _ended(self, connection: sa.Connection, outcome: Outcome, now: float) -> bool:
        where = (JOBS.c.id == outcome.job_id) & JOBS.c.state.in_(OPEN)
        if outcome.shipment_id is not None:
            where &= JOBS.c.shipment_id == outcome.shipment_id
        values: dict[str, Any] = {"state": outcome.state, "finished_at": now, "lease_owner": None, "lease_until": 0.0}
        values["plan"] = None  # of no use any more, and long
        values |= {"status": outcome.status, "receipt": outcome.receipt, "error": outcome.error}
        if outcome.lane is not None:
            values["lane"] = outcome.lane
        return connection.execute(sa.update(JOBS).where(where).values(**values)).rowcount == 1

    def _tell(self, connection: sa.Connection, job_ids: Collection[str]) -> None:
        if self.finished and job_ids:
            where = JOBS.c.id.in_(list(job_ids)) & JOBS.c.callback_url.is_not(None)
            for row in connection.execute(sa.select(JOBS).where(where)).all():
                for told in self.finished:
                    told(connection, job_of(row))


_READ_JOBS: Final = 100


def in_chunks(jobs: Iterable[NewJob], most: int = CHUNK_JOBS, most_bytes: int = CHUNK_BYTES) -> Iterator[list[NewJob]]:
    """A stream of jobs in chunks that one `accept` takes, so that any number goes in with little memory."""
    chunk: list[NewJob] = []
    size_bytes = 0
    for each in jobs:
        if chunk and (len(chunk) >= most or size_bytes + len(each.body) > most_bytes):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(each)
        size_bytes += len(each.body)
    if chunk:
        yield chunk


def fingerprint_of(body: bytes, *, as_value: bool = True) -> str:
    """The same for two bodies of the same bytes; `as_value`: for two that say the same, whatever the order of their fields."""
    if as_value:
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).hexdigest()


def _row(job: NewJob, now: float) -> dict[str, Any]:
    return {
        "id": f"def_{uuid.uuid4().hex}",
        "tenant": job.caller.tenant,
        "caller_key": job.caller.key,
        "team": job.caller.team,
        "surface": job.surface,
        "batch_id": job.batch_id,
        "line": job.line,
        "custom_id": job.custom_id,
        "idempotency_key": job.idempotency_key,
        "fingerprint": fingerprint_of(job.body, as_value=job.idempotency_key is not None),
        "headers": json.dumps({name.lower(): text for name, text in job.headers.items() if name.lower() in HEADERS}),
        "size_bytes": len(job.body),
        "callback_url": job.callback_url,
        "accepted_at": now,
        "deadline_at": job.deadline_at,
        "state": WAITING,
        "due_at": now,
        "lease_owner": None,
        "lease_until": 0.0,
        "attempts": 0,
    }


def _first(connection: sa.Connection, job: NewJob, row: dict[str, Any]) -> Accepted:
    """The job that was there before this one."""
    if job.batch_id is not None:
        where = (JOBS.c.batch_id == job.batch_id) & (JOBS.c.custom_id == job.custom_id)
    else:
        where = (JOBS.c.tenant == row["tenant"]) & (JOBS.c.surface == row["surface"])
        where &= JOBS.c.idempotency_key == job.idempotency_key
    found = connection.execute(sa.select(JOBS.c.id, JOBS.c.fingerprint, JOBS.c.line).where(where)).one()
    return Accepted(found.id, False, found.fingerprint == row["fingerprint"], found.line)
