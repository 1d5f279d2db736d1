"""Closing: how jobs end. Outcomes are written down together, many in a transaction, and whoever waits is told.

A database that is away costs time and no outcome: what a provider was paid for is held until it can be written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from trimtab.deferred.jobs import Job, Jobs, Outcome
from trimtab.deferred.settling import Bill, billed_usd, with_bill
from trimtab.http import in_thread

logger = logging.getLogger("trimtab.deferred")

RETRY_S: Final = 1.0
LOOK_S: Final = 1.0
"""How often whoever waits looks for an end that another process wrote."""


class Closing:
    """Ends jobs. One for a process and event loop. `clock` gives seconds since 1970; `settle` is told what each cost."""

    def __init__(
        self, jobs: Jobs, clock: Callable[[], float], settle: Callable[[str, Decimal], None] = lambda _, __: None
    ) -> None:
        self._settle = settle
        self._jobs = jobs
        self._clock = clock
        self._asked: list[tuple[tuple[Outcome, ...], asyncio.Future[set[str]]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._leaving = False
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def close(self, *outcomes: Outcome) -> set[str]:
        """Write these down. The ids of the jobs that they ended; of a job that was over before, this outcome is lost."""
        future: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()
        self._asked.append((outcomes, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await asyncio.shield(future)

    async def amend(self, bills: Mapping[str, Bill]) -> None:
        """Add, to the receipts of jobs that were over before, what was billed besides. The same bill is added once."""
        changes = {job_id: partial(with_bill, bill=bill) for job_id, bill in bills.items()}
        if changes:
            await self._insisting(lambda: self._jobs.amend(changes))

    async def over(self, job_id: str, tenant: str, wait_s: float) -> Job | None:
        """The tenant's job, as soon as it is over or the time is up."""
        until = asyncio.get_running_loop().time() + wait_s
        news = asyncio.Event()
        self._waiting.setdefault(job_id, set()).add(news)
        try:
            while True:
                job = await in_thread(lambda: self._jobs.find(job_id, tenant))
                left_s = until - asyncio.get_running_loop().time()
                if job is None or job.over or left_s <= 0 or self._leaving:
                    return job
                news.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_S, left_s)):
                        await news.wait()
        finally:
            self._waiting[job_id].discard(news)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def tell(self, job_ids: Collection[str]) -> None:
        """These are over: wake whoever waits for them."""
        for job_id in job_ids:
            for news in self._waiting.get(job_id, ()):
                news.set()

    def leave(self) -> None:
        """Nobody is to wait any longer."""
        self._leaving = True
        self.tell(list(self._waiting))

    async def aclose(self) -> None:
        """Wait for what is being written."""
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        # As long as one transaction takes, outcomes gather for the next.
        while self._asked:
            asked, self._asked = self._asked, []
            outcomes = [each for together, _ in asked for each in together]
            ended: set[str] = set()
            for start in range(0, len(outcomes), _TOGETHER):
                part = outcomes[start : start + _TOGETHER]
                now_over = await self._insisting(lambda part=part: self._jobs.finish(part, self._clock()))  # type: ignore[misc]
                for each in part:
                    if each.job_id in now_over:
                        self._settle(each.job_id, billed_usd(each.receipt))
                ended |= now_over
            self.tell(ended)
            for together, future in asked:
                mine = {each.job_id for each in together} & ended
                ended -= mine  # of two outcomes of one job, the first one written is its end
                if not future.done():
                    future.set_result(mine)
        self._writer = None

    async def _insisting(self, work: Callable[[], Any]) -> Any:
        while True:
            try:
                return await in_thread(work)
            except SQLAlchemyError as error:
                logger.error("results wait for the database (%s)", type(error).__name__)
                await asyncio.sleep(RETRY_S)


_TOGETHER: Final = 500
