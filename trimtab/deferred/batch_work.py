"""Work on batches: their files are read into jobs, and when the jobs are over their answers are written into files.

Each step can be done again from its start without harm: lines become jobs once, under the batch's and their own name, and
files are kept under ids that were set aside before. So a process may be killed at any instant, and whoever claims the batch
next goes on. Holds a few hundred lines in memory, however many there are.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any, BinaryIO, Final

from sqlalchemy.exc import SQLAlchemyError

from trimtab.deferred import batches as states
from trimtab.deferred.batch_lines import ENDPOINTS, MAX_LINES, BadLine, CheckUrl, Line, count_lines, read_lines
from trimtab.deferred.batch_outcome import Answer, Totals, line_of
from trimtab.deferred.batches import Batch, Batches, counts_of
from trimtab.deferred.files import KEPT_S, Files, StoredFile, Writing
from trimtab.deferred.jobs import CHUNK_BYTES, CHUNK_JOBS, EXPIRED, Job, Jobs, NewJob
from trimtab.errors import BadRequest
from trimtab.http import in_thread
from trimtab.options import seconds_until

logger = logging.getLogger("trimtab")

RETRY_S: Final = 30.0
"""After a defect, so that one batch cannot keep the others waiting."""
MAX_ERRORS: Final = 100
"""So many of its lines' errors are told of a batch that failed."""
SWEEP_S: Final = 3600.0

_IDLE_S: Final = 5.0
_CHUNK_LINES: Final = 500


