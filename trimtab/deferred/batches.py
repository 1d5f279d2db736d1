"""Batches: many requests in one file, and what became of them, as OpenAI's API has them. The store of `/v1/batches`.

    validating -> in_progress -> finalizing -> completed | expired
        |    \\          \\
      failed   `--> cancelling --> cancelled

A batch is worked on by whoever holds its lease, in any process. What that one does to it, it does again without harm if it
was interrupted: the rows below only ever move forward. Moments are seconds since 1970; nothing here reads a clock.
Blocking: call it in a thread beside an event loop.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trimtab.caller import Caller
from trimtab.database import Database
from trimtab.deferred.batch_lines import BadLine
from trimtab.deferred.jobs import JOBS
from trimtab.deferred.pages import Asked, Page, new_id, read_page
from trimtab.errors import BadRequest

VALIDATING: Final = "validating"
FAILED: Final = "failed"
IN_PROGRESS: Final = "in_progress"
FINALIZING: Final = "finalizing"
COMPLETED: Final = "completed"
EXPIRED: Final = "expired"
CANCELLING: Final = "cancelling"
CANCELLED: Final = "cancelled"
OPEN: Final = (VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING)
"""There is still something to do."""

_MOMENTS: Final = tuple(
    f"{each}_at" for each in (IN_PROGRESS, FINALIZING, COMPLETED, FAILED, EXPIRED, CANCELLING, CANCELLED)
)
"""When each state began; a batch is "validating" from `created_at` on."""

_TABLES = sa.MetaData()
_BATCHES = sa.Table(
    "batches",
    _TABLES,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("caller_key", sa.String, nullable=False),
    sa.Column("team", sa.String, nullable=False),
    sa.Column("idempotency_key", sa.String),
    sa.Column("fingerprint", sa.String, nullable=False),
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    *(sa.Column(name, sa.Double) for name in _MOMENTS),
    sa.Column("output_file_id", sa.String),
    sa.Column("error_file_id", sa.String),
    sa.Column("errors", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("due_at", sa.Double, nullable=False),
    sa.Column("lease_owner", sa.String),
    sa.UniqueConstraint("tenant", "idempotency_key"),
    sa.Index("batches_of_a_tenant", "tenant", "id"),
    sa.Index("batches_due", "status", "due_at"),
)
_BAD_LINES = sa.Table(
    "batch_bad_lines",
    _TABLES,
    sa.Column("batch_id", sa.String, primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("custom_id", sa.String),
    sa.Column("code", sa.String, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("param", sa.String),
)


@dataclass(frozen=True, slots=True)
class Order:
    """What a batch was asked to be. `deadline` is the caller's own word, `options` a `trimtab` object for every line, and the
    lifetime that of its files."""

    endpoint: str
    input_file_id: str
    completion_window: str
    deadline: str | float | None
    metadata: Mapping[str, str] | None
    options: Mapping[str, Any]
    callback_url: str | None
    output_lifetime_s: int


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Lines by what became of them; `total` counts those too that are not over, or were cancelled."""

    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as it stands. `began` has the moment of each state that it has come to.

    `output_file_id` and `error_file_id` are set aside once it is finalizing, and say what is there when it is over.
    `counts`, `usage` and `totals` are there when it is over, `errors` where it failed.
    """

    id: str
    caller: Caller
    order: Order
    status: str
    created_at: float
    expires_at: float
    began: Mapping[str, float]
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: tuple[Mapping[str, Any], ...] = ()
    counts: RequestCounts = field(default_factory=RequestCounts)
    usage: Mapping[str, Any] | None = None
    totals: Mapping[str, Any] | None = None

    @property
    def over(self) -> bool:
        return self.status not in OPEN

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's batch object, and what it cost in `trimtab`."""
        moments = {name: None if name not in self.began else int(self.began[name]) for name in _MOMENTS}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.order.endpoint,
            "errors": {"object": "list", "data": list(self.errors)} if self.errors else None,
            "input_file_id": self.order.input_file_id,
            "completion_window": self.order.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id if self.over else None,
            "error_file_id": self.error_file_id if self.over else None,
            "created_at": int(self.created_at),
            "expires_at": int(self.expires_at),
            **moments,
            "request_counts": {name: getattr(self.counts, name) for name in ("total", "completed", "failed")},
            "usage": self.usage,
            "metadata": self.order.metadata,
            "trimtab": self.totals,
        }


Ended = Callable[[sa.Connection, Batch], None]
"""Is told of every batch with a `callback_url` that is over, within the transaction that ends it: what it writes through the
connection is there exactly if the end is. It must be quick, call nothing outside, and raise nothing."""


