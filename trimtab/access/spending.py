"""Spending: reserves before a request is sent, and settles when it is over.

Requests that come while the counters are written are reserved together, as are ends: one trip for all of them. What has been
reserved here is renewed while it lasts; what a process left behind that died is settled by the others, with what the ledger
says that it cost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal

from sqlalchemy.exc import SQLAlchemyError

from trimtab.access.counters import Answer, Ask, Budget, Counters, End
from trimtab.access.refusals import away
from trimtab.database import Database
from trimtab.deferred.job import JOBS, OPEN
from trimtab.deferred.job import METADATA as DEFERRED_TABLES
from trimtab.deferred.settling import billed_usd
from trimtab.http import in_thread
from trimtab.ledger.entries import TABLES as LEDGER_TABLES
from trimtab.ledger.entries import pico
from trimtab.ledger.queries import Filter, line, totals
from trimtab.sharing.log import Unreachable

logger = logging.getLogger("trimtab.access")

LEASE_S: Final = 60.0
JOB_PREFIX: Final = "def_"
"""Of a deferred job's id."""
_TOGETHER: Final = 200
_RETRY_S: Final = 1.0
_SWEEP_S: Final = 5.0
_LEAVING_S: Final = 5.0

WhenAway = Literal["refuse", "allow"]


class Past:
    """What was spent before, by the ledger and the deferred lane. Blocking."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._there = False

    def spent_pico(self, budget: Budget) -> int:
        """What the ledger says that a key or a team spent since its period began."""
        self._create()
        since = datetime.fromtimestamp(budget.begins_at, UTC)
        whose = {budget.kind: budget.name}
        found = totals(self._database, wanted=Filter(since=since, **whose))  # type: ignore[arg-type]
        return sum(pico(each.cost_usd) or 0 for each in found)

    def cost_pico(self, id: str, if_lost_pico: int) -> int | None:
        """What a reservation's request did cost; None where it is still under way."""
        self._create()
        if not id.startswith(JOB_PREFIX):
            entry = line(self._database, id)
            return if_lost_pico if entry is None else pico(entry.cost_usd) or 0
        with self._database.read() as connection:
            job = connection.execute(JOBS.select().where(JOBS.c.id == id)).one_or_none()
        if job is None or job.receipt is None:
            return None if job is not None and job.state in OPEN else 0
        return None if job.state in OPEN else pico(billed_usd(job.receipt)) or 0

    def _create(self) -> None:
        if not self._there:
            for tables in (LEDGER_TABLES, DEFERRED_TABLES):
                self._database.create(tables)
            self._there = True


