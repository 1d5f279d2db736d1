"""Providers of Anthropic's and Gemini's wire behind the Router, as the official OpenAI client sees them, and their faults."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import openai
import pytest

from routing.attempts import RetryPolicy
from routing.errors import ProvidersFailed, UnsupportedParameter
from routing.forwarding import Reply, Router, Timeouts
from routing.offers import Usage
from tests import loopback
from tests.loopback import Fault, LoopbackProvider, Step, Tongue
from tests.loopback_tongues import (
    ANTHROPIC,
    GEMINI,
    anthropic_error,
    anthropic_error_event,
    anthropic_events,
    gemini_error,
    gemini_error_event,
    gemini_events,
)
from tests.routing.asking import BODY, KEY, STREAM, ask, direct, events, offer, provider, router, told
from tests.routing.through import through

MODELS = {"anthropic": "claude-opus-5", "gemini": "gemini-3.1-pro"}
TONGUES = pytest.mark.parametrize("tongue", [ANTHROPIC, GEMINI], ids=["anthropic", "gemini"])
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
TWO_CALLS = Step(
    text="Let me see.",
    tool_calls=tuple(
        {"id": f"call_{at}", "type": "function", "function": {"name": "look_up", "arguments": json.dumps(arguments)}}
        for at, arguments in enumerate(({"city": "Paris", "text": "é" * 40}, {}))
    ),
)


def converted(*servers: LoopbackProvider, body: dict[str, Any] = BODY, **more: Any) -> tuple[Reply, bytes]:
    """`ask`, with a model that each server's wire knows."""
    offers = tuple(
        offer(name, MODELS.get(server.tongue.kind, "m")) for name, server in zip("abcdef", servers, strict=False)
    )
    return ask(*servers, body=body, offers=offers, **more)


# --- as the official client sees them -------------------------------------------------------------------------------

USAGES: dict[str, dict[str, Any]] = {
    "anthropic": {
        "input_tokens": 100,
        "cache_read_input_tokens": 2_000,
        "cache_creation_input_tokens": 300,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20},
        "service_tier": "standard",
    },
    "gemini": {
        "promptTokenCount": 2_400,
        "cachedContentTokenCount": 2_000,
        "candidatesTokenCount": 30,
        "thoughtsTokenCount": 20,
        "totalTokenCount": 2_450,
    },
}
STEPS: dict[str, Step] = {
    "text": loopback.ok("Paris is in France. " * 30),
    "thinking": Step(text="In France.", thinking="They ask for a place. It is a town."),
    "two calls": TWO_CALLS,
    "a call after thinking": Step(text=None, tool_calls=TWO_CALLS.tool_calls[:1], thinking="I should look it up."),
    "nothing": Step(text=""),
}


