"""Batches: what is read of a file and what is said of the rest, states, counts, output files, and going on after a crash."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from tests.trimtab.deferred.batch_rig import CHAT, ONE, Rig, database_of, jsonl, line
from trimtab.caller import Caller
from trimtab.deferred import batch_work
from trimtab.deferred.batches import Batch, Order
from trimtab.deferred.job import BODIES
from trimtab.deferred.jobs import EXPIRED, JOBS, RESULTS, Counts, Outcome
from trimtab.deferred.pages import Asked
from trimtab.errors import BadRequest


@pytest.fixture(params=["sqlite", "postgresql"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with database_of(request.param, tmp_path, lambda: request.getfixturevalue("postgres_url")) as database:
        yield Rig(database, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Rig]:
    """On SQLite alone: for what no database can change."""
    with database_of("sqlite", tmp_path, str) as database:
        yield Rig(database, tmp_path)


def statuses(rig: Rig, batch: Batch) -> dict[str, Any]:
    return rig.found(batch).to_dict()["request_counts"]  # type: ignore[no-any-return]


def test_from_a_file_to_files(rig: Rig) -> None:
    batch = rig.order(jsonl(line("a"), line("b"), line("c")), metadata={"night": "1"})
    assert batch.to_dict()["status"] == "validating"
    begun = rig.stepped(batch)
    assert begun.status == "in_progress"
    assert statuses(rig, batch) == {"total": 3, "completed": 0, "failed": 0}
    jobs = rig.open_jobs(batch)
    assert [(job.custom_id, job.line, job.surface, job.caller) for job in jobs] == [
        (each, n, CHAT, ONE) for n, each in enumerate("abc", 1)
    ]
    assert {job.deadline_at for job in jobs} == {batch.expires_at}
    rig.answer(reversed(jobs[1:]))
    rig.answer(jobs[:1], status=400)
    assert statuses(rig, batch) == {"total": 3, "completed": 2, "failed": 1}
    done = rig.concluded(batch)
    told = done.to_dict()
    assert told["status"] == "completed"
    assert told["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert told["metadata"] == {"night": "1"}
    assert batch.created_at <= told["in_progress_at"] <= told["finalizing_at"] <= told["completed_at"]
    output, errors = rig.lines_of(done.output_file_id), rig.lines_of(done.error_file_id)
    assert [each["custom_id"] for each in output] == ["b", "c"]
    assert set(output[0]) == {"id", "custom_id", "response", "error"}
    assert output[0]["id"].startswith("batch_req_")
    assert output[0]["error"] is None
    assert output[0]["response"]["status_code"] == 200
    assert output[0]["response"]["body"]["answer"] == "b"
    assert output[0]["response"]["body"]["trimtab"]["billed_cost_usd"] == "0.001"
    assert [(each["custom_id"], each["response"]["status_code"], each["error"]) for each in errors] == [
        ("a", 400, None)
    ]
    file = rig.files.find(ONE.tenant, str(done.output_file_id))
    assert (file.purpose, file.expires_at - file.created_at) == ("batch_output", 3600)


def test_totals_say_what_it_cost_and_would_have_cost(local: Rig) -> None:
    batch = local.order(jsonl(*(line(each) for each in "abcd")))
    local.stepped(batch)
    first, second, third, fourth = local.open_jobs(batch)
    local.answer([first])
    local.answer([second], at_once_cost_usd="0.002")
    local.answer([third], provider="q", processing="sync", billed_cost_usd=None, expected_cost_usd="0.003")
    local.answer([fourth], status=500, billed_cost_usd="0.0001", baseline_cost_usd="9")
    told = local.concluded(batch).to_dict()
    # what failed is paid for, and would not have been an answer at another price
    assert told["trimtab"] == {
        "billed_usd": "0.0051",
        "at_once_usd": "0.006",
        "baseline_usd": "0.012",
        "saved_usd": "0.0069",
        "tokens_before": 400,
        "tokens_after": 160,
        "estimated_lines": 1,
        "bought": [
            {"provider": "p", "model": "m", "processing": "batch", "lines": 2, "billed_usd": "0.002"},
            {"provider": "q", "model": "m", "processing": "sync", "lines": 1, "billed_usd": "0.003"},
        ],
    }
    assert told["usage"] == {
        "input_tokens": 240,
        "input_tokens_details": {"cached_tokens": 20},
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 280,
    }


BAD = {
    "not JSON": ('{"custom_id": "x",', None, "invalid_json_line", None),
    "not UTF-8": (b'{"custom_id": "\xff"}', None, "invalid_json_line", None),
    "a list": ("[1, 2]", None, "invalid_json_line", None),
    "no custom_id": ({**line(), "custom_id": None}, None, "missing_custom_id", "custom_id"),
    "a number for a custom_id": (line(7), None, "invalid_custom_id", "custom_id"),
    "an empty custom_id": (line(""), None, "invalid_custom_id", "custom_id"),
    "an endless custom_id": (line("x" * 513), None, "invalid_custom_id", "custom_id"),
    "a custom_id with a NUL": (line("x\0"), None, "invalid_custom_id", "custom_id"),
    "a custom_id of before": (line("good"), "good", "duplicate_custom_id", "custom_id"),
    "GET": (line("x", method="GET"), "x", "invalid_method", "method"),
    "no method": (line("x", method=None), "x", "invalid_method", "method"),
    "another endpoint": (line("x", url="/v1/embeddings"), "x", "url_mismatch", "url"),
    "a whole address": (line("x", url=f"https://api.openai.com{CHAT}"), "x", "url_mismatch", "url"),
    "no body": (line("x", body=None), "x", "invalid_body", "body"),
    "a text for a body": (line("x", body="hi"), "x", "invalid_body", "body"),
    "a stream": (line("x", body={"stream": True}), "x", "stream_not_supported", "body.stream"),
    "too many levels": (line("x", body={"a": json.loads("[" * 400 + "]" * 400)}), "x", "invalid_body", "body"),
    "an unknown option": (line("x", body={"trimtab": {"ration": 1}}), "x", "invalid_value", "body.trimtab.ration"),
    "no options": (line("x", body={"trimtab": 5}), "x", "invalid_value", "body.trimtab"),
    "a deadline in the past": (
        line("x", body={"trimtab": {"deadline": "2020-01-01T00:00:00Z"}}),
        "x",
        "invalid_value",
        "body.trimtab.deadline",
    ),
    "a callback inside": (
        line("x", body={"trimtab": {"callback_url": "http://10.0.0.1/"}}),
        "x",
        "invalid_value",
        "body.trimtab.callback_url",
    ),
    "too long": (line("x", body={"messages": "x" * 3000}), None, "line_too_long", None),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_told_and_the_rest_is_unharmed(local: Rig, name: str) -> None:
    bad, custom_id, code, param = BAD[name]
    batch = local.order(jsonl(line("good"), bad, "", line("better")))
    local.stepped(batch, local.work(max_line_bytes=2000))
    assert [job.line for job in local.open_jobs(batch)] == [1, 4]
    assert statuses(local, batch) == {"total": 3, "completed": 0, "failed": 1}
    local.answer(local.open_jobs(batch))
    done = local.concluded(batch)
    assert done.status == "completed"
    assert [each["custom_id"] for each in local.lines_of(done.output_file_id)] == ["good", "better"]
    (error,) = local.lines_of(done.error_file_id)
    assert (error["custom_id"], error["response"]) == (custom_id, None)
    assert (error["error"]["code"], error["error"]["param"], error["error"]["line"]) == (code, param, 2)
    assert len(error["error"]["message"]) > 20
    assert done.to_dict()["request_counts"] == {"total": 3, "completed": 2, "failed": 1}


NOTHING = {
    "empty": (b"", "empty_file"),
    "blank": (b"\n \r\n\t\n", "empty_file"),
    "a mark and nothing": (b"\xef\xbb\xbf\n", "empty_file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "invalid_json_line"),
    "one JSON list": (json.dumps([line("a")], indent=1).encode(), "invalid_json_line"),
    "a table": (b"custom_id,body\na,hi\n", "invalid_json_line"),
    "nothing but bad lines": (jsonl(line("a", method="PUT"), line("b", url="/")), "invalid_method"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_file_without_a_good_line_fails(local: Rig, name: str) -> None:
    content, code = NOTHING[name]
    batch = local.stepped(local.order(content))
    told = batch.to_dict()
    assert told["status"] == "failed"
    assert told["failed_at"] is not None
    assert told["errors"]["object"] == "list"
    assert told["errors"]["data"][0]["code"] == code
    assert set(told["errors"]["data"][0]) == {"code", "line", "message", "param"}
    assert told["output_file_id"] is None
    assert told["error_file_id"] is None
    assert told["request_counts"]["completed"] == 0


def test_a_file_that_fails_names_some_of_its_lines(local: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_work, "MAX_ERRORS", 3)
    told = local.stepped(local.order(b"nonsense\n" * 1200)).to_dict()
    assert [each["line"] for each in told["errors"]["data"]] == [1, 2, 3]
    assert told["request_counts"] == {"total": 1200, "completed": 0, "failed": 1200}


def test_one_line_more_than_may_be(local: Rig) -> None:
    full = jsonl(*(line(str(n)) for n in range(5)))
    assert local.stepped(local.order(full), local.work(max_lines=5)).status == "in_progress"
    told = local.stepped(local.order(full + jsonl(line("x"))), local.work(max_lines=5)).to_dict()
    assert (told["status"], told["errors"]["data"][0]["code"]) == ("failed", "too_many_tasks")
    assert told["request_counts"]["total"] == 0  # not even the first five were begun


def test_a_file_that_is_gone_fails_its_batch(local: Rig) -> None:
    batch = local.order(jsonl(line("a")))
    local.files.delete(ONE.tenant, batch.order.input_file_id)
    told = local.stepped(batch).to_dict()
    assert (told["status"], told["errors"]["data"][0]["code"]) == ("failed", "input_file_not_found")


def test_marks_and_line_ends_of_other_systems(local: Rig) -> None:
    content = b"\xef\xbb\xbf" + jsonl(line("a"), line("b")).replace(b"\n", b"\r\n").rstrip()
    batch = local.order(content)
    local.stepped(batch)
    assert [job.custom_id for job in local.open_jobs(batch)] == ["a", "b"]


def test_a_lines_own_options_go_before_the_batchs(local: Rig) -> None:
    own = {**line("b")["body"], "trimtab": {"ratio": 0.5, "deadline": "1h"}}
    batch = local.order(jsonl(line("a"), line("b", body=own)), options={"ratio": 0.9, "min_quality": 0.5})
    local.stepped(batch)
    first, second = local.open_jobs(batch)
    bodies = local.jobs.bodies([first.id, second.id])
    assert json.loads(bodies[first.id])["trimtab"] == {"ratio": 0.9, "min_quality": 0.5}
    assert json.loads(bodies[second.id])["trimtab"] == {"ratio": 0.5, "min_quality": 0.5, "deadline": "1h"}
    assert (first.deadline_at, second.deadline_at) == (batch.expires_at, batch.created_at + 3600)


def test_a_lines_own_callback_is_its_jobs(local: Rig) -> None:
    own = {**line("a")["body"], "trimtab": {"callback_url": "https://example.com/line"}}
    batch = local.order(jsonl(line("a", body=own), line("b")), callback_url="https://example.com/batch")
    local.stepped(batch)
    assert [job.callback_url for job in local.open_jobs(batch)] == ["https://example.com/line", None]


def test_a_lines_deadline_is_never_later_than_the_batchs(local: Rig) -> None:
    late = {**line("a")["body"], "trimtab": {"deadline": "3d"}}
    batch = local.order(jsonl(line("a", body=late)))
    local.stepped(batch)
    assert [job.deadline_at for job in local.open_jobs(batch)] == [batch.expires_at]


def test_a_body_without_options_is_what_came(local: Rig) -> None:
    batch = local.order(jsonl(line("a")))
    local.stepped(batch)
    (job,) = local.open_jobs(batch)
    assert json.loads(local.jobs.bodies([job.id])[job.id]) == line("a")["body"]


def test_an_answers_bytes_stay_and_stand_on_one_line(local: Rig) -> None:
    content = b'{\r\n  "n": 12345678901234567890123, "x": 1.0e2,\n "t": "a\\nb"\n}\n'
    batch = local.order(jsonl(line("a"), line("b"), line("c")))
    local.stepped(batch)
    a, b, c = local.open_jobs(batch)
    plain, web = Outcome(a.id, "completed", 200, content), Outcome(b.id, "failed", 502, b"<html>\n\xff</html>")
    local.jobs.finish([plain, web, Outcome(c.id, "failed", error="No provider could be reached.")], local.clock())
    done = local.concluded(batch)
    raw = local.files.path(str(done.output_file_id)).read_bytes()
    assert raw.count(b"\n") == 1
    assert b'"n": 12345678901234567890123, "x": 1.0e2,' in raw
    (out,) = local.lines_of(done.output_file_id)
    assert out["response"]["body"]["t"] == "a\nb"
    page, unreached = local.lines_of(done.error_file_id)
    assert page["response"]["body"] == "<html>\n\ufffd</html>"
    assert (unreached["response"], unreached["error"]["message"]) == (None, "No provider could be reached.")


def test_time_that_is_over_is_told_as_openai_tells_it(rig: Rig) -> None:
    batch = rig.order(jsonl(line("a"), line("b")))
    rig.stepped(batch)
    a, b = rig.open_jobs(batch)
    rig.answer([a])
    rig.jobs.finish([Outcome(b.id, EXPIRED, error="too late")], rig.clock())
    done = rig.concluded(batch)
    assert done.status == "expired"
    assert done.to_dict()["expired_at"] is not None
    assert [each["custom_id"] for each in rig.lines_of(done.output_file_id)] == ["a"]
    (late,) = rig.lines_of(done.error_file_id)
    assert (late["response"], late["error"]["code"]) == (None, "batch_expired")


def test_a_line_that_was_late_by_its_own_deadline_does_not_expire_the_batch(local: Rig) -> None:
    own = {**line("a")["body"], "trimtab": {"deadline": "1h"}}
    batch = local.order(jsonl(line("a", body=own), line("b")))
    local.stepped(batch)
    a, b = local.open_jobs(batch)
    local.jobs.finish([Outcome(a.id, EXPIRED)], local.clock())
    local.answer([b])
    assert local.concluded(batch).status == "completed"


def test_cancelled_on_the_way(rig: Rig) -> None:
    batch = rig.order(jsonl(line("a"), line("b"), "nonsense"))
    rig.stepped(batch)
    rig.answer(rig.open_jobs(batch)[:1])
    assert rig.batches.cancel(ONE.tenant, batch.id, rig.clock()).status == "cancelling"
    assert rig.batches.cancel(ONE.tenant, batch.id, rig.clock()).status == "cancelling"
    done = rig.concluded(batch)
    told = done.to_dict()
    assert told["status"] == "cancelled"
    assert told["cancelling_at"] <= told["cancelled_at"]
    assert told["request_counts"] == {"total": 3, "completed": 1, "failed": 1}
    assert [each["custom_id"] for each in rig.lines_of(done.output_file_id)] == ["a"]
    codes = [(each["custom_id"], each["error"]["code"]) for each in rig.lines_of(done.error_file_id)]
    assert codes == [("b", "batch_cancelled"), (None, "invalid_json_line")]
    assert rig.batches.cancel(ONE.tenant, batch.id, rig.clock()).status == "cancelled"


def test_cancelled_before_it_was_read(local: Rig) -> None:
    batch = local.order(jsonl(line("a")))
    local.batches.cancel(ONE.tenant, batch.id, local.clock())
    told = local.stepped(batch).to_dict()
    assert (told["status"], told["output_file_id"], told["error_file_id"]) == ("cancelled", None, None)


def test_cancelled_while_it_is_read(local: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = local.order(jsonl(*(line(str(n)) for n in range(1200))))
    accept = local.jobs.accept

    def cancelling(*args: Any) -> Any:
        done = accept(*args)
        local.batches.cancel(ONE.tenant, batch.id, local.clock())
        return done

    monkeypatch.setattr(local.jobs, "accept", cancelling)
    told = local.stepped(batch).to_dict()
    assert told["status"] == "cancelled"
    assert told["request_counts"] == {"total": 500, "completed": 0, "failed": 0}


def test_what_is_over_cannot_be_cancelled(local: Rig) -> None:
    batch = local.order(jsonl(line("a")))
    local.stepped(batch)
    local.answer(local.open_jobs(batch))
    local.concluded(batch)
    with pytest.raises(BadRequest, match="completed cannot be cancelled") as refused:
        local.batches.cancel(ONE.tenant, batch.id, local.clock())
    assert refused.value.status == 409


def test_a_batch_that_is_over_is_forgotten_with_its_lines(rig: Rig) -> None:
    """After its end and not its lines'; one that is not over, however old, stays whole."""
    lines = jsonl(*(line(str(n)) for n in range(700)))
    old, still = rig.order(lines, output_lifetime_s=3600), rig.order(jsonl(line("a"), line("b")))
    rig.stepped(old)
    work = rig.work(kept_s=86_400.0)
    rig.answer(rig.open_jobs(old))
    rig.answer(rig.open_jobs(still)[:1])
    assert rig.concluded(old).status == "completed"
    rig.clock.now_s += 80_000.0
    work.sweep()
    assert rig.found(old).status == "completed"
    rig.clock.now_s += 10_000.0
    work.sweep()
    with pytest.raises(BadRequest, match="there is no batch"):
        rig.found(old)
    assert rig.jobs.counts(old.id).total == 0
    assert rig.found(still).status == "in_progress"
    assert rig.jobs.counts(still.id) == Counts(waiting=1, completed=1)
    with rig.jobs.database.read() as connection:
        kept = [connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in (JOBS, BODIES, RESULTS)]
    assert kept == [2, 2, 1]


