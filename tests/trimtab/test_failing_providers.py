"""Providers that fail in each way, through the HTTP app: failover before the first byte, an error event after it, and
every attempt in the receipt. Then callers who go, or who will not wait."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from compressor import Ranker
from tests import loopback
from tests.loopback import LoopbackProvider, Step, ok
from tests.loopback_tongues import ANTHROPIC
from tests.trimtab.asking import KEY, KEY_ENV, chat, outcomes, provider, serving, serving_of, without_receipt_event
from trimtab import Trimtab

QUICK = {"first_byte_timeout_ms": 300, "answer_timeout_ms": 300, "idle_timeout_ms": 300, "total_timeout_ms": 5_000}


class Three(NamedTuple):
    """A trimtab before two providers of "m", one alone with "only-a", and one that refuses connections with "dead"."""

    trimtab: httpx.Client
    a: LoopbackProvider
    b: LoopbackProvider
    pipeline: Trimtab


@pytest.fixture(scope="module")
def module_three() -> Iterator[Three]:
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider() as a,
        LoopbackProvider() as b,
        LoopbackProvider(listen=False) as refusing,
        LoopbackProvider(tongue=ANTHROPIC) as c,
    ):
        patch.setenv(KEY_ENV, KEY)
        pipeline = Trimtab(
            providers=[
                provider("a", a, "m", "only-a", api_key_env=KEY_ENV),
                provider("refusing", refusing, "dead", "half-dead"),
                provider("b", b, "m", "half-dead"),
                provider("keyless", b, "keyless", api_key_env="TRIMTAB_TEST_NO_SUCH_KEY"),
                provider("c", c, "c", api_key_env=KEY_ENV),
            ],
            max_attempts=2,
            **QUICK,
        )
        with serving_of(pipeline) as client:
            yield Three(client, a, b, pipeline)


@pytest.fixture
def three(module_three: Three) -> Iterator[Three]:
    module_three.pipeline.experience.health.forget()
    yield module_three
    assert not module_three.a._script, "a step that no request took"
    assert not module_three.b._script


def ask(three: Three, body: dict[str, Any]) -> httpx.Response:
    return three.trimtab.post("/v1/chat/completions", json=body)


EARLY: dict[str, tuple[Step, str, int | None]] = {
    "reset": (loopback.reset(), "connection_lost", None),
    "reset mid-header": (loopback.reset_mid_header(), "connection_lost", None),
    "500": (loopback.status(500), "server_error", 500),
    "429": (loopback.rate_limited(), "rate_limited", 429),
    "429 for a second": (loopback.rate_limited("1"), "rate_limited", 429),
    "429 for an hour": (loopback.rate_limited("3600"), "rate_limited", 429),
    "401": (loopback.status(401), "rejected", 401),
    "404": (loopback.status(404), "rejected", 404),
    "a redirect": (loopback.redirect("http://127.0.0.1:9/"), "rejected", 307),
    "a hang": (loopback.hang(), "timeout", None),
    "a hang after the headers": (loopback.hang_after_headers(), "timeout", 200),
    "garbage": (loopback.garbage(), "bad_response", 200),
    "a web page": (loopback.html(), "bad_response", 200),
    "cut before an event": (loopback.cut(0), "connection_lost", 200),
}


@pytest.mark.parametrize("way", EARLY)
@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_before_the_first_byte_costs_an_attempt(three: Three, way: str, stream: bool) -> None:
    step, outcome, status = EARLY[way]
    three.a.then(step)
    three.b.then(ok("From b."))
    began = time.monotonic()
    answer = ask(three, chat(stream=stream, trimtab={}))
    assert answer.status_code == 200
    assert time.monotonic() - began < 1.0, "a Retry-After of one provider is no reason to wait for another"
    if stream:
        through, receipt, _ = without_receipt_event(answer.content)
        assert b"From b." in b"".join(_texts(through))
    else:
        receipt = answer.json()["trimtab"]
        assert answer.json()["choices"][0]["message"]["content"] == "From b."
    assert outcomes(receipt) == [("a", outcome, status), ("b", "ok", 200)]
    assert (receipt["provider"], answer.headers["x-trimtab-provider"]) == ("b", "b")
    assert answer.headers["x-trimtab-attempts"] == "2"
    assert three.a.requests[-1].json == three.b.requests[-1].json


def _texts(stream: bytes) -> Iterator[bytes]:
    for event in stream.split(b"\n\n"):
        if event.startswith(b"data: {"):
            for choice in json.loads(event[6:])["choices"]:
                yield (choice["delta"].get("content") or "").encode()


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_connection_costs_an_attempt(three: Three, stream: bool) -> None:
    three.b.then(ok("From b."))
    answer = ask(three, chat(model="half-dead", stream=stream, trimtab={}) | {"model": "half-dead"})
    receipt = without_receipt_event(answer.content)[1] if stream else answer.json()["trimtab"]
    assert outcomes(receipt) == [("refusing", "connect_failed", None), ("b", "ok", 200)]


@pytest.mark.parametrize(
    ("step", "detail"),
    [
        (loopback.cut(2), "cut"),
        (loopback.stall(2), "no answer in time"),
        (loopback.garbage(after_events=2), "not JSON"),
    ],
)
def test_what_fails_after_the_first_byte_ends_in_an_error_event(three: Three, step: Step, detail: str) -> None:
    three.a.then(step)
    answer = ask(three, chat(stream=True, trimtab={}))
    assert answer.status_code == 200
    through, receipt, _ = without_receipt_event(answer.content)
    events = [each for each in through.split(b"\n\n") if each]
    assert [event.startswith(b'data: {"id"') for event in events] == [True, True, False]
    error = json.loads(events[-1].removeprefix(b"data: "))["error"]
    assert error["code"] == "stream_cut_off"
    assert detail in error["message"]
    assert b"[DONE]" not in answer.content
    assert outcomes(receipt) == [("a", "cut_off", 200)]


def test_the_official_client_raises_for_a_stream_that_is_cut(three: Three) -> None:
    three.a.then(loopback.cut(2))
    base_url = f"{str(three.trimtab.base_url).rstrip('/')}/v1"
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(**chat(), stream=True)
        next(stream), next(stream)
        with pytest.raises(openai.APIError, match="broke off"):
            next(stream)


# --- when nobody answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [500, 503, 529])
def test_the_last_providers_error_is_passed_on(three: Three, stream: bool, status: int) -> None:
    three.a.then(loopback.status(500, "first"))
    three.b.then(loopback.status(status, "overloaded"))
    answer = ask(three, chat(stream=stream))
    assert answer.status_code == status
    told = answer.json()
    receipt = told.pop("trimtab")
    assert told == {"error": {"message": "overloaded", "type": "server_error", "param": None, "code": None}}
    assert outcomes(receipt) == [("a", "server_error", 500), ("b", "server_error", status)]
    assert answer.headers["x-trimtab-attempts"] == "2"
    assert receipt["billed_cost_usd"] is None


def test_a_rate_limit_is_passed_on_with_its_wait(three: Three) -> None:
    three.a.then(loopback.rate_limited("3600"))
    three.b.then(loopback.rate_limited("41.5"))
    answer = ask(three, chat())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "42")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("status", [401, 402, 403, 404])
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_provider_says_of_our_key_is_not_passed_on(three: Three, status: int, stream: bool) -> None:
    three.a.then(loopback.status(status, f"Incorrect API key provided: {KEY[:8]}****{KEY[-4:]}, {KEY}"))
    answer = ask(three, chat(stream=stream) | {"model": "only-a"})
    assert answer.status_code == 502
    assert KEY[:8] not in answer.text
    assert KEY[-4:] not in answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("upstream_error", "providers_failed")
    assert f"a/only-a: HTTP {status}" in error["message"]
    assert outcomes(answer.json()["trimtab"]) == [("a", "rejected", status)]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_a_provider_says_of_the_request_is_passed_on_byte_for_byte(three: Three, status: int) -> None:
    body = b'{"error": {"message":"no such tool" , "type":"invalid_request_error","param":"tools.0","code":null}}\n'
    three.a.then(loopback.raw(body, content_type="application/json", status=status))
    answer = ask(three, chat())
    assert (answer.status_code, answer.content) == (status, body)
    assert answer.headers["x-trimtab-attempts"] == "1"
    assert not three.b._script


def test_an_error_that_is_no_json_is_told_in_the_clients_shape(three: Three) -> None:
    page = b"<html>502 Bad Gateway</html>"
    three.a.then(loopback.raw(page, content_type="text/html", status=502))
    three.b.then(loopback.raw(page, content_type="text/html", status=502))
    answer = ask(three, chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "providers_failed")


@pytest.mark.parametrize(
    ("model", "step", "status"),
    [("dead", None, 502), ("only-a", loopback.hang(), 504), ("only-a", loopback.garbage(), 502)],
)
def test_providers_that_say_nothing_are_told_in_the_clients_shape(
    three: Three, model: str, step: Step | None, status: int
) -> None:
    if step is not None:
        three.a.then(step, step)
    answer = ask(three, chat() | {"model": model})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "upstream_error"
    assert len(answer.json()["trimtab"]["attempts"]) == 2


def test_a_missing_key_is_told_by_the_name_of_its_variable(three: Three) -> None:
    answer = ask(three, chat() | {"model": "keyless"})
    assert answer.status_code == 503
    assert "TRIMTAB_TEST_NO_SUCH_KEY" in answer.json()["error"]["message"]


def test_what_a_wire_cannot_say_is_the_callers_to_mend(three: Three) -> None:
    answer = ask(three, chat(n=2) | {"model": "c"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "n", "unsupported_parameter")


# --- callers who go, or who will not wait ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [loopback.hang(), loopback.hang_after_headers()])
@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_hangs_up_ends_the_providers_work(three: Three, stream: bool, fault: Step) -> None:
    with LoopbackProvider([fault]) as slow, serving(provider("slow", slow)) as client:
        address = (client.base_url.host, client.base_url.port)
        body = json.dumps(chat(stream=stream)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        with socket.create_connection(address) as caller:
            caller.sendall(head.encode() + b"\r\n\r\n" + body)
            until = time.monotonic() + 5
            while not slow.requests and time.monotonic() < until:
                time.sleep(0.01)
        assert slow.requests[0].hung_up.wait(3), "the provider was left working for nobody"
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_will_not_wait_gets_a_504(three: Three, stream: bool) -> None:
    three.a.then(loopback.hang())
    began = time.monotonic()
    answer = ask(three, chat(stream=stream, trimtab={"max_latency_ms": 100}) | {"model": "only-a"})
    assert time.monotonic() - began < 0.3
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (504, "timeout_error", "max_latency_exceeded")
    assert error["param"] == "trimtab.max_latency_ms"
    assert "raise it" in error["message"]
    assert three.a.requests[-1].hung_up.wait(3)


def test_a_stream_that_has_begun_may_take_longer_than_max_latency(three: Three) -> None:
    three.a.then(ok("word " * 30, gap_s=0.05))
    answer = ask(three, chat(stream=True, trimtab={"max_latency_ms": 250}))
    assert answer.content.endswith(b"data: [DONE]\n\n")


def test_the_callers_time_runs_while_we_trim(three: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Ranker.rank

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.2)
        return rank(*arguments)

    monkeypatch.setattr(Ranker, "rank", slowly)
    asked = len(three.a.requests)
    answer = ask(three, chat(trimtab={"max_latency_ms": 150}))
    assert answer.status_code == 504
    assert len(three.a.requests) == asked
