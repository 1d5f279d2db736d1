"""Job events: what a webhook tells of a deferred job that is over."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from trimtab.deferred.job import RESULTS, Job
from trimtab.webhooks.events import INLINE_BYTES, Event, result_event


def job_event(connection: sa.Connection, job: Job) -> Event:
    """ "deferred.completed", ".failed", ".expired" or ".cancelled", with the answer where that is small."""
    small = sa.func.length(RESULTS.c.content) <= INLINE_BYTES
    result = connection.scalar(sa.select(RESULTS.c.content).where(RESULTS.c.job_id == job.id, small))
    at = datetime.fromtimestamp(job.finished_at or job.accepted_at, UTC)
    about = {
        "status": job.state,
        "endpoint": job.surface,
        "http_status": job.status,
        "error": job.error,
        "lane": job.lane,
        "accepted_at": job.accepted_at,
        "deadline_at": job.deadline_at,
        "finished_at": job.finished_at,
    }
    path = f"/v1/deferred/{job.id}"
    return result_event(f"deferred.{job.state}", job.id, at, about, path, None if result is None else bytes(result))
