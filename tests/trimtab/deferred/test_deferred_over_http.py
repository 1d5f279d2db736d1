"""Requests that may wait, over HTTP, before providers that sell batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.loopback import bad_request, ok, status
from tests.loopback_batches import Batch, BatchProvider, Trouble
from tests.trimtab.asking import CONTEXTS, QUESTION, serving
from trimtab.deferred import shipping

HAIKU = "claude-haiku-5-5"
MINI = "gpt-5-mini"


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "GATHER_S", (0.1, 0.2))
    monkeypatch.setattr(shipping, "POLL_S", (0.2, 0.5))
    monkeypatch.setenv("TRIMTAB_TEST_KEY", "sk-any")


@contextmanager
def before(provider: BatchProvider, folder: Path, model: str = HAIKU, **settings: Any) -> Iterator[httpx.Client]:
    kind = provider.tongue.kind
    seller = {
        "name": kind,
        "kind": kind,
        "base_url": provider.base_url,
        "models": [model],
        "api_key_env": "TRIMTAB_TEST_KEY",
        "batches": True,
    }
    with serving(seller, data_dir=folder, cache_dir=folder / "cache", **settings) as client:
        yield client


def asked(model: str = HAIKU, text: str = QUESTION, **options: Any) -> dict[str, Any]:
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}
    return {**body, "trimtab": options} if options else body


def message(client: httpx.Client, body: Mapping[str, Any], **headers: str) -> httpx.Response:
    return client.post("/v1/messages", json=body, headers=headers)


def over(client: httpx.Client, location: str, within_s: float = 20.0) -> dict[str, Any]:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        told: dict[str, Any] = client.get(location, params={"wait": 5}).json()
        if told["status"] not in ("queued", "in_progress"):
            return told
    raise AssertionError(f"not over: {told}")


class TestWaiting:
    def test_a_batch_is_bought_and_its_answer_is_the_surfaces_own(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic", [Batch(delay_s=0.5)]) as provider, before(provider, tmp_path) as client:
            response = message(client, asked(deadline="6h", contexts=CONTEXTS, ratio=0.4))
            assert response.status_code == 202
            accepted = response.json()
            assert (accepted["object"], accepted["status"], accepted["response"]) == ("deferred", "queued", None)
            assert accepted["deadline_at"] == accepted["accepted_at"] + 6 * 3600
            assert response.headers["location"] == f"/v1/deferred/{accepted['id']}"
            assert int(response.headers["retry-after"]) > 0
            told = over(client, response.headers["location"])
            (billed,) = provider.bill
        assert (told["status"], told["lane"], told["error"]) == ("completed", "batch", None)
        assert told["response"]["status_code"] == 200
        answer = told["response"]["body"]
        assert (answer["type"], answer["role"]) == ("message", "assistant")
        receipt = told["receipt"]
        assert answer["trimtab"] == receipt
        assert (receipt["processing"], receipt["input_tokens_billed"]) == ("batch", billed.input_tokens)
        assert Decimal(receipt["billed_cost_usd"]) * 2 == Decimal(receipt["at_once_cost_usd"])
        assert Decimal(receipt["at_once_cost_usd"]) < Decimal(receipt["baseline_cost_usd"])  # and it was trimmed
        assert receipt["tokens_after"] < receipt["tokens_before"]
        assert billed.processing == "batch"

    def test_what_may_not_wait_never_meets_it(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            assert message(client, asked()).status_code == 200
            assert message(client, asked(deadline="5m")).status_code == 200
            streamed = message(client, {**asked(deadline="6h"), "stream": True})
            assert streamed.headers["content-type"].startswith("text/event-stream")
            assert {each.processing for each in provider.bill} == {"sync"}

    def test_flex_within_the_hour_is_answered_on_the_spot(self, tmp_path: Path) -> None:
        with BatchProvider("openai") as provider, before(provider, tmp_path, MINI) as client:
            response = client.post("/v1/chat/completions", json=asked(MINI, deadline="20m"))
            assert response.status_code == 200
            assert response.json()["trimtab"]["processing"] == "flex"
            assert client.post("/v1/chat/completions", json=asked(MINI, deadline="12h")).status_code == 202

    def test_nobody_waits_where_the_lane_is_off(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path, deferred=False) as client:
            assert message(client, asked(deadline="6h")).status_code == 200
            assert client.get("/v1/batches").status_code == 404

    def test_nobody_waits_for_a_provider_that_sells_no_batches(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider:
            seller = {"name": "anthropic", "kind": "anthropic", "base_url": provider.base_url, "models": [HAIKU]}
            seller["api_key_env"] = "TRIMTAB_TEST_KEY"
            with serving(seller, data_dir=tmp_path, cache_dir=tmp_path / "cache") as client:
                assert message(client, asked(deadline="6h")).status_code == 200

    def test_a_limit_that_only_a_batch_meets_is_met_by_a_batch(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            plan = client.post("/v1/plan", json=asked()).json()["chosen"]
            limit = str(Decimal(plan["expected_cost_usd"]) * Decimal("0.7"))
            assert message(client, asked(max_cost_usd=limit)).status_code == 422
            response = message(client, asked(max_cost_usd=limit, deadline="2h"))
            assert response.status_code == 202
            assert over(client, response.headers["location"])["lane"] == "batch"


class TestItsKey:
    def test_the_same_request_under_the_same_key_is_the_same_job(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            first, again = (message(client, asked(deadline="6h"), **{"idempotency-key": "k1"}) for _ in range(2))
            assert first.json()["id"] == again.json()["id"]
            assert again.headers["x-trimtab-replayed"] == "true"
            over(client, first.headers["location"])
            assert message(client, asked(deadline="6h"), **{"idempotency-key": "k1"}).json()["status"] == "completed"
            other = message(client, asked(text="Another?", deadline="6h"), **{"idempotency-key": "k1"})
            assert (other.status_code, other.json()["error"]["type"]) == (422, "invalid_request_error")
            assert len(provider.bill) == 1

    def test_and_is_another_callers_own(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            mine = message(client, asked(deadline="6h"), **{"idempotency-key": "k1", "x-api-key": "mine"})
            others = message(client, asked(deadline="6h"), **{"idempotency-key": "k1", "x-api-key": "other"})
            assert mine.json()["id"] != others.json()["id"]
            assert client.get(mine.headers["location"], headers={"x-api-key": "other"}).status_code == 404
            assert client.delete(mine.headers["location"], headers={"x-api-key": "other"}).status_code == 404
            assert client.get(mine.headers["location"], headers={"x-api-key": "mine"}).status_code == 200


class TestItsEnd:
    def test_a_cancelled_one_is_called_back_and_what_it_cost_is_shown(self, tmp_path: Path) -> None:
        with (
            BatchProvider("anthropic", [Batch(delay_s=600, answered=1)]) as provider,
            before(provider, tmp_path) as client,
        ):
            provider.cancelling_s = 0.3
            location = message(client, asked(deadline="6h")).headers["location"]
            wait_for(lambda: client.get(location).json()["status"] == "in_progress" and bool(provider.held))
            cancelled = client.delete(location)
            assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
            wait_for(lambda: client.get(location).json()["receipt"] is not None)
            receipt = client.get(location).json()["receipt"]
            assert client.delete(location).json()["status"] == "cancelled"
        assert Decimal(receipt["billed_cost_usd"]) > 0
        assert "was billed in spite" in receipt["notes"][0]

    def test_what_the_caller_got_wrong_is_told_as_a_call_would_tell_it(self, tmp_path: Path) -> None:
        refused = Batch(line=lambda at, body: bad_request("max_tokens is too large"))
        with BatchProvider("anthropic", [refused]) as provider, before(provider, tmp_path) as client:
            told = over(client, message(client, asked(deadline="6h")).headers["location"])
        assert (told["status"], told["response"]["status_code"]) == ("failed", 400)
        assert "max_tokens is too large" in told["response"]["body"]["error"]["message"]
        assert told["error"]["code"] == "failed"

    def test_a_line_that_failed_there_is_bought_again(self, tmp_path: Path) -> None:
        broken = Batch(line=lambda at, body: status(500))
        with BatchProvider("anthropic", [broken, broken], script=[ok("At once.")]) as provider:
            with before(provider, tmp_path) as client:
                told = over(client, message(client, asked(deadline="6h")).headers["location"])
            assert (told["status"], told["lane"]) == ("completed", "sync")
            assert told["response"]["body"]["content"][0]["text"] == "At once."
            assert len(provider.held) == 2

    def test_a_submission_without_a_word_is_looked_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shipping, "UNSURE_S", 0.2)
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            provider.troubles.append(Trouble("POST", "/v1/messages/batches"))
            told = over(client, message(client, asked(deadline="6h")).headers["location"])
            assert (told["status"], told["lane"], len(provider.held), len(provider.bill)) == (
                "completed",
                "batch",
                1,
                1,
            )

    def test_a_provider_that_takes_no_batch_is_asked_at_once(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic", script=[ok("At once.")]) as provider, before(provider, tmp_path) as client:
            provider.troubles.append(Trouble("POST", "/v1/messages/batches", 403))
            told = over(client, message(client, asked(deadline="6h")).headers["location"])
            assert (told["status"], told["lane"]) == ("completed", "sync")


class TestBadInput:
    def test_a_callback_needs_a_deadline(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            response = message(client, asked(callback_url="https://example.com/hook"))
            assert response.status_code == 400
            assert "trimtab.deadline" in response.json()["error"]["message"]

    def test_a_callback_that_nobody_may_call_is_refused(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            response = message(client, asked(deadline="6h", callback_url="http://127.0.0.1/hook"))
            assert response.status_code == 400
            assert "trimtab.callback_url" in response.json()["error"]["message"]
            assert provider.held == {}

    @pytest.mark.parametrize("wait", ["-1", "61", "soon", "nan"])
    def test_a_wait_is_a_number_of_seconds(self, tmp_path: Path, wait: str) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            response = client.get("/v1/deferred/def_0", params={"wait": wait})
            assert response.status_code == 400
            assert "wait" in response.json()["error"]["message"]

    def test_nobodys_id_is_not_found(self, tmp_path: Path) -> None:
        with BatchProvider("anthropic") as provider, before(provider, tmp_path) as client:
            for response in (client.get("/v1/deferred/def_0"), client.delete("/v1/deferred/def_0")):
                assert (response.status_code, response.json()["error"]["code"]) == (404, "deferred_not_found")


def wait_for(what: Any, within_s: float = 15.0) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)