class BatchWork:
    """Carries batches on. Any number may do so at once, in any process.

    `clock` gives seconds since 1970; `max_line_bytes` is the longest request that is taken, `max_lines` the most of them.
    A lease of `lease_s` is renewed after every chunk; whoever dies is followed after so long. A batch is forgotten, with its
    lines, `kept_s` after its end.
    """

    def __init__(
        self,
        batches: Batches,
        files: Files,
        jobs: Jobs,
        max_line_bytes: int,
        check_url: CheckUrl,
        *,
        max_lines: int = MAX_LINES,
        lease_s: float = 60.0,
        kept_s: float = KEPT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lease_s = lease_s
        self._kept_s = kept_s
        self._batches = batches
        self._files = files
        self._jobs = jobs
        self._max_line_bytes = max_line_bytes
        self._check_url = check_url
        self._max_lines = max_lines
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._sweep_at = 0.0
        self._stopping = threading.Event()
        self._news = asyncio.Event()

    def wake(self) -> None:
        """There is something to do. Call it on the event loop of `run`."""
        self._news.set()

    def stop(self) -> None:
        """End `run` after the chunk at hand."""
        self._stopping.set()
        self._news.set()

    async def run(self) -> None:
        """Carry batches on until `stop`. A database or a folder that is away is waited for."""
        while not self._stopping.is_set():
            self._news.clear()
            try:
                wait_s = await in_thread(self._round)
            except (SQLAlchemyError, OSError) as error:
                logger.warning("batches wait for what they are kept in (%s)", type(error).__name__)
                wait_s = _IDLE_S
            if wait_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()

    def _round(self) -> float:
        """One step, if there is one to do, and a sweep now and then. Gives the seconds until there may be another."""
        if time.monotonic() >= self._sweep_at:
            self.sweep()
            self._sweep_at = time.monotonic() + SWEEP_S
        if self.step():
            return 0.0
        due_at = self._batches.next_due_at()
        return _IDLE_S if due_at is None else min(_IDLE_S, max(0.0, due_at - self._clock()))

    def sweep(self) -> None:
        """Forget files, and batches with their lines, whose time is over."""
        self._files.sweep()
        while old := self._batches.over_before(self._clock() - self._kept_s):
            for batch_id in old:
                self._jobs.forget_batch(batch_id)
                self._batches.forget(batch_id)

    def step(self) -> bool:
        """Carry the batch on that has waited for the longest; False where none has anything to do."""
        batch = self._batches.claim(self._owner, self._clock(), self._lease_s)
        if batch is None:
            return False
        again_s = RETRY_S
        try:
            again_s = self._carry_on(batch)
        except Exception as defect:  # noqa: BLE001 (one batch's trouble, a full disk say, must not end the others' work)
            logger.error("batch %s is %s and did not get on (%s)", batch.id, batch.status, type(defect).__name__)
        finally:
            self._batches.give_back(batch, self._owner, self._clock() + again_s)
        return True

    def _carry_on(self, batch: Batch) -> float:
        """One state further, if it can be. Gives the seconds after which to look again."""
        if batch.status == states.VALIDATING:
            self._read(batch)
            return 0.0
        if batch.status == states.CANCELLING:
            self._jobs.cancel_batch(batch.id, self._clock())
        if left := self._jobs.counts(batch.id).open:
            return min(_IDLE_S, 0.2 + left / 1000)
        self._conclude(batch)
        return 0.0

    def _holds(self, batch: Batch) -> bool:
        """Whether to go on with it; then nobody else does for a while."""
        return not self._stopping.is_set() and self._batches.renew(batch, self._owner, self._clock() + self._lease_s)

    # --- from a file to jobs ---------------------------------------------------------------------------------------------

    def _read(self, batch: Batch) -> None:
        try:
            found = self._files.find(batch.caller.tenant, batch.order.input_file_id)
            content = self._files.path(found.id).open("rb")
        except (BadRequest, FileNotFoundError):
            reason = f"The input file {batch.order.input_file_id} is not there any more."
            return self._fail(batch, "input_file_not_found", reason)
        with content:
            count = count_lines(content, self._max_lines + 1)
            if count > self._max_lines:
                reason = f"The batch input file has more than {self._max_lines:,} lines; send it as several."
                return self._fail(batch, "too_many_tasks", reason)
            if count == 0:
                return self._fail(batch, "empty_file", "The batch input file is empty.")
            content.seek(0)
            if not self._take(batch, content):
                return None
        if self._jobs.counts(batch.id).total == 0:
            first = [each.to_dict() for each in islice(self._batches.bad_lines(batch), MAX_ERRORS)]
            self._batches.move(batch, self._owner, states.FAILED, self._clock(), errors=first, outcome=_none(count))
        else:
            self._batches.move(batch, self._owner, states.IN_PROGRESS, self._clock())
        return None

    def _take(self, batch: Batch, content: BinaryIO) -> bool:
        """Lines into jobs, and bad ones into the list of them; False where somebody else goes on with it, or nobody."""
        self._batches.forget_bad_lines(batch)
        surface, options = ENDPOINTS[batch.order.endpoint], batch.order.options
        lines = read_lines(content, surface, options, self._max_line_bytes, self._check_url)
        for chunk in _chunks(lines):
            self._jobs.accept([_job(batch, each) for each in chunk if isinstance(each, Line)], self._clock())
            self._batches.note_bad_lines(batch, [each for each in chunk if isinstance(each, BadLine)])
            if not self._holds(batch):
                return False
        return True

    def _fail(self, batch: Batch, code: str, message: str) -> None:
        error = {"code": code, "line": None, "message": message, "param": None}
        self._batches.move(batch, self._owner, states.FAILED, self._clock(), errors=[error], outcome=_none(0))

    # --- from jobs to files ----------------------------------------------------------------------------------------------

    def _conclude(self, batch: Batch) -> None:
        if batch.output_file_id is None:
            # The ids first: then whoever does this again writes the same files and no others.
            status = batch.status if batch.status == states.CANCELLING else states.FINALIZING
            ids = {"output_file_id": self._files.new_id(), "error_file_id": self._files.new_id()}
            self._batches.move(batch, self._owner, status, self._clock(), **ids)
            return
        with ExitStack() as stack:
            output, errors = (stack.enter_context(self._files.writing()) for _ in range(2))
            written = self._write(batch, output, errors)
            if written is None:
                return
            totals, bad, late = written
            kept = {
                "output_file_id": self._kept(batch, output, batch.output_file_id, "output"),
                "error_file_id": self._kept(batch, errors, batch.error_file_id, "errors"),
            }
        outcome = {
            "counts": asdict(counts_of(totals.states, bad)),
            "usage": totals.usage(),
            "totals": totals.to_dict(),
        }
        end = states.CANCELLED if batch.status == states.CANCELLING else states.EXPIRED if late else states.COMPLETED
        self._batches.move(batch, self._owner, end, self._clock(), **kept, outcome=outcome)

    def _write(self, batch: Batch, output: Writing, errors: Writing) -> tuple[Totals, int, bool] | None:
        """Every line into its file, in the order of the input. Gives what they came to, how many were bad, and whether the
        batch's own time was too short; None where somebody else goes on with it, or nobody."""
        totals, bad, late = Totals(), 0, False
        for count, each in enumerate(_in_order(self._jobs.of_batch(batch.id), self._batches.bad_lines(batch)), 1):
            if isinstance(each, BadLine):
                bad += 1
                errors.write(line_of(each, batch.id))
            else:
                answer = Answer.of(*each)
                totals.add(answer)
                late = late or (answer.job.state == EXPIRED and answer.job.deadline_at >= batch.expires_at)
                (output if answer.good else errors).write(answer.line())
            if count % _CHUNK_LINES == 0 and not self._holds(batch):
                return None
        return totals, bad, late

    def _kept(self, batch: Batch, writing: Writing, file_id: str | None, word: str) -> str | None:
        if not writing.size_bytes:
            return None
        name, lifetime_s = f"{batch.id}_{word}.jsonl", batch.order.output_lifetime_s
        kept: StoredFile = self._files.keep(writing, batch.caller.tenant, name, "batch_output", lifetime_s, file_id)
        return kept.id


def _chunks(lines: Iterable[Line | BadLine]) -> Iterator[Sequence[Line | BadLine]]:
    """As many as one transaction takes."""
    chunk: list[Line | BadLine] = []
    size_bytes = 0
    for each in lines:
        length = len(each.body) if isinstance(each, Line) else 0
        if len(chunk) >= CHUNK_JOBS or size_bytes + length > CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(each)
        size_bytes += length
    yield chunk


def _job(batch: Batch, line: Line) -> NewJob:
    deadline_at = batch.expires_at
    if line.options.deadline is not None:
        # from the batch's beginning on, so that it says the same when the line is read again
        begun = datetime.fromtimestamp(batch.created_at, UTC)
        deadline_at = min(deadline_at, batch.created_at + seconds_until(line.options.deadline, begun))
    return NewJob(
        caller=batch.caller,
        surface=batch.order.endpoint,
        body=line.body,
        deadline_at=deadline_at,
        batch_id=batch.id,
        line=line.number,
        custom_id=line.custom_id,
        callback_url=line.callback_url,
    )


def _in_order(
    jobs: Iterable[tuple[Job, bytes | None]], bad: Iterable[BadLine]
) -> Iterator[tuple[Job, bytes | None] | BadLine]:
    numbered: list[Iterator[tuple[int, Any]]] = [
        ((job.line or 0, (job, content)) for job, content in jobs),
        ((each.number, each) for each in bad),
    ]
    for _, each in heapq.merge(*numbered, key=lambda pair: pair[0]):
        yield each


def _none(failed: int) -> dict[str, Any]:
    """The outcome of a batch that never began."""
    return {"counts": {"total": failed, "completed": 0, "failed": failed}}
