"""What other wires say, as OpenAI's shapes: odd answers, broken ones, and streams cut up in every way."""

from __future__ import annotations

import contextlib
import doctest
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

import routing.anthropic_answer
import routing.gemini_answer
from routing.conversion import ConvertedReader, read_fault
from routing.streams import Garbage
from routing.wires import WIRES
from tests import loopback
from tests.loopback import Request, Step
from tests.loopback_tongues import anthropic_events, gemini_events
from tests.routing.asking import events

KINDS = pytest.mark.parametrize("kind", ["anthropic", "gemini"])
STEP = Step(
    text="Paris, of course: Ä €.",
    thinking="Hm. A town.",
    tool_calls=loopback.calls_tool("look_up", {"city": "Paris"}).tool_calls,
)
ASKED: dict[str, Any] = {
    "anthropic": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
}
PATHS = {"anthropic": "/v1/messages", "gemini": "/v1beta/models/m:streamGenerateContent?alt=sse"}


def pieces(kind: str, step: Step = STEP) -> list[bytes]:
    request = Request("POST", PATHS[kind], {}, json.dumps(ASKED[kind]).encode())
    return (anthropic_events if kind == "anthropic" else gemini_events)(request, step)


def reader(kind: str, seen: list[Any] | None = None) -> ConvertedReader:
    conversion = WIRES[kind].conversion
    assert conversion is not None
    return ConvertedReader(conversion, True, 7, (lambda _: None) if seen is None else seen.append)


def decode(kind: str, answer: Any) -> dict[str, Any]:
    conversion = WIRES[kind].conversion
    assert conversion is not None
    return conversion.decode(answer, 7)


def streamed(*described: dict[str, Any]) -> list[Any]:
    """The chunks of a message with these events between its start and its end."""
    message = {"id": "msg", "model": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}
    whole = [{"type": "message_start", "message": message}, *described]
    one = reader("anthropic")
    content = one.feed(b"".join(f"event: x\ndata: {json.dumps(event)}\n\n".encode() for event in whole))
    assert one.failure is None
    return events(content)[1:]


def test_examples_in_the_docstrings() -> None:
    for module in (routing.anthropic_answer, routing.gemini_answer):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 0


@KINDS
@settings(deadline=None)
@given(data=st.data())
def test_a_stream_gives_the_same_however_it_is_split(kind: str, data: st.DataObject) -> None:
    whole = b"".join(pieces(kind))
    expected = reader(kind)
    content = expected.feed(whole)
    content += expected.end()
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12).map(sorted))
    seen: list[Any] = []
    one = reader(kind, seen)
    relayed = [one.feed(whole[start:end]) for start, end in itertools.pairwise([0, *cuts, len(whole)])]
    assert b"".join(relayed) + one.end() == content
    assert one.failure is None
    assert one.done
    assert len(seen) == 1, "the usage is told once"
    for event in events(content)[:-1]:
        ChatCompletionChunk.model_validate(event, strict=True)


@KINDS
@settings(deadline=None)
@given(data=st.data())
def test_a_stream_cut_anywhere_relays_whole_events_and_never_ends_well(kind: str, data: st.DataObject) -> None:
    parts = pieces(kind)
    whole = b"".join(parts)
    last = whole.index(b"message_stop") - len(b"event: ") if kind == "anthropic" else len(whole) - len(parts[-1])
    cut = data.draw(st.integers(0, last))
    expected = reader(kind).feed(whole)
    one = reader(kind)
    relayed = one.feed(whole[:cut]) + one.end()
    finished = kind == "anthropic" and one.failure is None
    if not finished:
        assert expected.startswith(relayed)
        assert one.failure is not None
        assert b"[DONE]" not in relayed
    else:
        assert b'"finish_reason":"tool_calls"' in relayed
    assert relayed.count(b"\n\n") == len([block for block in relayed.split(b"\n\n") if block])


