"""The bus over a real Valkey, SQLite and a real PostgreSQL: what one tells, the others hear once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from trimtab.database import Database
from trimtab.sharing.bus import Bus
from trimtab.sharing.log import Log, Read, Unreachable
from trimtab.sharing.redis_log import RedisLog
from trimtab.sharing.redis_server import RedisServer
from trimtab.sharing.sql_log import SqlLog

Heard = list[tuple[int, float]]


def eventually(found: Callable[[], bool], within_s: float = 15.0) -> None:
    ends_s = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < ends_s
        time.sleep(0.02)


@pytest.fixture(params=["redis", "sqlite", "postgresql"])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Log]:
    if request.param == "redis":
        url, name = request.getfixturevalue("valkey_url"), f"trimtab:{uuid.uuid4().hex}"
        return lambda: RedisLog(RedisServer(url, 2.0), name)
    if request.param == "sqlite":
        return lambda: SqlLog(Database(f"sqlite:///{tmp_path / 'events.sqlite'}"))
    url = request.getfixturevalue("postgres_url")
    database = Database(url)
    with database.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS trimtab_events"))
    database.close()
    return lambda: SqlLog(Database(url))


class Worker:
    def __init__(self, log: Log, name: str) -> None:
        self.heard: Heard = []
        self.bus = Bus(log, name, self._hear)
        self.bus.start()

    def _hear(self, event: Mapping[str, Any], age_s: float) -> None:
        self.heard.append((event["n"], age_s))

    @property
    def numbers(self) -> list[int]:
        return [n for n, _ in self.heard]


@pytest.fixture
def worker() -> Iterator[Callable[[Log, str], Worker]]:
    made: list[Worker] = []

    def make(log: Log, name: str) -> Worker:
        made.append(Worker(log, name))
        return made[-1]

    yield make
    for each in made:
        each.bus.close()


def test_what_one_tells_the_others_hear_in_order_and_once(logs: Callable[[], Log], worker: Any) -> None:
    a, b = worker(logs(), "a"), worker(logs(), "b")
    for n in range(1_000):
        a.bus.publish({"n": n})
        if n % 100 == 0:
            b.bus.publish({"n": -n})
    eventually(lambda: len(b.heard) == 1_000 and len(a.heard) == 10)
    assert b.numbers == list(range(1_000))
    assert a.numbers == [-n for n in range(0, 1_000, 100)]
    assert all(0 <= age_s < 10 for _, age_s in b.heard)
    c = worker(logs(), "c")  # one that begins later knows what was told before, when it begins to serve
    assert sorted(c.numbers) == sorted([*a.numbers, *b.numbers])


class Breakable:
    """A log that can be cut off, and that can forget what was written to it."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.broken = False

    def append(self, message: bytes) -> None:
        if self.broken:
            raise Unreachable("cut off")
        self.messages.append(message)

    def read(self, position: str, wait_s: float) -> Read:
        if self.broken:
            raise Unreachable("cut off")
        at = int(position or 0)
        at = at if at <= len(self.messages) else 0
        if at == len(self.messages):
            time.sleep(min(wait_s, 0.01))
        return Read(self.messages[at:], str(len(self.messages)))

    def close(self) -> None:
        pass


def test_whoever_was_cut_off_tells_and_hears_the_rest_later_and_nothing_twice(worker: Any) -> None:
    log = Breakable()
    a, b = worker(log, "a"), worker(log, "b")
    for n in range(50):
        a.bus.publish({"n": n})
    eventually(lambda: len(b.heard) == 50)
    log.broken = True
    for n in range(50, 100):
        a.bus.publish({"n": n})
    time.sleep(0.2)
    log.messages.clear()  # the server kept nothing
    log.broken = False
    eventually(lambda: len(b.heard) == 100)
    assert b.numbers == list(range(100))
    time.sleep(0.3)
    assert b.numbers == list(range(100))


def test_what_no_worker_of_ours_wrote_is_passed_by(worker: Any) -> None:
    log = Breakable()
    a = worker(log, "a")
    log.messages += [
        b"",
        b"[]",
        b"{}",
        b'{"from": "x", "first": 1, "events": [1, {"n": 1}, {"at": "x"}, {"n": 2, "at": 0}]}',
    ]
    eventually(lambda: a.numbers == [2])
