"""Collecting: what a provider's batch says of its lines, sorted by what it means for their jobs.

A line is told to its caller as a call would have been, with a receipt at the batch's prices.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, get_args

import orjson

from compressor.payload import OPTIONS, BadPayload
from routing.attempts import Attempt
from routing.attempts import Outcome as Fate
from routing.batching import BatchLine, BatchResult, told
from routing.batching.seam import Arrived
from routing.catalog import Provider
from routing.errors import RoutingError
from routing.offers import Offer, Usage, price
from routing.receipt import Receipt, settled
from trimtab.citations import resolved_message
from trimtab.conclusion import Conclusion
from trimtab.deferred.bids import BATCH, Note, unpacked, unpacked_offer
from trimtab.deferred.jobs import COMPLETED, FAILED, SHIPPED, Job, Outcome
from trimtab.deferred.settling import Bill, outcome_of, with_at_once
from trimtab.deferred.shipments import Shipment, Shipments
from trimtab.errors import BadRequest
from trimtab.pipeline import Trimtab
from trimtab.surfaces import SURFACES

logger = logging.getLogger("trimtab.deferred")

FOR_THE_CALLER: Final = ("ok", "caller_error")
"""What ends a job; after every other fate of its line it is bought elsewhere."""

_SURFACES: Final = {surface.path: surface for surface in SURFACES}


@dataclass(frozen=True, slots=True)
class End:
    """A job that its line ends. `conclusion` is for those who count requests; None where the request cannot be read any
    more."""

    outcome: Outcome
    offer: Offer
    usage: Usage | None
    receipt: Receipt
    conclusion: Conclusion | None


@dataclass(slots=True)
class Sorted:
    """Lines by what they mean: jobs that are over, jobs that wait again, and bills of jobs that were over before."""

    ends: list[End] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    bills: dict[str, Bill] = field(default_factory=dict)


class Collecting:
    """Reads the lines of shipments that are back. Stateless, CPU-bound and blocking: in a thread."""

    def __init__(self, trimtab: Trimtab, shipments: Shipments, providers: Mapping[str, Provider]) -> None:
        self._trimtab = trimtab
        self._shipments = shipments
        self._providers = providers

    def sorted(self, shipment: Shipment, arrivals: Sequence[Arrived]) -> Sorted:
        """What these lines mean. The same again where they were collected before, but for what is written since."""
        offer, provider = unpacked_offer(shipment.offer), self._providers[shipment.provider]
        jobs = self._shipments.jobs([each.custom_id for each in arrivals])
        found = Sorted()
        for arrived in arrivals:
            if arrived.custom_id not in jobs:
                continue  # none of ours: the provider may say what it likes
            job, content = jobs[arrived.custom_id]
            here = job.shipment_id == shipment.id
            if here and job.state in (COMPLETED, FAILED):
                continue
            body = orjson.loads(content)
            options = body.pop(OPTIONS, None) or {}
            line = BatchLine(job.id, body, offer, _SURFACES[job.surface].tongue, job.headers)
            result = told(provider, arrived, line)
            if job.over:
                if result.usage is not None:
                    found.bills[job.id] = bill_of(shipment, offer, result.usage)
            elif result.outcome in FOR_THE_CALLER and (here or result.outcome == "ok"):
                found.ends.append(self._end(shipment, job, {**body, OPTIONS: options}, offer, result))
            elif here and job.state == SHIPPED:
                found.back.append(job.id)
        return found

    def _end(self, shipment: Shipment, job: Job, body: Mapping[str, Any], offer: Offer, result: BatchResult) -> End:
        note = Note(()) if job.plan is None else unpacked(job.plan)
        opened = note.receipt or Receipt(job.id, str(body.get("model")), datetime.fromtimestamp(job.accepted_at, UTC))
        baseline = note.baseline or offer
        took_ms = 1000.0 * (datetime.now(UTC).timestamp() - shipment.intended_at)
        outcome: Fate = result.outcome if result.outcome in get_args(Fate) else "timeout"  # type: ignore[assignment]
        attempt = Attempt(offer.provider, offer.model, BATCH, 0.0, took_ms, result.status, outcome, result.detail)
        conclusion = self._conclusion(job, body, baseline, offer)
        route = "" if conclusion is None else conclusion.prepared.request.options.route
        receipt = settled(
            opened,
            answered=offer,
            baseline=baseline,
            usage=result.usage,
            attempts=(attempt,),
            stage_ms=(("provider", took_ms),),
            usual_share=self._trimtab.experience.usual_share(baseline, offer, route),
        )
        receipt = with_at_once(receipt, note.at_once, result.usage)
        content = resolved_message(result.body, note.shown or {})
        if conclusion is not None:
            conclusion = replace(
                conclusion,
                prepared=replace(conclusion.prepared, receipt=opened),
                receipt=receipt,
                status=result.status,
            )
        return End(outcome_of(job.id, result.status, content, receipt, BATCH), offer, result.usage, receipt, conclusion)

    def _conclusion(self, job: Job, body: Mapping[str, Any], baseline: Offer, offer: Offer) -> Conclusion | None:
        options = {name: value for name, value in body[OPTIONS].items() if name != "deadline"}  # it may have passed
        api = _SURFACES[job.surface].api
        try:
            asked = self._trimtab.unplanned({**body, OPTIONS: options}, (baseline, offer), api)
        except (BadRequest, BadPayload, RoutingError) as error:
            logger.error(
                "a job that was answered cannot be read any more (%s), and is not counted", type(error).__name__
            )
            return None
        return Conclusion(job.caller, asked, asked.receipt, 0)

    def told(self, end: End) -> None:
        """A job is over by this: learn from its bill, and tell those who count requests."""
        if end.conclusion is None:
            return
        request, receipt = end.conclusion.prepared.request, end.receipt
        if end.usage is not None and receipt.at is not None:
            estimated = None if request.payload.images else receipt.input_tokens_estimated
            route = request.options.route
            self._trimtab.experience.history.observed(end.offer, route, estimated, end.usage, request.answers)
            self._trimtab.drawdown.bill(end.offer, end.usage, receipt.at)
        self._trimtab.concluded(end.conclusion)


def bill_of(shipment: Shipment, offer: Offer, usage: Usage) -> Bill:
    """What a job's line in a shipment cost, for a receipt that is not the shipment's."""
    return Bill(f"a line of batch {shipment.id}", price(offer, usage), shipment.id)