def test_another_tenant_finds_nothing(local: Rig) -> None:
    batch = local.order(jsonl(line("a")))
    other = Caller("two")
    for ask in (local.batches.find, lambda tenant, id: local.batches.cancel(tenant, id, 0.0)):
        with pytest.raises(BadRequest) as refused:
            ask(other.tenant, batch.id)
        assert refused.value.status == 404
    assert local.batches.page(other.tenant, Asked(None, 10)).items == ()
    assert local.found(batch).status == "validating"
    # and it cannot have another's file read
    order = Order(CHAT, batch.order.input_file_id, "24h", None, None, {}, None, 3600)
    stolen = local.batches.accept(other, order, local.clock(), local.clock() + 60)
    local.stepped(batch)
    assert local.found(stolen).errors[0]["code"] == "input_file_not_found"


def test_the_same_key_is_the_same_batch(rig: Rig) -> None:
    order = rig.order(jsonl(line("a"))).order
    first = rig.batches.accept(ONE, order, rig.clock(), rig.clock() + 60, "k")
    assert rig.batches.accept(ONE, order, rig.clock() + 5, rig.clock() + 65, "k") == first
    assert rig.batches.accept(Caller("two"), order, rig.clock(), rig.clock() + 60, "k").id != first.id
    other = Order(CHAT, "file-other", "24h", None, None, {}, None, 3600)
    with pytest.raises(BadRequest) as refused:
        rig.batches.accept(ONE, other, rig.clock(), rig.clock() + 60, "k")
    assert refused.value.status == 422


