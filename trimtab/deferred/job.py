"""Job: one request that may wait, as it is kept and as it is handed around."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from trimtab.caller import Caller

WAITING: Final = "waiting"
"""Nobody has been asked yet, or nobody who is still at it."""
SHIPPED: Final = "shipped"
"""In a provider's batch."""
COMPLETED: Final = "completed"
FAILED: Final = "failed"
EXPIRED: Final = "expired"
CANCELLED: Final = "cancelled"
OPEN: Final = (WAITING, SHIPPED)
OVER: Final = (COMPLETED, FAILED, EXPIRED, CANCELLED)

HEADERS: Final = ("anthropic-beta", "anthropic-version", "openai-beta")
"""What a request says in its headers that shapes its answer. A credential is not among them: it is not written down."""

METADATA: Final = sa.MetaData()

_moment = sa.Double
JOBS: Final = sa.Table(
    "deferred_jobs",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("caller_key", sa.String, nullable=False),
    sa.Column("team", sa.String, nullable=False),
    sa.Column("surface", sa.String, nullable=False),
    sa.Column("batch_id", sa.String),
    sa.Column("line", sa.Integer),
    sa.Column("custom_id", sa.String),
    sa.Column("idempotency_key", sa.String),
    sa.Column("fingerprint", sa.String, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("callback_url", sa.String),
    sa.Column("accepted_at", _moment, nullable=False),
    sa.Column("deadline_at", _moment, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("due_at", _moment, nullable=False),
    sa.Column("lease_owner", sa.String),
    sa.Column("lease_until", _moment, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("lane", sa.String),
    sa.Column("shipment_id", sa.String),
    sa.Column("plan", sa.Text),
    sa.Column("finished_at", _moment),
    sa.Column("status", sa.Integer),
    sa.Column("receipt", sa.Text),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("tenant", "surface", "idempotency_key"),
    sa.UniqueConstraint("batch_id", "custom_id"),
    sa.Index("deferred_jobs_due", "state", "due_at"),
    sa.Index("deferred_jobs_deadline", "state", "deadline_at"),
    sa.Index("deferred_jobs_line", "batch_id", "line"),
    sa.Index("deferred_jobs_counts", "batch_id", "state"),
    sa.Index("deferred_jobs_shipment", "shipment_id", "state"),
    sa.Index("deferred_jobs_lease", "lease_owner"),
)
# Apart from the jobs, since a job's row is written many times over, and all of it each time.
BODIES: Final = sa.Table(
    "deferred_bodies",
    METADATA,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
RESULTS: Final = sa.Table(
    "deferred_results",
    METADATA,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A request to be accepted. `surface` is the path of its endpoint ("/v1/chat/completions"), `body` its JSON as it came.

    `batch_id`, `line` and `custom_id` are a batch's line's; `idempotency_key` and `callback_url` a single request's. Of the
    request's `headers` those of HEADERS are kept.
    """

    caller: Caller
    surface: str
    body: bytes = field(repr=False)
    deadline_at: float
    batch_id: str | None = None
    line: int | None = None
    custom_id: str | None = None
    idempotency_key: str | None = None
    callback_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a NewJob: `id` is its job's. Not `fresh` where there was one already under its `idempotency_key` or
    `custom_id`, and then `same` says whether that was asked the very same, and `line` where it stands in its batch."""

    id: str
    fresh: bool
    same: bool = True
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands. Its body and its result are read apart: they may be large.

    `lane` is how it was or is being bought: "sync", "flex" or "batch". `plan` is the lane's own note on it (JSON).
    `status`, `receipt` (JSON, as `Receipt.to_dict`) and `error` (a sentence for the caller) are there once it is over,
    as far as there are any.
    """

    id: str
    caller: Caller
    surface: str
    accepted_at: float
    deadline_at: float
    state: str
    batch_id: str | None = None
    line: int | None = None
    custom_id: str | None = None
    callback_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    size_bytes: int = 0
    attempts: int = 0
    lane: str | None = None
    shipment_id: str | None = None
    plan: str | None = field(default=None, repr=False)
    finished_at: float | None = None
    status: int | None = None
    receipt: str | None = field(default=None, repr=False)
    error: str | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `state` is one of OVER, `content` the surface's own answer (or error) without the receipt.

    `shipment_id`: counts only while the job is in that shipment.
    """

    job_id: str
    state: str
    status: int | None = None
    content: bytes | None = field(default=None, repr=False)
    receipt: str | None = field(default=None, repr=False)
    error: str | None = None
    lane: str | None = None
    shipment_id: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """A batch's jobs by their state."""

    waiting: int = 0
    shipped: int = 0
    completed: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return self.open + self.completed + self.failed + self.expired + self.cancelled

    @property
    def open(self) -> int:
        return self.waiting + self.shipped


def job_of(row: Any) -> Job:
    """A row of JOBS."""
    names = ("id", "surface", "accepted_at", "deadline_at", "state", "batch_id", "line", "custom_id", "callback_url")
    more = ("size_bytes", "attempts", "lane", "shipment_id", "plan", "finished_at", "status", "receipt", "error")
    caller = Caller(row.tenant, row.caller_key, row.team)
    return Job(caller=caller, headers=json.loads(row.headers), **{name: getattr(row, name) for name in (*names, *more)})