def _put_together(chunks: list[Any]) -> dict[str, Any]:
    """A message out of a stream's chunks, by the rules of OpenAI's API: texts are joined, calls go by their index."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": {}}
    finish = None
    for chunk in chunks:
        for choice in chunk.choices:
            delta = choice.delta
            message["content"] += delta.content or ""
            message["reasoning_content"] += getattr(delta, "reasoning_content", None) or ""
            for call in delta.tool_calls or ():
                known = message["tool_calls"].setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                known["id"] += call.id or ""
                known["name"] += call.function.name or ""
                known["arguments"] += call.function.arguments or ""
            finish = choice.finish_reason or finish
    calls = [{**call, "arguments": json.loads(call["arguments"])} for _, call in sorted(message["tool_calls"].items())]
    return {**message, "tool_calls": calls, "finish_reason": finish}


def _as_put_together(answer: Any) -> dict[str, Any]:
    message = answer.choices[0].message
    calls = [
        {"id": call.id, "name": call.function.name, "arguments": json.loads(call.function.arguments)}
        for call in message.tool_calls or ()
    ]
    return {
        "content": message.content or "",
        "reasoning_content": getattr(message, "reasoning_content", ""),
        "tool_calls": calls,
        "finish_reason": answer.choices[0].finish_reason,
    }


@TONGUES
@pytest.mark.parametrize("name", STEPS)
def test_the_official_client_reads_an_answer_and_a_stream_alike(tongue: Tongue, name: str) -> None:
    step = STEPS[name]
    asked = {"model": "auto", "messages": BODY["messages"], "tools": TOOLS}

    async def whole(client: openai.AsyncOpenAI) -> Any:
        return await client.chat.completions.create(**asked)

    async def streamed(client: openai.AsyncOpenAI) -> Any:
        options = {"include_usage": True}
        stream = await client.chat.completions.create(**asked, stream=True, stream_options=options)
        return [chunk async for chunk in stream]

    usage = USAGES[tongue.kind]
    step = Step(step.text, step.tool_calls, step.thinking, usage=usage)
    with LoopbackProvider([step, step], tongue=tongue) as server:
        answer, reply = through(server, MODELS[tongue.kind], whole)
        chunks, stream_reply = through(server, MODELS[tongue.kind], streamed)
    expected = {
        "content": step.text or "",
        "reasoning_content": step.thinking,
        "tool_calls": [
            {"id": call["id"], "name": "look_up", "arguments": json.loads(call["function"]["arguments"])}
            for call in step.tool_calls
        ],
        "finish_reason": "tool_calls" if step.tool_calls else "stop",
    }
    assert _as_put_together(answer) == _put_together(chunks) == expected
    *before, last = chunks
    assert last.choices == []
    assert all(chunk.usage is None for chunk in before)
    assert last.usage == answer.usage
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (2_400, 50, 2_450)
    assert last.usage.prompt_tokens_details.cached_tokens == 2_000
    assert last.usage.completion_tokens_details.reasoning_tokens == 20
    written = 300 if tongue is ANTHROPIC else 0
    assert last.usage.prompt_tokens_details.cache_write_tokens == written
    for one in (reply, stream_reply):
        assert one.usage == Usage(2_400, 50, cache_read_tokens=2_000, cache_write_tokens=written)
        assert one.reasoning_tokens == 20
        assert told(one.attempts) == [("a", "ok", 200)]
    assert {chunk.id for chunk in chunks} == {answer.id} == {"msg_loopback" if tongue is ANTHROPIC else "resp_loopback"}
    assert {chunk.model for chunk in chunks} == {answer.model} == {MODELS[tongue.kind]}
    assert abs(answer.created - time.time()) < 60
    if len(step.text or "") > 100:
        assert len(chunks) > 20, "the text comes in pieces"


@TONGUES
def test_the_official_clients_own_accumulator_agrees(tongue: Tongue) -> None:
    async def ask_stream(client: openai.AsyncOpenAI) -> Any:
        async with client.chat.completions.stream(model="auto", messages=BODY["messages"], tools=TOOLS) as stream:
            return await stream.get_final_completion()

    with LoopbackProvider([TWO_CALLS], tongue=tongue) as server:
        final, _ = through(server, MODELS[tongue.kind], ask_stream)
    calls = final.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris", "text": "é" * 40}, {}]
    assert final.choices[0].message.content == "Let me see."


@TONGUES
def test_an_agent_loop_hands_everything_back(tongue: Tongue) -> None:
    """Two turns: what the first answer said goes back as the client has it, signatures included."""

    async def loop(client: openai.AsyncOpenAI) -> Any:
        messages: list[Any] = [{"role": "user", "content": "Where is Paris?"}]
        asked: dict[str, Any] = {"model": "auto", "tools": TOOLS, "reasoning_effort": "low"}
        first = await client.chat.completions.create(messages=messages, **asked)
        messages.append(first.choices[0].message.model_dump())
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": "In France."}
            for call in first.choices[0].message.tool_calls
        ]
        return await client.chat.completions.create(messages=messages, **asked)

    step = Step(text="Let me see.", tool_calls=TWO_CALLS.tool_calls, thinking="Look it up.")
    with LoopbackProvider([step, loopback.ok("In France.")], tongue=tongue) as server:
        answer, _ = through(server, MODELS[tongue.kind], loop)
        again = server.requests[1].json
    assert answer.choices[0].message.content == "In France."
    if tongue is ANTHROPIC:
        thinking, text, *calls = again["messages"][1]["content"]
        assert thinking == {"type": "thinking", "thinking": "Look it up.", "signature": "c2lnbmVk"}
        assert [call["id"] for call in calls] == ["call_0", "call_1"]
    else:
        text, *calls = again["contents"][1]["parts"]
        assert calls[0]["thoughtSignature"] == "c2lnbmVk"
        assert [call["functionCall"]["id"] for call in calls] == ["call_0", "call_1"]
    assert text["text"] == "Let me see."


@pytest.mark.parametrize(
    ("tongue", "finish", "expected"),
    [
        (ANTHROPIC, "end_turn", "stop"),
        (ANTHROPIC, "stop_sequence", "stop"),
        (ANTHROPIC, "max_tokens", "length"),
        (ANTHROPIC, "model_context_window_exceeded", "length"),
        (ANTHROPIC, "refusal", "content_filter"),
        (ANTHROPIC, "a_reason_of_next_year", "stop"),
        (GEMINI, "STOP", "stop"),
        (GEMINI, "MAX_TOKENS", "length"),
        (GEMINI, "SAFETY", "content_filter"),
        (GEMINI, "A_REASON_OF_NEXT_YEAR", "content_filter"),
    ],
)
def test_finish_reasons(tongue: Tongue, finish: str, expected: str) -> None:
    step = Step(text="Well", finish=finish)
    with LoopbackProvider([step, step], tongue=tongue) as server:
        _, content = converted(server)
        _, stream = converted(server, body=STREAM)
    (choice,) = json.loads(content)["choices"]
    last = events(stream)[-2]["choices"][0]
    assert choice["finish_reason"] == last["finish_reason"] == expected
    if finish == "refusal":
        assert choice["message"]["refusal"] == last["delta"]["refusal"] == "This could enable harm."


def test_several_answers_of_gemini_keep_apart() -> None:
    with LoopbackProvider([TWO_CALLS, TWO_CALLS], tongue=GEMINI) as server:
        _, content = converted(server, body={**BODY, "n": 3})
        _, stream = converted(server, body={**STREAM, "n": 3})
    choices = json.loads(content)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    finished = [
        (choice["index"], choice["finish_reason"])
        for event in events(stream)[:-1]
        for choice in event["choices"]
        if choice["finish_reason"]
    ]
    assert finished == [(0, "tool_calls"), (1, "tool_calls"), (2, "tool_calls")]


def test_log_probabilities_and_a_blocked_prompt_of_gemini() -> None:
    logprobs = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.1}],
        "topCandidates": [
            {"candidates": [{"token": "é", "logProbability": -0.1}, {"token": "e", "logProbability": -3}]}
        ],
    }
    said = {"content": {"parts": [{"text": "é"}]}, "finishReason": "STOP", "logprobsResult": logprobs}
    usage = {"promptTokenCount": 1, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 1}]}
    answers = [
        {"candidates": [said], "usageMetadata": usage},
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage},
    ]
    steps = [loopback.raw(json.dumps(answer).encode(), content_type="application/json") for answer in answers]
    with LoopbackProvider(steps, tongue=GEMINI) as server:
        _, first = converted(server, body={**BODY, "logprobs": True, "top_logprobs": 2})
        _, second = converted(server)
    token = {"token": "é", "logprob": -0.1, "bytes": [195, 169]}
    others = [token, {"token": "e", "logprob": -3, "bytes": [101]}]
    assert json.loads(first)["choices"][0]["logprobs"]["content"] == [{**token, "top_logprobs": others}]
    assert json.loads(first)["usage"]["prompt_tokens_details"]["audio_tokens"] == 1
    (blocked,) = json.loads(second)["choices"]
    assert blocked["finish_reason"] == "content_filter"
    assert blocked["message"]["refusal"] == "The prompt was blocked: SAFETY."


# --- what is sent ---------------------------------------------------------------------------------------------------


@TONGUES
@pytest.mark.parametrize("version", ["", "/v1/"])
def test_where_it_goes_and_how_the_key_is_shown(tongue: Tongue, version: str) -> None:

    async def go() -> None:
        address = f"{server.base_url}{version}"
        named = {"a": provider("a", address, kind=tongue.kind, api_key_env="TRIMTAB_TEST_KEY")}
        callers = {"Authorization": "Bearer the-callers-own", "anthropic-beta": "x", "X-Client-Request-Id": "abc"}
        async with Router(named, environ={"TRIMTAB_TEST_KEY": KEY}) as calls:
            for stream in (False, True):
                async with await calls.forward(BODY, (offer("a", MODELS[tongue.kind]),), stream, callers) as reply:
                    assert reply.status == 200
                    assert (reply.chunks is not None) is stream

    with LoopbackProvider(tongue=tongue) as server:
        asyncio.run(go())
        for request in server.requests:
            assert request.headers["x-api-key" if tongue is ANTHROPIC else "x-goog-api-key"] == KEY
            assert request.headers["x-client-request-id"] == "abc"
            assert request.path.startswith("/v1/" if version or tongue is ANTHROPIC else "/v1beta/")
            assert not {"authorization", "anthropic-beta"} & set(request.headers)


@pytest.mark.parametrize(("processing", "tier"), [("sync", None), ("flex", "flex"), ("priority", "priority")])
def test_the_service_tier_is_what_the_offer_says(processing: str, tier: str | None) -> None:
    seen: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json={"candidates": [{"finishReason": "STOP"}], "usageMetadata": {}})

    async def go() -> None:
        named = {"a": provider("a", "https://x.test", kind="gemini")}
        async with Router(named, transport=httpx.MockTransport(answer)) as calls:
            await calls.forward({**BODY, "service_tier": "auto"}, (offer("a", "gemini-3-flash", processing),), False)

    asyncio.run(go())
    assert seen[0].get("serviceTier") == tier
    assert "service_tier" not in seen[0]


def test_the_providers_headers_come_back_by_openais_names() -> None:
    headers = {
        "request-id": "req_1",
        "anthropic-ratelimit-tokens-remaining": "7",
        "anthropic-organization-id": "secret",
    }
    with LoopbackProvider([loopback.ok(headers=headers)], tongue=ANTHROPIC) as server:
        reply, _ = converted(server)
    assert dict(reply.headers) == {
        "content-type": "application/json",
        "x-request-id": "req_1",
        "x-ratelimit-remaining-tokens": "7",
    }


# --- what a provider cannot honour ----------------------------------------------------------------------------------


@TONGUES
@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_parameter_that_one_cannot_honour_goes_to_the_next(tongue: Tongue, body: dict[str, Any]) -> None:
    body = {**body, "logit_bias": {"1": 5}}
    with LoopbackProvider(tongue=tongue) as first, LoopbackProvider() as second:
        reply, content = converted(first, second, body=body)
        assert first.requests == [], "nothing was sent to it"
        assert content == direct(second, body)
    assert told(reply.attempts) == [("a", "unsupported", None), ("b", "ok", 200)]
    assert reply.attempts[0].detail.startswith("logit_bias: ")


def test_another_model_of_the_same_provider_is_still_tried_and_none_counts_as_an_attempt() -> None:
    names = (
        "claude-opus-5",
        "claude-sonnet-5",
        "claude-haiku-5-5",
        "claude-opus-4-8",
        "claude-opus-4-7",
        "claude-opus-4-6",
    )
    offers = tuple(offer("a", name) for name in names)
    with LoopbackProvider(tongue=ANTHROPIC) as server:
        reply, _ = ask(server, body={**BODY, "temperature": 0.1}, offers=offers, policy=RetryPolicy(max_attempts=1))
        assert server.requests[0].json["temperature"] == 0.1
    assert reply.offer.model == "claude-opus-4-6"
    assert [one.outcome for one in reply.attempts] == ["unsupported"] * 5 + ["ok"]


@TONGUES
def test_if_nobody_can_honour_it_the_caller_hears_which_it_is(tongue: Tongue) -> None:
    with LoopbackProvider(tongue=tongue) as server:
        with pytest.raises(UnsupportedParameter) as error:
            converted(server, body={**BODY, "prediction": {"type": "content", "content": "x"}})
        assert server.requests == []
    assert error.value.param == "prediction"


# --- faults ---------------------------------------------------------------------------------------------------------


def _errors(tongue: Tongue) -> dict[str, tuple[Step, str, int | None]]:
    others = loopback.raw(b'{"choices": []}', content_type="application/json")
    if tongue is ANTHROPIC:
        inside = loopback.raw(anthropic_error(200, "api_error").body or b"", content_type="application/json")
        return {
            "529": (anthropic_error(529, "overloaded_error"), "server_error", 529),
            "429": (anthropic_error(429, "rate_limit_error"), "rate_limited", 429),
            "401": (anthropic_error(401, "authentication_error"), "rejected", 401),
            "spent": (anthropic_error(400, "billing_error"), "rejected", 400),
            "an error in a 200": (inside, "server_error", 200),
            "another's answer": (others, "bad_response", 200),
        }
    invalid = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    array = b"[" + (gemini_error(503, "UNAVAILABLE").body or b"") + b"]"
    return {
        "503": (gemini_error(503, "UNAVAILABLE"), "server_error", 503),
        "429": (gemini_error(429, "RESOURCE_EXHAUSTED"), "rate_limited", 429),
        "a wrong key": (gemini_error(400, "INVALID_ARGUMENT", "API key not valid.", invalid), "rejected", 400),
        "an array": (loopback.raw(array, content_type="application/json", status=503), "server_error", 503),
        "a broken call": (Step(text="", finish="MALFORMED_FUNCTION_CALL"), "bad_response", 200),
        "another's answer": (others, "bad_response", 200),
        "no candidate": (loopback.raw(b'{"usageMetadata": {}}', content_type="application/json"), "bad_response", 200),
    }


FAULTS: dict[str, tuple[Step, str, int | None]] = {
    "reset": (loopback.reset(), "connection_lost", None),
    "reset mid-header": (loopback.reset_mid_header(), "connection_lost", None),
    "redirect": (loopback.redirect("http://127.0.0.1:9/elsewhere"), "rejected", 307),
    "hang": (loopback.hang(), "timeout", None),
    "hang after headers": (loopback.hang_after_headers(), "timeout", 200),
    "garbage": (loopback.garbage(), "bad_response", 200),
    "a web page": (loopback.html(), "bad_response", 200),
    "a web page that is an error": (loopback.raw(b"<h1>No", content_type="text/html", status=502), "server_error", 502),
    "an empty body": (loopback.raw(b"", content_type="application/json"), "bad_response", 200),
    "JSON too deep": (loopback.raw(b"[" * 200_000, content_type="application/json"), "bad_response", 200),
}
STREAM_FAULTS: dict[str, tuple[Step, str, int | None]] = {
    "cut before the first event": (loopback.cut(0), "connection_lost", 200),
    "stalled before the first event": (loopback.stall(0), "timeout", 200),
    "ended before the first event": (loopback.raw(b": nothing yet\n\n"), "bad_response", 200),
    "an event of another wire": (loopback.raw(b'data: {"choices": []}\n\n'), "bad_response", 200),
}


def _failover(tongue: Tongue, body: dict[str, Any], step: Step, outcome: str, status: int | None) -> None:
    with LoopbackProvider([step], tongue=tongue) as bad, LoopbackProvider([loopback.ok("Saved.")] * 2) as good:
        reply, content = converted(bad, good, body=body)
        assert content == direct(good, body)
        assert bad.wait_for_connections(0) or body is BODY
    assert told(reply.attempts) == [("a", outcome, status), ("b", "ok", 200)]


@TONGUES
@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
def test_failover_before_the_first_byte(tongue: Tongue, body: dict[str, Any]) -> None:
    faults = FAULTS | _errors(tongue) | (STREAM_FAULTS if body is STREAM else {})
    for step, outcome, status in faults.values():
        _failover(tongue, body, step, outcome, status)


@pytest.mark.parametrize(
    ("tongue", "event", "outcome"),
    [
        (ANTHROPIC, anthropic_error_event("overloaded_error"), "server_error"),
        (ANTHROPIC, anthropic_error_event("rate_limit_error"), "rate_limited"),
        (GEMINI, gemini_error_event(429, "RESOURCE_EXHAUSTED"), "rate_limited"),
    ],
)
def test_an_error_event_comes_first(tongue: Tongue, event: bytes, outcome: str) -> None:
    _failover(tongue, STREAM, loopback.raw(event), outcome, 200)


def test_an_error_right_behind_the_opening_can_be_retried() -> None:
    with LoopbackProvider(tongue=ANTHROPIC) as server:
        converted(server, body=STREAM)
        opening = anthropic_events(server.requests[0], loopback.ok())[0]
    _failover(ANTHROPIC, STREAM, loopback.raw(opening + anthropic_error_event("overloaded_error")), "server_error", 200)


@TONGUES
@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("cut", "the connection was cut, or its HTTP is broken"),
        ("stall", "no answer in time"),
        ("garbage", "not JSON"),
    ],
)
def test_a_stream_that_breaks_ends_with_an_error_event(tongue: Tongue, fault: Fault, detail: str) -> None:
    text = "Paris is in France, and so on."
    steps = [Step(text=text, fault=fault, after_events=4), loopback.ok(text)]
    with LoopbackProvider(steps, tongue=tongue) as bad, LoopbackProvider() as other:
        reply, content = converted(bad, other, body=STREAM)
        _, whole = converted(bad, body=STREAM)
        assert other.requests == [], "after the first byte nobody else is asked"
        assert bad.wait_for_connections(0)
    *relayed, last = events(content)
    expected = [event["choices"] for event in events(whole)[: len(relayed)]]
    assert [event["choices"] for event in relayed] == expected
    assert len(relayed) >= 2
    assert last["error"]["code"] == "stream_cut_off"
    assert b"[DONE]" not in content
    assert told(reply.attempts) == [("a", "cut_off", 200)]
    assert reply.attempts[0].detail == detail
    assert reply.usage is None, "what a broken answer cost is not known"


@pytest.mark.parametrize(
    ("tongue", "error", "kind"),
    [
        (ANTHROPIC, anthropic_error_event("overloaded_error", "Overloaded"), "overloaded_error"),
        (GEMINI, gemini_error_event(503, "UNAVAILABLE"), "unavailable"),
    ],
)
def test_an_error_event_in_the_middle_becomes_ours(tongue: Tongue, error: bytes, kind: str) -> None:
    make = anthropic_events if tongue is ANTHROPIC else gemini_events

    async def ask_stream(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(model="m", messages=BODY["messages"], stream=True)
        texts = [""]

        async def read() -> None:
            async for chunk in stream:
                texts[0] += chunk.choices[0].delta.content or ""

        with pytest.raises(openai.APIError) as raised:
            await read()
        assert raised.value.code == kind
        return texts[0]

    with LoopbackProvider(tongue=tongue) as server:
        converted(server, body=STREAM)
        pieces = make(server.requests[0], loopback.ok("Paris is in France, and so on."))
        server.then(loopback.raw(b"".join(pieces[:4]) + error + pieces[4]))
        text, reply = through(server, MODELS[tongue.kind], ask_stream)
    assert text
    assert "Paris is in France, and so on.".startswith(text)
    assert [one.outcome for one in reply.attempts] == ["cut_off"]


@TONGUES
@pytest.mark.parametrize("body", [BODY, STREAM])
def test_the_callers_own_mistake_comes_back_in_openais_shape(tongue: Tongue, body: dict[str, Any]) -> None:
    step = (
        anthropic_error(400, "invalid_request_error", "prompt is too long")
        if tongue is ANTHROPIC
        else gemini_error(400, "INVALID_ARGUMENT", "prompt is too long")
    )

    async def ask_it(client: openai.AsyncOpenAI) -> Any:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(**{**body, "model": "m"})
        return raised.value

    with LoopbackProvider([step], tongue=tongue) as server:
        error, reply = through(server, MODELS[tongue.kind], ask_it)
    assert error.body["message"] == "prompt is too long"
    assert error.body["type"] == ("invalid_request_error" if tongue is ANTHROPIC else "invalid_argument")
    assert told(reply.attempts) == [("a", "caller_error", 400)]


@TONGUES
def test_a_mistake_that_a_proxy_answers_with_a_web_page_is_json_here(tongue: Tongue) -> None:
    page = loopback.raw(b"<h1>Too large", content_type="text/html", status=413)
    with LoopbackProvider([page], tongue=tongue) as server:
        reply, content = converted(server)
    assert (reply.status, reply.headers["content-type"]) == (413, "application/json")
    assert json.loads(content)["error"]["message"] == "the provider answered with status 413"


def test_the_pause_that_google_asks_for_is_waited_for() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}
    with LoopbackProvider([gemini_error(429, "RESOURCE_EXHAUSTED", "Quota", retry)], tongue=GEMINI) as server:
        reply, _ = converted(server, sleep=sleep)
    assert reply.attempts[0].retry_after_ms == 3_000.0
    assert waits == [pytest.approx(3.0, abs=0.1)]


@TONGUES
def test_when_all_fail_the_last_error_is_in_openais_shape_and_without_the_key(tongue: Tongue) -> None:
    quoting = f"Incorrect key {KEY}"
    make: Any = anthropic_error if tongue is ANTHROPIC else gemini_error
    step = make(401, "authentication_error" if tongue is ANTHROPIC else "UNAUTHENTICATED", quoting)
    with LoopbackProvider([step], tongue=tongue) as server, pytest.raises(ProvidersFailed) as failed:
        converted(server)
    assert failed.value.status == 401
    assert json.loads(failed.value.body or b"")["error"]["message"] == "Incorrect key [key]"
    assert KEY not in f"{failed.value}{failed.value.attempts}"


# --- streams, piece by piece ----------------------------------------------------------------------------------------


@TONGUES
def test_events_are_relayed_when_they_arrive(tongue: Tongue) -> None:
    async def go() -> list[float]:
        chosen = (offer("a", MODELS[tongue.kind]),)
        async with router(server) as calls, await calls.forward(STREAM, chosen, True) as reply:
            assert reply.chunks is not None
            return [time.monotonic() async for _ in reply.chunks]

    with LoopbackProvider([loopback.ok("Paris is in France.", gap_s=0.05)], tongue=tongue) as server:
        moments = asyncio.run(go())
    assert len(moments) > 3
    assert moments[-1] - moments[0] > 0.1


def test_pings_keep_a_client_awake_while_the_model_thinks() -> None:
    with LoopbackProvider([loopback.ok()], tongue=ANTHROPIC) as server:
        _, content = converted(server, body=STREAM)
    assert content.count(b": ping\n\n") == 1


@TONGUES
def test_a_client_that_hangs_up_cuts_the_provider_off(tongue: Tongue) -> None:
    async def go() -> Reply:
        chosen = (offer("a", MODELS[tongue.kind]),)
        async with router(server, timeouts=Timeouts()) as calls, await calls.forward(STREAM, chosen, True) as reply:
            assert reply.chunks is not None
            await anext(reply.chunks)
            await reply.aclose()
            assert await asyncio.to_thread(server.requests[0].hung_up.wait, 2.0)
            return reply

    with LoopbackProvider([loopback.stall(3)], tongue=tongue) as server:
        reply = asyncio.run(go())
    assert [one.outcome for one in reply.attempts] == ["abandoned"]


def test_an_end_without_message_stop_is_an_end() -> None:
    with LoopbackProvider(tongue=ANTHROPIC) as server:
        _, whole = converted(server, body={**STREAM, "stream_options": {"include_usage": True}})
        server.then(loopback.raw(b"".join(anthropic_events(server.requests[0], loopback.ok())[:-1])))
        reply, content = converted(server, body={**STREAM, "stream_options": {"include_usage": True}})
    assert events(content)[-2:] == events(whole)[-2:]
    assert content.endswith(b"data: [DONE]\n\n")
    assert reply.usage is not None
    assert [one.outcome for one in reply.attempts] == ["ok"]


def test_a_connection_that_hangs_after_the_finish_costs_nothing() -> None:
    body = {**STREAM, "stream_options": {"include_usage": True}}
    with LoopbackProvider([loopback.ok()], tongue=ANTHROPIC) as server:
        _, whole = converted(server, body=body)
        before_the_end = len(anthropic_events(server.requests[0], loopback.ok())) - 1
        server.then(loopback.stall(before_the_end))
        reply, content = converted(server, body=body)
    assert events(content)[-1] == b"[DONE]"
    assert events(content)[-2]["usage"] == events(whole)[-2]["usage"]
    assert [one.outcome for one in reply.attempts] == ["ok"]
    assert reply.usage is not None
