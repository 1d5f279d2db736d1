"""The simulated day under the deferred lane's own decisions, on a clock that jumps from event to event.

What to do is decided by `routing.promotion`, over the bids of `trimtab.deferred.bids`; when crates are shipped and batches
looked after is as in `trimtab.deferred.shipping`, whose numbers are used. Only the store and the network are left out.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from benchmarks.deferred_rivals import FAILED_S, at_once, call
from benchmarks.deferred_world import DAY_S, Fate, Outcome, Request, World
from routing.offers import Offer, price
from routing.promotion import RETRY_S, Buy, Expire, Recall, Turnaround, Wait, Way, last_resort, next_step, step_in_batch
from trimtab.deferred.bids import BATCH, Bid, Hours, ways_of
from trimtab.deferred.buying import MOST_SHIPMENTS
from trimtab.deferred.shipments import REMEMBERED
from trimtab.deferred.shipping import GATHER_S, GATHER_SHARE, MOST_LINES, POLL_S, POLL_SHARE, WORTH_LINES

BREAKER_S: Final = 30.0
"""How long a provider is left alone that did not answer a call, before it is tried again."""
GIVES_BACK_S: Final = (10.0, 240.0)
"""Within what time a batch that is called back is given back."""


@dataclass(slots=True)
class Job:
    """A request on its way. `shipped` is the batch that it is in."""

    request: Request
    bids: tuple[Bid, ...] = ()
    bids_until: float = -math.inf
    shipments: int = 0
    gathering: bool = False
    shipped: Shipment | None = None
    answered_at: float | None = None
    how: str = ""
    billed_usd: Decimal = Decimal(0)
    expired: bool = False

    @property
    def is_over(self) -> bool:
        return self.answered_at is not None or self.expired


@dataclass(slots=True)
class Crate:
    offer: Offer
    until: float
    jobs: list[Job] = field(default_factory=list)


@dataclass(slots=True)
class Shipment:
    """A batch at its provider. It ends at `ends_at`, if it is let; `answered` are the requests that were, None for all."""

    number: int
    offer: Offer
    jobs: list[Job]
    at: float
    ends_at: float
    recalled_at: float | None = None
    answered: frozenset[int] | None = None

    def open_jobs(self) -> list[Job]:
        still = [job for job in self.jobs if job.shipped is self and not job.is_over]
        return sorted(still, key=lambda job: job.request.deadline_at)


class Day:
    """One run. `outcome()` plays it to its end."""

    def __init__(self, world: World, requests: Sequence[Request]) -> None:
        self._world = world
        self._hours = Hours(world.catalog)
        self._jobs = [Job(request) for request in requests]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._made = 0
        self._crates: dict[tuple[str, str, int], Crate] = {}
        self._took: dict[str, list[tuple[float, bool]]] = {}
        self.turnarounds: dict[str, Turnaround] = {}
        self._down: dict[tuple[str, bool], tuple[float, float]] = {}
        self.shipments = 0
        self.recalls = 0

    def outcome(self) -> Outcome:
        for job in self._jobs:
            self._later(job.request.at, lambda now, job=job: self._decide(job, now))  # type: ignore[misc]
        while self._events:
            now, _, event = heapq.heappop(self._events)
            event(now)
        fates = {job.request.number: Fate(job.answered_at, job.billed_usd, job.how) for job in self._jobs}
        return Outcome("trimtab", fates)

    def _later(self, at: float, event: Callable[[float], None]) -> None:
        self._made += 1
        heapq.heappush(self._events, (at, self._made, event))

    # --- deciding ------------------------------------------------------------------------------------------------------

    def _ways(self, job: Job, now: float) -> tuple[Way, ...]:
        if now >= job.bids_until:
            job.bids = tuple(self._bids(job.request, now))
            job.bids_until = (math.floor(now / 3_600.0) + 1) * 3_600.0
        return ways_of(job.bids, self.turnarounds, lambda offer: self._down_s(offer, now))

    def _bids(self, request: Request, now: float) -> list[Bid]:
        bids: list[Bid] = []
        for offer in self._world.offers(request.models, now):
            bids.append(Bid(offer, price(offer, request.usage)))
            if offer.processing != BATCH:
                later = self._hours.cheaper(offer, request.usage, now, request.deadline_at)
                bids += [later] if later is not None else []
        return bids

    def _decide(self, job: Job, now: float) -> None:
        if job.is_over or job.shipped is not None or job.gathering:
            return
        ways = self._ways(job, now)
        pairs = [
            (bid, way)
            for bid, way in zip(job.bids, ways, strict=True)
            if job.shipments < MOST_SHIPMENTS or not way.is_batch
        ]
        step = next_step(job.request.deadline_at, [way for _, way in pairs], now)
        if isinstance(step, Expire):
            job.expired = True
        elif isinstance(step, Wait):
            self._later(max(step.until, now + 1.0), lambda later: self._decide(job, later))
        elif isinstance(step, Buy):
            bid = next(bid for bid, way in pairs if way == step.way)
            if step.way.is_batch:
                self._gather(job, bid.offer, now)
            else:
                self._call(job, bid.offer, now)

    def _call(self, job: Job, offer: Offer, now: float) -> None:
        others = [each for each in at_once(self._world, job.request, now) if each != offer]
        at = now
        for each in (offer, *others):
            if self._world.is_down(each.provider, at):
                self._failed(each, at, BREAKER_S)
                at += FAILED_S
            else:
                self._down.pop((each.provider, False), None)
                break
        fate = call(self._world, job.request, (offer, *others), now)
        if fate.answered_at is None:
            self._later(now + RETRY_S, lambda later: self._decide(job, later))
        else:
            self._answered(job, fate.answered_at, fate.billed_usd, fate.how)

    def _answered(self, job: Job, at: float, billed_usd: Decimal, how: str) -> None:
        job.billed_usd += billed_usd
        if job.answered_at is None and not job.expired:
            job.answered_at, job.how = at, how

    def _failed(self, offer: Offer, now: float, rest_s: float) -> None:
        key = (offer.provider, offer.processing == BATCH)
        since = self._down[key][0] if key in self._down else now
        self._down[key] = (since, now + max(rest_s, now - since if key[1] else 0.0))

    def _down_s(self, offer: Offer, now: float) -> float | None:
        found = self._down.get((offer.provider, offer.processing == BATCH))
        if found is None or now >= found[1]:
            return None
        return now - found[0]

    # --- batches -------------------------------------------------------------------------------------------------------

    def _gather(self, job: Job, offer: Offer, now: float) -> None:
        left_s = max(1.0, job.request.deadline_at - now)
        key = (offer.provider, offer.model, int(math.log2(left_s)))
        until = now + min(GATHER_S[1], max(GATHER_S[0], left_s * GATHER_SHARE))
        crate = self._crates.get(key)
        if crate is None:
            crate = self._crates[key] = Crate(offer, math.inf)
        job.gathering = True
        crate.jobs.append(job)
        if until < crate.until:
            crate.until = until
            self._later(until, lambda later: self._ship(key, crate, later))
        if len(crate.jobs) >= min(WORTH_LINES, MOST_LINES):
            self._ship(key, crate, now)

    def _ship(self, key: tuple[str, str, int], crate: Crate, now: float) -> None:
        if self._crates.get(key) is not crate:
            return
        del self._crates[key]
        for job in crate.jobs:
            job.gathering = False
        provider = crate.offer.provider
        if self._world.is_down(provider, now):
            self._failed(crate.offer, now, RETRY_S)
            for job in crate.jobs:
                self._decide(job, now)
            return
        self._down.pop((provider, True), None)
        self.shipments += 1
        ends_at = self._world.batch_ends_at(provider, now)
        shipment = Shipment(self.shipments, crate.offer, crate.jobs, now, ends_at)
        for job in crate.jobs:
            job.shipped, job.shipments = shipment, job.shipments + 1
        self._later(now + POLL_S[0], lambda later: self._mind(shipment, later))

    def _mind(self, shipment: Shipment, now: float) -> None:
        provider = shipment.offer.provider
        for job in shipment.open_jobs():
            if now < job.request.deadline_at:
                break
            job.expired = True
        if self._world.is_down(provider, now):
            self._promote(shipment, now)
            self._later(now + POLL_S[1] / 4, lambda later: self._mind(shipment, later))
            return
        if now >= min(shipment.ends_at, shipment.at + DAY_S):
            self._collect(shipment, now)
            return
        due_at = now + min(POLL_S[1], max(POLL_S[0], (now - shipment.at) * POLL_SHARE))
        if shipment.recalled_at is not None:
            self._promote(shipment, now)
            due_at = min(due_at, now + 5.0)
        else:
            step = self._step(shipment, now)
            if isinstance(step, Recall):
                self._recall(shipment, now)
                due_at = now + POLL_S[0]
            elif isinstance(step, Wait):
                due_at = min(due_at, max(step.until, now + 0.001))
        self._later(due_at, lambda later: self._mind(shipment, later))

    def _step(self, shipment: Shipment, now: float) -> object:
        first = next(iter(shipment.open_jobs()), None)
        if first is None:
            return Recall()
        ways = self._ways(first, now)
        own = next(way for way in ways if way.is_batch and way.provider == shipment.offer.provider)
        return step_in_batch(first.request.deadline_at, ways, own, shipment.at, now)

    def _recall(self, shipment: Shipment, now: float) -> None:
        self.recalls += 1
        low, high = GIVES_BACK_S
        back_at = now + low + (high - low) * self._world.chance("recall", shipment.number)
        if back_at < shipment.ends_at:
            # Lines are answered between three tenths of the time that a batch takes and its end.
            share = ((now - shipment.at) / (shipment.ends_at - shipment.at) - 0.3) / 0.7
            numbers = (job.request.number for job in shipment.jobs)
            shipment.answered = frozenset(
                each for each in numbers if self._world.chance("line", shipment.number, each) < share
            )
            shipment.ends_at = back_at
        shipment.recalled_at = now

    def _collect(self, shipment: Shipment, now: float) -> None:
        """Who was answered is billed, whatever has become of the request; who was not is decided anew."""
        until = now if shipment.recalled_at is None else shipment.recalled_at
        took = self._took.setdefault(shipment.offer.provider, [])
        expired = math.isinf(shipment.ends_at)
        took.append((math.inf if expired else until - shipment.at, shipment.recalled_at is not None))
        del took[:-REMEMBERED]
        self.turnarounds[shipment.offer.provider] = Turnaround(
            seen_s=tuple(sorted(took_s for took_s, called_back in took if not called_back)),
            longer_s=tuple(sorted(took_s for took_s, called_back in took if called_back)),
        )
        for job in shipment.jobs:
            mine = job.shipped is shipment
            if mine:
                job.shipped = None
            if not expired and (shipment.answered is None or job.request.number in shipment.answered):
                self._answered(job, now, price(shipment.offer, job.request.usage), BATCH)
            elif mine:
                self._decide(job, now)

    def _promote(self, shipment: Shipment, now: float) -> None:
        for job in shipment.open_jobs():
            last = last_resort(self._ways(job, now))
            if last is None or job.request.deadline_at - 2 * last.takes_s > now:
                return
            job.shipped = None
            self._decide(job, now)