@KINDS
@settings(deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_at_all_do_not_raise(kind: str, content: bytes) -> None:
    one = reader(kind)
    assert one.feed(content) + one.end() == b""
    assert one.failure is not None


_NAMES = st.sampled_from(
    [
        *(
            "type",
            "content",
            "text",
            "id",
            "input",
            "index",
            "delta",
            "content_block",
            "message",
            "usage",
            "stop_reason",
        ),
        *("candidates", "parts", "finishReason", "functionCall", "args", "usageMetadata", "promptTokenCount", "error"),
        *("logprobsResult", "chosenCandidates", "promptFeedback", "input_tokens", "details", "retryDelay", "status"),
    ]
)
_WORDS = st.sampled_from(
    [
        *("message", "text", "tool_use", "thinking", "message_start", "content_block_start", "content_block_delta"),
        *("message_delta", "message_stop", "ping", "error", "text_delta", "input_json_delta", "end_turn", "STOP", "9s"),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=20,
)


@KINDS
@settings(deadline=None, max_examples=200)
@given(answers=st.lists(st.dictionaries(_NAMES, _JSON, max_size=6), max_size=4))
def test_any_json_is_an_answer_or_garbage_and_nothing_else(kind: str, answers: list[dict[str, Any]]) -> None:
    conversion = WIRES[kind].conversion
    assert conversion is not None
    one = reader(kind)
    for answer in answers:
        with contextlib.suppress(Garbage):
            ChatCompletion.model_validate(conversion.decode(answer, 7))
        assert 400 <= conversion.fault(None, answer).status <= 599
        read_fault(conversion, 500, json.dumps([answer]).encode())
        if one.failure is None:
            one.feed(b"data: " + json.dumps(answer).encode() + b"\n\n")


@KINDS
@settings(deadline=None)
@given(number=st.integers(0, 30), broken=st.dictionaries(_NAMES, _JSON, max_size=4))
def test_a_strange_event_in_a_good_stream_does_not_raise(kind: str, number: int, broken: dict[str, Any]) -> None:
    parts = pieces(kind)
    parts.insert(number % (len(parts) + 1), b"data: " + json.dumps(broken).encode() + b"\n\n")
    one = reader(kind)
    for part in parts:
        if one.failure is None:
            one.feed(part)
    assert one.failure is None or one.failure != ""


# --- Anthropic's odd answers --------------------------------------------------------------------------------------


def test_blocks_of_every_kind() -> None:
    answer = {
        "id": "msg",
        "type": "message",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "redacted_thinking", "data": "xyz"},
            {"type": "text", "text": "One. "},
            {"type": "a_block_of_next_year", "text": "?"},
            {"type": "text", "text": "Two."},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"é": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": None, "output_tokens": 2, "service_tier": "priority"},
    }
    form = {"format": "anthropic-claude-v1"}
    assert decode("anthropic", answer) == {
        "id": "msg",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "One. Two.",
                    "refusal": None,
                    "reasoning_content": "Hm.",
                    "reasoning_details": [
                        {"type": "reasoning.text", "text": "Hm.", "signature": "s", **form, "index": 0},
                        {"type": "reasoning.encrypted", "data": "xyz", **form, "index": 1},
                    ],
                    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"é":1}'}}],
                },
                "finish_reason": "tool_calls",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "service_tier": "priority",
    }


def test_a_call_whose_input_comes_early_or_never() -> None:
    start = {"type": "content_block_start"}
    use = {"type": "tool_use", "id": "a", "name": "f"}
    early = streamed(
        {**start, "index": 0, "content_block": {**use, "input": {"a": 1}}},
        {"type": "content_block_stop", "index": 0},
        {**start, "index": 1, "content_block": {**use, "input": {}}},
        {"type": "content_block_stop", "index": 1},
    )
    calls = [event["choices"][0]["delta"]["tool_calls"][0] for event in early]
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [(0, '{"a":1}'), (1, ""), (1, "{}")]


def test_events_that_are_not_known_are_skipped() -> None:
    delta = {"type": "content_block_delta", "index": 0}
    assert (
        streamed(
            {"type": "an_event_of_next_year"},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use", "input": {}}},
            {**delta, "delta": {"type": "citations_delta", "citation": {}}},
            {**delta, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        )
        == []
    )


def test_later_counts_replace_the_first_and_null_does_not() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": None, "output_tokens": 5}
    chunks = streamed(
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 3}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
        {"type": "message_stop"},
    )
    finish, last, done = chunks
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (10, 5)
    assert done == b"[DONE]"


def test_gemini_may_report_usage_after_the_finish() -> None:
    candidate = {"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}
    one = reader("gemini")
    content = one.feed(b"data: " + json.dumps({"candidates": [candidate]}).encode() + b"\r\n\r\n")
    assert one.finished
    content += one.feed(b'data: {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}}\r\n\r\n')
    content += one.end()
    assert events(content)[-2]["usage"]["total_tokens"] == 5
    assert one.closing() == b"", "the end is said once"


def test_gemini_gives_ids_to_calls_that_have_none_and_keeps_images() -> None:
    call = {"functionCall": {"name": "f", "args": {}}}
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    answer = {"candidates": [{"content": {"parts": [call, call, image]}, "finishReason": "STOP"}]}
    message = decode("gemini", answer)["choices"][0]["message"]
    first, second = message["tool_calls"]
    assert first["id"] != second["id"]
    assert message["images"][0]["image_url"]["url"] == "data:image/png;base64,AAAA"
