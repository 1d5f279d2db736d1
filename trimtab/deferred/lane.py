"""The lane: works on the jobs while the app is served. Any number of processes may do so at once, on one database.

Jobs that are due are claimed, weighed, and bought, shipped or put off; shipments that are due are asked after. Nothing is
known here that is not in the database: a process that dies loses its leases, and the others go on with what it held.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

import httpx
from sqlalchemy.exc import SQLAlchemyError

from routing.batching.seam import Prepared as Line
from routing.errors import RoutingError
from routing.promotion import Buy, Wait
from trimtab.contexts import Contexts
from trimtab.deferred.bids import BATCH
from trimtab.deferred.buying import Buying, Weighed
from trimtab.deferred.closing import Closing
from trimtab.deferred.jobs import Job, Jobs
from trimtab.deferred.market import Market
from trimtab.deferred.shipments import Shipments
from trimtab.deferred.shipping import Crate, Shipping
from trimtab.edge import Edge
from trimtab.errors import BadRequest
from trimtab.http import in_thread

Answer = TypeVar("Answer")

logger = logging.getLogger("trimtab.deferred")

AT_ONCE: Final = 32
"""How many jobs are being bought at once, beside the callers who wait for theirs."""
MINDED: Final = 8
"""How many shipments are asked after, or handed over, at a time."""
CLAIMED: Final = 128
HELD: Final = 4_000
"""How many jobs may gather before more are claimed."""
IDLE_S: Final = 0.5
AWAY_S: Final = 2.0
SWEEP_S: Final = 3_600.0
_LEAVING_S: Final = 5.0
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)


class Lane:
    """One for a process and event loop. `clock` gives seconds since 1970."""

    def __init__(
        self, edge: Edge, jobs: Jobs, shipments: Shipments, contexts: Contexts, clock: Callable[[], float] = time.time
    ) -> None:
        self._edge = edge
        self._trimtab = edge.trimtab
        self._jobs = jobs
        self._shipments = shipments
        self._clock = clock
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lease_s = self._trimtab.settings.deferred_lease_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._buying_slots = asyncio.Semaphore(AT_ONCE)
        self._in_hand: set[str] = set()
        self._buying_now: set[str] = set()
        self._cancelled: set[str] = set()
        self._news = asyncio.Event()
        self.market = Market(self._trimtab, clock)
        self.closing = Closing(jobs, clock, edge.gate.settle)
        self.buying = Buying(self._trimtab, self.market, self.closing, contexts, clock, edge.gate.rules)
        self._shipping: Shipping | None = None

    def wake(self) -> None:
        """There are new jobs. On the event loop."""
        self._news.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Work while the app is served. A database that is away is waited for."""
        async with httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False) as client:
            self._shipping = Shipping(
                self._trimtab,
                self.market,
                self._shipments,
                self.closing,
                client,
                owner=self._owner,
                lease_s=self._lease_s,
                clock=self._clock,
            )
            loops = [
                asyncio.create_task(each()) for each in (self._work, self._mind, self._keep, self._listen, self._sweep)
            ]
            try:
                yield
            finally:
                await self._leave(loops)

    async def _leave(self, loops: Sequence[asyncio.Task[None]]) -> None:
        """End what is under way, soon, and give back what is held."""
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=_LEAVING_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        try:
            async with asyncio.timeout(_LEAVING_S):
                await self.closing.aclose()
                await in_thread(lambda: self._jobs.release(self._owner))
                await in_thread(lambda: self._shipments.release(self._owner))
        except (SQLAlchemyError, TimeoutError):
            logger.warning("the database is away; what is held here comes back when its lease is over")

    # --- the loops ---------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Claim what is due, and do what is next for it."""
        while True:
            self._news.clear()
            claimed = await self._claimed()
            if claimed:
                await self._deal(claimed)
            self._ship(more=len(claimed) == CLAIMED)
            if not claimed:
                # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the news.
                with suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        await self._news.wait()

    async def _claimed(self) -> Sequence[Job]:
        assert self._shipping is not None
        if len(self._buying_now) >= AT_ONCE or self._shipping.gathered >= HELD:
            return ()
        claim = partial(self._jobs.claim, self._owner, self._clock(), self._lease_s, CLAIMED)
        # What is in hand here comes again where its lease could not be kept, on a machine that is too busy.
        claimed = [job for job in await self._asking(claim) or () if job.id not in self._in_hand]
        self._in_hand.update(job.id for job in claimed)
        return claimed

    async def _mind(self) -> None:
        """Look after the shipments that are due."""
        assert self._shipping is not None
        await self._asking(self._shipping.learn)
        while True:
            free = MINDED - sum(task.get_name() == _MINDING for task in self._tasks)
            claim = partial(self._shipments.claim, self._owner, self._clock(), self._lease_s, free)
            for shipment in (await self._asking(claim) or ()) if free > 0 else ():
                self._start(self._shipping.mind(shipment), _MINDING)
            await asyncio.sleep(IDLE_S)

    async def _keep(self) -> None:
        """Keep the leases of what is in hand. What was let go in the middle, since the database was away, comes back."""
        assert self._shipping is not None
        while True:
            await asyncio.sleep(self._lease_s / 4)
            jobs, shipments = list(self._in_hand), self._shipping.busy
            await self._asking(partial(self._jobs.renew, self._owner, jobs, self._clock(), self._lease_s))
            await self._asking(partial(self._shipments.renew, self._owner, shipments, self._clock(), self._lease_s))

    async def _listen(self) -> None:
        """Break off the calls for jobs that were cancelled, here or elsewhere, alone or with their batch."""
        while True:
            await asyncio.sleep(IDLE_S)
            if self._buying_now:
                for job_id in await self._asking(partial(self._jobs.cancelled, list(self._buying_now))) or ():
                    self._cancelled.add(job_id)
                    if job_id in self.buying.calling:
                        # Not for nothing: else whoever cancels in time would spend nothing of his budget.
                        self._edge.gate.settle(job_id, self.buying.hang_up(job_id))
                self._cancelled &= self._buying_now

    async def _sweep(self) -> None:
        """Forget what has been over for long enough."""
        while True:
            before = self._clock() - self._trimtab.settings.deferred_days * 86_400.0
            for each in (self._jobs, self._shipments):
                await self._asking(partial(each.sweep, before))
            await asyncio.sleep(SWEEP_S)

    async def _asking(self, ask: Callable[[], Answer]) -> Answer | None:
        """What the database answers; None, after a pause, where it is away."""
        try:
            return await in_thread(ask)
        except SQLAlchemyError as error:
            logger.warning("the deferred lane waits for the database (%s)", type(error).__name__)
            await asyncio.sleep(AWAY_S)
            return None

    # --- what is claimed ---------------------------------------------------------------------------------------------

    async def _deal(self, claimed: Sequence[Job]) -> None:
        """Weigh jobs, and do with each what is next for it."""
        assert self._shipping is not None
        for start in range(0, len(claimed), _WEIGHED):
            part = claimed[start : start + _WEIGHED]
            weighed = await self._asking(partial(self._weigh, part))
            if weighed is None:
                self._in_hand.difference_update(job.id for job in part)
                continue  # their leases run out, and they are claimed anew
            waits: list[tuple[str, float, str | None]] = []
            for weighed_job, line in weighed:
                each = await self._held(weighed_job)
                if each is None:
                    self._in_hand.discard(weighed_job.job.id)
                    continue  # its lease runs out, and it is claimed anew
                if each.outcome is not None:
                    self._start(self._end(each))
                elif isinstance(each.step, Wait):
                    waits.append((each.job.id, each.step.until, each.note))
                elif line is not None:
                    self._shipping.add(each, line)
                else:
                    self._buying_now.add(each.job.id)
                    self._start(self._buy(each))
            await self._asking(partial(self._jobs.put_off, self._owner, waits))
            self._in_hand.difference_update(job_id for job_id, _, _ in waits)
            self._ship(more=True)

    def _weigh(self, jobs: Sequence[Job]) -> list[tuple[Weighed, Line | None]]:
        """In a thread: each job with what is to be done with it, and with its line if it is to be shipped."""
        assert self._shipping is not None
        bodies = self._jobs.bodies([job.id for job in jobs])
        found: list[tuple[Weighed, Line | None]] = []
        for job in jobs:
            try:
                line: Line | None = None
                weighed = self.buying.weigh(job, bodies[job.id])
                if isinstance(weighed.step, Buy) and weighed.step.way.processing == BATCH:
                    try:
                        line = self._shipping.line(weighed)
                    except RoutingError:  # what it asks for would be lost there
                        assert weighed.prepared is not None
                        weighed = self.buying.weighed(job, weighed.prepared, batches=False)
                found.append((weighed, line))
            except SQLAlchemyError:
                raise
            except Exception as defect:  # a defect of ours in one job must not keep the others waiting
                logger.exception("a deferred job could not be weighed")
                found.append((Weighed(job, Wait(0.0), outcome=self.buying.failed(job, defect)), None))
        return found

    async def _held(self, weighed: Weighed) -> Weighed | None:
        """With what a job may cost reserved, where it is to be bought now; over, where there is not enough left. None where
        nobody can say."""
        if weighed.outcome is not None or not isinstance(weighed.step, Buy) or weighed.prepared is None:
            return weighed
        job = weighed.job
        try:
            await self._edge.gate.hold(job.caller, weighed.prepared, job.id)
        except BadRequest as refused:
            if refused.status == 503:
                return None
            return Weighed(job, Wait(0.0), outcome=self.buying.failed(job, refused))
        return weighed

    async def _end(self, weighed: Weighed) -> None:
        assert weighed.outcome is not None
        try:
            await self.closing.close(weighed.outcome)
        finally:
            self._in_hand.discard(weighed.job.id)

    async def _buy(self, weighed: Weighed) -> None:
        try:
            async with self._buying_slots:
                if weighed.job.id in self._cancelled:  # while it waited for its turn
                    return
                again_at = await self.buying.buy(weighed, self._edge.router)
        finally:
            self._buying_now.discard(weighed.job.id)
            self._in_hand.discard(weighed.job.id)
            self._news.set()
        if again_at is not None:
            due = [(weighed.job.id, again_at, None)]
            await self._asking(partial(self._jobs.put_off, self._owner, due, tried=True))

    def _ship(self, *, more: bool) -> None:
        assert self._shipping is not None
        for crate in self._shipping.due(more):
            self._start(self._hand_over(crate))

    async def _hand_over(self, crate: Crate) -> None:
        assert self._shipping is not None
        try:
            await self._shipping.ship(crate)
        finally:
            self._in_hand.difference_update(crate.jobs)

    def _start(self, work: Coroutine[Any, Any, None], name: str = "") -> None:
        task = asyncio.create_task(work, name=name or None)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            # What it held comes back when its lease is over.
            logger.error("work on a deferred job broke off (%s: %s)", type(defect).__name__, defect)


_MINDING: Final = "minding a shipment"
_WEIGHED: Final = 32
