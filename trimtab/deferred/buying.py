"""Buying: a job is read, trimmed and planned like any request, its next step is decided, and if that is to buy it at once,
it is forwarded, settled and told like any request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import orjson

from compressor.payload import BadPayload
from routing.errors import ProvidersFailed, RoutingError
from routing.forwarding import Router
from routing.promotion import Buy, Expire, Step, Wait, next_step
from trimtab.access.rules import EVERYTHING, Rules
from trimtab.access.worst_case import worst_case_usd
from trimtab.caller import Caller
from trimtab.citations import resolved_message
from trimtab.conclusion import Conclusion
from trimtab.contexts import Contexts
from trimtab.deferred.bids import BATCH, Bid, Note, at_once_of, bids_of, bought_at, packed, unpacked, ways_of
from trimtab.deferred.closing import Closing
from trimtab.deferred.jobs import Job, Outcome
from trimtab.deferred.market import Market
from trimtab.deferred.settling import Bill, expired, failure, outcome_of, with_at_once
from trimtab.errors import BadRequest
from trimtab.pipeline import Trimtab
from trimtab.prepared import Prepared
from trimtab.surfaces import SURFACES, Surface

logger = logging.getLogger("trimtab.deferred")

MOST_SHIPMENTS: Final = 2
"""A job that came back unanswered from so many batches is bought at once: it may be what makes them fail."""
_RETRY_S: Final = (5.0, 300.0)
_BY_PATH: Final[Mapping[str, Surface]] = {surface.path: surface for surface in SURFACES}


@dataclass(frozen=True, slots=True)
class Weighed:
    """What is to be done with a job. `prepared` and `bid` are there for a Buy; `note` is what is to be noted on a job that
    waits; `outcome` says that it is over: it cannot be bought."""

    job: Job
    step: Step
    note: str | None = None
    prepared: Prepared | None = None
    bid: Bid | None = None
    bids: tuple[Bid, ...] = ()
    outcome: Outcome | None = None

    def noted(self) -> str:
        """What is noted on it while it is in a batch."""
        assert self.prepared is not None
        prepared = self.prepared
        return packed(Note(self.bids, prepared.receipt, prepared.baseline, at_once_of(self.bids), prepared.shown))


class Buying:
    """Decides on jobs, and buys those that are to be bought at once. `clock` gives seconds since 1970."""

    def __init__(
        self,
        trimtab: Trimtab,
        market: Market,
        closing: Closing,
        contexts: Contexts,
        clock: Callable[[], float],
        rules: Callable[[Caller], Rules] = lambda _: EVERYTHING,
    ) -> None:
        self._rules = rules
        self._trimtab = trimtab
        self._market = market
        self._closing = closing
        self._contexts = contexts
        self._clock = clock
        self._calls: dict[str, tuple[asyncio.Timeout, Prepared]] = {}

    @property
    def calling(self) -> tuple[str, ...]:
        """The jobs that a provider is being asked for at this moment."""
        return tuple(self._calls)

    def hang_up(self, job_id: str) -> Decimal:
        """Break off the call for a job that is over: it would cost more, for nobody. What it may be billed at worst."""
        limit, prepared = self._calls.pop(job_id)
        limit.reschedule(asyncio.get_running_loop().time())
        return worst_case_usd(prepared)

    def weigh(self, job: Job, content: bytes) -> Weighed:
        """What to do next with a job that is in nobody's hands. CPU-bound: in a thread."""
        now = self._clock()
        if now >= job.deadline_at:
            return Weighed(job, Expire(), outcome=expired(job.id))
        if job.plan is not None and job.shipment_id is None and (note := unpacked(job.plan)).receipt is None:
            step = self._step(job, note.bids, now)
            if isinstance(step, Wait):  # as before: it need not be trimmed to know that
                return Weighed(job, step, job.plan)
        try:
            prepared = self.prepared(self._body(job, content), _BY_PATH[job.surface], self._rules(job.caller))
        except (BadRequest, BadPayload, RoutingError) as error:
            return Weighed(job, Expire(), outcome=self.failed(job, error))
        weighed = self.weighed(job, prepared)
        if isinstance(weighed.step, Buy) and prepared.originals:
            self._contexts.keep(job.caller, prepared.originals)
        return weighed

    def prepared(self, body: Mapping[str, Any], surface: Surface, rules: Rules = EVERYTHING) -> Prepared:
        """A request, planned with batches too. CPU-bound: in a thread. Raises as `prepare`."""
        return self._trimtab.prepare(body, api=surface.api, batches=self._market.sellers, rules=rules)

    def weighed(self, job: Job, prepared: Prepared, *, batches: bool = True) -> Weighed:
        """What to do with a job that was prepared just now, with `batches` or without."""
        now = self._clock()
        bids = bids_of(prepared, self._market.hours, now, job.deadline_at)
        if (job.attempts >= MOST_SHIPMENTS or not batches) and any(bid.offer.processing != BATCH for bid in bids):
            bids = tuple(bid for bid in bids if bid.offer.processing != BATCH)
        step = self._step(job, bids, now)
        if not isinstance(step, Buy):
            return Weighed(job, step, packed(Note(bids)), prepared, bids=bids)
        ways = ways_of(bids, self._market.turnarounds, self._market.down_s)
        bid = next(bid for bid, way in zip(bids, ways, strict=True) if way == step.way)
        return Weighed(job, step, None, bought_at(prepared, bid), bid, bids)

    def _step(self, job: Job, bids: tuple[Bid, ...], now: float) -> Step:
        return next_step(job.deadline_at, ways_of(bids, self._market.turnarounds, self._market.down_s), now)

    def _body(self, job: Job, content: bytes) -> dict[str, Any]:
        """The request, with its deadline as the moment that it was when it was accepted."""
        body: dict[str, Any] = orjson.loads(content)
        options = body.get("trimtab") or {}
        moment = datetime.fromtimestamp(job.deadline_at, UTC).isoformat()
        return {**body, "trimtab": {**options, "deadline": moment}}

    async def buy(self, weighed: Weighed, router: Router) -> float | None:
        """Buy it at once, and end the job. Or, where nobody answered: when to try again."""
        job, prepared = weighed.job, weighed.prepared
        assert prepared is not None
        surface = _BY_PATH[job.surface]
        # One key for every attempt at this job, in this process or another: a provider that knows it bills it once.
        headers = {**job.headers, "idempotency-key": job.id}
        try:
            async with asyncio.timeout(max(0.0, job.deadline_at - self._clock())) as limit:
                self._calls[job.id] = (limit, prepared)
                try:
                    reply = await self._trimtab.forward(
                        prepared, router, stream=False, headers=headers, tongue=surface.tongue
                    )
                finally:
                    self._calls.pop(job.id, None)
        except ProvidersFailed:
            return self._again_at(job)
        except TimeoutError as error:
            # not by the clock, which is not the loop's: it may say that a moment is left
            await self._closing.close(expired(job.id) if limit.expired() else self.failed(job, error))
            return None
        except (BadRequest, RoutingError) as error:
            await self._closing.close(self.failed(job, error))
            return None
        receipt = with_at_once(self._trimtab.settle(prepared, reply), at_once_of(weighed.bids), reply.usage)
        content = resolved_message(reply.body or b"", prepared.shown)
        outcome = outcome_of(job.id, reply.status, content, receipt, reply.offer.processing)
        if await self._closing.close(outcome):
            self._trimtab.learn(prepared, reply)
            self._trimtab.concluded(Conclusion(job.caller, prepared, receipt, reply.status))
        elif receipt.billed_cost_usd is not None:
            await self._closing.amend({job.id: Bill(f"the purchase {receipt.id}", receipt.billed_cost_usd)})
        return None

    def _again_at(self, job: Job) -> float:
        least_s, most_s = _RETRY_S
        now = self._clock()
        # Not past the last moment at which it can still be bought, if that is yet to come.
        last = max(now + least_s, job.deadline_at - 60.0)
        return min(now + min(most_s, least_s * 2.0 ** min(job.attempts, 10)), last, job.deadline_at)

    def failed(self, job: Job, error: Exception) -> Outcome:
        """The end of a job that its caller could mend."""
        return failure(job, error, _BY_PATH[job.surface].tongue)
