"""The outbox: what is written stays, is claimed by one at a time, and is found again after a death."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trimtab.database import Database
from trimtab.webhooks.events import INLINE_BYTES, Event, result_event
from trimtab.webhooks.outbox import CLAIM_S, KEEP_S, Outbox
from trimtab.webhooks.schedule import Attempt, after

URL = "https://example.com/hook?token=hunter2"
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outbox]:
    sqlite = f"sqlite:///{tmp_path / 'webhooks.sqlite'}"
    database = Database(sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    outbox = Outbox(database)
    outbox.create()
    with database.begin() as connection:
        for table in ("webhook_deliveries", "webhook_disabled"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    yield outbox
    database.close()


def put(outbox: Outbox, subject: str = "def_1", tenant: str = "acme", url: str = URL, now: float = 0.0) -> str:
    event = Event("deferred.completed", subject, AT, {"id": subject})
    with outbox._database.begin() as connection:
        return outbox.put(connection, tenant, url, event, now)


def states(outbox: Outbox) -> dict[str, str]:
    return {each.subject: each.state for each in outbox.list()}


def end(outbox: Outbox, status: int, now: float = 0.0) -> None:
    for each in outbox.claim(now, 100, 100):
        attempt = Attempt(status)
        outbox.settle(each, attempt, after(attempt, each.attempts, 0.5), now)


def test_an_event_is_put_once_and_with_its_transaction(outbox: Outbox) -> None:
    first = put(outbox)
    assert put(outbox, now=5.0) == first
    assert first.startswith("msg_")
    assert "." not in first
    assert put(outbox, tenant="other") != first  # another tenant's job of the same name
    with suppress(ZeroDivisionError), outbox._database.begin() as connection:
        outbox.put(connection, "acme", URL, Event("deferred.failed", "def_2", AT, {}), 0.0)
        raise ZeroDivisionError
    assert [(each.created_at, each.attempts) for each in outbox.list()] == [(0.0, 0)] * 2


def test_nobodys_secret_is_in_a_repr(outbox: Outbox) -> None:
    put(outbox)
    assert "hunter2" not in repr(outbox.list())
    assert "body" not in outbox.list()[0].to_dict()


def test_a_claim_is_nobody_elses_until_it_runs_out(outbox: Outbox) -> None:
    put(outbox)
    (mine,) = outbox.claim(10.0, 5, 5)
    assert (mine.attempts, outbox.claim(10.0, 5, 5), outbox.claim(10.0 + CLAIM_S - 1, 5, 5)) == (1, (), ())
    assert outbox.next_due() == 10.0 + CLAIM_S
    (again,) = outbox.claim(10.0 + CLAIM_S, 5, 5)
    assert (again.id, again.body, again.attempts) == (mine.id, mine.body, 2)
    outbox.settle(mine, Attempt(500), after(Attempt(500), 1, 0.5), 71.0)  # from the dead: not its delivery any more
    assert outbox.list()[0].due_at == again.due_at
    outbox.settle(mine, Attempt(200), after(Attempt(200), 1, 0.5), 72.0)  # but if it did arrive, it did
    assert states(outbox) == {"def_1": "delivered"}
    outbox.settle(again, Attempt(500), after(Attempt(500), 2, 0.5), 73.0)
    assert states(outbox) == {"def_1": "delivered"}


def test_many_claim_at_once_and_nobody_gets_the_same(outbox: Outbox) -> None:
    for n in range(40):
        put(outbox, f"def_{n}", tenant=f"t{n % 4}")
    got: list[str] = []

    def claim() -> None:
        for _ in range(10):
            got.extend(each.id for each in outbox.claim(1.0, 3, 3))

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(40):
        got.extend(each.id for each in outbox.claim(1.0, 3, 3))  # what another transaction held just then
    assert len(got) == len(set(got)) == 40


def test_one_tenant_does_not_crowd_out_another(outbox: Outbox) -> None:
    for n in range(20):
        put(outbox, f"def_{n}", tenant="loud", now=float(n))
    put(outbox, "def_quiet", tenant="quiet", now=50.0)
    claimed = outbox.claim(60.0, 10, 4)
    assert [each.tenant for each in claimed] == ["loud"] * 4 + ["quiet"]
    assert [each.due_at for each in claimed] == [60.0 + CLAIM_S] * 5
    assert outbox.claim(60.0, 10, 4, {"loud", "quiet"}) == ()


def test_gone_disables_the_address_for_its_tenant_alone(outbox: Outbox) -> None:
    put(outbox, "def_1")
    end(outbox, 410, 5.0)
    put(outbox, "def_2")
    put(outbox, "def_3", url="https://example.com/other")
    put(outbox, "def_4", tenant="other")
    assert states(outbox) == {"def_1": "disabled", "def_2": "disabled", "def_3": "pending", "def_4": "pending"}
    assert [(each.tenant, each.url, each.at) for each in outbox.disabled()] == [("acme", URL, 5.0)]
    ids = {each.subject: each.id for each in outbox.list()}
    assert not outbox.replay(ids["def_2"], 6.0)
    assert outbox.enable("other", URL, 7.0) is None
    assert outbox.enable("acme", URL, 7.0) == 2
    assert outbox.disabled() == ()
    assert set(states(outbox).values()) == {"pending"}


def test_what_waits_for_an_address_stops_when_that_is_gone(outbox: Outbox) -> None:
    put(outbox, "def_1")
    put(outbox, "def_2", now=100.0)
    end(outbox, 410, 5.0)
    assert states(outbox) == {"def_1": "disabled", "def_2": "disabled"}


def test_replay_begins_anew_under_the_same_id(outbox: Outbox) -> None:
    id = put(outbox)
    end(outbox, 200, 5.0)
    assert outbox.next_due() is None
    assert outbox.replay(id, 9.0)
    (again,) = outbox.claim(9.0, 1, 1)
    assert (again.id, again.attempts, again.ended_at) == (id, 1, None)
    assert not outbox.replay("msg_none", 9.0)


def test_what_is_over_is_kept_for_a_week(outbox: Outbox) -> None:
    put(outbox, "def_1")
    end(outbox, 204, 5.0)
    put(outbox, "def_2", now=6.0)
    assert outbox.sweep(5.0 + KEEP_S) == 0
    assert outbox.sweep(6.0 + 2 * KEEP_S) == 1
    assert states(outbox) == {"def_2": "pending"}


def test_a_small_result_goes_along_and_a_large_one_stays(outbox: Outbox) -> None:
    small, large = b'{"a":1}', b'"' + b"a" * INLINE_BYTES + b'"'
    path = "/v1/deferred/def_1"
    event = result_event("deferred.completed", "def_1", AT, {"status": "completed"}, path, small)
    assert event.data == {"id": "def_1", "status": "completed", "result_url": path, "result": {"a": 1}}
    assert event.body().startswith(b'{"type":"deferred.completed","timestamp":"2026-11-24T12:00:00Z","data":{')
    for result in (large, None, b"no json"):
        data = result_event("deferred.completed", "def_1", AT, {}, path, result).data
        assert data == {"id": "def_1", "result_url": path}
