"""Writer: takes what the ledger is told beside the answers, and writes it in groups.

A thread writes, one transaction for each group, so that nothing else waits for a database that is slow or away. While it is
away the thread puts records into files instead (`spill`), and takes those up once it can; where it is held up for too long,
a second one does.

What is on disk when: a group is committed at most GROUP_S after its first request was over (at once, where nothing was
written in that time before), plus what the commit takes. A process that is killed loses what was over since, and
nothing older: between two requests that are further apart, nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from trimtab.database import Database
from trimtab.ledger.entries import TABLES, Record, write
from trimtab.ledger.spill import Spill

logger = logging.getLogger("trimtab")

GROUP_S: Final = 0.2
GROUP_WHILE_AWAY_S: Final = 1.0
"""A file for each group, and so not as many."""
MOST_WAITING: Final = 5_000
"""Records that wait for the database in memory, about 15 MB. Beyond, they go to a file."""
MOST_AT_ONCE: Final = 500
RETRY_S: Final = 5.0
UPKEEP_S: Final = 3_600.0

_OWN_FAULT: Final = (DataError, IntegrityError, OverflowError, ValueError, TypeError)
"""What is wrong with a record itself; all else that a database raises is taken to pass."""

Make = Callable[[Any], Record]
"""Makes a record of what `Writer.record` was given, in a tenth of a millisecond. What it raises is logged, and costs the
record."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of all that was recorded since the start. `spilled` ones come to be `written` later, by whichever process
    takes them up. `lost` ones could neither be written nor spilled; each was logged."""

    recorded: int = 0
    written: int = 0
    spilled: int = 0
    refused: int = 0
    lost: int = 0

    @property
    def settled(self) -> bool:
        """Whether nothing waits any more."""
        return self.recorded <= self.written + self.spilled + self.refused + self.lost


class Writer:
    """One for a process. `record` never blocks; the threads begin with its first call.

    `upkeep` is called at the beginning and every hour, by the thread that writes. `group_s`, `retry_s` and `most_waiting`
    are there for tests.
    """

    def __init__(
        self,
        database: Database,
        spill: Spill,
        make: Make,
        upkeep: Callable[[Database], object] = lambda _: None,
        *,
        group_s: float = GROUP_S,
        retry_s: float = RETRY_S,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._database, self._spill, self._make, self._upkeep = database, spill, make, upkeep
        self._group_s, self._retry_s, self._most_waiting = group_s, retry_s, most_waiting
        self._news = threading.Event()
        self._closing = threading.Event()
        self._state = threading.Condition()  # guards what follows
        self._waiting: list[Record] = []
        self._under_way: list[Record] = []
        self._made_all = False
        self._away = False
        self._counts = {"written": 0, "spilled": 0, "refused": 0, "lost": 0}
        self._recorded = 0
        self._threads: tuple[threading.Thread, ...] = ()
        self._created = False

    def record(self, told: Any) -> None:
        """Have it written, soon. From any thread; on an event loop too, since no disk and no database is waited for."""
        if not self._threads:
            self._start()
        # Made here and not by the thread that writes: measured, that takes as much of the processor (0.1 ms a request) and
        # serves no more requests, and what is told would keep each request alive until its group is written.
        try:
            record = self._make(told)
        except Exception as defect:  # noqa: BLE001 (a defect in one line must not cost the others)
            logger.error("a line of the ledger could not be made (%s) and is lost", type(defect).__name__)
            record = None
        with self._state:
            self._recorded += 1
            if record is None:
                self._counts["lost"] += 1
                self._state.notify_all()
                return
            self._waiting.append(record)
            if len(self._waiting) == 1:  # else the other thread knows, and wakes when the group is complete
                self._state.notify_all()
            too_many = len(self._waiting) > self._most_waiting
        if too_many:
            self._news.set()

    @property
    def counts(self) -> Written:
        """What became of what was recorded."""
        with self._state:
            return Written(self._recorded, **self._counts)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was recorded so far is written or spilled; False where the time did not suffice."""
        until = time.monotonic() + timeout_s
        wanted = self.counts.recorded
        with self._state:
            while sum(self._counts.values()) < wanted:
                if not self._state.wait(max(0.0, until - time.monotonic())) and time.monotonic() >= until:
                    return False
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, or spill what cannot be written in time. Nothing may be recorded after it."""
        self._closing.set()
        self._news.set()
        if not self._threads:
            return
        relief, storer = self._threads
        relief.join()
        with self._state:
            self._made_all = True
            self._state.notify_all()
        storer.join(timeout_s)
        if storer.is_alive():
            with self._state:
                left = [*self._under_way, *self._waiting]  # those under way may be written twice, which does no harm
                self._under_way, self._waiting = [], []
            self._put_aside(left)
        self._threads = ()

    def _start(self) -> None:
        with self._state:
            if self._threads:
                return
            threads = tuple(
                threading.Thread(target=each, name=f"trimtab-ledger-{name}", daemon=True)
                for name, each in (("relief", self._relieve), ("storer", self._store_records))
            )
            for each in threads:
                each.start()
            self._threads = threads

    def _relieve(self) -> None:
        """Put aside what waits, where it has become too much: the thread that writes is held up."""
        while not self._closing.is_set():
            self._news.wait()
            self._news.clear()
            aside: list[Record] = []
            with self._state:
                if len(self._waiting) > self._most_waiting:
                    aside, self._waiting = self._waiting, []
            self._put_aside(aside)

    def _put_aside(self, records: Sequence[Record], *, retry: bool = False) -> None:
        """Into a file; with `retry`, where the disk takes nothing either, back in front of those that wait, if there is
        room."""
        if not records:
            return
        try:
            self._spill.add(records)
        except OSError as error:
            with self._state:
                if retry and len(records) + len(self._waiting) <= self._most_waiting:
                    self._waiting = [*records, *self._waiting]
                    return
            logger.error(
                "%d lines of the ledger are lost: neither database nor disk (%s)", len(records), error.strerror
            )
            self._count("lost", len(records))
        else:
            self._count("spilled", len(records))

    def _count(self, name: str, number: int) -> None:
        with self._state:
            self._counts[name] += number
            self._state.notify_all()

    # --- the storer -----------------------------------------------------------------------------------------------------

    def _store_records(self) -> None:
        last_s, retry_s, upkeep_s = float("-inf"), 0.0, 0.0
        while True:
            with self._state:
                self._wait_for_a_group(last_s, retry_s)
                self._under_way = self._waiting[:MOST_AT_ONCE]
                del self._waiting[:MOST_AT_ONCE]
                records, over = self._under_way, self._made_all
            if records:
                last_s = time.monotonic()
                self._store(records)
            elif over:
                return
            if time.monotonic() >= retry_s and not over:
                retry_s = time.monotonic() + (0.0 if self._take_up() else self._retry_s)
                if time.monotonic() >= upkeep_s and self._keep_up():
                    upkeep_s = time.monotonic() + UPKEEP_S

    def _wait_for_a_group(self, last_s: float, retry_s: float) -> None:
        while not self._made_all and time.monotonic() < retry_s:
            group_s = last_s + (GROUP_WHILE_AWAY_S if self._away else self._group_s)
            due_s = min(group_s, retry_s) if self._waiting else retry_s
            if time.monotonic() >= due_s:
                return
            self._state.wait(due_s - time.monotonic())

    def _store(self, records: list[Record]) -> None:
        refused = None if self._away else self._try(records)
        with self._state:
            mine = bool(self._under_way)  # unless `close` had no time to wait, and has put them aside
            self._under_way = []
            if mine and refused is not None:
                self._counts["written"] += len(records) - refused
                self._counts["refused"] += refused
                self._state.notify_all()
        if mine and refused is None:
            self._put_aside(records, retry=not self._closing.is_set())

    def _try(self, records: list[Record]) -> int | None:
        """How many the database refused for good, and were put aside one by one, the others being written; None where it
        is away."""
        try:
            self._write(records)
        except SQLAlchemyError as error:
            # a StatementError that is no DBAPIError: a value that cannot even be sent
            if not (
                isinstance(error, _OWN_FAULT)
                or (isinstance(error, StatementError) and not isinstance(error, DBAPIError))
            ):
                self._is_away(error)
                return None
            return self._one_by_one(records, error)
        except _OWN_FAULT as error:
            return self._one_by_one(records, error)
        if self._away:
            logger.warning("the ledger's database is back")
        self._away = False
        return 0

    def _one_by_one(self, records: list[Record], error: Exception) -> int | None:
        if len(records) == 1:
            self._refuse(records, error)
            return 1
        each = [self._try([record]) for record in records]
        return None if None in each else sum(refused or 0 for refused in each)

    def _write(self, records: list[Record]) -> None:
        if not self._created:
            self._database.create(TABLES)
            self._created = True
        write(self._database, records)

    def _keep_up(self) -> bool:
        try:
            self._upkeep(self._database)
        except SQLAlchemyError as error:
            logger.error("the ledger's upkeep failed (%s) and is tried again", type(error).__name__)
            return False
        return True

    def _is_away(self, error: Exception) -> None:
        if not self._away:  # its message would quote the row
            logger.error("the ledger's database cannot be written (%s); lines go to a file", type(error).__name__)
        self._away = True

    def _refuse(self, records: list[Record], error: Exception) -> None:
        name = type(error).__name__
        logger.error("the database refuses a line of the ledger (%s); it is kept in %s", name, self._spill.folder)
        try:
            self._spill.refuse(records)
        except OSError as full:
            logger.error("it cannot be kept there (%s) and is lost", full.strerror)

    def _take_up(self) -> bool:
        """Write what lies in the oldest file. Whether there was one, and there may be more."""
        try:
            file = self._spill.oldest()
            if file is None:
                self._away = False  # nothing to try it with: the next record does
                return False
            records = self._spill.read(file)
            for at in range(0, len(records), MOST_AT_ONCE):
                if self._try(records[at : at + MOST_AT_ONCE]) is None:
                    return False
            self._spill.drop(file)
        except OSError as error:
            logger.error("a file of the ledger's cannot be taken up (%s)", type(error).__name__)
            return False
        logger.warning("%d lines of the ledger were taken up from a file", len(records))
        return True
