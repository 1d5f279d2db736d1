"""Every request that is over is a line, however it ended, and sums are those of the receipts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest

from tests import loopback
from tests.loopback import LoopbackProvider, ok
from tests.trimtab.asking import CALLERS_KEY, CONTEXTS, QUESTION, chat, provider, serving_of
from tests.trimtab.ledger.stores import postgres_database
from trimtab import Trimtab, TrimtabTransport, wrap
from trimtab.database import Database
from trimtab.ledger.entries import TABLES, Entry
from trimtab.ledger.queries import details, totals

CUT = {"contexts": CONTEXTS, "ratio": 0.5, "route": "faq"}
USAGE = {"prompt_tokens": 60, "completion_tokens": 7, "total_tokens": 67}


@pytest.fixture
def upstream() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as server:
        yield server


def entries_of(folder: Path) -> list[Entry]:
    database = Database(f"sqlite:///{folder / 'trimtab.sqlite'}")
    try:
        database.create(TABLES)
        return list(details(database))
    finally:
        database.close()


def trimtab_of(folder: Path, *servers: LoopbackProvider, **more: Any) -> Trimtab:
    named = [provider("ab"[at], server) for at, server in enumerate(servers)]
    return Trimtab(providers=named, data_dir=folder, max_attempts=2, **more)


def test_a_request_is_a_line_with_its_tags(upstream: LoopbackProvider, tmp_path: Path) -> None:
    upstream.then(ok(usage=USAGE))
    tags = {"user": "ada\x00", "metadata": {"feature": "search", "n": 3, "deep": {"no": 1}, "long": "x" * 2_000}}
    with serving_of(trimtab_of(tmp_path, upstream)) as client:
        headers = {"x-request-id": "req-7", "authorization": f"Bearer {CALLERS_KEY}"}
        answer = client.post("/v1/chat/completions", json=chat(trimtab=CUT, **tags), headers=headers)
    receipt = answer.json()["trimtab"]
    (entry,) = entries_of(tmp_path)
    assert (entry.receipt_id, entry.request_id, entry.route, entry.user) == (receipt["id"], "req-7", "faq", "ada")
    assert entry.detail["metadata"] == {"feature": "search", "n": "3", "long": "x" * 512}
    assert (entry.surface, entry.stream, entry.status, entry.outcome, entry.answered) == (
        "chat",
        False,
        200,
        "ok",
        True,
    )
    assert (entry.provider, entry.model, entry.model_asked, entry.baseline_provider) == ("a", "m", "m", "a")
    assert (entry.input_tokens_billed, entry.output_tokens_billed) == (60, 7)
    for ours, theirs in (
        ("billed_usd", "billed_cost_usd"),
        ("baseline_usd", "baseline_cost_usd"),
        ("saved_usd", "saved_usd"),
    ):
        assert getattr(entry, ours) == Decimal(receipt[theirs])
    assert entry.cost_usd == entry.billed_usd == (entry.baseline_usd or 0) - (entry.saved_usd or 0)
    assert [cut["digest"] for cut in entry.detail["cut"]] == [cut["digest"] for cut in receipt["cut"]]
    budgets, coverages = zip(*entry.detail["curve"], strict=True)
    assert (budgets[0], budgets[-1], coverages[-1]) == (0, receipt["tokens_before"], 1.0)
    assert list(coverages) == sorted(coverages)
    assert entry.detail["plan"]["chosen"]["budget_tokens"] == receipt["tokens_before"] // 2
    assert entry.detail["attempts"][0]["outcome"] == "ok"
    assert (entry.trimtab_ms or 0) > 0 < (entry.provider_ms or 0)
    stored = json.dumps(entry.detail, default=str) + str(entry)
    for secret in (QUESTION, "encrypted at rest", CALLERS_KEY):
        assert secret not in stored
    assert (tmp_path / "trimtab.sqlite").read_bytes().find(b"encrypted at rest") < 0


def test_text_is_kept_where_it_is_asked_for(upstream: LoopbackProvider, tmp_path: Path) -> None:
    body = chat(trimtab=CUT)
    with serving_of(trimtab_of(tmp_path, upstream, ledger_text=True)) as client:
        client.post("/v1/chat/completions", json=body)
    (entry,) = entries_of(tmp_path)
    assert entry.detail["body"] == body
    kept = {cut["id"]: cut["kept_spans"] for cut in entry.detail["cut"]}
    texts = {each["id"]: each["text"] for each in CONTEXTS}
    assert all(0 <= start < end <= len(texts[name]) for name, spans in kept.items() for start, end in spans)


def test_however_it_ends_it_is_a_line(tmp_path: Path) -> None:
    with LoopbackProvider() as a, LoopbackProvider() as b:
        a.then(ok(usage=USAGE), loopback.status(500), loopback.status(503), loopback.bad_request(), loopback.cut(2))
        b.then(ok(usage=USAGE), loopback.status(500))
        with serving_of(trimtab_of(tmp_path, a, b)) as client:
            whole = client.post("/v1/chat/completions", json=chat())
            over = client.post("/v1/chat/completions", json=chat())  # b takes it over
            nobody = client.post("/v1/chat/completions", json=chat())
            wrong = client.post("/v1/chat/completions", json=chat())
            broken = client.post("/v1/chat/completions", json=chat(stream=True))
    entries = entries_of(tmp_path)
    statuses = [each.status_code for each in (whole, over, nobody, wrong, broken)]
    assert [each.status for each in entries] == statuses == [200, 200, statuses[2], 400, 200]
    assert statuses[2] >= 500
    assert [each.outcome for each in entries] == ["ok", "ok", "server_error", "caller_error", "cut_off"]
    assert [each.attempts for each in entries] == [1, 2, 2, 1, 1]
    assert [each.provider for each in entries[:2]] == ["a", "b"]
    assert [each.answered for each in entries] == [True, True, False, False, True]
    for failed in entries[2:4]:
        assert (failed.cost_usd, failed.billed_usd, failed.baseline_usd, failed.saved_usd) == (0, None, None, None)
    assert entries[4].stream


def test_a_caller_who_hangs_up_is_a_line(upstream: LoopbackProvider, tmp_path: Path) -> None:
    upstream.then(loopback.stall(2), loopback.hang())
    trimtab = trimtab_of(tmp_path, upstream)
    with serving_of(trimtab) as client:
        with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
            next(response.iter_raw())
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/chat/completions", json=chat(), timeout=0.5)
        deadline = time.monotonic() + 10
        while len(entries_of(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    entries = entries_of(tmp_path)
    assert [each.outcome for each in entries] == ["abandoned", "abandoned"]
    assert [each.status for each in entries] == [200, 499]
    assert [each.answered for each in entries] == [True, False]


def test_a_thousand_at_once_are_a_thousand_lines(upstream: LoopbackProvider, tmp_path: Path) -> None:
    trimtab = trimtab_of(tmp_path, upstream, ledger=True)

    async def all_of_them() -> list[Any]:
        async with trimtab.router() as router:
            bodies = (chat(f"Question {number}?", user=f"u{number % 7}") for number in range(1_000))
            return await asyncio.gather(*(trimtab.acomplete(body, router) for body in bodies))

    done = asyncio.run(all_of_them())
    trimtab.close()
    entries = entries_of(tmp_path)
    assert {each.receipt_id for each in entries} == {each.receipt.id for each in done}
    assert len(entries) == 1_000
    database = Database(f"sqlite:///{tmp_path / 'trimtab.sqlite'}")
    (total,) = totals(database)
    by_user = totals(database, "user")
    database.close()
    assert total.cost_usd == sum(each.receipt.billed_cost_usd for each in done)
    assert total.saved_usd == sum(each.receipt.saved_usd for each in done)
    assert total.input_tokens_billed == sum(each.receipt.input_tokens_billed for each in done)
    assert sum(each.cost_usd for each in by_user) == total.cost_usd


def test_a_server_keeps_it_in_postgresql(upstream: LoopbackProvider, tmp_path: Path, postgres_url: str) -> None:
    with postgres_database(postgres_url) as database:
        url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with serving_of(trimtab_of(tmp_path, upstream, database_url=url)) as client:
            receipts = [client.post("/v1/chat/completions", json=chat(trimtab=CUT)).json()["trimtab"] for _ in range(5)]
        found = list(details(database))
    assert [each.receipt_id for each in found] == [each["id"] for each in receipts]
    assert sum(each.saved_usd or 0 for each in found) == sum(Decimal(each["saved_usd"]) for each in receipts)
    assert not (tmp_path / "trimtab.sqlite").exists()


def test_no_ledger_where_none_is_wanted(upstream: LoopbackProvider, tmp_path: Path) -> None:
    with serving_of(trimtab_of(tmp_path, upstream, ledger=False)) as client:
        client.post("/v1/chat/completions", json=chat())
    assert entries_of(tmp_path) == []
    trimtab = trimtab_of(tmp_path, upstream)  # and middleware has none unless it is asked for
    asyncio.run(trimtab.acomplete(chat()))
    assert entries_of(tmp_path) == []


def test_middleware_writes_to_the_same_ledger(upstream: LoopbackProvider, tmp_path: Path) -> None:
    upstream.then(ok(usage=USAGE), ok(usage=USAGE), loopback.status(500), loopback.reset())
    trimtab = Trimtab(data_dir=tmp_path, ledger=True)
    url = f"{upstream.base_url}/chat/completions"
    with httpx.Client(transport=TrimtabTransport(trimtab=trimtab)) as client:
        sent = client.post(url, json={**chat(trimtab=CUT), "model": "gpt-5-mini", "user": "ada"})
        with openai.OpenAI(
            base_url=upstream.base_url, api_key="k", max_retries=0, http_client=httpx2.Client(trust_env=False)
        ) as plain:
            told = wrap(plain, trimtab).chat.completions.create(**{**chat(), "model": "gpt-5-mini"}).trimtab
        client.post(url, json={**chat(), "model": "gpt-5-mini"})
        with pytest.raises(httpx.TransportError):
            client.post(url, json={**chat(), "model": "of-no-price"})
    trimtab.close()
    entries = entries_of(tmp_path)
    assert [each.outcome for each in entries] == ["ok", "ok", "failed", "failed"]
    assert [each.status for each in entries] == [200, 200, 500, 502]
    assert entries[0].receipt_id == sent.extensions["trimtab"].id
    assert entries[0].saved_usd == sent.extensions["trimtab"].saved_usd
    assert (entries[0].user, entries[0].provider) == ("ada", "127.0.0.1")
    assert entries[1].receipt_id == told["id"]
    assert (entries[2].saved_usd, entries[3].cost_usd, entries[3].detail["plan"]) == (None, 0, None)


SERVER = """
import sys
from trimtab import Trimtab
from trimtab.app import create_app
import uvicorn
uvicorn.run(create_app(Trimtab(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_process_that_is_killed_loses_no_request_that_was_over(upstream: LoopbackProvider, tmp_path: Path) -> None:
    """Twice: between two requests, and amid many. The second may lose what was over in the last moments, and no more."""
    config = tmp_path / "trimtab.toml"
    config.write_text(
        f'data_dir = "{tmp_path}"\ncache_dir = "{tmp_path / "cache"}"\n'
        f'[[providers]]\nname = "a"\nkind = "openai"\nbase_url = "{upstream.base_url}"\nmodels = ["m"]\n'
        'prices = {input_mtok = "2", output_mtok = "10"}\n'
    )
    over: dict[str, float] = {}
    for round_number, amid in enumerate((False, True)):
        port = free_port()
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(config), str(port)], env=dict(os.environ))
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                _wait_until_ready(client)
                until = time.monotonic() + (1.5 if amid else 0.0)
                for number in range(1_000 if amid else 20):
                    told = client.post("/v1/chat/completions", json=chat(f"Round {round_number}, {number}?"))
                    over[told.json()["trimtab"]["id"]] = time.monotonic()
                    if amid and time.monotonic() > until:
                        break
                if not amid:
                    time.sleep(1.0)  # the next request is a second away
                killed = time.monotonic()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        found = {each.receipt_id for each in entries_of(tmp_path)}
        sure = {name for name, at in over.items() if at < killed - 1.0}
        assert len(sure) >= 20
        assert sure <= found <= set(over)
        if not amid:
            assert found == set(over)


def _wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if client.get("/readyz").json()["status"] != "loading":
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the server did not start")
