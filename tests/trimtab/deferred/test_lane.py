"""The lane at work on a store, in this process: deadlines, batches that are late, databases that are away, neighbours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy.exc import OperationalError

from retrieval.store import DiskStore
from tests.loopback import ok, status
from tests.loopback_batches import Batch, BatchProvider
from tests.retrieval.fake_encoder import WordEncoder
from trimtab import Trimtab, pipeline
from trimtab.caller import Caller, OpenGate
from trimtab.conclusion import Conclusion
from trimtab.contexts import Contexts
from trimtab.database import Database
from trimtab.deferred import lane as lanes
from trimtab.deferred import shipping
from trimtab.deferred.jobs import COMPLETED, EXPIRED, FAILED, OPEN, Counts, Job, Jobs, NewJob
from trimtab.deferred.lane import Lane
from trimtab.deferred.shipments import Shipments
from trimtab.edge import Edge

MODEL = "claude-haiku-5-5"
CALLER = Caller("tenant", "key")


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SentenceTransformerEncoder", lambda _: WordEncoder("lanes"))
    monkeypatch.setattr(shipping, "GATHER_S", (0.1, 0.2))
    monkeypatch.setattr(shipping, "POLL_S", (0.1, 0.2))
    monkeypatch.setattr(lanes, "IDLE_S", 0.05)
    monkeypatch.setattr(lanes, "AWAY_S", 0.1)
    monkeypatch.setenv("TRIMTAB_TEST_KEY", "sk-any")


class Clock:
    """Real time, and what was added to it."""

    def __init__(self) -> None:
        self.added_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.added_s


def body(n: int, **options: Any) -> bytes:
    asked = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": f"Question {n}?"}]}
    return orjson.dumps({**asked, "trimtab": options})


class Rig:
    """Jobs in a database, and lanes of their own that work on them."""

    def __init__(self, provider: BatchProvider, folder: Path, **settings: Any) -> None:
        seller = {
            "name": "anthropic",
            "kind": "anthropic",
            "base_url": provider.base_url,
            "models": [MODEL],
            "api_key_env": "TRIMTAB_TEST_KEY",
            "batches": True,
        }
        self._settings = {"providers": [seller], "data_dir": folder, "cache_dir": folder / "cache", **settings}
        self._folder = folder
        self.clock = Clock()
        self.jobs = self.store()
        self.concluded: list[Conclusion] = []

    def store(self) -> Jobs:
        jobs = Jobs(Database(f"sqlite:///{self._folder / 'jobs.sqlite'}"))
        jobs.create()
        Shipments(jobs.database).create()
        return jobs

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        trimtab = Trimtab(self._settings)
        trimtab.listeners.append(self.concluded.append)
        edge, jobs = Edge(trimtab, OpenGate()), self.store()
        contexts = Contexts(DiskStore(self._folder / "contexts", 2**30), 0)
        async with edge.serving():
            lane = Lane(edge, jobs, Shipments(jobs.database), contexts, self.clock)
            async with lane.serving():
                yield lane
        contexts.close()
        jobs.database.close()

    def accept(self, count: int, within_s: float, **options: Any) -> None:
        deadline_at = self.clock() + within_s
        lines = [
            NewJob(CALLER, "/v1/messages", body(n, **options), deadline_at, batch_id="b", line=n, custom_id=str(n))
            for n in range(count)
        ]
        self.jobs.accept(lines, self.clock())

    def over(self) -> list[tuple[Job, bytes | None]]:
        return list(self.jobs.of_batch("b"))

    async def until(self, what: Callable[[], object], within_s: float = 20.0) -> None:
        until = time.monotonic() + within_s
        while not await asyncio.to_thread(what):
            assert time.monotonic() < until, self.jobs.counts("b")
            await asyncio.sleep(0.05)

    async def until_over(self) -> None:
        await self.until(lambda: self.jobs.counts("b").open == 0)

    def billed_usd(self) -> Decimal:
        receipts = [orjson.loads(job.receipt) for job, _ in self.over() if job.receipt is not None]
        return sum((Decimal(each["billed_cost_usd"]) for each in receipts), Decimal(0))


def ran(folder: Path, provider: BatchProvider, work: Callable[[Rig], Any], **settings: Any) -> Rig:
    with provider:
        rig = Rig(provider, folder, **settings)
        asyncio.run(work(rig))
    rig.jobs.database.close()
    return rig


def test_lines_are_shipped_together_and_told_like_requests(tmp_path: Path) -> None:
    provider = BatchProvider("anthropic")

    async def work(rig: Rig) -> None:
        rig.accept(60, 6 * 3600.0)
        async with rig.lane():
            await rig.until_over()

    rig = ran(tmp_path, provider, work)
    assert rig.jobs.counts("b") == Counts(completed=60)
    assert len(provider.held) == 1
    assert {(each.status, each.caller, each.receipt.processing) for each in rig.concluded} == {(200, CALLER, "batch")}
    told = {orjson.loads(job.receipt or "{}")["id"] for job, _ in rig.over()}
    assert {each.receipt.id for each in rig.concluded} == told
    assert len(told) == 60


def test_two_lanes_share_the_work_and_nothing_is_bought_twice(tmp_path: Path) -> None:
    provider = BatchProvider("anthropic", [Batch(delay_s=0.3)] * 9)

    async def work(rig: Rig) -> None:
        rig.accept(300, 6 * 3600.0)
        async with rig.lane(), rig.lane():
            await rig.until_over()

    rig = ran(tmp_path, provider, work)
    assert rig.jobs.counts("b") == Counts(completed=300)
    assert len(provider.bill) == len({each.custom_id for each in provider.bill}) == 300
    assert len(rig.concluded) == 300


def test_a_batch_that_is_late_is_called_back_and_bought_at_once(tmp_path: Path) -> None:
    """Two of its five lines were answered by then, and are kept; only the others are bought again."""
    provider = BatchProvider("anthropic", [Batch(delay_s=86_000, answered=2)], script=[ok("At once.")] * 9)
    provider.cancelling_s = 0.3

    async def work(rig: Rig) -> None:
        rig.accept(5, 6 * 3600.0)
        async with rig.lane():
            await rig.until(lambda: rig.jobs.counts("b").shipped == 5 and provider.held)
            rig.clock.added_s = 6 * 3600.0 - 200.0
            provider.clock = rig.clock
            await rig.until_over()

    rig = ran(tmp_path, provider, work)
    assert rig.jobs.counts("b") == Counts(completed=5)
    assert sorted(job.lane or "" for job, _ in rig.over()) == ["batch", "batch", "sync", "sync", "sync"]
    assert len(provider.bill) == 5


def test_what_is_late_has_failed_and_nothing_more_is_spent_on_it(tmp_path: Path) -> None:
    provider = BatchProvider("anthropic")

    async def work(rig: Rig) -> None:
        rig.accept(3, 30.0)
        rig.clock.added_s = 60.0
        async with rig.lane():
            await rig.until_over()

    rig = ran(tmp_path, provider, work)
    assert rig.jobs.counts("b") == Counts(expired=3)
    assert [(job.state, job.status, content) for job, content in rig.over()] == [(EXPIRED, None, None)] * 3
    assert provider.bill == []
    assert provider.requests == []


def test_a_short_deadline_is_bought_at_once_under_the_jobs_own_key(tmp_path: Path) -> None:
    provider = BatchProvider("anthropic", script=[ok("Soon.")] * 2)

    async def work(rig: Rig) -> None:
        rig.accept(2, 120.0)
        async with rig.lane():
            await rig.until_over()

    rig = ran(tmp_path, provider, work)
    assert [job.lane for job, _ in rig.over()] == ["sync", "sync"]
    assert len({each.headers["idempotency-key"] for each in provider.requests}) == 2
    assert {each.receipt.processing for each in rig.concluded} == {"sync"}


@pytest.mark.parametrize("whole_batch", [False, True])
def test_a_call_for_a_job_that_is_cancelled_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_batch: bool
) -> None:
    """Its slot, the only one, is the next job's at once."""
    monkeypatch.setattr(lanes, "AT_ONCE", 1)
    provider = BatchProvider("anthropic", script=[ok("Too late.", delay_s=600.0), ok("Next.")])

    async def work(rig: Rig) -> None:
        rig.accept(2, 400.0)
        async with rig.lane():
            await rig.until(lambda: provider.requests)
            (asked,) = provider.requests
            if whole_batch:
                rig.jobs.cancel_batch("b", rig.clock())
                new = NewJob(CALLER, "/v1/messages", body(3), rig.clock() + 400, batch_id="c", line=0, custom_id="c")
                rig.jobs.accept([new], rig.clock())
            else:
                jobs = [
                    job for job, _ in rig.jobs.of_batch("b", OPEN) if b"Question %d?" % (job.line or 0) in asked.body
                ]
                rig.jobs.cancel(jobs[0].id, CALLER.tenant, rig.clock())
            await rig.until(lambda: rig.jobs.counts("c" if whole_batch else "b").completed == 1)

    rig = ran(tmp_path, provider, work)
    assert rig.jobs.counts("b") == (Counts(cancelled=2) if whole_batch else Counts(completed=1, cancelled=1))
    assert len(provider.requests) == 2


