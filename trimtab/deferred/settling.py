"""Settling: what a job's end is, and what its receipt says. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import orjson

from routing.offers import Offer, Usage, plain, price
from routing.receipt import Receipt
from routing.tongues import Tongue, error_bytes
from trimtab.deferred.jobs import COMPLETED, EXPIRED, FAILED, Job, Outcome
from trimtab.errors import problem_of


def outcome_of(job_id: str, status: int, content: bytes, receipt: Receipt, lane: str) -> Outcome:
    """The end of a job that somebody answered with this status."""
    answered = 200 <= status < 300
    error = None if answered else f"the provider refused it with HTTP {status}"
    told = orjson.dumps(receipt.to_dict()).decode()
    return Outcome(job_id, COMPLETED if answered else FAILED, status, content, told, error, lane)


def with_at_once(receipt: Receipt, at_once: Offer | None, usage: Usage | None) -> Receipt:
    """The receipt, with what the billed tokens would have cost had they been bought `at_once`."""
    if at_once is None or usage is None or not at_once.tiers:
        return receipt
    # Whether a cache would have been warm, nobody knows: both are reckoned with the same.
    return replace(receipt, at_once_cost_usd=price(at_once, usage))


def failure(job: Job, error: Exception, tongue: Tongue) -> Outcome:
    problem = problem_of(error)
    if problem is None:
        message = f"trimtab failed ({type(error).__name__}), and its log says where"
        return Outcome(job.id, FAILED, 500, None, error=message)
    content = problem.raw or error_bytes(tongue, problem.status, problem.error)
    return Outcome(job.id, FAILED, problem.status, content, error=problem.message)


def expired(job_id: str) -> Outcome:
    """The end of a job whose deadline has passed."""
    return Outcome(job_id, EXPIRED, error="the deadline passed before anybody had answered")


def billed_usd(receipt: str | None) -> Decimal:
    """What a job's receipt (JSON) says was billed; 0 where there is none."""
    told = {} if receipt is None else orjson.loads(receipt)
    return Decimal(told.get("billed_cost_usd") or 0)


@dataclass(frozen=True, slots=True)
class Bill:
    """What was billed for a job besides what ended it. `what` names the purchase, and `shipment_id` its shipment, if any."""

    what: str
    usd: Decimal
    shipment_id: str | None = None


def with_bill(job: Job, bill: Bill) -> str | None:
    """The job's receipt with another bill on it; None where it is on it already, or is what ended the job.

    Such a bill is rare: a line of a batch that was called back and was answered in spite, or a job that was cancelled while
    a provider worked on it. It was paid, so it is shown.
    """
    if bill.shipment_id is not None and bill.shipment_id == job.shipment_id and job.state in (COMPLETED, FAILED):
        return None  # two had collected the same
    receipt: dict[str, Any] = {} if job.receipt is None else orjson.loads(job.receipt)
    note = f"{bill.what} was billed besides" if job.receipt is not None else f"{bill.what} was billed in spite"
    notes = receipt.get("notes", [])
    if any(each.startswith(bill.what) for each in notes):
        return None
    billed = Decimal(receipt.get("billed_cost_usd") or 0) + bill.usd
    baseline = receipt.get("baseline_cost_usd")
    saved = None if baseline is None else plain(Decimal(baseline) - billed)
    told = {**receipt, "billed_cost_usd": plain(billed), "saved_usd": saved, "notes": [*notes, note]}
    return orjson.dumps(told).decode()
