"""The tongues, and what is told in them: mirrors of the wires' conversions, whatever the bytes are cut into."""

from __future__ import annotations

import contextlib
import doctest
import itertools
import json
from typing import Any

import anthropic.types
import openai.types.responses
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

import routing.tongues.limits
import routing.tongues.messages_answer
from routing.anthropic_answer import AnthropicStream, decode
from routing.anthropic_request import encode
from routing.chat_answer import to_event
from routing.chat_request import read_chat_request
from routing.errors import UnsupportedParameter
from routing.streams import Garbage, StreamReader
from routing.tongues import CHAT, COUNT_TOKENS, EMBEDDINGS, MESSAGES, RESPONSES, Retelling, Tongue
from routing.tongues.messages_answer import MessagesProgress
from routing.tongues.responses_answer import ResponsesProgress
from routing.wires import NATIVE, WIRES, read_messages_usage, read_responses_usage
from tests.loopback import Request, Step, calls_tool, ok, stream_events
from tests.loopback_responses import responses_events
from tests.loopback_tongues import anthropic_complaint, anthropic_events
from tests.routing.chat_bodies import ANY_JSON

EVENT: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(openai.types.responses.ResponseStreamEvent)
TOLD = (MESSAGES, RESPONSES)


def test_examples_in_the_docstrings() -> None:
    for module in (routing.tongues.limits, routing.tongues.messages_answer):
        result = doctest.testmod(module)
        assert (result.failed, result.attempted > 0) == (0, True)


def test_the_table() -> None:
    assert {name for _, name in NATIVE} == {tongue.name for tongue in (MESSAGES, COUNT_TOKENS, RESPONSES, EMBEDDINGS)}
    assert all(wire.conversion is None for wire in NATIVE.values())
    assert all(wire.tongue is CHAT for wire in WIRES.values())
    for tongue in (COUNT_TOKENS, EMBEDDINGS):
        with pytest.raises(UnsupportedParameter):
            tongue.to_chat({})


# --- the mirror of Anthropic's wire -----------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)
NAME = st.from_regex(r"[a-z_]{1,9}", fullmatch=True)
ID = st.from_regex(r"toolu_[A-Za-z0-9]{1,9}", fullmatch=True)
INPUT = st.dictionaries(NAME, st.none() | st.booleans() | st.integers(-9, 9) | TEXT, max_size=3)
TOOL_USE = st.builds(lambda i, n, a: {"type": "tool_use", "id": i, "name": n, "input": a}, ID, NAME, INPUT)
BLOCKS = st.tuples(
    st.lists(st.builds(lambda t: {"type": "text", "text": t, "citations": None}, TEXT), max_size=1),
    st.lists(TOOL_USE, max_size=3),
).map(lambda pair: [*pair[0], *pair[1]])
COUNTS = st.integers(0, 10**6)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    blocks = draw(BLOCKS)
    called = any(block["type"] == "tool_use" for block in blocks)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": blocks,
        "stop_reason": "tool_use" if called else draw(st.sampled_from(["end_turn", "max_tokens"])),
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": draw(COUNTS),
            "cache_creation_input_tokens": draw(COUNTS),
            "cache_read_input_tokens": draw(COUNTS),
            "output_tokens": draw(COUNTS),
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


@settings(deadline=None)
@given(answers())
def test_a_message_told_as_a_chat_and_back_is_the_message(message: dict[str, Any]) -> None:
    assert MESSAGES.from_chat(decode(message, 7), {}) == message
    anthropic.types.Message.model_validate(message)


REQUEST = Request("POST", "/v1/messages", {}, json.dumps({"model": "m", "max_tokens": 9, "messages": []}).encode())
CHAT_ASKED = {
    "model": "m",
    "messages": [{"role": "user", "content": "How large?"}],
    "stream_options": {"include_usage": True},
}
TWO = Step(
    text="I look.",
    tool_calls=tuple(
        {"id": f"toolu_{at}", "type": "function", "function": {"name": "now", "arguments": json.dumps({"at": at})}}
        for at in (1, 2)
    ),
)