class Spending:
    """One for a process and event loop. `clock` gives seconds since 1970."""

    def __init__(
        self, counters: Counters, past: Past, when_away: WhenAway, clock: Callable[[], float], lease_s: float = LEASE_S
    ) -> None:
        self._counters = counters
        self._past = past
        self._when_away = when_away
        self._clock = clock
        self._lease_s = lease_s
        self._asked: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._reserver: asyncio.Task[None] | None = None
        self._open: set[str] = set()
        self._ends: list[End] = []
        self._unreserved: dict[str, Ask] = {}
        self._settler: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        keeping = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            if self._settler is not None:
                await asyncio.wait((self._settler,), timeout=_LEAVING_S)
                if not self._settler.done():
                    logger.error("%d requests are not settled; the ledger has what they cost", len(self._ends))
                    self._settler.cancel()
            await in_thread(self._counters.close)

    async def reserve(self, ask: Ask) -> Answer:
        """Raises BadRequest (503) where the counters are away and nothing may go without them."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked.append((ask, future))
        if self._reserver is None:
            self._reserver = asyncio.create_task(self._reserve())
        try:
            answer = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: self._given_up(ask, done))
            raise
        except Unreachable:
            if self._when_away == "refuse":
                raise away() from None
            logger.warning("a request goes without limits: the counters are away")
            self._unreserved[ask.id] = ask
            return Answer()
        if answer.reserved and not ask.id.startswith(
            JOB_PREFIX
        ):  # jobs are looked after in the database, by whoever sweeps
            self._open.add(ask.id)
        return answer

    def settle(self, end: End) -> None:
        """A request is over. On the event loop; it is written soon, and again until it is."""
        self._open.discard(end.id)
        self._ends.append(end)
        if self._settler is None:
            self._settler = asyncio.create_task(self._settle())

    def _given_up(self, ask: Ask, done: asyncio.Future[Answer]) -> None:
        """A client hung up while its request was being reserved."""
        if not done.cancelled() and done.exception() is None and done.result().reserved:
            self.settle(End(ask.id, 0, 0))

    async def _reserve(self) -> None:
        while self._asked:
            together, self._asked = self._asked[:_TOGETHER], self._asked[_TOGETHER:]
            try:
                asks = [ask for ask, _ in together]
                answers = await in_thread(lambda asks=asks: self._reserved(asks))  # type: ignore[misc]
            except (Unreachable, SQLAlchemyError) as error:
                for _, future in together:
                    if not future.done():
                        future.set_exception(Unreachable(type(error).__name__))
                continue
            for (_, future), answer in zip(together, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        self._reserver = None

    def _reserved(self, asks: Sequence[Ask]) -> list[Answer]:
        now = self._clock()
        # A job that is tried again gives back what was reserved for the last try; a call's id is never used twice.
        if jobs := [End(each.id, 0) for each in asks if each.id.startswith(JOB_PREFIX)]:
            self._counters.settle(jobs, now)
        answers = self._counters.reserve(asks, now)
        again = [number for number, answer in enumerate(answers) if answer.unknown]
        if again:
            unknown = {budget for number in again for budget in answers[number].unknown}
            self._counters.seed({each: self._past.spent_pico(each) for each in unknown})
            for number, answer in zip(again, self._counters.reserve([asks[n] for n in again], now), strict=True):
                answers[number] = answer
        return answers

    async def _settle(self) -> None:
        while self._ends:
            together, self._ends = self._ends[:_TOGETHER], self._ends[_TOGETHER:]
            unreserved = [self._unreserved[each.id] for each in together if each.id in self._unreserved]
            try:
                if unreserved:
                    await in_thread(lambda asks=unreserved: self._count(asks))  # type: ignore[misc]
                    for ask in unreserved:
                        self._unreserved.pop(ask.id, None)
                await in_thread(lambda ends=together: self._counters.settle(ends, self._clock()))  # type: ignore[misc]
            except (Unreachable, SQLAlchemyError) as error:
                logger.warning("spending waits for the counters (%s)", error)
                self._ends = together + self._ends
                await asyncio.sleep(_RETRY_S)
        self._settler = None

    def _count(self, asks: Sequence[Ask]) -> None:
        """Requests that went without limits are counted all the same."""
        self._reserved([replace(ask, forced=True, until=self._clock() + self._lease_s) for ask in asks])

    async def _keep(self) -> None:
        """Keep what is reserved here, and settle what others left behind."""
        while True:
            await asyncio.sleep(min(_SWEEP_S, self._lease_s / 4))
            try:
                if ids := list(self._open):
                    await in_thread(lambda ids=ids: self._counters.renew(ids, self._clock() + self._lease_s))  # type: ignore[misc]
                await in_thread(self.sweep)
            except (Unreachable, SQLAlchemyError) as error:
                logger.warning("reservations wait for the counters (%s)", error)

    def sweep(self) -> None:
        """Settle what was reserved by processes that are no more. Blocking."""
        now, ends, under_way = self._clock(), [], []
        for id, if_lost_pico in self._counters.lost(now):
            cost_pico = self._past.cost_pico(id, if_lost_pico)
            if cost_pico is None:
                under_way.append(id)
            else:
                ends.append(End(id, cost_pico))
        if under_way:
            self._counters.renew(under_way, now + self._lease_s)
        if ends:
            self._counters.settle(ends, now)
