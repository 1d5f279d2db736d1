"""Shipping: jobs that wait are gathered into provider batches, handed over, looked after, and collected.

What crosses the network is written down before: a process may be killed at any instant, and whoever comes next finds out
what became of a shipment before it does anything again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import httpx

from routing.batching import BatchAdapter, BatchFailed, BatchLine, adapter_of, prepared
from routing.batching.seam import Arrived, BatchState, Intent
from routing.batching.seam import Prepared as Ready
from routing.catalog import Provider
from routing.offers import Offer
from routing.promotion import Recall, Turnaround, Wait, Way, last_resort, step_in_batch
from routing.wires import MissingKey
from trimtab.deferred.bids import packed_offer, unpacked, unpacked_offer, ways_of
from trimtab.deferred.buying import Weighed
from trimtab.deferred.closing import Closing
from trimtab.deferred.collecting import Collecting, bill_of
from trimtab.deferred.jobs import SHIPPED, Job
from trimtab.deferred.market import Market
from trimtab.deferred.settling import expired
from trimtab.deferred.shipments import COLLECTED, INTENDED, UNDONE, Shipment, Shipments, new_key
from trimtab.http import in_thread
from trimtab.pipeline import Trimtab
from trimtab.surfaces import SURFACES

logger = logging.getLogger("trimtab.deferred")

MOST_LINES: Final = 2_000
MOST_BYTES: Final = 16 * 2**20
"""Of one shipment; less than any provider takes, so that a process holds little and a failure costs little."""
WORTH_LINES: Final = 100
"""So many are not kept waiting for more."""
GATHER_SHARE: Final = 0.01
GATHER_S: Final = (1.0, 60.0)
"""How long the first of a shipment waits for others: a share of the time that it has, and the bounds of that."""
POLL_SHARE: Final = 0.2
POLL_S: Final = (1.0, 60.0)
"""How soon a shipment is asked after again: a share of the time that it has been away, and the bounds of that."""
UNSURE_S: Final = 30.0
"""How long to wait before a shipment is looked for whose submission ended without a word: it may arrive yet."""
LOST_S: Final = 300.0
"""How soon a provider that failed is asked again, at the latest."""
_COLLECT_LINES: Final = 200

_SURFACES: Final = {surface.path: surface for surface in SURFACES}


@dataclass(slots=True)
class Crate:
    """What gathers for one shipment."""

    offer: Offer
    until: float
    jobs: dict[str, tuple[Weighed, Ready]] = field(default_factory=dict)
    size_bytes: int = 0


class Shipping:
    """Ships jobs. One for a process and event loop; any number of processes may share the shipments.

    `owner` holds the leases on what this process works on. `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        trimtab: Trimtab,
        market: Market,
        shipments: Shipments,
        closing: Closing,
        client: httpx.AsyncClient,
        *,
        owner: str,
        lease_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._trimtab = trimtab
        self._market = market
        self._shipments = shipments
        self._closing = closing
        self._owner = owner
        self._lease_s = lease_s
        self._clock = clock
        self._busy: set[str] = set()
        self._crates: dict[tuple[str, int], Crate] = {}
        self._providers: dict[str, Provider] = {each.name: each for each in trimtab.catalog.providers}
        made = {name: adapter_of(each, client) for name, each in self._providers.items()}
        self._collecting = Collecting(trimtab, shipments, self._providers)
        self._adapters: dict[str, BatchAdapter] = {name: each for name, each in made.items() if each is not None}

    # --- out ---------------------------------------------------------------------------------------------------------

    def line(self, weighed: Weighed) -> Ready:
        """The job as a line of a batch. CPU-bound. Raises RoutingError where the provider cannot be asked so."""
        assert weighed.prepared is not None
        assert weighed.bid is not None
        offer, ready = weighed.bid.offer, weighed.prepared
        job = weighed.job
        line = BatchLine(job.id, ready.body, offer, _SURFACES[job.surface].tongue, job.headers)
        return prepared(self._providers[offer.provider], line)

    def add(self, weighed: Weighed, ready: Ready) -> None:
        """Put a job with others that it may travel with: for the same provider and model, and of about as much time."""
        assert weighed.bid is not None
        now = self._clock()
        left_s = max(1.0, weighed.job.deadline_at - now)
        key = (ready.group, int(math.log2(left_s)))
        least_s, most_s = GATHER_S
        until = now + min(most_s, max(least_s, left_s * GATHER_SHARE))
        crate = self._crates.setdefault(key, Crate(weighed.bid.offer, until))
        crate.jobs[weighed.job.id] = (weighed, ready)
        crate.size_bytes += len(ready.content)
        crate.until = min(crate.until, until)

    @property
    def busy(self) -> tuple[str, ...]:
        """The shipments that are being worked on."""
        return tuple(self._busy)

    @property
    def gathered(self) -> int:
        """How many jobs wait for others."""
        return sum(len(crate.jobs) for crate in self._crates.values())

    def due(self, more: bool) -> Iterator[Crate]:
        """Crates that are to be shipped now, taken off. `more`: there are more jobs to come at once."""
        now = self._clock()
        for key, crate in list(self._crates.items()):
            full = len(crate.jobs) >= MOST_LINES or crate.size_bytes >= MOST_BYTES
            if full or crate.until <= now or (not more and len(crate.jobs) >= WORTH_LINES):
                del self._crates[key]
                yield crate

    async def ship(self, crate: Crate) -> None:
        """Hand a crate over."""
        now = self._clock()
        provider = crate.offer.provider
        shipment = Shipment(
            id=new_key(),
            provider=provider,
            offer=packed_offer(crate.offer),
            state=INTENDED,
            jobs=len(crate.jobs),
            deadline_at=min(weighed.job.deadline_at for weighed, _ in crate.jobs.values()),
            intended_at=now,
        )
        plans = await in_thread(lambda: {name: weighed.noted() for name, (weighed, _) in crate.jobs.items()})
        self._busy.add(shipment.id)
        try:
            taken = await in_thread(lambda: self._shipments.intend(shipment, plans, self._owner, now, self._lease_s))
            if not taken:
                return
            lines = [ready for name, (_, ready) in crate.jobs.items() if name in taken]
            batch_id = await self._adapters[provider].submit(lines, shipment.id)
        except (BatchFailed, MissingKey, ValueError) as failed:
            await self._not_shipped(shipment, failed)
        else:
            await self._shipped(shipment, batch_id)
        finally:
            self._busy.discard(shipment.id)

    async def _shipped(self, shipment: Shipment, batch_id: str) -> None:
        self._market.batch_answered(unpacked_offer(shipment.offer))
        due_at = self._clock() + POLL_S[0]
        await self._put_off(shipment, due_at, state=SHIPPED, provider_batch_id=batch_id)

    async def _not_shipped(self, shipment: Shipment, failed: Exception) -> None:
        logger.warning("a batch was not taken by %s: %s", shipment.provider, failed)
        if isinstance(failed, BatchFailed) and failed.unsure:
            await self._put_off(shipment, self._clock() + UNSURE_S)
            return
        for_good = not (isinstance(failed, BatchFailed) and failed.retryable)
        self._market.batch_failed(unpacked_offer(shipment.offer), for_good=for_good)
        await self._undo(shipment)

    async def _undo(self, shipment: Shipment) -> None:
        """Nothing of it came to be: its jobs wait again."""
        now = self._clock()
        await in_thread(lambda: self._shipments.close(shipment.id, UNDONE, now, seen=False))

    async def _put_off(self, shipment: Shipment, due_at: float, **values: Any) -> None:
        await in_thread(lambda: self._shipments.put_off(shipment.id, self._owner, due_at, **values))

    # --- back --------------------------------------------------------------------------------------------------------

    async def mind(self, shipment: Shipment) -> None:
        """See what has become of a shipment that is due, and do what is next for it."""
        if shipment.id in self._busy:  # its lease could not be kept, on a machine that is too busy
            return
        self._busy.add(shipment.id)
        try:
            await self._mind(shipment)
        finally:
            self._busy.discard(shipment.id)

    async def _mind(self, shipment: Shipment) -> None:
        adapter = self._adapters.get(shipment.provider)
        if adapter is None:  # taken out of the configuration, and may come back
            await self._expire_in(shipment)
            await self._put_off(shipment, self._clock() + LOST_S)
            return
        try:
            if shipment.state == INTENDED:
                await self._look_for(shipment, adapter)
            else:
                await self._look_after(shipment, adapter)
        except (BatchFailed, MissingKey) as failed:
            logger.warning("a batch at %s could not be asked after: %s", shipment.provider, failed)
            asked_ms = failed.retry_after_ms if isinstance(failed, BatchFailed) else None
            wait_s = max(POLL_S[1] / 4, (asked_ms or 0.0) / 1000)
            await self._expire_in(shipment)
            await self._promote(shipment)
            await self._put_off(shipment, self._clock() + min(LOST_S, wait_s))

    async def _look_for(self, shipment: Shipment, adapter: BatchAdapter) -> None:
        known = await in_thread(lambda: self._shipments.known(shipment.provider))
        at = datetime.fromtimestamp(shipment.intended_at, UTC)
        batch_id = await adapter.find(Intent(shipment.id, at, shipment.jobs, known))
        if batch_id is None:
            await self._undo(shipment)
        else:
            await self._shipped(shipment, batch_id)

    async def _look_after(self, shipment: Shipment, adapter: BatchAdapter) -> None:
        assert shipment.provider_batch_id is not None
        await self._expire_in(shipment)
        state = await adapter.poll(shipment.provider_batch_id)
        if state.ended:
            await self._over(shipment, adapter, state)
            return
        open_jobs, first = await in_thread(lambda: self._shipments.open_jobs(shipment.id))
        now = self._clock()
        least_s, most_s = POLL_S
        due_at = now + min(most_s, max(least_s, (now - shipment.intended_at) * POLL_SHARE))
        if shipment.recalled_at is not None:
            await self._promote(shipment)
            await self._put_off(shipment, min(due_at, now + 5.0))
            return
        step = Recall() if first is None else self._step(first, shipment, now)
        if isinstance(step, Recall):
            await adapter.cancel(shipment.provider_batch_id)
            logger.info("a batch at %s is called back: %d jobs wait", shipment.provider, open_jobs)
            await self._put_off(shipment, now + least_s, recalled_at=now)
            return
        await self._put_off(shipment, min(due_at, step.until) if isinstance(step, Wait) else due_at)

    def _step(self, first: Job, shipment: Shipment, now: float) -> Wait | Recall:
        ways = self._ways(first)
        own = next((way for way in ways if way.is_batch and way.provider == shipment.provider), None)
        turnaround = self._market.turnarounds.get(shipment.provider, Turnaround())
        own = own or Way(shipment.provider, "", "batch", Decimal(0), turnaround=turnaround)
        step = step_in_batch(first.deadline_at, ways, own, shipment.intended_at, now)
        return step if isinstance(step, (Wait, Recall)) else Wait(now)

    def _ways(self, job: Job) -> tuple[Way, ...]:
        bids = () if job.plan is None else unpacked(job.plan).bids
        return ways_of(bids, self._market.turnarounds, self._market.down_s)

    async def _expire_in(self, shipment: Shipment) -> None:
        """Fail the jobs in it whose deadline has passed; what they cost after all is put on their receipts later."""
        while late := await in_thread(lambda: self._shipments.overdue(shipment.id, self._clock(), _COLLECT_LINES)):
            await self._closing.close(*(expired(job_id) for job_id in late))

    async def _promote(self, shipment: Shipment) -> None:
        """Take jobs out for which it is the last moment to buy them at once. They may be billed twice."""
        _, first = await in_thread(lambda: self._shipments.open_jobs(shipment.id))
        while first is not None:
            last = last_resort(self._ways(first))
            now = self._clock()
            if last is None or first.deadline_at - 2 * last.takes_s > now:
                return
            until = now + 2 * last.takes_s
            await in_thread(lambda until=until: self._shipments.take_out_before(shipment.id, until, self._clock()))  # type: ignore[misc]
            _, first = await in_thread(lambda: self._shipments.open_jobs(shipment.id))

    async def _over(self, shipment: Shipment, adapter: BatchAdapter, state: BatchState) -> None:
        if state.status == "refused":
            logger.warning("a batch was refused by %s: %s", shipment.provider, state.detail)
            self._market.batch_failed(unpacked_offer(shipment.offer), for_good=True)
            await self._undo(shipment)
            return
        assert shipment.provider_batch_id is not None
        batch: list[Arrived] = []
        async with aclosing(adapter.collect(shipment.provider_batch_id)) as arrivals:
            async for arrived in arrivals:
                batch.append(arrived)
                if len(batch) == _COLLECT_LINES:
                    await self._collect(shipment, batch)
                    batch = []
        await self._collect(shipment, batch)
        now = self._clock()
        await in_thread(lambda: self._shipments.close(shipment.id, COLLECTED, now))
        await in_thread(self.learn)

    def learn(self) -> None:
        """Look how long batches have taken. Blocking."""
        self._market.turnarounds = self._shipments.turnarounds()

    async def _collect(self, shipment: Shipment, arrivals: Sequence[Arrived]) -> None:
        if not arrivals:
            return
        found = await in_thread(lambda: self._collecting.sorted(shipment, arrivals))
        ended = await self._closing.close(*(each.outcome for each in found.ends))
        bills = dict(found.bills)
        for each in found.ends:
            if each.outcome.job_id in ended:
                self._collecting.told(each)
            elif each.usage is not None:  # somebody else was faster
                bills[each.outcome.job_id] = bill_of(shipment, each.offer, each.usage)
        await self._closing.amend(bills)
        if found.back:
            now = self._clock()
            await in_thread(lambda: self._shipments.take_out(shipment.id, found.back, now))