@pytest.mark.parametrize("ticks", range(5))
def test_whoever_leaves_while_there_is_news_is_not_held(tmp_path: Path, ticks: int) -> None:
    """A cancellation that came together with news was lost, and the process never ended."""
    with BatchProvider("anthropic") as provider:
        rig = Rig(provider, tmp_path)

        async def work() -> None:
            async with rig.lane() as lane:
                for _ in range(3):
                    await asyncio.sleep(0.02)
                    lane.wake()
                for _ in range(ticks):
                    await asyncio.sleep(0)

        async def bounded() -> bool:
            done, _ = await asyncio.wait([asyncio.create_task(work())], timeout=20.0)
            return bool(done)

        assert asyncio.run(bounded())
        rig.jobs.database.close()


def test_a_provider_that_is_down_is_asked_again_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.deferred.buying._RETRY_S", (0.2, 0.5))
    provider = BatchProvider("anthropic", script=[*[status(500)] * 3, ok("Back.")])

    async def work(rig: Rig) -> None:
        rig.accept(1, 120.0)
        async with rig.lane():
            await rig.until_over()

    rig = ran(tmp_path, provider, work, max_attempts=1)
    ((job, content),) = rig.over()
    assert (job.state, job.attempts) == (COMPLETED, 3)
    assert content is not None
    assert b"Back." in content