class Killed(BaseException):
    """The process ends here. Not an Exception, so that nothing recovers from it."""


@pytest.mark.parametrize("at", range(40))
def test_killed_anywhere_and_gone_on_with(local: Rig, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends a worker before its `at`-th write to the database or the folder, and has another one go on."""
    monkeypatch.setattr(batch_work, "CHUNK_JOBS", 2)
    names = [str(n) for n in range(5)]
    batch = local.order(jsonl(*(line(each) for each in names[:3]), "nonsense", *(line(each) for each in names[3:])))
    writes = 0

    def dying(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def called(*args: Any, **more: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes - 1 == at:
                raise Killed
            return real(*args, **more)

        monkeypatch.setattr(owner, name, called)

    for owner, name in (
        *((local.batches, each) for each in ("claim", "move", "renew", "give_back", "note_bad_lines")),
        (local.jobs, "accept"),
        (local.files, "keep"),
    ):
        dying(owner, name)

    def go_on() -> None:
        for _ in range(20):
            local.clock.now_s += 100  # leases end
            while local.work().step():
                pass
            local.answer(local.open_jobs(batch))

    try:
        go_on()
    except Killed:
        go_on()
    done = local.found(batch)
    assert done.status == "completed"
    assert sorted(each["custom_id"] or "" for each in local.all_lines(done)) == ["", *names]
    assert [each["custom_id"] for each in local.lines_of(done.output_file_id)] == names
    folder = {each.name for each in local.files.path("x").parent.iterdir() if not each.name.startswith("writing-")}
    assert folder == {batch.order.input_file_id, done.output_file_id, done.error_file_id}


def test_two_workers_at_once_do_it_once(local: Rig) -> None:
    batch = local.order(jsonl(line("a")))
    assert local.batches.claim("w1", local.clock(), 60) is not None
    assert local.batches.claim("w2", local.clock(), 60) is None
    local.clock.now_s += 61
    late = local.batches.claim("w2", local.clock(), 60)
    assert late is not None
    assert not local.batches.renew(batch, "w1", local.clock() + 60)
    assert not local.batches.move(batch, "w1", "failed", local.clock())
    assert local.batches.move(late, "w2", "in_progress", local.clock())


def test_a_batch_that_does_not_get_on_holds_up_no_other(
    local: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = local.order(jsonl(line("a"))), local.order(jsonl(line("b")))
    path = local.files.path

    def broken(id: str) -> Path:
        if id == bad.order.input_file_id:
            raise OSError("disk full")
        return path(id)

    monkeypatch.setattr(local.files, "path", broken)
    local.stepped(good)
    assert (local.found(bad).status, local.found(good).status) == ("validating", "in_progress")
    assert "did not get on (OSError)" in caplog.text
    monkeypatch.undo()
    local.clock.now_s += batch_work.RETRY_S
    assert local.stepped(bad).status == "in_progress"


def test_a_database_that_is_away_is_waited_for(
    local: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch, work, claim, asked = local.order(jsonl(line("a"))), local.work(), local.batches.claim, []

    def away(*args: Any) -> Any:
        asked.append(args)
        if len(asked) < 3:
            raise OperationalError("SELECT", {}, Exception("a disk I/O error"))
        return claim(*args)

    monkeypatch.setattr(local.batches, "claim", away)
    monkeypatch.setattr(batch_work, "_IDLE_S", 0.01)

    async def until_it_is_read() -> None:
        running = asyncio.create_task(work.run())
        while local.found(batch).status == "validating":  # noqa: ASYNC110 (another thread's work, told by no event)
            await asyncio.sleep(0.01)
        work.stop()
        await running

    asyncio.run(until_it_is_read())
    assert caplog.text.count("batches wait for what they are kept in (OperationalError)") == 2


def test_the_end_and_its_event_are_one(local: Rig) -> None:
    told: list[Batch] = []
    local.batches.ended.append(lambda _, batch: told.append(batch))
    silent, loud = local.order(jsonl(line("a"))), local.order(jsonl(line("a")), callback_url="https://example.com/")
    for batch in (silent, loud):
        local.stepped(batch)
        local.answer(local.open_jobs(batch))
        local.concluded(batch)
    assert [(each.id, each.status, each.counts.completed) for each in told] == [(loud.id, "completed", 1)]


@settings(max_examples=40)
@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([line("a"), line("b")]).map(json.dumps)), max_size=8))
def test_whatever_a_file_holds_every_line_has_one_end(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any]
) -> None:
    content = jsonl(*(each.replace(b"\n", b" ") if isinstance(each, bytes) else each for each in lines))
    folder = tmp_path_factory.mktemp("any")
    with database_of("sqlite", folder, str) as database:
        rig = Rig(database, folder)
        batch = rig.order(content)
        rig.stepped(batch)
        rig.answer(rig.open_jobs(batch))
        done = rig.concluded(batch)
        filled = sum(bool(each.strip().removeprefix(b"\xef\xbb\xbf").strip()) for each in content.split(b"\n"))
        if done.status == "failed":
            assert len(done.errors) == max(1, filled)
        else:
            assert done.status == "completed"
            assert len(rig.all_lines(done)) == filled == done.counts.total


def test_memory_stays_flat(local: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB of input and as much of output, with a peak of a few chunks."""
    text = "x" * 10_000
    with local.files.writing() as writing:
        for n in range(2_000):
            writing.write(jsonl(line(str(n), body={"model": "m", "messages": [{"role": "user", "content": text}]})))
        assert writing.size_bytes > 20_000_000
        file_id = local.files.keep(writing, ONE.tenant, "in.jsonl", "batch").id
    batch = local.order(b"", input_file_id=file_id)
    monkeypatch.setattr(batch_work, "CHUNK_BYTES", 1 << 20)
    tracemalloc.start()
    try:
        local.stepped(batch)
        read_peak = tracemalloc.get_traced_memory()[1]
        for _ in range(20):
            jobs = local.open_jobs(batch)[:100]
            local.jobs.finish(
                [Outcome(job.id, "completed", 200, json.dumps({"t": text}).encode()) for job in jobs], local.clock()
            )
        tracemalloc.reset_peak()
        done = local.concluded(batch)
        written_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert local.files.find(ONE.tenant, str(done.output_file_id)).size_bytes > 20_000_000
    assert read_peak < 8_000_000
    assert written_peak < 8_000_000
