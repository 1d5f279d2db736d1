"""Anthropic's own client, pointed at trimtab, gets what it gets from Anthropic itself, and from anybody else a Message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import pytest

from tests.loopback import LoopbackProvider, Step, calls_tool, cut, echo, ok, raw
from tests.loopback_tongues import (
    ANTHROPIC,
    anthropic_error,
    anthropic_error_event,
    anthropic_events,
)
from tests.trimtab.asking import CALLERS_KEY, KEY, KEY_ENV, QUESTION, provider, serving

PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
TOOL = {
    "name": "find",
    "description": "Finds a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"city": "Ōsaka"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Japan 🇯🇵"}
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
THOUGHT = {"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmVk"}


def message(content: Any = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": content}], **more}


def document(text: str, title: str = "Limits", **more: Any) -> dict[str, Any]:
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "document", "title": title, "source": source, **more}


def search_result(text: str, title: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "search_result", "source": f"https://x.test/{title}", "title": title, "content": content, **more}


REQUESTS: dict[str, dict[str, Any]] = {
    "plain": message(),
    "system": message(system="Be brief."),
    "system blocks": message(system=[{"type": "text", "text": "Be brief.", **MARK}, {"type": "text", "text": "Now."}]),
    "image and PDF": message([PNG, PDF, {"type": "text", "text": "What is this?"}]),
    "documents": message(
        [document("An upload may be 5 GB."), search_result("Keys rotate.", "Keys"), {"type": "text", "text": QUESTION}]
    ),
    "tools": message(tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    "tool results": {
        **message(tools=[{**TOOL, **MARK}]),
        "messages": [
            {"role": "user", "content": "Where is Ōsaka?"},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, CALL, {**CALL, "id": "toolu_2"}]},
            {
                "role": "user",
                "content": [
                    {**RESULT, "content": [{"type": "text", "text": "Japan 🇯🇵"}, PNG]},
                    {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
    },
    "thinking": {
        **message(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048, tools=[TOOL]),
        "messages": [
            {"role": "user", "content": "Where is Ōsaka?"},
            {"role": "assistant", "content": [THOUGHT, {"type": "redacted_thinking", "data": "eHl6"}, CALL]},
            {"role": "user", "content": [RESULT]},
        ],
    },
    "a schema": message(output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}}),
    "what only Anthropic has": message(
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}],
        service_tier="auto",
        metadata={"user_id": "u"},
        stop_sequences=["\n", "\u2028"],
        cache_control={"type": "ephemeral"},
        extra_body={"inference_geo": "eu", "diagnostics": {"previous_message_id": None}},
    ),
    "what it refuses": message(extra_body={"future": {"a": [None]}}),
    "a prefix for the cache": message(
        [{"type": "text", "text": "An upload may be 5 GB. " * 200, **MARK}, {"type": "text", "text": QUESTION}]
    ),
}
STEPS: dict[str, Step] = {
    "echo": echo(),
    "one call": calls_tool("find", {"city": "Ōsaka \U0001f1ef\U0001f1f5"}, call_id="toolu_1"),
    "calls without arguments": Step(
        text="I look.",
        tool_calls=tuple(
            {"id": f"toolu_{at}", "type": "function", "function": {"name": "now", "arguments": "{}"}} for at in (1, 2)
        ),
    ),
    "thinking, cut short": Step(text="Five GB.", thinking="Let me see ...", finish="max_tokens"),
    "refusal": Step(text="I cannot.", finish="refusal"),
    "cached usage": ok(
        "Five.",
        usage={
            "input_tokens": 4,
            "cache_read_input_tokens": 30,
            "cache_creation_input_tokens": 6,
            "cache_creation": {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 2,
            "service_tier": "standard",
        },
    ),
}


@dataclass(frozen=True)
class Pair:
    """A provider, and a trimtab before it. `to_server` and `to_trimtab` are official clients."""

    server: LoopbackProvider
    trimtab: httpx.Client
    to_server: anthropic.Anthropic
    to_trimtab: anthropic.Anthropic


def client(base_url: object) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=str(base_url).rstrip("/"), api_key=CALLERS_KEY, max_retries=0)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider(tongue=ANTHROPIC) as server,
        serving(provider("a", server, "m", api_key_env=KEY_ENV), min_coverage=1.0) as http,
        client(server.base_url) as to_server,
        client(http.base_url) as to_trimtab,
    ):
        patch.setenv(KEY_ENV, KEY)
        yield Pair(server, http, to_server, to_trimtab)


def served_one(server: LoopbackProvider) -> AbstractContextManager[httpx.Client]:
    return serving(provider("a", server, "m", api_key_env=KEY_ENV), max_attempts=1)


def seen(asked: anthropic.Anthropic, body: dict[str, Any], stream: bool) -> Any:
    """What the client gives its user: the events, the message or the error."""
    try:
        answer = asked.messages.create(**body, stream=stream)
        answers = [each.model_dump() for each in (answer if stream else [answer])]
    except anthropic.APIStatusError as error:
        return type(error).__name__, error.status_code, error.body, error.request_id
    for each in answers:
        each.pop("trimtab", None)
    return answers


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
def test_the_client_gets_what_anthropic_gives(pair: Pair, request_name: str, step: str, stream: bool) -> None:
    got = []
    for asked in (pair.to_server, pair.to_trimtab):
        if request_name != "what it refuses":
            pair.server.then(STEPS[step])
        got.append((seen(asked, REQUESTS[request_name], stream), pair.server.requests[-1]))
    (direct, asked_directly), (through, forwarded) = got
    assert through == direct
    assert json.dumps(forwarded.json) == json.dumps(asked_directly.json)  # the order of the fields is kept too
    assert forwarded.path.partition("?")[0] == asked_directly.path.partition("?")[0]
    assert forwarded.headers["anthropic-version"] == asked_directly.headers["anthropic-version"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_bytes_are_anthropics(pair: Pair, stream: bool) -> None:
    headers = {"x-api-key": "any", "anthropic-version": "2026-10-21"}
    body = message("Wo liegt Köln? 🇯🇵", stream=stream)
    pair.server.then(echo(), echo())
    direct = pair.trimtab.post(f"{pair.server.base_url}/v1/messages", json=body, headers=headers)
    answer = pair.trimtab.post("/v1/messages", json=body, headers=headers)
    assert answer.headers["content-type"] == direct.headers["content-type"]
    if stream:
        before, receipt, after = answer.content.partition(b": trimtab ")
        told, _, after = after.partition(b"\n\n")
        assert receipt
        assert before + after == direct.content
        assert after.startswith(b"event: message_stop\n")
        assert json.loads(told)["id"] == answer.headers["x-trimtab-receipt-id"]
    else:
        at = answer.content.rindex(b',"trimtab":')
        assert answer.content[:at] + b"}" == direct.content
        assert json.loads(answer.content)["trimtab"]["provider"] == "a"


def test_the_receipt_counts_what_anthropic_counts(pair: Pair) -> None:
    for stream in (False, True):
        pair.server.then(STEPS["cached usage"])
        answer = pair.trimtab.post("/v1/messages", json=message(stream=stream))
        told = answer.content.partition(b": trimtab ")[2].partition(b"\n\n")[0] if stream else answer.content
        receipt = json.loads(told) if stream else json.loads(told)["trimtab"]
        assert (receipt["input_tokens_billed"], receipt["output_tokens_billed"]) == (40, 2)
        assert (receipt["cache_read_tokens_billed"], receipt["cache_write_tokens_billed"]) == (30, 6)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (anthropic_error(400, "invalid_request_error", "no"), anthropic.BadRequestError),
        (anthropic_error(413, "request_too_large"), anthropic.APIStatusError),
        (anthropic_error(529, "overloaded_error"), anthropic.APIStatusError),
        (anthropic_error(500, "api_error"), anthropic.InternalServerError),
        (anthropic_error(429, "rate_limit_error"), anthropic.RateLimitError),
    ],
)
def test_errors_are_anthropics_own(pair: Pair, step: Step, error: type[Exception]) -> None:
    with LoopbackProvider([step] * 9, tongue=ANTHROPIC) as server, served_one(server) as http:
        asked = client(http.base_url)
        with pytest.raises(error) as caught:
            asked.messages.create(**message())
        assert isinstance(caught.value, anthropic.APIStatusError)
        assert caught.value.status_code == step.status
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["error"] == json.loads(step.body or b"")["error"]


def test_our_own_errors_have_anthropics_shape(pair: Pair) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        pair.to_trimtab.messages.create(**message() | {"model": "no-such-model"})
    assert unknown.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError) as bad:
        pair.to_trimtab.messages.create(**message(), extra_body={"trimtab": {"ratio": 7}})
    assert bad.value.body == {  # type: ignore[comparison-overlap]
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "trimtab.ratio: input should be less than or equal to 1"},
        "request_id": None,
    }
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        pair.to_trimtab.messages.create(**message() | {"messages": []})


def test_a_stream_that_breaks_off_says_so(pair: Pair) -> None:
    for step in (cut(6), raw(b"".join(_started()) + anthropic_error_event("overloaded_error"))):
        pair.server.then(step)
        with pytest.raises(anthropic.APIError), pair.to_trimtab.messages.create(**message(), stream=True) as events:
            assert [each.type for each in events][:1] == ["message_start"]


def _started() -> list[bytes]:
    with LoopbackProvider(tongue=ANTHROPIC) as server:
        client(server.base_url).messages.create(**message())
        return anthropic_events(server.requests[0], echo())[:4]


def test_tokens_are_counted_by_anthropic(pair: Pair) -> None:
    body = {name: value for name, value in message(system="Be brief.").items() if name != "max_tokens"}
    direct, through = (each.messages.count_tokens(**body) for each in (pair.to_server, pair.to_trimtab))
    assert through == direct
    assert pair.server.requests[-1].path.startswith("/v1/messages/count_tokens")


def test_the_models_are_listed(pair: Pair) -> None:
    assert [each.id for each in pair.to_trimtab.models.list()] == ["m"]
    assert pair.to_trimtab.models.retrieve("m").display_name == "m"
    with pytest.raises(anthropic.NotFoundError):
        pair.to_trimtab.models.retrieve("x")


def test_the_callers_key_stays_here(pair: Pair) -> None:
    pair.to_trimtab.with_options(default_headers={"anthropic-beta": "some-beta-2026-01-01"}).messages.create(
        **message()
    )
    sent = pair.server.requests[-1].headers
    assert sent["x-api-key"] == KEY
    assert sent["anthropic-beta"] == "some-beta-2026-01-01"
    assert not any(CALLERS_KEY in value for value in sent.values())
