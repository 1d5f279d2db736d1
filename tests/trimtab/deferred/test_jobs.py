"""The store of jobs, on SQLite and on PostgreSQL."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from routing.promotion import Turnaround
from tests.servers import postgres_url as postgres_url
from trimtab.caller import Caller
from trimtab.database import Database
from trimtab.deferred import shipments as states
from trimtab.deferred.jobs import (
    BODIES,
    CANCELLED,
    COMPLETED,
    EXPIRED,
    FAILED,
    JOBS,
    RESULTS,
    SHIPPED,
    WAITING,
    Counts,
    Job,
    Jobs,
    NewJob,
    Outcome,
    in_chunks,
)
from trimtab.deferred.shipments import SHIPMENTS, Shipment, Shipments, new_key

CALLER = Caller("tenant", "key", "team")
PATH = "/v1/chat/completions"


@pytest.fixture(params=["sqlite", "postgresql"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Jobs]:
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    else:
        database = Database(request.getfixturevalue("postgres_url"))
    made = Jobs(database)
    made.create()
    Shipments(database).create()
    with database.begin() as connection:
        for table in (JOBS, BODIES, RESULTS, SHIPMENTS):
            connection.execute(sa.delete(table))
    yield made
    database.close()


def new(number: int = 0, **more: Any) -> NewJob:
    return NewJob(CALLER, PATH, b'{"n":%d}' % number, **{"deadline_at": 1_000.0, **more})


def lines(count: int, batch_id: str = "b", deadline_at: float = 1_000.0) -> list[NewJob]:
    return [new(n, batch_id=batch_id, line=n, custom_id=f"line-{n}", deadline_at=deadline_at) for n in range(count)]


def done(job_id: str, content: bytes = b"{}", **more: Any) -> Outcome:
    return Outcome(job_id, COMPLETED, 200, content, **more)


class TestAccepting:
    def test_what_is_accepted_is_found_by_its_tenant_alone(self, jobs: Jobs) -> None:
        headers = {"OpenAI-Beta": "x", "Authorization": "secret"}
        (accepted,) = jobs.accept([new(callback_url="https://a.example/", headers=headers)], 5.0)
        job = jobs.find(accepted.id, "tenant")
        assert job is not None
        assert (job.caller, job.surface, job.accepted_at, job.deadline_at) == (CALLER, PATH, 5.0, 1_000.0)
        assert (job.state, job.over, job.headers, job.size_bytes) == (WAITING, False, {"openai-beta": "x"}, 7)
        assert jobs.bodies([job.id]) == {job.id: b'{"n":0}'}
        assert jobs.find(accepted.id, "another") is None

    def test_a_key_is_one_job(self, jobs: Jobs) -> None:
        (first,) = jobs.accept([new(1, idempotency_key="k")], 5.0)
        (again,) = jobs.accept([new(1, idempotency_key="k")], 6.0)
        (other,) = jobs.accept([new(2, idempotency_key="k")], 7.0)
        assert (again.id, again.fresh, again.same) == (first.id, False, True)
        assert (other.id, other.fresh, other.same) == (first.id, False, False)
        found = jobs.under_key(CALLER, PATH, "k")
        assert found is not None
        assert found[0].id == first.id
        assert jobs.under_key(Caller("another"), PATH, "k") is None
        assert jobs.bodies([first.id]) == {first.id: b'{"n":1}'}

    def test_a_custom_id_is_one_line_of_its_batch(self, jobs: Jobs) -> None:
        first = jobs.accept(lines(3), 5.0)
        again = jobs.accept([*lines(3), new(9, batch_id="b", line=9, custom_id="line-1")], 6.0)
        assert [each.id for each in again[:3]] == [each.id for each in first]
        assert not any(each.fresh for each in again)
        assert (again[3].id, again[3].same, again[3].line) == (first[1].id, False, 1)
        assert jobs.accept(lines(1, "c"), 6.0)[0].fresh
        assert jobs.counts("b") == Counts(waiting=3)

    def test_two_that_accept_the_same_at_once_agree(self, jobs: Jobs) -> None:
        with ThreadPoolExecutor(4) as pool:
            told = list(pool.map(lambda _: jobs.accept(lines(50), 5.0), range(4)))
        assert len({tuple(each.id for each in accepted) for accepted in told}) == 1
        assert sum(each.fresh for accepted in told for each in accepted) == 50

    def test_chunks_are_bounded_by_number_and_by_size(self) -> None:
        sizes = [3, 1, 8, 2, 2, 2]
        stream = [NewJob(CALLER, PATH, b"x" * size, 1.0) for size in sizes]
        assert [[len(each.body) for each in chunk] for chunk in in_chunks(iter(stream), 3, 6)] == [
            [3, 1],
            [8],
            [2, 2, 2],
        ]
        assert list(in_chunks([])) == []


class TestClaiming:
    def test_the_earliest_deadline_goes_first_and_nobody_gets_it_twice(self, jobs: Jobs) -> None:
        late, soon = jobs.accept([new(deadline_at=90.0), new(deadline_at=50.0)], 5.0)
        assert [each.id for each in jobs.claim("a", 6.0, 10.0, 1)] == [soon.id]
        assert [each.id for each in jobs.claim("b", 6.0, 10.0)] == [late.id]
        assert jobs.claim("c", 7.0, 10.0) == ()

    def test_what_its_owner_does_not_renew_comes_back(self, jobs: Jobs) -> None:
        mine = [each.id for each in jobs.accept(lines(2), 5.0)]
        jobs.claim("a", 6.0, 10.0)
        jobs.renew("a", mine, 15.0, 10.0)
        assert jobs.claim("b", 24.0, 10.0) == ()
        assert len(jobs.claim("b", 25.0, 10.0)) == 2
        jobs.renew("a", mine, 26.0, 1_000.0)
        assert len(jobs.claim("c", 36.0, 10.0)) == 2
        jobs.release("c")
        assert len(jobs.claim("d", 36.0, 10.0)) == 2

    def test_what_is_put_off_is_due_later(self, jobs: Jobs) -> None:
        (accepted,) = jobs.accept([new()], 5.0)
        jobs.claim("a", 6.0, 10.0)
        jobs.put_off("b", [(accepted.id, 0.0, "not its owner's")])
        jobs.put_off("a", [(accepted.id, 60.0, "note")], tried=True)
        assert jobs.claim("a", 59.0, 10.0) == ()
        (job,) = jobs.claim("b", 60.0, 10.0)
        assert (job.plan, job.attempts) == ("note", 1)

    def test_many_owners_share_without_overlap(self, jobs: Jobs) -> None:
        jobs.accept(lines(200), 5.0)
        with ThreadPoolExecutor(4) as pool:
            claimed = list(pool.map(lambda n: jobs.claim(f"owner-{n}", 6.0, 10.0, 20), range(12)))
        ids = [each.id for part in claimed for each in part]
        assert len(ids) == len(set(ids)) == 200


class TestFinishing:
    def test_the_first_result_counts(self, jobs: Jobs) -> None:
        (accepted,) = jobs.accept([new()], 5.0)
        first = done(accepted.id, b'{"first":1}', receipt='{"id":"r"}', lane="sync")
        assert jobs.finish([first], 7.0) == {accepted.id}
        assert jobs.finish([Outcome(accepted.id, FAILED, 500, b"{}"), done(accepted.id)], 8.0) == set()
        job = jobs.find(accepted.id, "tenant")
        assert job is not None
        assert (job.state, job.status, job.finished_at, job.lane, job.receipt) == (
            COMPLETED,
            200,
            7.0,
            "sync",
            '{"id":"r"}',
        )
        assert jobs.results([accepted.id]) == {accepted.id: b'{"first":1}'}

    def test_of_two_in_one_breath_the_first_counts(self, jobs: Jobs) -> None:
        (accepted,) = jobs.accept([new()], 5.0)
        assert jobs.finish([done(accepted.id, b"1"), done(accepted.id, b"2")], 7.0) == {accepted.id}
        assert jobs.results([accepted.id]) == {accepted.id: b"1"}

    def test_many_that_finish_at_once_end_it_once(self, jobs: Jobs) -> None:
        accepted = jobs.accept(lines(20), 5.0)
        with ThreadPoolExecutor(4) as pool:
            ended = list(
                pool.map(lambda n: jobs.finish([done(each.id, b"%d" % n) for each in accepted], 7.0), range(8))
            )
        assert sorted(len(each) for each in ended) == [0] * 7 + [20]

    def test_cancelling_is_an_end_too(self, jobs: Jobs) -> None:
        (accepted,) = jobs.accept([new()], 5.0)
        assert jobs.cancel(accepted.id, "another", 6.0) is None
        job = jobs.cancel(accepted.id, "tenant", 6.0)
        assert job is not None
        assert (job.state, job.finished_at) == (CANCELLED, 6.0)
        assert jobs.finish([done(accepted.id)], 7.0) == set()
        assert jobs.claim("a", 8.0, 1.0) == ()
        (over,) = jobs.accept([new(1)], 5.0)
        jobs.finish([done(over.id)], 6.0)
        kept = jobs.cancel(over.id, "tenant", 7.0)
        assert kept is not None
        assert kept.state == COMPLETED

    def test_a_batch_is_cancelled_as_far_as_it_is_open(self, jobs: Jobs) -> None:
        accepted = jobs.accept([*lines(3), *lines(1, "c")], 5.0)
        jobs.finish([done(accepted[1].id)], 6.0)
        assert jobs.cancel_batch("b", 7.0) == 2
        assert (jobs.counts("b"), jobs.counts("c")) == (Counts(completed=1, cancelled=2), Counts(waiting=1))

    def test_results_come_in_the_order_of_the_lines(self, jobs: Jobs) -> None:
        accepted = jobs.accept(lines(250), 5.0)
        odd = [each for each in accepted if each.line is not None and each.line % 2]
        jobs.finish([done(each.id, b"%d" % (each.line or 0)) for each in reversed(odd)], 6.0)
        jobs.finish([Outcome(accepted[0].id, EXPIRED, error="late")], 6.0)
        told = [(job.line, job.custom_id, content) for job, content in jobs.of_batch("b")]
        assert told == [(0, "line-0", None), *((n, f"line-{n}", b"%d" % n) for n in range(1, 250, 2))]
        assert [job.line for job, _ in jobs.of_batch("b", after_line=245)] == [247, 249]
        assert sum(1 for _ in jobs.of_batch("b", (WAITING,))) == 124

    def test_whoever_is_told_of_an_end_writes_in_its_transaction(self, jobs: Jobs) -> None:
        told: list[tuple[str, str]] = []

        def listener(connection: sa.Connection, job: Job) -> None:
            told.append((job.id, job.state))
            if job.state == FAILED:
                raise RuntimeError("the disk is full")

        jobs.finished.append(listener)
        called, silent, third = jobs.accept(
            [new(1, callback_url="https://a.example/"), new(2), new(3, callback_url="x")], 5.0
        )
        jobs.finish([done(called.id), done(silent.id)], 6.0)
        jobs.finish([done(called.id)], 7.0)
        assert told == [(called.id, COMPLETED)]
        with pytest.raises(RuntimeError):
            jobs.finish([Outcome(third.id, FAILED)], 8.0)
        jobs.cancel(third.id, "tenant", 9.0)
        assert told[1:] == [(third.id, FAILED), (third.id, CANCELLED)]

    def test_a_receipt_is_amended_once_it_is_over(self, jobs: Jobs) -> None:
        over, still = jobs.accept([new(1), new(2)], 5.0)
        jobs.finish([done(over.id, receipt="1")], 6.0)
        jobs.amend({over.id: lambda job: f"{job.receipt}+2", still.id: lambda _: "never"})
        jobs.amend({over.id: lambda _: None})
        receipts = [job.receipt for each in (over, still) if (job := jobs.find(each.id, "tenant"))]
        assert receipts == ["1+2", None]


class TestShipping:
    def shipment(self, count: int, intended_at: float = 10.0) -> Shipment:
        return Shipment(new_key(), "openai", "{}", states.INTENDED, count, 1_000.0, intended_at)

    def test_only_what_is_still_its_owners_goes_along(self, jobs: Jobs) -> None:
        shipments, accepted = Shipments(jobs.database), jobs.accept(lines(4), 5.0)
        jobs.claim("a", 6.0, 100.0, 3)
        jobs.cancel(accepted[0].id, "tenant", 7.0)
        shipment = self.shipment(4)
        taken = shipments.intend(shipment, {each.id: "note" for each in accepted}, "a", 10.0, 100.0)
        assert taken == {accepted[1].id, accepted[2].id}
        job = jobs.find(accepted[1].id, "tenant")
        assert job is not None
        assert (job.state, job.shipment_id, job.plan, job.lane, job.attempts) == (
            SHIPPED,
            shipment.id,
            "note",
            "batch",
            1,
        )
        assert jobs.counts("b") == Counts(waiting=1, shipped=2, cancelled=1)
        assert shipments.intend(self.shipment(1), {accepted[1].id: "again"}, "a", 11.0, 100.0) == set()
        assert shipments.claim("b", 50.0, 10.0, 9) == ()
        (claimed,) = shipments.claim("b", 110.0, 10.0, 9)
        assert (claimed.id, claimed.jobs, claimed.state) == (shipment.id, 2, states.INTENDED)

    def test_what_it_did_not_answer_waits_again(self, jobs: Jobs) -> None:
        shipments, accepted = Shipments(jobs.database), jobs.accept(lines(3), 5.0)
        jobs.claim("a", 6.0, 100.0)
        shipment = self.shipment(3)
        shipments.intend(shipment, {each.id: "note" for each in accepted}, "a", 10.0, 100.0)
        shipments.put_off(shipment.id, "a", 20.0, state=SHIPPED, provider_batch_id="batch_1")
        assert shipments.known("openai") == {"batch_1"}
        jobs.finish([done(accepted[0].id, shipment_id=shipment.id)], 30.0)
        shipments.take_out(shipment.id, [accepted[1].id], 31.0)
        assert jobs.finish([done(accepted[1].id, shipment_id=shipment.id)], 32.0) == set()
        assert shipments.close(shipment.id, states.COLLECTED, 110.0) == 1
        assert {each.id for each in jobs.claim("b", 110.0, 10.0)} == {accepted[1].id, accepted[2].id}
        assert shipments.turnarounds() == {"openai": Turnaround((100.0,))}

    def test_what_never_came_to_be_was_no_attempt(self, jobs: Jobs) -> None:
        shipments, accepted = Shipments(jobs.database), jobs.accept(lines(1), 5.0)
        jobs.claim("a", 6.0, 100.0)
        shipment = self.shipment(1)
        shipments.intend(shipment, {accepted[0].id: "note"}, "a", 10.0, 100.0)
        shipments.close(shipment.id, states.UNDONE, 20.0, seen=False)
        (job,) = jobs.claim("b", 20.0, 10.0)
        assert (job.attempts, job.shipment_id) == (0, None)
        assert shipments.turnarounds() == {"openai": Turnaround()}
        assert shipments.claim("b", 1_000.0, 10.0, 9) == ()


def test_much_goes_in_and_out_in_constant_memory(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'large.sqlite'}")
    jobs = Jobs(database)
    jobs.create()
    stream = (
        NewJob(CALLER, PATH, b"%060d" % n * 1_000, 9.0, batch_id="b", line=n, custom_id=str(n)) for n in range(800)
    )
    tracemalloc.start()
    for chunk in in_chunks(stream):
        jobs.accept(chunk, 1.0)
    finished = 0
    while claimed := jobs.claim("a", 2.0, 10.0, 50):
        finished += len(jobs.finish([done(each.id, b"%060d" % n * 1_000) for n, each in enumerate(claimed)], 3.0))
    assert sum(len(content or b"") for _, content in jobs.of_batch("b")) == finished * 60_000 == 48_000_000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    database.close()
    assert peak_bytes < 24 * 2**20  # 96 MB went through


def test_old_shipments_are_forgotten_and_those_under_way_are_not(jobs: Jobs) -> None:
    shipments = Shipments(jobs.database)
    owned = [each.id for each in jobs.accept([new(n) for n in range(3)], 0.0)]
    jobs.claim("me", 1.0, 60.0)
    made = [Shipment(new_key(), "p", "{}", states.INTENDED, 1, 1_000.0, float(at)) for at in (1, 2, 3)]
    for each, job_id in zip(made, owned, strict=True):
        assert shipments.intend(each, {job_id: "{}"}, "me", 1.0, 60.0) == {job_id}
    for each in (made[0], made[2]):
        shipments.close(each.id, states.COLLECTED, 5.0)
    shipments.sweep(2.5)
    with jobs.database.read() as connection:
        assert set(connection.scalars(sa.select(SHIPMENTS.c.id))) == {made[1].id, made[2].id}
