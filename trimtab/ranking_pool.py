"""The ranking pool: large payloads are ranked in processes of their own, beside the one that serves.

Ranking is Python that holds the interpreter's lock: in a thread it made every request beside it wait, a hundred
milliseconds at worst. Vectors need no sending: every process reads and fills the same cache on disk. Small payloads are
ranked in the caller's thread, which takes less time than sending them would.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from compressor import Ranker, Ranking, Source
from compressor.tokens import DEFAULT_ENCODING, count_tokens
from retrieval.vectors import CachedEncoder, owner_apart, vectors_apart
from trimtab.auto import Auto
from trimtab.settings import Settings

logger = logging.getLogger("trimtab")

LARGE_CHARACTERS: Final = 12_000
"""About 3,000 tokens: 10 ms of ranking in a thread, against 3 ms of sending."""
NICENESS: Final = 5
"""The processes give way to the one that serves, which has little to do and should do it at once."""
REST_S: Final = 5.0
"""After a process died (or could not be started) payloads are ranked in threads for this long before others are started."""


class Ranks(Protocol):
    """What ranks: a `Ranker`, or a pool of processes that have one each."""

    def rank(self, query: str, sources: Sequence[Source], encoding: str = DEFAULT_ENCODING) -> Ranking: ...


class RankingPool:
    """Ranks as `ranker` does. To be closed. Safe to share between threads, of which a call blocks one.

    `begin` is called in each process, once, and makes its ranker; it must be picklable. The first large payload starts a
    process and is itself ranked in its thread, as all are until the process is ready, and whenever one dies.

    The processes are spawned: Python imports the main module in them, so a script that serves needs the usual
    `if __name__ == "__main__":`, without which every payload is ranked in a thread.
    """

    def __init__(
        self,
        ranker: Ranker,
        begin: Callable[[], Ranker],
        processes: int,
        *,
        large_characters: int = LARGE_CHARACTERS,
        rest_s: float = REST_S,
    ) -> None:
        self._ranker = ranker
        self._begin = begin
        self._processes = processes
        self._large_characters = large_characters
        self._rest_s = rest_s
        self._changing = threading.Lock()
        self._executor: ProcessPoolExecutor | None = None
        self._ready = False
        self._rests_until_s = 0.0
        self._closed = processes < 1

    def rank(self, query: str, sources: Sequence[Source], encoding: str = DEFAULT_ENCODING) -> Ranking:
        """As `Ranker.rank`."""
        if sum(len(source.text) for source in sources) >= self._large_characters:
            executor = self._started()
            if executor is not None:
                with suppress(BrokenExecutor, CancelledError, RuntimeError):
                    return self._ranked_by(executor, query, sources, encoding)
                self._broke(executor)
        return self._ranker.rank(query, sources, encoding)

    @property
    def processes(self) -> tuple[int, ...]:
        """The ids of the processes that there are."""
        executor = self._executor
        return () if executor is None else tuple(executor._processes or ())

    @property
    def ready(self) -> bool:
        """Whether a process is ready to rank."""
        return self._ready

    def close(self) -> None:
        """End the processes. What they are ranking is ranked to its end first; what waits is ranked in threads."""
        with self._changing:
            self._closed, executor, self._executor, self._ready = True, self._executor, None, False
        if executor is not None:
            executor.shutdown(cancel_futures=True)

    def _ranked_by(
        self, executor: ProcessPoolExecutor, query: str, sources: Sequence[Source], encoding: str
    ) -> Ranking:
        future = executor.submit(_rank, owner_apart(), query, tuple(sources), encoding)
        ranking, asked, encoded = future.result()
        if isinstance(self._ranker.encoder, CachedEncoder):
            self._ranker.encoder.counted(asked, encoded)
        return ranking

    def _started(self) -> ProcessPoolExecutor | None:
        """The processes, once the first of them is ready; until then, None."""
        with self._changing:
            if self._executor is None and not self._closed and time.monotonic() >= self._rests_until_s:
                spawning = multiprocessing.get_context("spawn")  # forking a process with threads deadlocks
                self._executor = ProcessPoolExecutor(self._processes, spawning, _begun, (self._begin,))
                try:
                    begun = self._executor.submit(os.getpid)
                except (OSError, RuntimeError) as defect:  # no memory, no more allowed, or a main module being imported
                    self._rest(type(defect).__name__)
                else:
                    begun.add_done_callback(self._begun)
            return self._executor if self._ready else None

    def _begun(self, begun: Future[int]) -> None:
        if begun.cancelled():
            return
        with self._changing:
            if (defect := begun.exception()) is None:
                self._ready = not self._closed
            elif not self._closed:
                self._rest(type(defect).__name__)

    def _broke(self, executor: ProcessPoolExecutor) -> None:
        with self._changing:
            if executor is self._executor:
                self._rest("it died")

    def _rest(self, reason: str) -> None:
        logger.warning("a ranking process is gone (%s); payloads are ranked in threads for now", reason)
        executor, self._executor, self._ready = self._executor, None, False
        self._rests_until_s = time.monotonic() + self._rest_s
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)


@contextmanager
def ranking_pool(ranker: Ranker, settings: Settings) -> Iterator[RankingPool]:
    """A pool whose processes rank as the settings say, closed at the end: from then on it ranks in threads."""
    # only what ranking hangs on travels: prices are mappings that cannot be pickled
    own = replace(settings, providers=(), commitments=(), auto=Auto(), history_file=None, ledger=False)
    pool = RankingPool(ranker, partial(ranker_by, own), process_count(settings))
    try:
        yield pool
    finally:
        pool.close()


def process_count(settings: Settings) -> int:
    """How many processes rank: the settings' number, else one for every core that this process may use."""
    if settings.ranking_processes is not None:
        return settings.ranking_processes
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ranker_by(settings: Settings) -> Ranker:
    """The ranker of a process of its own, with its encoder loaded: that of a Trimtab that does nothing else."""
    from trimtab.pipeline import Trimtab  # which imports this module

    trimtab = Trimtab(settings)
    trimtab.warm_up()
    return trimtab.ranker


_rankers: list[Ranker] = []
"""In a process of a pool: its one ranker."""


def _begun(begin: Callable[[], Ranker]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches every process: the server ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    _rankers.append(begin())
    count_tokens("warm up")


def _end_with_parent() -> None:
    """A server that is killed cannot end its processes, and they wait for its word for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _rank(owner: str, query: str, sources: tuple[Source, ...], encoding: str) -> tuple[Ranking, int, int]:
    """In a process: the ranking, and how many passages' vectors were asked for, and made."""
    ranker = _rankers[0]
    encoder = ranker.encoder
    seen = (encoder.asked_passages, encoder.encoded_passages) if isinstance(encoder, CachedEncoder) else (0, 0)
    with vectors_apart(owner):
        ranking = ranker.rank(query, sources, encoding)
    ranking.steps()  # the curve and the sizes are worked out here, and travel along
    ranking.gap_tokens  # noqa: B018
    if not isinstance(encoder, CachedEncoder):
        return ranking, 0, 0
    return ranking, encoder.asked_passages - seen[0], encoder.encoded_passages - seen[1]