def test_what_is_over_is_forgotten_after_a_while(tmp_path: Path) -> None:
    """By a lane that starts later; what is not over, and what is young, stays."""
    provider = BatchProvider("anthropic", script=[ok()] * 9)

    async def work(rig: Rig) -> None:
        single = NewJob(CALLER, "/v1/messages", body(0), rig.clock() + 120.0)
        (first,) = rig.jobs.accept([single], rig.clock())
        async with rig.lane():
            await rig.until(lambda: rig.jobs.results([first.id]))
        rig.clock.added_s = 2 * 86_400.0
        (second,) = rig.jobs.accept([replace(single, deadline_at=rig.clock() + 120.0)], rig.clock())
        async with rig.lane():
            await rig.until(lambda: rig.jobs.results([second.id]))
            assert rig.jobs.find(first.id, CALLER.tenant) is not None
        rig.clock.added_s = 4 * 86_400.0
        async with rig.lane():
            await rig.until(lambda: rig.jobs.find(first.id, CALLER.tenant) is None)
        assert rig.jobs.bodies([first.id, second.id]).keys() == {second.id}
        assert rig.jobs.results([first.id, second.id]).keys() == {second.id}

    ran(tmp_path, provider, work, deferred_days=3)


def test_a_line_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    provider = BatchProvider("anthropic")

    async def work(rig: Rig) -> None:
        rig.accept(2, 6 * 3600.0)
        bad = orjson.dumps({"model": "no-such-model", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]})
        new = NewJob(CALLER, "/v1/messages", bad, rig.clock() + 3600, batch_id="b", line=2, custom_id="bad")
        rig.jobs.accept([new], rig.clock())
        async with rig.lane():
            await rig.until_over()

    rig = ran(tmp_path, provider, work)
    assert rig.jobs.counts("b") == Counts(completed=2, failed=1)
    job, content = rig.over()[2]
    assert (job.state, job.status) == (FAILED, 404)
    assert orjson.loads(content or b"")["type"] == "error"  # as Anthropic's clients know it


@pytest.mark.parametrize(
    ("store", "name"), [(Jobs, "bodies"), (Shipments, "intend"), (Shipments, "open_jobs"), (Jobs, "put_off")]
)
def test_what_was_let_go_in_the_middle_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: type, name: str
) -> None:
    """By the same process, which once went on to renew the lease of what it had dropped."""
    provider = BatchProvider("anthropic", [Batch(delay_s=0.3)] * 9)
    method, calls = getattr(store, name), []

    def once_away(*given: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            raise OperationalError("", None, Exception("the database is away"))
        return method(*given, **named)

    monkeypatch.setattr(store, name, once_away)

    async def work(rig: Rig) -> None:
        rig.accept(5, 6 * 3600.0)
        async with rig.lane():
            await rig.until_over()

    rig = ran(tmp_path, provider, work, deferred_lease_s=1.0)
    assert calls
    assert rig.jobs.counts("b") == Counts(completed=5)
    assert len(provider.bill) == 5


def test_a_database_that_is_away_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every store's call fails for a while, at every point of the way."""
    monkeypatch.setattr("trimtab.deferred.closing.RETRY_S", 0.1)
    provider = BatchProvider("anthropic", [Batch(delay_s=0.2)] * 9)
    away = {"until": 0.0}

    def failing(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            if time.monotonic() < away["until"]:
                raise OperationalError("", None, Exception("the database is away"))
            return method(*given, **named)

        return called

    for name in ("claim", "finish", "put_off", "bodies"):
        monkeypatch.setattr(Jobs, name, failing(getattr(Jobs, name)))
    for name in ("claim", "intend", "note", "jobs", "close", "open_jobs"):
        monkeypatch.setattr(Shipments, name, failing(getattr(Shipments, name)))

    async def work(rig: Rig) -> None:
        rig.accept(40, 6 * 3600.0)
        async with rig.lane():
            for _ in range(4):
                away["until"] = time.monotonic() + 0.3
                await asyncio.sleep(0.7)
            await rig.until_over()

    rig = ran(tmp_path, provider, work, deferred_lease_s=1.0)
    assert rig.jobs.counts("b") == Counts(completed=40)
    assert len(provider.bill) == len({each.custom_id for each in provider.bill}) == 40
