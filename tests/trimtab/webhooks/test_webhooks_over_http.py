"""Webhooks as a caller has them: secrets over HTTP, a job's end, and the commands, against a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from typer.testing import CliRunner

from tests.trimtab.asking import serving_of
from tests.trimtab.webhooks.receiving import SECRET, receiving
from trimtab import Settings, Trimtab
from trimtab.app import create_app
from trimtab.caller import Caller, OpenGate, stranger
from trimtab.cli import app
from trimtab.database import Database
from trimtab.deferred.jobs import Jobs, NewJob, Outcome
from trimtab.edge import Edge
from trimtab.errors import BadRequest, BadSettings
from trimtab.webhooks import Outbox, Webhooks
from trimtab.webhooks.events import INLINE_BYTES


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TRIMTAB_WEBHOOK_SECRET", SECRET)
    return Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache", callback_networks=("127.0.0.1",))


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database)
    yield database
    database.close()


def webhooks_of(settings: Settings, database: Database) -> Webhooks:
    webhooks = Webhooks(Edge(Trimtab(settings), OpenGate()), database)
    webhooks.outbox.create()
    return webhooks


def finish(
    database: Database, webhooks: Webhooks, url: str, caller: Caller, content: bytes, state: str = "completed"
) -> str:
    """A job that is accepted and ended, as the deferred lane ends one."""
    jobs = Jobs(database)
    jobs.create()
    jobs.finished.append(webhooks.job_finished)
    now = time.time()
    (accepted,) = jobs.accept([NewJob(caller, "/v1/chat/completions", b"{}", now + 60, callback_url=url)], now)
    jobs.finish([Outcome(accepted.id, state, 200, content)], now)
    jobs.finish([Outcome(accepted.id, "failed", 500, b"{}")], now)  # too late: it is over
    return accepted.id


def wait_for(outbox: Outbox, state: str) -> None:
    until = time.monotonic() + 60
    while {each.state for each in outbox.list()} != {state}:
        assert time.monotonic() < until, outbox.list()
        time.sleep(0.02)


def test_a_caller_fetches_its_secret_and_verifies_its_jobs_webhook(settings: Settings, database: Database) -> None:
    webhooks = webhooks_of(settings, database)
    with serving_of(Trimtab(settings)) as client, receiving() as receiver:
        mine, others = {"authorization": "Bearer sk-one"}, {"authorization": "Bearer sk-two"}
        (secret,) = client.get("/v1/webhooks/secrets", headers=mine).json()["secrets"]
        assert client.get("/v1/webhooks/secrets", headers=mine).json()["secrets"] == [secret]
        assert client.get("/v1/webhooks/secrets", headers=others).json()["secrets"] != [secret]
        job = finish(database, webhooks, f"{receiver.url}/hook", stranger(mine), b'{"choices":[]}')
        receiver.wait_for(1)
        (got,) = receiver.received
        told = Webhook(secret).verify(got.body, got.headers)
        assert (told["type"], told["data"]["id"], told["data"]["result"]) == (
            "deferred.completed",
            job,
            {"choices": []},
        )
        assert told["data"]["result_url"] == f"/v1/deferred/{job}"
        wait_for(webhooks.outbox, "delivered")


@pytest.mark.parametrize("state", ["completed", "failed", "expired", "cancelled"])
def test_a_large_result_is_told_by_reference(settings: Settings, database: Database, state: str) -> None:
    webhooks = webhooks_of(settings, database)
    finish(database, webhooks, "https://example.com/", Caller("t"), b'"' + b"a" * INLINE_BYTES + b'"', state)
    (delivery,) = webhooks.outbox.list()
    told = json.loads(delivery.body)
    assert (told["type"], told["data"]["status"], "result" in told["data"]) == (f"deferred.{state}", state, False)


def test_without_a_secret_there_are_no_webhooks(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRIMTAB_WEBHOOK_SECRET")
    with serving_of(Trimtab(settings)) as client:
        answer = client.get("/v1/webhooks/secrets")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "webhooks_off")
    with pytest.raises(BadRequest, match=r"^trimtab\.callback_url: this server sends no webhooks"):
        webhooks_of(settings, database).check("https://example.com/", "trimtab.callback_url")


def test_an_address_is_checked_when_it_is_accepted(settings: Settings, database: Database) -> None:
    webhooks = webhooks_of(settings, database)
    assert webhooks.check("https://Example.com/a", "callback_url") == "https://example.com/a"
    assert webhooks.check("http://127.0.0.1:9/a", "callback_url") == "http://127.0.0.1:9/a"
    with pytest.raises(BadRequest, match=r"^callback_url: leads to an address that is private"):
        webhooks.check("https://10.0.0.1/", "callback_url")


def test_bad_settings_are_told_at_the_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings, match="callback_networks"):
        create_app(Trimtab(settings, callback_networks=["10.0.0.0/40"]))
    with pytest.raises(BadSettings, match="callback_networks must be a list of texts"):
        Trimtab(settings, callback_networks="127.0.0.1")
    monkeypatch.setenv("TRIMTAB_WEBHOOK_SECRET", "hunter2")
    with pytest.raises(BadSettings, match="whsec_") as raised:
        create_app(Trimtab(settings))
    assert "hunter2" not in str(raised.value)


def command(settings: Settings, tmp_path: Path, *arguments: str, status: int = 0) -> Any:
    config = tmp_path / "trimtab.toml"
    config.write_text(f'data_dir = "{settings.data_dir}"\n')
    result = CliRunner().invoke(app, ["webhooks", *arguments, "--config", str(config)], env={"COLUMNS": "300"})
    assert result.exit_code == status, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.output


def test_the_commands(settings: Settings, database: Database, tmp_path: Path) -> None:
    webhooks = webhooks_of(settings, database)
    assert command(settings, tmp_path, "list") == "no deliveries\n"
    with receiving((410, {})) as receiver, serving_of(Trimtab(settings)):
        url = f"{receiver.url}/[x]"
        job = finish(database, webhooks, url, Caller("acme"), b"{}")
        wait_for(webhooks.outbox, "disabled")
        (listed,) = command(settings, tmp_path, "list", "--json")["deliveries"]
        assert (listed["subject"], listed["state"], listed["status"], listed["url"]) == (job, "disabled", 410, url)
        shown = command(settings, tmp_path, "list", "--state", "disabled")
        assert url in shown
        assert f"{url} of tenant acme" in shown
        assert "disabled" in command(settings, tmp_path, "replay", listed["id"], status=2)

        assert command(settings, tmp_path, "enable", url, "--json") == {"enabled": ["acme"], "pending": 1}
        wait_for(webhooks.outbox, "delivered")
        assert "is not disabled" in command(settings, tmp_path, "enable", url, status=2)
        assert command(settings, tmp_path, "replay", listed["id"], "--json") == {"replayed": [listed["id"]]}
        receiver.wait_for(3)
        assert {each.headers["webhook-id"] for each in receiver.received} == {listed["id"]}
        assert "no such delivery" in command(settings, tmp_path, "replay", "msg_none", status=2)
    (secret,) = command(settings, tmp_path, "secrets", "acme", "--json")["secrets"]
    assert Webhook(secret).verify(receiver.received[2].body, receiver.received[2].headers)