class Batches:
    """The batches in one database. Safe to share between threads; processes share them through the database."""

    def __init__(self, database: Database) -> None:
        self.ended: list[Ended] = []
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    def create(self) -> None:
        """The tables that are not there yet."""
        self._database.create(_TABLES)

    def accept(self, caller: Caller, order: Order, now: float, expires_at: float, key: str | None = None) -> Batch:
        """A new batch, on disk when this returns; under an idempotency `key` of before, the one it made then.

        Raises BadRequest (422) for a key that came with another order.
        """
        asked = json.dumps({name: getattr(order, name) for name in Order.__slots__}, sort_keys=True)
        row = {
            "id": new_id("batch_", now),
            "tenant": caller.tenant,
            "caller_key": caller.key,
            "team": caller.team,
            "idempotency_key": key,
            "fingerprint": hashlib.sha256(asked.encode()).hexdigest(),
            "asked": asked,
            "status": VALIDATING,
            "created_at": now,
            "expires_at": expires_at,
            "due_at": now,
        }
        same_key = (_BATCHES.c.tenant == caller.tenant) & (_BATCHES.c.idempotency_key == key)
        with self._database.begin() as connection:
            connection.execute(self._insert(_BATCHES).values(row).on_conflict_do_nothing())
            mine = _BATCHES.c.id == row["id"]
            held = connection.execute(sa.select(_BATCHES).where(mine if key is None else same_key)).one()
        if held.fingerprint != row["fingerprint"]:
            reason = "was used before with another batch; send a new key with a new batch"
            raise BadRequest("Idempotency-Key", reason, "idempotency_key_reused", status=422)
        return _batch(held)

    def find(self, tenant: str, batch_id: str) -> Batch:
        """The tenant's batch. Raises BadRequest (404)."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(_BATCHES).where(*_one_of(tenant, batch_id))).one_or_none()
            if row is None:
                raise _no_such_batch(batch_id)
            return _counted(connection, _batch(row))

    def page(self, tenant: str, asked: Asked) -> Page[Batch]:
        """A page of the tenant's batches."""
        with self._database.read() as connection:
            conditions = (_BATCHES.c.tenant == tenant,)
            return read_page(connection, _BATCHES, conditions, asked, lambda row: _counted(connection, _batch(row)))

    def cancel(self, tenant: str, batch_id: str, now: float) -> Batch:
        """The tenant's batch, of which no more is begun. Raises BadRequest: 404, and 409 where its end is being written."""
        where = _one_of(tenant, batch_id)
        cancellable = _BATCHES.c.status.in_((VALIDATING, IN_PROGRESS))
        change = sa.update(_BATCHES).where(*where, cancellable)
        with self._database.begin() as connection:
            # Not at once where it is being read: the lease's holder stops at the next chunk, and gives it back then.
            connection.execute(change.values(status=CANCELLING, cancelling_at=now))
            row = connection.execute(sa.select(_BATCHES).where(*where)).one_or_none()
            if row is None:
                raise _no_such_batch(batch_id)
            found = _counted(connection, _batch(row))
        if found.status not in (CANCELLING, CANCELLED):
            reason = f"a batch that is {found.status} cannot be cancelled"
            raise BadRequest("batch_id", reason, "invalid_status", status=409)
        return found

    # --- for whoever works on them ---------------------------------------------------------------------------------------

    def next_due_at(self) -> float | None:
        """When there is something to do next; None where no batch is open."""
        with self._database.read() as connection:
            least = sa.select(sa.func.min(_BATCHES.c.due_at)).where(_BATCHES.c.status.in_(OPEN))
            return connection.execute(least).scalar()

    def claim(self, owner: str, now: float, lease_s: float) -> Batch | None:
        """The open batch that has been due for the longest, for `owner` alone until the lease is over or given back."""
        due = sa.select(_BATCHES).where(_BATCHES.c.status.in_(OPEN), _BATCHES.c.due_at <= now)
        with self._database.begin() as connection:
            first = due.order_by(_BATCHES.c.due_at).limit(1).with_for_update(skip_locked=True)
            row = connection.execute(first).one_or_none()
            if row is None:
                return None
            change = sa.update(_BATCHES).where(_BATCHES.c.id == row.id)
            connection.execute(change.values(lease_owner=owner, due_at=now + lease_s))
            return _batch(row)

    def renew(self, batch: Batch, owner: str, due_at: float) -> bool:
        """A lease until `due_at`, or with a moment that is past its end. False, and nothing done, where the batch is no longer
        the owner's or no longer what it was."""
        with self._database.begin() as connection:
            change = sa.update(_BATCHES).where(*_still(batch, owner)).values(due_at=due_at)
            return connection.execute(change).rowcount == 1

    def give_back(self, batch: Batch, owner: str, due_at: float) -> None:
        """To be looked at again at `due_at`, by anybody, whatever it has become meanwhile."""
        where = (_BATCHES.c.id == batch.id, _BATCHES.c.lease_owner == owner)
        with self._database.begin() as connection:
            connection.execute(sa.update(_BATCHES).where(*where).values(lease_owner=None, due_at=due_at))

    def move(self, batch: Batch, owner: str, status: str, now: float, **values: Any) -> bool:
        """On to another state (or not), with `values` in its columns. False, and nothing done, as for `renew`.

        `counts`, `usage` and `totals`, which go with the end, are one argument: `outcome`, plain data.
        """
        columns = {name: json.dumps(value) if name in _AS_JSON else value for name, value in values.items()}
        if status != batch.status:
            columns |= {"status": status, f"{status}_at": now}
        change = sa.update(_BATCHES).where(*_still(batch, owner))
        with self._database.begin() as connection:
            moved = connection.execute(change.values(columns)).rowcount == 1
            if moved and status not in OPEN:
                connection.execute(sa.delete(_BAD_LINES).where(_BAD_LINES.c.batch_id == batch.id))
                if batch.order.callback_url is not None:
                    row = connection.execute(sa.select(_BATCHES).where(_BATCHES.c.id == batch.id)).one()
                    for ended in self.ended:
                        ended(connection, _batch(row))
        return moved

    def over_before(self, moment: float) -> Sequence[str]:
        """Batches, a few at a time, that were over by then."""
        ended = sa.func.coalesce(*(_BATCHES.c[f"{each}_at"] for each in (COMPLETED, FAILED, EXPIRED, CANCELLED)))
        old = sa.select(_BATCHES.c.id).where(_BATCHES.c.status.not_in(OPEN), ended <= moment).limit(_READ_LINES)
        with self._database.read() as connection:
            return connection.scalars(old).all()

    def forget(self, batch_id: str) -> None:
        """A batch that is over, and whose jobs are forgotten."""
        with self._database.begin() as connection:
            connection.execute(sa.delete(_BATCHES).where(_BATCHES.c.id == batch_id))

    def note_bad_lines(self, batch: Batch, lines: Sequence[BadLine]) -> None:
        """Write down lines that are no requests. One that was taken for a request earlier stays one: a deadline that has
        passed since does not take back what was accepted."""
        if not lines:
            return
        numbers = [each.number for each in lines]
        with self._database.begin() as connection:
            taken = sa.select(JOBS.c.line).where(JOBS.c.batch_id == batch.id, JOBS.c.line.in_(numbers))
            jobs = set(connection.scalars(taken))
            rows = [
                {
                    "batch_id": batch.id,
                    "line": each.number,
                    "custom_id": each.custom_id,
                    "code": each.code,
                    "message": each.message,
                    "param": each.param,
                }
                for each in lines
                if each.number not in jobs
            ]
            if rows:
                connection.execute(self._insert(_BAD_LINES).on_conflict_do_nothing(), rows)

    def forget_bad_lines(self, batch: Batch) -> None:
        """Before the lines are read anew."""
        with self._database.begin() as connection:
            connection.execute(sa.delete(_BAD_LINES).where(_BAD_LINES.c.batch_id == batch.id))

    def bad_lines(self, batch: Batch) -> Iterator[BadLine]:
        """In order, a few at a time in memory."""
        after = -1
        while True:
            where = (_BAD_LINES.c.batch_id == batch.id, _BAD_LINES.c.line > after)
            some = sa.select(_BAD_LINES).where(*where).order_by(_BAD_LINES.c.line).limit(_READ_LINES)
            with self._database.read() as connection:
                rows = connection.execute(some).all()
            yield from (BadLine(row.line, row.custom_id, row.code, row.message, row.param) for row in rows)
            if len(rows) < _READ_LINES:
                return
            after = rows[-1].line


