"""Keys over HTTP: who comes in, what he may ask and spend, and that no tenant reads what is another's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.loopback import LoopbackProvider
from tests.trimtab.asking import CONTEXTS, QUESTION, chat, provider, serving

ADMIN = "tt-admin-8sKq2Zr7Lw0Xc5Vb9Nm3Qp6Td1Yf4Hg"
ADMIN_ENV = "TRIMTAB_TEST_ADMIN_KEY"
AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, LoopbackProvider]]:
    folder = tmp_path_factory.mktemp("keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ADMIN_ENV, ADMIN)
        with (
            LoopbackProvider() as server,
            serving(
                provider("a", server, "m", "other"),
                provider("b", server, "m", "third"),
                data_dir=str(folder / "data"),
                cache_dir=str(folder / "cache"),
                keys=True,
                admin_key_env=ADMIN_ENV,
                ledger=True,
                answer_cache="exact",
            ) as client,
        ):
            yield client, server


@pytest.fixture
def client(world: tuple[httpx.Client, LoopbackProvider]) -> httpx.Client:
    return world[0]


_COUNT = iter(range(10_000))


def made(client: httpx.Client, **fields: Any) -> tuple[str, dict[str, str]]:
    """A new key: its name, and the headers that show it."""
    name = f"k{next(_COUNT)}"
    answer = client.post("/admin/keys", json={"name": name, **fields}, headers=AS_ADMIN)
    assert answer.status_code == 201, answer.text
    return name, {"authorization": f"Bearer {answer.json()['key']}"}


def team(client: httpx.Client, **fields: Any) -> str:
    name = f"t{next(_COUNT)}"
    assert client.post("/admin/teams", json={"name": name, **fields}, headers=AS_ADMIN).status_code == 201
    return name


def ask(client: httpx.Client, headers: dict[str, str], **more: Any) -> httpx.Response:
    # each its own words, or the answer would come from the cache
    text = f"{QUESTION} ({next(_COUNT)})"
    return client.post("/v1/chat/completions", json=chat(text, **({"max_tokens": 50} | more)), headers=headers)


def usage(client: httpx.Client, what: str, name: str) -> dict[str, float]:
    """Of the only budget, once nothing is under way."""
    row: dict[str, Any] = {}
    for _ in range(100):
        (row,) = client.get(f"/admin/{what}/{name}", headers=AS_ADMIN).json()["usage"]
        if row["reserved_usd"] == "0":
            break
        time.sleep(0.02)
    return {each: float(row[f"{each}_usd"]) for each in ("spent", "reserved", "left", "budget")}


OPEN = {"/healthz", "/readyz", "/openapi.json"}


def test_every_endpoint_asks_for_a_key(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    tried = 0
    for path, item in schema["paths"].items():
        for method in item:
            where = path.replace("{", "").replace("}", "")
            for headers in ({}, {"authorization": "Bearer tt-nobody"}, {"x-api-key": "sk-" + "x" * 40}):
                answer = client.request(method, where, headers={"content-type": "application/json", **headers})
                if path in OPEN:
                    continue
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.headers["www-authenticate"].startswith("Bearer")
                tried += 1
    assert tried > 60


def test_a_virtual_key_opens_no_admin_endpoint_and_the_admin_key_no_other(client: httpx.Client) -> None:
    _, headers = made(client)
    assert client.get("/admin/keys", headers=headers).status_code == 401
    assert client.get("/v1/models", headers=AS_ADMIN).status_code == 401


def test_a_key_is_taken_wherever_its_client_puts_it(client: httpx.Client) -> None:
    _, headers = made(client)
    secret = headers["authorization"].removeprefix("Bearer ")
    for each in (headers, {"x-api-key": secret}, {"x-goog-api-key": secret}):
        assert client.get("/v1/models", headers=each).status_code == 200


def test_the_surfaces_say_401_each_in_its_own_shape(client: httpx.Client) -> None:
    with (
        openai.OpenAI(api_key="tt-wrong", base_url=f"{client.base_url}/v1") as wrong,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        wrong.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi."}])
    assert refused.value.code == "invalid_api_key"
    with (
        anthropic.Anthropic(api_key="tt-wrong", base_url=str(client.base_url)) as other,
        pytest.raises(anthropic.AuthenticationError) as told,
    ):
        other.messages.create(model="m", max_tokens=5, messages=[{"role": "user", "content": "Hi."}])
    assert told.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]


def test_no_secret_is_shown_twice_or_kept(client: httpx.Client, world: Any) -> None:
    name, headers = made(client)
    secret = headers["authorization"].removeprefix("Bearer ")
    ask(client, headers)
    told = [client.get(each, headers=AS_ADMIN).text for each in ("/admin/keys", f"/admin/keys/{name}")]
    assert all(secret not in each for each in told)
    assert client.post("/admin/keys", json={"name": "weak", "key": "a" * 40}, headers=AS_ADMIN).status_code == 400
    again = client.post("/admin/keys", json={"name": name}, headers=AS_ADMIN)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_exists")


def test_no_file_of_the_server_holds_a_secret(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> None:
    _, headers = made(client)
    ask(client, headers)
    secret = headers["authorization"].removeprefix("Bearer ").encode()
    files = [each for each in tmp_path_factory.getbasetemp().glob("keys*/**/*") if each.is_file()]
    assert any("trimtab.sqlite" in each.name for each in files)
    assert not [each for each in files if secret in each.read_bytes()]


def test_models_and_providers_are_the_keys_own(client: httpx.Client) -> None:
    _, headers = made(client, models=["m", "oth*"], deny=["b"])
    listed = client.get("/v1/models", headers=headers).json()["data"]
    assert [(each["id"], each["providers"]) for each in listed] == [("m", ["a"]), ("other", ["a"])]
    assert client.get("/v1/models/third", headers=headers).status_code == 404
    refused = ask(client, headers, model="third")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_found")
    by_candidate = ask(client, headers, trimtab={"candidates": ["third"]})
    assert by_candidate.status_code == 403
    assert client.post("/v1/plan", json=chat(model="third"), headers=headers).status_code == 403
    answer = ask(client, headers, trimtab={"order": ["b", "a"]})
    assert answer.json()["trimtab"]["provider"] == "a"
    assert ask(client, headers, trimtab={"allow": ["b"]}).status_code == 422


def test_a_key_that_is_changed_or_gone_is_so_within_seconds(client: httpx.Client) -> None:
    name, headers = made(client)
    assert ask(client, headers).status_code == 200
    client.patch(f"/admin/keys/{name}", json={"disabled": True}, headers=AS_ADMIN)
    assert ask(client, headers).status_code == 403
    client.patch(f"/admin/keys/{name}", json={"disabled": False}, headers=AS_ADMIN)
    rotated = client.post(f"/admin/keys/{name}/rotate", json={"grace_s": 60}, headers=AS_ADMIN).json()["key"]
    assert ask(client, headers).status_code == 200
    assert ask(client, {"x-api-key": rotated}).status_code == 200
    last = client.post(f"/admin/keys/{name}/rotate", headers=AS_ADMIN).json()["key"]
    assert ask(client, {"x-api-key": rotated}).status_code == 401
    assert client.delete(f"/admin/keys/{name}", headers=AS_ADMIN).status_code == 200
    assert ask(client, {"x-api-key": last}).status_code == 401
    _, soon = made(client, expires=0.05)
    time.sleep(0.1)
    assert ask(client, soon).status_code == 401


def test_a_budget_is_spent_by_what_was_billed_and_refused_beyond(client: httpx.Client) -> None:
    name, headers = made(client, budgets={"month": "0.004"})
    answer = ask(client, headers)
    billed = float(answer.json()["trimtab"]["billed_cost_usd"])
    assert usage(client, "keys", name)["spent"] == pytest.approx(billed)
    refused = ask(client, headers, max_tokens=5_000)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["type"]) == (429, "insufficient_quota", "insufficient_quota")
    assert name in error["message"]
    assert "renews at" in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert usage(client, "keys", name)["spent"] == pytest.approx(billed)  # what is refused gives all back


def test_many_at_once_do_not_overspend_a_team(client: httpx.Client) -> None:
    of = team(client, budgets={"day": "0.02"})
    keys = [made(client, team=of)[1] for _ in range(3)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: ask(client, keys[n % 3], max_tokens=300), range(36)))
    statuses = {each.status_code for each in answers}
    assert statuses == {200, 429}
    billed = sum(float(each.json()["trimtab"]["billed_cost_usd"]) for each in answers if each.status_code == 200)
    found = usage(client, "teams", of)
    assert found["spent"] == pytest.approx(billed)
    assert found["spent"] <= found["budget"]
    assert found["reserved"] == 0


def test_streams_and_hang_ups_and_failures_settle(client: httpx.Client) -> None:
    name, headers = made(client, budgets={"total": "1"})
    with client.stream("POST", "/v1/chat/completions", json=chat("Stream it.", stream=True), headers=headers) as going:
        b"".join(going.iter_raw())
    whole = usage(client, "keys", name)
    assert whole["spent"] > 0
    with client.stream("POST", "/v1/chat/completions", json=chat("Once more.", stream=True), headers=headers) as going:
        next(going.iter_raw())
    assert usage(client, "keys", name)["reserved"] == 0
    before = usage(client, "keys", name)["spent"]
    assert ask(client, headers, trimtab={"allow": ["nobody"]}).status_code == 400
    assert usage(client, "keys", name)["spent"] == before


def test_rates_are_told_as_each_client_expects(client: httpx.Client) -> None:
    _, headers = made(client, requests_per_minute=2, tokens_per_minute=100_000)
    first, second, third = (ask(client, headers) for _ in range(3))
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert (third.status_code, third.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(third.headers["retry-after"]) <= 30
    message = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
    refused = client.post("/v1/messages", json=message, headers=headers)
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert refused.headers["anthropic-ratelimit-requests-reset"].endswith("Z")


def test_one_tenant_finds_nothing_of_anothers(client: httpx.Client) -> None:
    """Every endpoint that takes an id or a digest, asked by another team with what the first one was told."""
    of, other = team(client), team(client)
    (_, ours), (_, also_ours), (_, theirs) = made(client, team=of), made(client, team=of), made(client, team=other)
    body = chat(QUESTION, max_tokens=20, trimtab={"contexts": CONTEXTS, "budget_tokens": 20})
    once = {**ours, "idempotency-key": "the-same"}
    answer = client.post("/v1/chat/completions", json=body, headers=once)
    digests = [each["digest"] for each in answer.json()["trimtab"]["cut"]]
    assert digests
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": chat()}
    upload = {"file": ("in.jsonl", json.dumps(line).encode())}
    file = client.post("/v1/files", files=upload, data={"purpose": "batch"}, headers=ours).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = client.post("/v1/batches", json=asked, headers=ours).json()["id"]
    job_asked = client.post(
        "/v1/chat/completions", json=chat("Later.", max_tokens=5, trimtab={"deadline": "20h"}), headers=ours
    )
    reads = [f"/v1/contexts/{each}" for each in digests]
    reads += [f"/v1/files/{file}", f"/v1/files/{file}/content", f"/v1/batches/{batch}"]
    if job_asked.status_code == 202:
        reads.append(job_asked.headers["location"])
    for path in reads:
        assert client.get(path, headers=also_ours).status_code == 200, path  # a team shares
        assert client.get(path, headers=theirs).status_code == 404, path
    assert client.delete(f"/v1/files/{file}", headers=theirs).status_code == 404
    assert client.post(f"/v1/batches/{batch}/cancel", headers=theirs).status_code == 404
    assert client.post("/v1/batches", json=asked, headers=theirs).status_code in (400, 404)
    for path in ("/v1/files", "/v1/batches"):
        assert client.get(path, headers=theirs).json()["data"] == []
    again = client.post("/v1/chat/completions", json=body, headers={**theirs, "idempotency-key": "the-same"})
    assert "x-trimtab-replayed" not in again.headers
    assert again.json()["trimtab"].get("cache") != "hit"  # nor from the answer cache
    assert again.json()["trimtab"]["id"] != answer.json()["trimtab"]["id"]
    secrets = [client.get("/v1/webhooks/secrets", headers=each) for each in (ours, theirs)]
    assert secrets[0].status_code != 200 or secrets[0].text != secrets[1].text
    receipt = answer.json()["trimtab"]["id"]
    shown = client.get(f"/requests/{receipt}", headers={**theirs, "host": "rebound.example"})
    assert shown.status_code == 403  # the dashboard is the operator's


def test_what_is_not_a_name_or_a_field_is_refused(client: httpx.Client) -> None:
    bad: list[dict[str, Any]] = [
        {"name": "../x"},
        {"name": ""},
        {"name": "ok1", "budgets": {"year": "1"}},
        {"name": "ok2", "budgets": {"day": "-1"}},
        {"name": "ok3", "requests_per_minute": 0},
        {"name": "ok4", "expires": "yesterday"},
        {"name": "ok5", "nonsense": 1},
    ]
    for each in bad:
        assert client.post("/admin/keys", json=each, headers=AS_ADMIN).status_code == 400, each
    no_team = client.post("/admin/keys", json={"name": "ok6", "team": "nobody"}, headers=AS_ADMIN)
    assert no_team.status_code == 404
    of = team(client)
    made(client, team=of)
    assert client.delete(f"/admin/teams/{of}", headers=AS_ADMIN).status_code == 409
    assert client.get("/admin/keys/nobody%00", headers=AS_ADMIN).status_code == 404


def test_a_key_of_ones_own_choice_works(client: httpx.Client) -> None:
    chosen = "9f8K2-xQ71z_Lm0Pq4-Rt6Vw3Yb5"
    answer = client.post("/admin/keys", json={"name": "chosen", "key": chosen}, headers=AS_ADMIN)
    assert (answer.status_code, answer.json()["hint"]) == (201, "")
    assert client.get("/v1/models", headers={"x-api-key": chosen}).status_code == 200


def test_a_batch_of_a_key_without_budget_fails_and_says_why(client: httpx.Client, tmp_path: Path) -> None:
    name, headers = made(client, budgets={"month": "0.000001"})
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": chat("Batch.", max_tokens=50)}
    upload = {"file": ("in.jsonl", json.dumps(line).encode())}
    file = client.post("/v1/files", files=upload, data={"purpose": "batch"}, headers=headers).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = client.post("/v1/batches", json=asked, headers=headers).json()["id"]
    told: dict[str, Any] = {}
    for _ in range(200):
        told = client.get(f"/v1/batches/{batch}", headers=headers).json()
        if told["status"] == "completed":
            break
        time.sleep(0.1)
    assert told["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    error = client.get(f"/v1/files/{told['error_file_id']}/content", headers=headers).text
    assert "insufficient_quota" in error
    assert name in error
