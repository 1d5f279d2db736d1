"""The official client, pointed at trimtab, gets what it gets from the provider itself, and the provider what it sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from tests.loopback import LoopbackProvider, Step, calls_tool, echo, ok, raw
from tests.trimtab.asking import (
    CALLERS_KEY,
    CONTEXTS,
    KEY,
    KEY_ENV,
    QUESTION,
    chat,
    documents,
    provider,
    serving,
    without_receipt,
    without_receipt_event,
)

TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds a city.",
        "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"city": "Ōsaka"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
FILE = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "a", "strict": True, "schema": {"type": "object", "properties": {"b": {"type": "null"}}}},
}

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": chat(),
    "tools": chat(tools=[TOOL], tool_choice="auto", parallel_tool_calls=True),
    "tool results": {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Where is Ōsaka?", "name": "ada"},
            {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "Japan 🇯🇵"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": ""}]},
        ],
        "tools": [TOOL],
    },
    "images and files": chat([{"type": "text", "text": "What is this?"}, IMAGE, FILE]),
    "a schema": chat(response_format=SCHEMA),
    "sampling": chat(
        n=2, seed=2**53 + 1, temperature=0.1, top_p=1e-7, stop=["\n", "\u2028"], logit_bias={"50256": -100}
    ),
    "logprobs": chat(logprobs=True, top_logprobs=5),
    "what is yet to come": chat(
        extra_body={
            "reasoning": {"effort": None, "depth": [1, 2.5, True, {}]},
            "x-\u00e9": [],
            "zero": 0,
            "metadata": {},
        }
    ),
}
STEPS: dict[str, Step] = {
    "echo": echo(),
    "one call": calls_tool("find", {"city": "Ōsaka \U0001f1ef\U0001f1f5"}),
    "two calls": Step(text=None, tool_calls=(CALL, {**CALL, "id": "call_2"})),
    "cached usage": ok(
        "Five.",
        usage={
            "prompt_tokens": 40,
            "completion_tokens": 2,
            "total_tokens": 42,
            "prompt_tokens_details": {"cached_tokens": 30},
        },
    ),
}


class Pair(NamedTuple):
    """A provider, and a trimtab before it. `to_server` and `to_trimtab` are official clients."""

    server: LoopbackProvider
    trimtab: httpx.Client
    base_url: str
    to_server: openai.OpenAI
    to_trimtab: openai.OpenAI


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider() as server,
        serving(provider("a", server, "m", api_key_env=KEY_ENV)) as client,
    ):
        patch.setenv(KEY_ENV, KEY)
        base_url = f"{str(client.base_url).rstrip('/')}/v1"
        more: dict[str, Any] = {"api_key": CALLERS_KEY, "organization": "org-caller", "max_retries": 0}
        with (
            openai.OpenAI(base_url=server.base_url, **more) as to_server,
            openai.OpenAI(base_url=base_url, **more) as to_trimtab,
        ):
            yield Pair(server, client, base_url, to_server, to_trimtab)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
def test_the_client_gets_what_the_provider_gives(pair: Pair, request_name: str, step: str, stream: bool) -> None:
    seen = []
    for client in (pair.to_server, pair.to_trimtab):
        pair.server.then(STEPS[step])
        answer = client.chat.completions.create(**REQUESTS[request_name], stream=stream)
        answers = [each.model_dump() for each in (answer if stream else [answer])]
        receipts = [each.pop("trimtab", None) for each in answers]
        seen.append((answers, pair.server.requests[-1].json))
    (direct, asked), (through, forwarded) = seen
    assert through == direct
    assert json.dumps(forwarded) == json.dumps(asked)  # the order of the fields is kept too
    assert stream or receipts[0]["provider"] == "a"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("more", [{}, {"stream_options": {"include_usage": True}}, {"trimtab": {"ratio": 1}}])
def test_the_bytes_are_the_providers(pair: Pair, step: str, more: dict[str, Any]) -> None:
    body = chat("Wo liegt Köln? 🇯🇵", stream=True, **more)
    pair.server.then(STEPS[step], STEPS[step])
    plain = {name: value for name, value in body.items() if name != "trimtab"}
    direct = pair.trimtab.post(f"{pair.server.base_url}/chat/completions", json=plain).content
    answer = pair.trimtab.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    through, receipt, event = without_receipt_event(answer.content)
    assert through == direct
    assert event.startswith(b"data: ") == bool(more)
    after = answer.content.partition(event)[2]
    assert after.endswith(b"data: [DONE]\n\n")
    assert after.count(b"data: ") == (2 if "stream_options" in more else 1)  # the usage stays the last that is told
    assert receipt["id"] == answer.headers["x-trimtab-receipt-id"]


def test_the_clients_own_stream_helper_finds_the_usage(pair: Pair) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}}
    client = openai.OpenAI(base_url=str(pair.trimtab.base_url) + "/v1", api_key="unused")
    with client, client.chat.completions.stream(**asked) as stream:  # type: ignore[arg-type]
        final = stream.get_final_completion()
    assert final.usage is not None
    assert final.usage.completion_tokens > 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"x","choices":[{"message":{"content":"}"}}]}',
        b'{ "choices" : [ ] , "usage":null }\n \r\n',
        b'{"choices":[],"n":1e400,"big":123456789012345678901234567890,"s":"\\ud83c\\u00e9"}',
        b"{ }",
    ],
)
def test_a_whole_answer_is_passed_on_byte_for_byte(pair: Pair, body: bytes) -> None:
    pair.server.then(raw(body, content_type="application/json; charset=utf-8"))
    answer = pair.trimtab.post("/v1/chat/completions", json=chat())
    assert answer.status_code == 200
    if body == b"{ }":
        assert answer.content.startswith(b'{ "trimtab":{')
    else:
        through, receipt = without_receipt(answer.content)
        assert through == body
        assert receipt["input_tokens_billed"] is None  # the provider said nothing, and nothing is made up
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["x-request-id"] == "req_loopback"


@pytest.mark.parametrize("stream", [False, True])
def test_contexts_go_in_and_nothing_else_changes(pair: Pair, stream: bool) -> None:
    fields = {"seed": 7, "future": {"a": [None]}, "temperature": 0}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    answer = pair.to_trimtab.chat.completions.create(
        model="m",
        messages=messages,  # type: ignore[arg-type]
        stream=stream,  # type: ignore[arg-type]
        extra_body={**fields, "trimtab": {"contexts": CONTEXTS, "budget_tokens": 20}},
    )
    for _ in answer if stream else ():
        pass
    forwarded = pair.server.requests[-1].json
    first, written, last = forwarded["messages"]
    assert [first, last] == messages
    assert {name: value for name, value in forwarded.items() if name not in ("messages", "model", "stream")} == fields
    assert forwarded.get("stream", False) is stream
    assert "An upload may be 5 GB." in documents(written)["Limits"]


def test_the_receipt_is_a_field_of_the_clients_objects(pair: Pair) -> None:
    client = pair.to_trimtab
    whole = client.chat.completions.create(**chat())
    chunks = list(client.chat.completions.create(**chat(), stream=True, extra_body={"trimtab": {}}))
    assert whole.trimtab["attempts"][0]["outcome"] == "ok"  # type: ignore[attr-defined]
    assert [len(each.choices) for each in chunks[-2:]] == [1, 0]
    assert chunks[-1].trimtab["attempts"][0]["outcome"] == "ok"  # type: ignore[attr-defined]
    assert not any(hasattr(each, "trimtab") for each in chunks[:-1])


def test_the_async_client_streams_too(pair: Pair) -> None:
    async def read(base_url: str) -> list[dict[str, Any]]:
        async with openai.AsyncOpenAI(base_url=base_url, api_key=CALLERS_KEY, max_retries=0) as client:
            stream = await client.chat.completions.create(**chat(), stream=True)
            whole = await client.chat.completions.create(**chat())
            return [each.model_dump() async for each in stream] + [whole.model_dump()]

    pair.server.then(echo(), echo(), echo(), echo())
    direct = asyncio.run(read(pair.server.base_url))
    through = asyncio.run(read(pair.base_url))
    assert through[-1].pop("trimtab")["model"] == "m"
    assert through == direct


def test_events_arrive_while_the_provider_is_still_writing(pair: Pair) -> None:
    pair.server.then(Step(text="one two", fault="stall", after_events=2))
    with pair.trimtab.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
        first = next(answer.iter_bytes())
    assert first.startswith(b'data: {"id"')
    assert pair.server.requests[-1].hung_up.wait(3), "the provider was left writing for nobody"


def test_the_callers_key_stays_here_and_the_providers_goes_out(pair: Pair) -> None:
    headers = {
        "authorization": f"Bearer {CALLERS_KEY}",
        "x-api-key": CALLERS_KEY,
        "api-key": CALLERS_KEY,
        "cookie": f"session={CALLERS_KEY}",
        "proxy-authorization": f"Basic {CALLERS_KEY}",
        "openai-organization": "org-caller",
        "openai-project": "proj-caller",
        "x-forwarded-for": "203.0.113.9",
        "openai-beta": "assistants=v2",
    }
    answer = pair.trimtab.post("/v1/chat/completions", json=chat(), headers=headers)
    assert answer.status_code == 200
    sent = pair.server.requests[-1].headers
    assert sent["authorization"] == f"Bearer {KEY}"
    told = " ".join(f"{name}: {value}" for name, value in sent.items())
    assert not any(secret in told for secret in (CALLERS_KEY, "org-caller", "proj-caller", "203.0.113.9"))
    assert sent["openai-beta"] == "assistants=v2"
    shown = answer.text + str(answer.headers)
    assert KEY not in shown
    assert CALLERS_KEY not in shown


def test_the_models_are_listed(pair: Pair) -> None:
    assert [(each.id, each.owned_by) for each in pair.to_trimtab.models.list()] == [("m", "a")]