_READ_LINES: Final = 500
_AS_JSON: Final = ("errors", "outcome")


def _one_of(tenant: str, batch_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (_BATCHES.c.id == batch_id, _BATCHES.c.tenant == tenant)


def _still(batch: Batch, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (_BATCHES.c.id == batch.id, _BATCHES.c.lease_owner == owner, _BATCHES.c.status == batch.status)


def _no_such_batch(batch_id: str) -> BadRequest:
    reason = f"there is no batch {batch_id[:100]!r} (GET /v1/batches lists those there are)"
    return BadRequest("batch_id", reason, "batch_not_found", status=404)


def _counted(connection: sa.Connection, batch: Batch) -> Batch:
    """With the counts of the moment, where it is not over."""
    if batch.over:
        return batch
    by_state = sa.select(JOBS.c.state, sa.func.count()).where(JOBS.c.batch_id == batch.id).group_by(JOBS.c.state)
    states: dict[str, int] = dict(connection.execute(by_state).all())
    bad = sa.select(sa.func.count()).select_from(_BAD_LINES).where(_BAD_LINES.c.batch_id == batch.id)
    return replace(batch, counts=counts_of(states, connection.execute(bad).scalar_one()))


def counts_of(states: Mapping[str, int], bad: int) -> RequestCounts:
    """The counts of jobs by their state, and of bad lines. What was cancelled has not failed."""
    failed = states.get("failed", 0) + states.get("expired", 0) + bad
    return RequestCounts(sum(states.values()) + bad, states.get("completed", 0), failed)


def _batch(row: Any) -> Batch:
    outcome = json.loads(row.outcome) if row.outcome else {}
    return Batch(
        row.id,
        Caller(row.tenant, row.caller_key, row.team),
        Order(**json.loads(row.asked)),
        row.status,
        row.created_at,
        row.expires_at,
        {name: getattr(row, name) for name in _MOMENTS if getattr(row, name) is not None},
        row.output_file_id,
        row.error_file_id,
        tuple(json.loads(row.errors)) if row.errors else (),
        RequestCounts(**outcome.get("counts", {})),
        outcome.get("usage"),
        outcome.get("totals"),
    )