@pytest.mark.parametrize("step", [ok("Five GB."), calls_tool("find", {"city": "Ōsaka"}, call_id="toolu_1"), TWO])
def test_anthropics_stream_told_as_chunks_and_back_is_the_stream(step: Step) -> None:
    events = [json.loads(event.split(b"data: ")[1]) for event in anthropic_events(REQUEST, step)]
    converter = AnthropicStream(True, 7)
    chunks = [chunk for event in events for chunk in converter.see(event)] + [*converter.last()]
    told = _told(MESSAGES, b"".join(map(to_event, chunks)) + b"data: [DONE]\n\n")
    wanted = [event for event in events if event["type"] != "ping"]
    got = [event for event in told if event["type"] != "ping"]
    for event in (*wanted, *got):
        EVENT.validate_python(event)
    assert [_essence(event) for event in got] == [_essence(event) for event in wanted]


def _essence(event: dict[str, Any]) -> Any:
    """An event without its usage, which a chat completion tells at its end, and how its text is cut."""
    if event["type"] == "message_start":
        return "message_start"
    return {name: value for name, value in event.items() if name != "usage"}


def _told(tongue: Tongue, content: bytes, *cuts: int) -> list[dict[str, Any]]:
    assert tongue.teller is not None
    telling = Retelling(tongue.teller({}))
    ends = [0, *sorted(cuts), len(content)]
    out = b"".join([telling.feed(content[start:end]) for start, end in itertools.pairwise(ends)])
    blocks = (out + telling.end()).split(b"\n\n")
    found = []
    for block in blocks[:-1]:
        name, _, data = block.partition(b"\ndata: ")
        assert name == b"event: " + json.loads(data)["type"].encode()
        found.append(json.loads(data))
    return found


BODIES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "How large?"}]}]},
    {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"city": "Ōsaka"}},
                    {"type": "tool_use", "id": "toolu_2", "name": "find", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Japan"}]},
                    {"type": "tool_result", "tool_use_id": "toolu_2"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
        "tools": [{"name": "find", "description": "Finds.", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "stop_sequences": ["x"],
        "metadata": {"user_id": "u"},
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                    {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                        "title": "a.pdf",
                    },
                ],
            }
        ],
        "output_config": {"effort": "high"},
        "thinking": {"type": "adaptive", "display": "summarized"},
    },
]


@pytest.mark.parametrize("body", BODIES)
def test_a_request_told_as_a_chat_and_back_is_the_request(body: dict[str, Any]) -> None:
    asked = {"model": "claude-opus-4-6", "max_tokens": 64, **body}
    told = encode(read_chat_request(MESSAGES.to_chat(asked)), "claude-opus-4-6", False).body
    assert told == asked
    assert anthropic_complaint(asked, "2026-10-21") is None


# --- streams, cut anywhere --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(TOLD),
    st.sampled_from([ok("Five GB. 🇯🇵"), calls_tool("find", {"city": "Ōsaka"}), calls_tool("now", {})]),
    st.lists(st.integers(0, 3000), max_size=6),
)
def test_a_stream_cut_anywhere_is_told_the_same(tongue: Tongue, step: Step, cuts: list[int]) -> None:
    content = b"".join(stream_events(CHAT_ASKED, step))
    whole = _told(tongue, content)
    assert _told(tongue, content, *(cut for cut in cuts if cut < len(content))) == whole
    adapter = EVENT if tongue is MESSAGES else RESPONSE_EVENT
    for event in whole:
        if event["type"] != "ping":
            adapter.validate_python(event)
    assert whole[-1]["type"] == ("message_stop" if tongue is MESSAGES else "response.completed")


@pytest.mark.parametrize("tongue", TOLD)
def test_nothing_follows_an_error(tongue: Tongue) -> None:
    events = stream_events(CHAT_ASKED, ok("Five GB."))
    told = _told(tongue, b"".join([*events[:2], b'data: {"error":{"message":"no","code":"x"}}\n\n', *events[2:]]))
    assert told[-1]["type"] == "error"
    assert "no" in json.dumps(told[-1])
    assert [event["type"] for event in told].count("error") == 1


