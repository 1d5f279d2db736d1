"""Deliveries, end to end: a real receiver, the reference verifier, and everything that can go wrong in between."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.trimtab.webhooks.receiving import SECRET, answers, certificate, receiving
from trimtab.database import Database
from trimtab.outbound import OutboundRules
from trimtab.webhooks import service
from trimtab.webhooks.events import Event
from trimtab.webhooks.outbox import CLAIM_S, Delivery, Outbox
from trimtab.webhooks.service import Courier
from trimtab.webhooks.signing import Secrets

ROOT = Path(__file__).parents[3]
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECRETS = Secrets.read({"S": SECRET}, "S", None)
HERE = OutboundRules.of(["127.0.0.1"])


@pytest.fixture(autouse=True)
def polling_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "POLL_S", 0.01)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with opened(tmp_path) as outbox:
        yield outbox


@contextmanager
def opened(folder: Path) -> Iterator[Outbox]:
    database = Database(f"sqlite:///{folder / 'webhooks.sqlite'}")
    outbox = Outbox(database)
    outbox.create()
    yield outbox
    database.close()


def put(outbox: Outbox, url: str, subject: str = "def_1", tenant: str = "acme") -> str:
    event = Event("deferred.completed", subject, AT, {"id": subject, "status": "completed"})
    with outbox._database.begin() as connection:
        return outbox.put(connection, tenant, url, event, time.time())


class Clock:
    """Time that passes when it is told to, from a moment after everything that was put until now."""

    def __init__(self) -> None:
        self.now = time.time() + 10

    def __call__(self) -> float:
        return self.now


def run(outbox: Outbox, until: Callable[[], bool], clock: Callable[[], float] = time.time, **more: Any) -> None:
    """A courier at work until `until`."""
    rules = more.pop("rules", HERE)

    async def work() -> None:
        courier = Courier(outbox, SECRETS, rules, clock=clock, rng=random.Random(1), **more)
        task = asyncio.create_task(courier.run())
        ends_at = time.monotonic() + 30
        while not until():
            assert not task.done(), task
            assert time.monotonic() < ends_at, outbox.list()
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(work())


def only(outbox: Outbox) -> Delivery:
    (delivery,) = outbox.list()
    return delivery


def test_a_webhook_reaches_its_receiver_and_verifies(outbox: Outbox) -> None:
    with receiving() as receiver:
        id = put(outbox, f"{receiver.url}/hook?a=1")
        run(outbox, lambda: only(outbox).state == "delivered")
        (got,) = receiver.received
    (secret,) = SECRETS.of_tenant("acme")
    told = Webhook(secret).verify(got.body, got.headers)
    assert told == {
        "type": "deferred.completed",
        "timestamp": "2026-11-24T12:00:00Z",
        "data": {"id": "def_1", "status": "completed"},
    }
    assert (got.path, got.headers["webhook-id"], got.headers["content-type"]) == (
        "/hook?a=1",
        id,
        "application/json",
    )
    assert not {"authorization", "cookie"} & set(got.headers)
    assert (only(outbox).attempts, only(outbox).status) == (1, 204)


def test_retries_have_the_same_id_and_body_and_a_timestamp_of_their_own(outbox: Outbox) -> None:
    clock = Clock()
    with receiving((500, {}), (404, {}), (302, {"location": "http://127.0.0.1:1/"})) as receiver:
        put(outbox, receiver.url)
        for attempts in (1, 2, 3):
            run(outbox, lambda n=attempts: only(outbox).attempts == n and only(outbox).status is not None, clock)  # type: ignore[misc]
            run(outbox, lambda: outbox.next_due() != clock.now + CLAIM_S, clock)
            assert only(outbox).state == "pending"
            clock.now = only(outbox).due_at + 1
        run(outbox, lambda: only(outbox).state == "delivered", clock)
    assert len(receiver.received) == 4
    assert len({(each.headers["webhook-id"], each.body) for each in receiver.received}) == 1
    moments = [int(each.headers["webhook-timestamp"]) for each in receiver.received]
    assert moments[0] + 4 <= moments[1]
    assert moments[1] + 240 <= moments[2]
    assert moments[2] + 1_440 <= moments[3]


def test_after_the_last_attempt_it_has_failed_and_can_be_replayed(outbox: Outbox) -> None:
    clock = Clock()
    with receiving(*[(500, {})] * 8) as receiver:
        id = put(outbox, receiver.url)

        def over() -> bool:
            """Time passes between attempts only: one that is under way must not outlive its claim."""
            delivery = only(outbox)
            if delivery.due_at != clock.now + CLAIM_S:
                clock.now = max(clock.now, delivery.due_at)
            return delivery.state != "pending"

        run(outbox, over, clock)
        assert (only(outbox).state, only(outbox).status, len(receiver.received)) == ("failed", 500, 8)
        assert outbox.replay(id, clock.now)
        run(outbox, lambda: only(outbox).state == "delivered", clock)
    assert {each.headers["webhook-id"] for each in receiver.received} == {id}
    assert len(receiver.received) == 9


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_is_kept(outbox: Outbox, status: int) -> None:
    clock = Clock()
    with receiving((status, {"retry-after": "1000"})) as receiver:
        put(outbox, receiver.url)
        run(outbox, lambda: only(outbox).status == status, clock)
    assert only(outbox).due_at == pytest.approx(clock.now + 1000)


def test_gone_stops_everything_to_that_address_for_that_tenant(outbox: Outbox) -> None:
    with receiving((410, {})) as receiver:
        put(outbox, receiver.url)
        run(outbox, lambda: only(outbox).state == "disabled")
        put(outbox, receiver.url, "def_2")
        put(outbox, receiver.url, "def_3", tenant="other")
        run(outbox, lambda: "delivered" in {each.state for each in outbox.list()})
        assert {each.subject: each.state for each in outbox.list()} == {
            "def_1": "disabled",
            "def_2": "disabled",
            "def_3": "delivered",
        }
        assert len(receiver.received) == 2
        assert outbox.enable("acme", receiver.url, time.time()) == 2
        run(outbox, lambda: {each.state for each in outbox.list()} == {"delivered"})


def test_a_redirect_is_not_followed(outbox: Outbox) -> None:
    with receiving() as elsewhere, receiving((307, {"location": elsewhere.url})) as receiver:
        put(outbox, receiver.url)
        run(outbox, lambda: only(outbox).status == 307)
        assert elsewhere.received == []
    assert (only(outbox).state, only(outbox).detail) == ("pending", "redirects are not followed")


def test_private_addresses_are_refused_however_they_come_about(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers({"evil.example": ["127.0.0.1"]}))
    with receiving() as receiver:
        urls = (
            receiver.url,  # put without a check
            f"https://evil.example:{receiver.port}/",
            "https://169.254.169.254/latest/meta-data/",
            f"https://127.1:{receiver.port}/",
        )
        for n, url in enumerate(urls):
            put(outbox, url, f"def_{n}")
        run(outbox, lambda: {each.state for each in outbox.list()} == {"refused"}, rules=OutboundRules())
        assert receiver.received == []
    assert all(each.detail.startswith("the address ") and each.attempts == 1 for each in outbox.list())


def test_a_name_that_turns_to_this_network_is_refused_then(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public internet is 127.0.0.2 here; between two attempts the name turns to 127.0.0.1, where a server listens too."""
    pem = certificate(tmp_path / "pem", "rebind.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setattr(socket, "getaddrinfo", answers({"rebind.example": ["127.0.0.2", "127.0.0.1"]}))
    clock, rules = Clock(), OutboundRules.of(["127.0.0.2"])
    with (
        receiving((500, {}), host="127.0.0.2", tls=pem) as public,
        receiving(port=public.port, tls=pem) as private,
    ):
        put(outbox, f"https://rebind.example:{public.port}/")
        run(outbox, lambda: only(outbox).status == 500, clock, rules=rules)
        clock.now += 60
        run(outbox, lambda: only(outbox).state == "refused", clock, rules=rules)
        assert (len(public.received), private.received) == (1, [])


def test_a_receiver_that_hangs_costs_an_attempt_and_nobody_else(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ATTEMPT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, receiving() as receiver:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        for n in range(service.PER_TENANT * 2):
            put(outbox, url, f"def_{n}", tenant="stuck")
        put(outbox, receiver.url, "def_good")

        def done() -> bool:
            states = {each.subject: each for each in outbox.list()}
            return states["def_good"].state == "delivered" and states["def_0"].detail.startswith("no answer in")

        run(outbox, done)


def test_a_dead_port_and_a_name_without_an_address_are_tried_again(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answers({"nowhere.example": [""]}))
    with socket.create_server(("127.0.0.1", 0)) as dead:
        port = dead.getsockname()[1]
    put(outbox, f"http://127.0.0.1:{port}/", "def_1")
    put(outbox, "https://nowhere.example/", "def_2")
    run(outbox, lambda: all(each.detail for each in outbox.list()))
    assert {(each.state, each.detail) for each in outbox.list()} == {("pending", "no answer (ConnectError)")}


COURIER = """
import asyncio, sys
from tests.trimtab.webhooks.test_delivery import HERE, SECRETS, opened
from pathlib import Path
from trimtab.webhooks.service import Courier

with opened(Path(sys.argv[1])) as outbox:
    asyncio.run(Courier(outbox, SECRETS, HERE).run())
"""


def courier(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", COURIER, str(folder)], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}
    )


def test_killed_between_attempts_and_within_one(tmp_path: Path) -> None:
    """SIGKILL while the receiver holds the first attempt, and after the second failed: the third is the same webhook."""
    with receiving((500, {}), (500, {})) as receiver, opened(tmp_path) as outbox:
        id = put(outbox, receiver.url)
        first: list[subprocess.Popen[bytes]] = []

        def kill() -> None:
            receiver.before = lambda: None
            first[0].send_signal(signal.SIGKILL)
            first[0].wait()

        receiver.before = kill
        first.append(courier(tmp_path))
        receiver.wait_for(1)
        first[0].wait()
        left = only(outbox)
        assert (left.state, left.attempts, left.status) == ("pending", 1, None)  # claimed, and nobody there to settle

        clock = Clock()
        clock.now = left.due_at + 1
        run(outbox, lambda: only(outbox).status == 500, clock)
        assert only(outbox).attempts == 2

        second = courier(tmp_path)  # waits for the third attempt, minutes away
        time.sleep(0.2)
        second.kill()
        second.wait()
        clock.now = only(outbox).due_at + 1
        run(outbox, lambda: only(outbox).state == "delivered", clock)
        assert [each.headers["webhook-id"] for each in receiver.received] == [id] * 3
        assert len({each.body for each in receiver.received}) == 1


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (b"", "pending"),
        (b"220 ready for mail\r\n\r\n", "pending"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "pending"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 1_000_000, "pending"),  # headers without an end
        (b"HTTP/1.1 429 No\r\nretry-after: \xff\xfe\r\n\r\n", "pending"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n\x1f\x8bnonsense", "delivered"),
        (b"HTTP/1.1 204 OK\r\ncontent-length: 999999999\r\n\r\n" + b"a" * 1_000_000, "delivered"),
    ],
    ids=["nothing", "mail", "status", "headers", "retry-after", "gzip", "body"],
)
def test_whatever_a_receiver_answers_it_is_taken_for_what_it_is(outbox: Outbox, answer: bytes, state: str) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        put(outbox, f"http://127.0.0.1:{listener.getsockname()[1]}/")
        run(outbox, lambda: bool(only(outbox).status or only(outbox).detail))
        thread.join(10)
    assert only(outbox).state == state


def test_one_that_kills_whoever_tries_it_is_given_up(outbox: Outbox) -> None:
    clock = Clock()
    with receiving() as receiver:
        put(outbox, receiver.url)
        for _ in range(8):
            assert outbox.claim(clock.now, 1, 1)
            clock.now += CLAIM_S
        run(outbox, lambda: only(outbox).state == "failed", clock)
        assert receiver.received == []


def test_two_processes_deliver_each_webhook_once(tmp_path: Path) -> None:
    with receiving() as receiver, opened(tmp_path) as outbox:
        ids = [put(outbox, receiver.url, f"def_{n}", tenant=f"t{n % 5}") for n in range(40)]
        processes = [courier(tmp_path) for _ in range(2)]
        try:
            receiver.wait_for(40)
            until = time.monotonic() + 60
            while {each.state for each in outbox.list()} != {"delivered"}:
                assert time.monotonic() < until
                time.sleep(0.02)
        finally:
            for each in processes:
                each.kill()
                each.wait()
        assert sorted(each.headers["webhook-id"] for each in receiver.received) == sorted(ids)


def test_nothing_of_a_secret_or_an_address_is_logged(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="trimtab")
    with receiving((500, {})) as receiver:
        put(outbox, f"{receiver.url}/hook?token=hunter2")
        run(outbox, lambda: only(outbox).status == 500)
    logged = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("trimtab"))
    assert "msg_" in logged
    assert "hunter2" not in logged
    assert "whsec_" not in logged
    assert json.dumps(SECRET) not in logged
