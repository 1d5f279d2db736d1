"""The loopback provider is what it says: the official client understands it, and each fault is on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests import loopback
from tests.loopback import LoopbackProvider

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ],
    },
]


@pytest.fixture
def server() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as provider:
        yield provider


@pytest.fixture
def client(server: LoopbackProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as made:
        yield made


def test_the_official_client_reads_an_answer(server: LoopbackProvider, client: openai.OpenAI) -> None:
    server.then(loopback.echo())
    answer = client.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.choices[0].message.content == "Be brief.\nWhat is this? [image]"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens == 12
    assert server.requests[0].json["messages"] == MESSAGES
    assert server.requests[0].headers["authorization"] == "Bearer any"


def test_the_official_client_reads_a_stream(server: LoopbackProvider, client: openai.OpenAI) -> None:
    server.then(loopback.ok("Paris, and nothing else."))
    stream = client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Paris, and nothing else."
    )
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


@pytest.mark.parametrize("stream", [False, True])
def test_the_official_client_reads_a_tool_call(server: LoopbackProvider, client: openai.OpenAI, stream: bool) -> None:
    server.then(loopback.calls_tool("look_up", {"city": "Paris", "day": 3}))
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    asked = {"model": "m", "messages": MESSAGES, "tools": tools}
    if stream:
        deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True)]
        calls = [call for delta in deltas for call in delta.tool_calls or ()]
        assert calls[0].function.name == "look_up"
        assert len(calls) > 2, "the arguments come in pieces"
        arguments = "".join(call.function.arguments for call in calls)
    else:
        choice = client.chat.completions.create(**asked).choices[0]
        assert choice.finish_reason == "tool_calls"
        arguments = choice.message.tool_calls[0].function.arguments
    assert json.loads(arguments) == {"city": "Paris", "day": 3}


def test_models_use_up_no_step(server: LoopbackProvider, client: openai.OpenAI) -> None:
    server.then(loopback.status(500))
    assert [model.id for model in client.models.list()] == ["loopback"]
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="m", messages=MESSAGES)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (loopback.bad_request(), openai.BadRequestError),
        (loopback.bad_request(code=422), openai.UnprocessableEntityError),
        (loopback.rate_limited("1"), openai.RateLimitError),
        (loopback.status(401), openai.AuthenticationError),
        (loopback.reset(), openai.APIConnectionError),
        (loopback.reset_mid_header(), openai.APIConnectionError),
        (loopback.hang(), openai.APITimeoutError),
        (loopback.hang_after_headers(), openai.APITimeoutError),
        (loopback.cut(), openai.APIConnectionError),
        (loopback.garbage(), json.JSONDecodeError),
    ],
)
def test_faults(server: LoopbackProvider, client: openai.OpenAI, step: loopback.Step, error: type[Exception]) -> None:
    server.then(step)
    with pytest.raises(error):
        client.with_options(timeout=0.3).chat.completions.create(model="m", messages=MESSAGES)


def test_a_provider_that_does_not_listen_refuses() -> None:
    with LoopbackProvider(listen=False) as server, pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.base_url}/models")


def test_a_stream_is_cut_after_two_events_in_the_middle_of_the_third(server: LoopbackProvider) -> None:
    server.then(loopback.cut(2))
    got = bytearray()

    def read() -> None:
        asked = {"model": "m", "stream": True}
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=asked) as response:
            for chunk in response.iter_raw():
                got.extend(chunk)

    with pytest.raises(httpx.RemoteProtocolError):
        read()
    assert got.count(b"\n\n") == 2
    assert not got.endswith(b"\n\n")


def test_a_hang_up_is_noticed(server: LoopbackProvider) -> None:
    server.then(loopback.hang())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.base_url}/chat/completions", json={}, timeout=0.1)
    assert server.requests[0].hung_up.wait(2.0)
    assert server.wait_for_connections(0)