@pytest.mark.parametrize("tongue", TOLD)
def test_a_stream_without_an_end_mark_is_ended(tongue: Tongue) -> None:
    events = stream_events(CHAT_ASKED, ok("Five GB."))
    assert _told(tongue, b"".join(events[:-1])) == _told(tongue, b"".join(events))
    assert _told(tongue, b"") == []


@pytest.mark.parametrize("tongue", TOLD)
def test_calls_that_take_turns_cannot_be_told(tongue: Tongue) -> None:
    deltas = [
        {"tool_calls": [{"index": at, "id": "c", "function": {"name": "f", "arguments": "{"}}]} for at in (0, 1, 0)
    ]
    chunks = [{"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    assert _told(tongue, b"".join(map(to_event, chunks)))[-1]["type"] == "error"


# --- the providers' own streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_their_own_streams_pass_byte_for_byte(size: int) -> None:
    asked = Request("POST", "/v1/responses", {}, json.dumps({"model": "m", "input": "How large?"}).encode())
    for events, progress, read_usage in (
        (anthropic_events(REQUEST, TWO), MessagesProgress(), read_messages_usage),
        (responses_events(asked, TWO), ResponsesProgress(), read_responses_usage),
    ):
        content = b"".join(events)
        noticed: list[Any] = []
        reader = StreamReader(progress, noticed.append)
        out = b"".join(reader.feed(content[at : at + size]) for at in range(0, len(content), size))
        assert out + reader.end() == content
        assert (reader.done, reader.failure, reader.error) == (True, None, None)
        reported = [usage for each in noticed if (usage := read_usage(each)) is not None]
        assert reported[-1].usage.output_tokens > 1


def test_what_is_spread_over_events_is_one_usage() -> None:
    progress = MessagesProgress()
    start = {"input_tokens": 4, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 6, "output_tokens": 1}
    progress.see(json.dumps({"type": "message_start", "message": {"usage": start}}).encode())
    assert not progress.finished
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 9, "input_tokens": None},
    }
    reported = read_messages_usage(progress.see(json.dumps(end).encode()))
    assert reported is not None
    assert (reported.usage.input_tokens, reported.usage.output_tokens) == (40, 9)
    assert progress.finished


# --- anything ---------------------------------------------------------------------------------------------------------

_FIELDS = (
    *("messages", "system", "tools", "tool_choice", "thinking", "output_config", "metadata", "stop_sequences"),
    *("input", "instructions", "text", "reasoning", "include", "stream_options"),
)
_REQUESTS = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.just(9)}, optional=dict.fromkeys(_FIELDS, ANY_JSON)
)
_LOOSE = st.recursive(
    ANY_JSON | st.sampled_from(["text", "tool_result", "document", "input_text", "function_call", "user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "source", "input", "output", "id", "name", "call_id", "data"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(TOLD), _REQUESTS, st.lists(_LOOSE, max_size=2))
def test_no_request_makes_a_tongue_raise_anything_else(tongue: Tongue, body: dict[str, Any], turns: list[Any]) -> None:
    for asked in (body, {"model": "m", "max_tokens": 9, "messages": turns}, {"model": "m", "input": turns}):
        tongue.native(asked)
        with contextlib.suppress(UnsupportedParameter):
            json.dumps(tongue.to_chat(asked))


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(TOLD),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "model", "choices", "usage"), _LOOSE)),
)
def test_no_answer_makes_a_tongue_raise_anything_else(tongue: Tongue, answer: dict[str, Any]) -> None:
    for each in (answer, {**answer, "choices": [{"index": 0, "message": answer, "delta": answer}]}):
        with contextlib.suppress(Garbage):
            json.dumps(tongue.from_chat(each, {}))
        assert tongue.teller is not None
        telling = Retelling(tongue.teller({}))
        telling.feed(to_event(each))
        telling.end()
        tongue.error(400, each)
