"""The official clients, wrapped: the same types, the same methods, and a receipt; the provider gets less context."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from tests.loopback import LoopbackProvider, ok, rate_limited, status
from tests.loopback_tongues import ANTHROPIC
from tests.trimtab.payloads import CHUNKS, EVIDENCE, QUESTION, asking, stuffed
from trimtab import Trimtab, wrap
from trimtab.errors import BadRequest

CLAUDE = "claude-haiku-5-5"
GPT = "gpt-5-mini"


@pytest.fixture(scope="module")
def trimtab() -> Trimtab:
    return Trimtab()


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as server:
        yield server


@pytest.fixture
def claude() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(tongue=ANTHROPIC) as server:
        yield server


@pytest.fixture
def client(provider: LoopbackProvider, trimtab: Trimtab) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.base_url, api_key="sk-mine", max_retries=1) as plain:
        yield wrap(plain, trimtab)


def trimmed(body: Any) -> bool:
    text = str(body["messages"])
    return len(text) < 0.7 * len(stuffed()) and EVIDENCE in text and QUESTION in text


def test_openai(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(**asking(model=GPT))
    assert isinstance(client, openai.OpenAI)
    assert type(completion) is ChatCompletion
    assert completion.choices[0].message.content == "Hello from loopback."
    assert trimmed(provider.requests[-1].json)
    assert provider.requests[-1].headers["authorization"] == "Bearer sk-mine"
    receipt: Any = completion.trimtab  # type: ignore[attr-defined]
    assert receipt["tokens_after"] < receipt["tokens_before"]
    assert completion.usage is not None
    assert receipt["input_tokens_billed"] == completion.usage.prompt_tokens
    assert float(receipt["saved_usd"]) > 0
    assert completion.to_dict()["trimtab"] == receipt


def test_openai_with_the_context_in_the_options(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    options = {"trimtab": {"contexts": CHUNKS, "ratio": 0.1}}
    completion: Any = client.chat.completions.create(model=GPT, messages=messages, extra_body=options)
    assert completion.trimtab["tokens_after"] <= 0.1 * completion.trimtab["tokens_before"]
    assert provider.requests[-1].json.keys() == {"model", "messages"}
    assert EVIDENCE in provider.requests[-1].json["messages"][0]["content"]


def test_openai_streaming(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    stream: Any = client.chat.completions.create(
        **asking(model=GPT), stream=True, stream_options={"include_usage": True}
    )
    assert isinstance(stream, openai.Stream)
    assert stream.trimtab["output_tokens_billed"] is None
    text = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
    assert text == "Hello from loopback."
    assert stream.trimtab["output_tokens_billed"] == 3
    assert trimmed(provider.requests[-1].json)


def test_openai_asynchronously(provider: LoopbackProvider, trimtab: Trimtab) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="k") as plain:
            client = wrap(plain, trimtab)
            assert isinstance(client, openai.AsyncOpenAI)
            completion: Any = await client.chat.completions.create(**asking(model=GPT))
            assert completion.trimtab["tokens_after"] < completion.trimtab["tokens_before"]
            stream: Any = await client.chat.completions.create(**asking(model=GPT), stream=True)
            assert isinstance(stream, openai.AsyncStream)
            assert [chunk async for chunk in stream]
            assert stream.trimtab["ms"]["provider"] > 0

    asyncio.run(ask())
    assert all(trimmed(each.json) for each in provider.requests)


class City(BaseModel):
    name: str


def test_the_helpers_of_openais_client(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    provider.then(ok('{"name": "Oslo"}'))
    parsed: Any = client.chat.completions.parse(**asking(model=GPT), response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Oslo")
    assert parsed.trimtab["input_tokens_billed"] > 0
    raw: Any = client.chat.completions.with_raw_response.create(**asking(model=GPT))
    assert raw.parse().trimtab["id"] == raw.http_response.extensions["trimtab"].id
    with client.chat.completions.with_streaming_response.create(**asking(model=GPT)) as response:
        assert response.parse().trimtab["tokens_after"] > 0  # type: ignore[attr-defined]
    with client.chat.completions.stream(**asking(model=GPT)) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello from loopback."
    assert len([each for each in provider.requests if trimmed(each.json)]) == 4


def test_a_copy_of_it_trims_too(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    completion: Any = client.with_options(timeout=9).chat.completions.create(**asking(model=GPT))
    assert completion.trimtab["tokens_after"] < completion.trimtab["tokens_before"]


def test_wrapping_twice_is_wrapping_once(provider: LoopbackProvider, client: openai.OpenAI, trimtab: Trimtab) -> None:
    wrap(client, trimtab).chat.completions.create(**asking(model=GPT))
    once = provider.requests[-1].json
    client.chat.completions.create(**asking(model=GPT))
    assert provider.requests[-1].json == once


def test_what_carries_no_context_is_untouched(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    listed: Any = client.models.list()
    assert listed.data[0].id
    assert not hasattr(listed, "trimtab")


def test_retries_and_errors_are_the_clients_own(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    provider.then(rate_limited("0"), ok("Yes."), status(400, "no"))
    assert client.chat.completions.create(**asking(model=GPT)).choices[0].message.content == "Yes."
    first, second = provider.requests
    assert first.json == second.json
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**asking(model=GPT))
    with pytest.raises(BadRequest, match=r"trimtab\.ratio"):
        client.chat.completions.create(**asking(model=GPT), extra_body={"trimtab": {"ratio": 7}})
    assert len(provider.requests) == 3


def test_the_http_client_is_the_callers_own(provider: LoopbackProvider, trimtab: Trimtab) -> None:
    """Its headers, its hooks and its connections; of httpx as well as of httpx2."""
    for library in (httpx2, httpx):
        seen: list[Any] = []
        http = library.Client(headers={"x-mine": "yes"}, event_hooks={"request": [seen.append]})
        client = wrap(openai.OpenAI(base_url=provider.base_url, api_key="k", http_client=http), trimtab)
        completion: Any = client.chat.completions.create(**asking(model=GPT))
        assert provider.requests[-1].headers["x-mine"] == "yes"
        assert len(seen) == 1
        assert completion.trimtab["output_tokens_billed"] == 3
        client.close()
        assert provider.wait_for_connections(0)


def test_the_original_is_as_it_was(provider: LoopbackProvider, trimtab: Trimtab) -> None:
    with openai.OpenAI(base_url=provider.base_url, api_key="k") as plain:
        wrapped = wrap(plain, trimtab)
        wrapped.chat.completions.create(**asking(model=GPT))
        del wrapped
        gc.collect()
        assert provider.open_connections == 1  # the connection is the original's, and is still there
        completion = plain.chat.completions.create(**asking(model=GPT))
        assert not hasattr(completion, "trimtab")
        assert provider.requests[-1].json == asking(model=GPT)
        assert provider.open_connections == 1


def test_a_client_that_only_lives_wrapped_is_closed_when_it_goes(provider: LoopbackProvider, trimtab: Trimtab) -> None:
    client = wrap(openai.OpenAI(base_url=provider.base_url, api_key="k"), trimtab)
    gc.collect()
    client.chat.completions.create(**asking(model=GPT))
    del client
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert provider.wait_for_connections(0)


def test_anthropic(claude: LoopbackProvider, trimtab: Trimtab) -> None:
    with anthropic.Anthropic(base_url=claude.base_url, api_key="k") as plain:
        client = wrap(plain, trimtab)
        message: Any = client.messages.create(**asking(model=CLAUDE, max_tokens=9))
        assert isinstance(client, anthropic.Anthropic)
        assert type(message) is anthropic.types.Message
        assert message.trimtab["tokens_after"] < message.trimtab["tokens_before"]
        assert message.trimtab["input_tokens_billed"] == message.usage.input_tokens
        stream: Any = client.messages.create(**asking(model=CLAUDE, max_tokens=9), stream=True)
        assert isinstance(stream, anthropic.Stream)
        assert [event.type for event in stream][-1] == "message_stop"
        assert stream.trimtab["output_tokens_billed"] > 0
        with client.messages.stream(**asking(model=CLAUDE, max_tokens=9)) as helper:
            assert helper.get_final_text() == "Hello from loopback."
            assert helper.response.extensions["trimtab"].output_tokens_billed > 0
    assert len(claude.requests) == 3
    assert all(trimmed(each.json) for each in claude.requests)


def test_anthropic_asynchronously(claude: LoopbackProvider, trimtab: Trimtab) -> None:
    async def ask() -> None:
        async with anthropic.AsyncAnthropic(base_url=claude.base_url, api_key="k") as plain:
            client = wrap(plain, trimtab)
            message: Any = await client.messages.create(**asking(model=CLAUDE, max_tokens=9))
            assert message.trimtab["tokens_after"] < message.trimtab["tokens_before"]
            stream: Any = await client.messages.create(**asking(model=CLAUDE, max_tokens=9), stream=True)
            assert isinstance(stream, anthropic.AsyncStream)
            assert [event.type async for event in stream]
            assert stream.trimtab["output_tokens_billed"] > 0

    asyncio.run(ask())
    assert all(trimmed(each.json) for each in claude.requests)


@pytest.mark.parametrize("other", [None, "a client", httpx.Client, object()])
def test_anything_else_is_refused(other: Any) -> None:
    with pytest.raises(TypeError, match="wrap takes a client of the openai or anthropic package"):
        wrap(other)
