"""Forwarding against real servers on loopback: what is sent, failover before the first byte, and giving up."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import time
from typing import Any

import httpx
import pytest

from routing.attempts import RetryPolicy
from routing.calls import explain
from routing.errors import NoOffer, ProvidersFailed
from routing.forwarding import Reply, Router, Timeouts
from routing.offers import Offer, Usage
from routing.wires import MissingKey, UnsupportedWire
from tests import loopback
from tests.loopback import LoopbackProvider, Step
from tests.routing.asking import (
    BODY,
    KEY,
    STREAM,
    ask,
    direct,
    offer,
    provider,
    router,
    told,
)

# --- what is sent, and what comes back ---------------------------------------------------------------------------


@pytest.mark.parametrize("body", [BODY, STREAM, {**STREAM, "stream_options": {"include_usage": True}}])
@pytest.mark.parametrize(
    "step", [loopback.ok("word " * 300), loopback.echo(), loopback.calls_tool("look_up", {"city": "Paris", "n": 3})]
)
def test_the_answer_is_the_providers_own_to_the_byte(body: dict[str, Any], step: Step) -> None:
    with LoopbackProvider([step, step]) as server:
        expected = direct(server, body)
        reply, content = ask(server, body=body)
    assert content == expected
    assert reply.status == 200
    assert reply.headers["x-request-id"] == "req_loopback"
    assert "transfer-encoding" not in reply.headers
    assert "content-length" not in reply.headers
    assert told(reply.attempts) == [("a", "ok", 200)]
    assert reply.offer == offer("a")
    if body is STREAM:
        assert reply.usage is None  # nobody asked for it
    else:
        assert reply.usage is not None
        assert reply.usage.output_tokens > 0


def test_every_field_passes_untouched_but_the_model() -> None:
    body = {
        **BODY,
        "temperature": 0.1,
        "seed": 12345678901234567890,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "a_field_of_next_year": {"deep": [None, True, 1.5, "ü\ud800"]},
    }
    with LoopbackProvider() as server:
        ask(server, body=body)
        (request,) = server.requests
    assert request.json == {**body, "model": "m"}
    assert list(request.json) == list(body)
    assert body["model"] == "auto"


@pytest.mark.parametrize(("processing", "sent"), [("sync", None), ("flex", "flex"), ("priority", "priority")])
def test_the_service_tier_is_what_the_offer_says(processing: str, sent: str | None) -> None:
    with LoopbackProvider() as server:
        ask(server, offers=(offer("a", processing=processing),))
        assert server.requests[0].json.get("service_tier") == sent


def test_the_stream_field_is_what_was_asked_of_us() -> None:
    async def go() -> Reply:
        async with router(server) as calls, await calls.forward(BODY, (offer("a"),), True) as reply:
            assert reply.chunks is not None
            async for _ in reply.chunks:
                pass
            return reply

    with LoopbackProvider() as server:
        asyncio.run(go())
        assert server.requests[0].json["stream"] is True


def test_only_allowed_headers_pass_and_the_key_is_ours() -> None:
    callers = {
        "Authorization": "Bearer the-callers-own",
        "Cookie": "session=1",
        "X-Api-Key": "the-callers-own",
        "OpenAI-Organization": "org-of-the-caller",
        "X-Client-Request-Id": "abc",
        "OpenAI-Beta": "broken\r\nx-evil: 1",
        "Host": "elsewhere",
    }

    async def go() -> None:
        with_key = {"a": provider("a", server.base_url, api_key_env="TRIMTAB_TEST_KEY")}
        async with Router(with_key, environ={"TRIMTAB_TEST_KEY": f"{KEY}\n"}) as calls:
            await calls.forward(BODY, (offer("a"),), False, callers)

    with LoopbackProvider() as server:
        asyncio.run(go())
        (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-client-request-id"] == "abc"
    assert request.headers["host"] in server.base_url
    assert not {"cookie", "x-api-key", "openai-organization", "openai-beta", "x-evil"} & set(request.headers)
    assert "callers-own" not in str(request.headers)


def test_a_key_is_read_when_the_request_is_sent() -> None:
    environ = {"TRIMTAB_TEST_KEY": "sk-one"}

    async def go() -> None:
        with_key = {"a": provider("a", server.base_url, api_key_env="TRIMTAB_TEST_KEY")}
        async with Router(with_key, environ=environ) as calls:
            await calls.forward(BODY, (offer("a"),), False)
            environ["TRIMTAB_TEST_KEY"] = "sk-two"
            await calls.forward(BODY, (offer("a"),), False)

    with LoopbackProvider() as server:
        asyncio.run(go())
        assert [one.headers["authorization"] for one in server.requests] == ["Bearer sk-one", "Bearer sk-two"]


def test_one_idempotency_key_for_the_attempts_of_an_offer_and_another_for_the_next() -> None:
    with LoopbackProvider([loopback.status(500)] * 2) as first, LoopbackProvider([loopback.status(500)]) as second:
        ask(first, second)
        ask(first, second)
        keys = [one.headers["idempotency-key"] for one in first.requests]
        assert len(keys) == 3
        assert len({*keys}) == 2, "the two attempts of the first request share one, and the second has its own"
        assert {one.headers["idempotency-key"] for one in second.requests}.isdisjoint(keys)


def test_a_callers_idempotency_key_gives_the_same_key_for_the_same_body_only() -> None:
    with LoopbackProvider() as server:
        for body in (BODY, BODY, {**BODY, "seed": 1}):
            ask(server, body=body, headers={"Idempotency-Key": "order-7"})
        ask(server, body=BODY, headers={"Idempotency-Key": "order-8"})
        one, two, other_body, other_key = (request.headers["idempotency-key"] for request in server.requests)
    assert one == two
    assert len({one, other_body, other_key}) == 3


def test_usage_of_an_answer_and_of_a_stream() -> None:
    usage = {
        "prompt_tokens": 1200,
        "completion_tokens": 300,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 1024},
        "completion_tokens_details": {"reasoning_tokens": 256},
    }
    with LoopbackProvider([loopback.ok(usage=usage)] * 2) as server:
        for body in (BODY, {**STREAM, "stream_options": {"include_usage": True}}):
            reply, _ = ask(server, body=body)
            assert reply.usage == Usage(1200, 300, cache_read_tokens=1024)
            assert reply.reasoning_tokens == 256


def test_a_huge_answer_passes_and_an_endless_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = Timeouts(answer_ms=10_000)
    with LoopbackProvider([loopback.huge(5_000_000)] * 4) as server:
        assert ask(server, timeouts=patient)[1] == direct(server, BODY)
        assert ask(server, body=STREAM, timeouts=patient)[1].endswith(b"data: [DONE]\n\n")
        monkeypatch.setattr("routing.forwarding.MAX_ANSWER_BYTES", 1_000_000)
        reply, _ = ask(server, timeouts=patient)
    assert told(reply.attempts) == [("a", "bad_response", 200), ("a", "ok", 200)]


# --- failover before the first byte -------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Step, str, int | None]] = {
    "reset": (loopback.reset(), "connection_lost", None),
    "reset mid-header": (loopback.reset_mid_header(), "connection_lost", None),
    "500": (loopback.status(500), "server_error", 500),
    "503": (loopback.status(503), "server_error", 503),
    "408": (loopback.status(408), "timeout", 408),
    "429 without Retry-After": (loopback.rate_limited(), "rate_limited", 429),
    "429 with Retry-After": (loopback.rate_limited("1"), "rate_limited", 429),
    "401": (loopback.status(401), "rejected", 401),
    "404": (loopback.status(404), "rejected", 404),
    "redirect": (loopback.redirect("http://127.0.0.1:9/elsewhere"), "rejected", 307),
    "hang": (loopback.hang(), "timeout", None),
    "hang after headers": (loopback.hang_after_headers(), "timeout", 200),
    "a byte at a time": (loopback.drip(0.05), "timeout", 200),
    "garbage": (loopback.garbage(), "bad_response", 200),
    "a web page": (loopback.html(), "bad_response", 200),
    "an empty body": (loopback.raw(b"", content_type="application/json"), "bad_response", 200),
    "an array": (loopback.raw(b"[]", content_type="application/json"), "bad_response", 200),
    "JSON too deep": (loopback.raw(b"[" * 200_000, content_type="application/json"), "bad_response", 200),
    "an error inside a 200": (
        loopback.raw(b'{"error":{"code":503,"message":"no"}}', content_type="application/json"),
        "server_error",
        200,
    ),
}
STREAM_FAULTS: dict[str, tuple[Step, str, int | None]] = FAULTS | {
    "cut before the first event": (loopback.cut(0), "connection_lost", 200),
    "stalled before the first event": (loopback.stall(0), "timeout", 200),
    "ended before the first event": (loopback.raw(b": nothing yet\n\n"), "bad_response", 200),
    "an error event first": (loopback.raw(b'data: {"error":{"code":429,"message":"no"}}\n\n'), "rate_limited", 200),
}


@pytest.mark.parametrize("name", FAULTS)
def test_failover_of_an_answer(name: str) -> None:
    step, outcome, status = FAULTS[name]
    with LoopbackProvider([step]) as bad, LoopbackProvider([loopback.ok("Saved."), loopback.ok("Saved.")]) as good:
        reply, content = ask(bad, good)
        assert content == direct(good, BODY)
    assert told(reply.attempts) == [("a", outcome, status), ("b", "ok", 200)]
    assert reply.offer == offer("b")


@pytest.mark.parametrize("name", STREAM_FAULTS)
def test_failover_of_a_stream_before_its_first_byte(name: str) -> None:
    step, outcome, status = STREAM_FAULTS[name]
    with LoopbackProvider([step]) as bad, LoopbackProvider([loopback.ok("Saved."), loopback.ok("Saved.")]) as good:
        reply, content = ask(bad, good, body=STREAM)
        assert content == direct(good, STREAM)
        assert bad.wait_for_connections(0)
    assert told(reply.attempts) == [("a", outcome, status), ("b", "ok", 200)]


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_failover_when_the_connection_is_refused(body: dict[str, Any]) -> None:
    with LoopbackProvider(listen=False) as bad, LoopbackProvider() as good:
        reply, _ = ask(bad, good, body=body)
    assert told(reply.attempts) == [("a", "connect_failed", None), ("b", "ok", 200)]


def test_a_single_provider_is_asked_again() -> None:
    with LoopbackProvider([loopback.status(500), loopback.reset()]) as server:
        reply, _ = ask(server)
    assert [one.outcome for one in reply.attempts] == ["server_error", "connection_lost", "ok"]


def test_the_wait_is_the_retry_after() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with LoopbackProvider([loopback.rate_limited("3")]) as server:
        reply, _ = ask(server, sleep=sleep)
    assert reply.attempts[0].retry_after_ms == 3_000.0
    assert waits == [pytest.approx(3.0, abs=0.1)]


def test_a_redirect_is_not_followed() -> None:
    with LoopbackProvider() as elsewhere, LoopbackProvider() as server:
        server.then(loopback.redirect(f"{elsewhere.base_url}/chat/completions"))
        with pytest.raises(ProvidersFailed) as failed:
            ask(server)
        assert elsewhere.requests == []
    assert (failed.value.status, failed.value.body) == (502, None)


@pytest.mark.parametrize("code", [400, 409, 413, 422])
@pytest.mark.parametrize("body", [BODY, STREAM])
def test_the_callers_own_mistake_passes_unchanged_and_is_not_retried(code: int, body: dict[str, Any]) -> None:
    step = loopback.bad_request("messages: too long", code=code)
    with LoopbackProvider([step]) as server, LoopbackProvider() as other:
        reply, content = ask(server, other, body=body)
        assert other.requests == []
    assert reply.status == code
    assert content == step.body
    assert reply.headers["content-type"] == "application/json"
    assert told(reply.attempts) == [("a", "caller_error", code)]


def test_a_streaming_request_answered_with_json_is_a_whole_answer() -> None:
    answer = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
    with LoopbackProvider([loopback.raw(answer, content_type="application/json")]) as server:
        reply, content = ask(server, body=STREAM)
    assert reply.chunks is None
    assert content == answer
    assert reply.usage == Usage(1, 2)


# --- when everything fails ----------------------------------------------------------------------------------------


def test_when_all_fail_the_last_answer_and_every_attempt_come_along() -> None:
    with (
        LoopbackProvider([loopback.reset()] * 3) as first,
        LoopbackProvider([loopback.rate_limited()] * 3) as second,
        pytest.raises(ProvidersFailed) as failed,
    ):
        ask(first, second, policy=RetryPolicy(max_attempts=4, base_ms=0.01))
    assert failed.value.status == 429
    assert failed.value.body == loopback.rate_limited().body
    assert len(failed.value.attempts) == 4
    assert told(failed.value.attempts)[:2] == [("a", "connection_lost", None), ("b", "rate_limited", 429)]
    assert "b/m: HTTP 429 rate_limit_exceeded" in str(failed.value)


@pytest.mark.parametrize(("step", "status"), [(loopback.hang(), 504), (loopback.reset(), 502), (loopback.html(), 502)])
def test_without_an_answer_the_status_is_a_gateways(step: Step, status: int) -> None:
    with LoopbackProvider([step] * 2) as server, pytest.raises(ProvidersFailed) as failed:
        ask(server, policy=RetryPolicy(max_attempts=2, base_ms=1.0))
    assert (failed.value.status, failed.value.body) == (status, None)


def test_spent_money_is_no_reason_to_wait() -> None:
    spent = b'{"error":{"code":"insufficient_quota","message":"You exceeded your current quota","type":"requests"}}'
    with LoopbackProvider([loopback.raw(spent, content_type="application/json", status=429)]) as server:
        with pytest.raises(ProvidersFailed) as failed:
            ask(server)
        assert len(server.requests) == 1
    assert failed.value.status == 429


def test_the_whole_request_has_an_end() -> None:
    timeouts = Timeouts(answer_ms=10_000, total_ms=300)
    began = time.monotonic()
    with LoopbackProvider([loopback.hang()] * 5) as server, pytest.raises(ProvidersFailed):
        ask(server, timeouts=timeouts)
    assert time.monotonic() - began < 2.0


def test_nothing_secret_is_in_an_error() -> None:
    quoting = f'{{"error":{{"message":"Incorrect key {KEY}","type":"{KEY}","code":"Where is Paris?"}}}}'.encode()

    async def go() -> None:
        with_key = {"a": provider("a", server.base_url, api_key_env="TRIMTAB_TEST_KEY")}
        async with Router(with_key, environ={"TRIMTAB_TEST_KEY": KEY}) as calls:
            await calls.forward(BODY, (offer("a"),), False)

    step = loopback.raw(quoting, content_type="application/json", status=401)
    with LoopbackProvider([step]) as server, pytest.raises(ProvidersFailed) as failed:
        asyncio.run(go())
    shown = f"{failed.value}{failed.value.attempts}{failed.value.body!r}"
    assert KEY not in shown
    assert "Paris" not in f"{failed.value}{failed.value.attempts}"
    assert failed.value.status == 401


def test_a_missing_key_names_its_variable_and_another_provider_answers_instead() -> None:
    async def go(offers: tuple[Offer, ...]) -> Reply:
        two = {
            "a": provider("a", server.base_url, api_key_env="TRIMTAB_NO_SUCH_KEY"),
            "b": provider("b", server.base_url),
        }
        async with Router(two, environ={}) as calls:
            return await calls.forward(BODY, offers, False)

    with LoopbackProvider() as server:
        reply = asyncio.run(go((offer("a"), offer("a", "n"), offer("b"))))
        assert told(reply.attempts) == [("a", "rejected", None), ("b", "ok", 200)]
        assert "TRIMTAB_NO_SUCH_KEY" in reply.attempts[0].detail
        with pytest.raises(MissingKey, match="TRIMTAB_NO_SUCH_KEY"):
            asyncio.run(go((offer("a"),)))


def test_what_cannot_be_sent_says_why() -> None:
    async def go(kind: str, offers: tuple[Offer, ...]) -> None:
        async with Router({"a": provider("a", "http://127.0.0.1:9/v1", kind=kind)}) as calls:
            await calls.forward(BODY, offers, False)

    with pytest.raises(UnsupportedWire, match="'flex' processing"):
        asyncio.run(go("anthropic", (offer("a", processing="flex"),)))
    with pytest.raises(UnsupportedWire, match="'batch' processing"):
        asyncio.run(go("openai", (offer("a", processing="batch"),)))
    with pytest.raises(UnsupportedWire, match="'z' is not configured"):
        asyncio.run(go("openai", (offer("z"),)))
    with pytest.raises(NoOffer):
        asyncio.run(go("openai", ()))


# --- the seam -----------------------------------------------------------------------------------------------------


OUTCOME_OF_ERROR = {
    "ConnectError": "connect_failed",
    "ConnectTimeout": "timeout",
    "CloseError": "connection_lost",
    "DecodingError": "bad_response",
    "LocalProtocolError": "rejected",
    "NetworkError": "connection_lost",
    "PoolTimeout": "timeout",
    "ProtocolError": "connection_lost",
    "ProxyError": "connect_failed",
    "ReadError": "connection_lost",
    "ReadTimeout": "timeout",
    "RemoteProtocolError": "connection_lost",
    "TimeoutException": "timeout",
    "TransportError": "connection_lost",
    "UnsupportedProtocol": "rejected",
    "WriteError": "connection_lost",
    "WriteTimeout": "timeout",
}


def test_every_error_of_the_transport_has_an_outcome_and_keeps_its_text_to_itself() -> None:
    kinds = [
        kind
        for _, kind in inspect.getmembers(httpx, inspect.isclass)
        if issubclass(kind, httpx.TransportError | httpx.DecodingError)
    ]
    explained = {kind.__name__: explain(kind("secret")) for kind in kinds}
    assert {name: outcome for name, (outcome, _) in explained.items()} == OUTCOME_OF_ERROR
    assert not [detail for _, detail in explained.values() if "secret" in detail]


def test_tls_is_verified_and_an_address_that_is_none_says_so() -> None:
    async def go() -> None:
        async with Router({"a": provider("a", "https://x.test:port/v1")}) as calls:
            context = calls._connections._tls
            assert context.verify_mode is ssl.CERT_REQUIRED
            assert context.check_hostname
            await calls.forward(BODY, (offer("a"),), False)

    with pytest.raises(UnsupportedWire, match="base_url of provider 'a'"):
        asyncio.run(go())


@pytest.mark.parametrize("field", ["connect_ms", "first_byte_ms", "idle_ms", "answer_ms", "total_ms"])
def test_a_timeout_that_is_not_positive_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Timeouts(**{field: 0})


def test_a_transport_of_the_testers_own() -> None:
    async def go() -> Reply:
        answer = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
        async with Router({"a": provider("a", "https://x.test/v1?version=2")}, transport=transport) as calls:
            return await calls.forward(BODY, (offer("a"),), False)

    assert asyncio.run(go()).usage == Usage(1, 1)


def test_a_query_in_base_url_stays_where_it_is() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"choices": []})

    async def go() -> None:
        one = {"a": provider("a", "https://x.test/openai/v1/?api-version=2")}
        async with Router(one, transport=httpx.MockTransport(answer)) as calls:
            await calls.forward(BODY, (offer("a"),), False)

    asyncio.run(go())
    assert seen == ["https://x.test/openai/v1/chat/completions?api-version=2"]
