"""An answer survives being told as a stream and put together again, in each surface's own events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.chat_answer import to_event
from trimtab.answers.entry import Entry, unpacked, worth_keeping
from trimtab.answers.replay import folded, told

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"content": "Ōsaka. 🇯🇵", "role": "assistant"},
            "finish_reason": "stop",
            "logprobs": None,
        },
        {
            "index": 1,
            "message": {
                "content": None,
                "role": "assistant",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "find", "arguments": '{"x": 1}'}},
                    {"id": "b", "type": "function", "function": {"name": "find", "arguments": "{}"}},
                ],
            },
            "finish_reason": "tool_calls",
            "logprobs": None,
        },
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
        {"type": "text", "text": "5 GB.", "citations": [{"type": "char_location", "cited_text": "5 GB"}]},
        {"type": "redacted_thinking", "data": "eHl6"},
        {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"city": "Ōsaka"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "5 GB.", "annotations": [], "logprobs": []}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c",
            "name": "find",
            "arguments": "{}",
            "status": "completed",
        },
    ],
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
}
ANSWERS = {"chat": CHAT, "messages": MESSAGE, "responses": RESPONSE}


@pytest.mark.parametrize("tongue", ANSWERS)
def test_what_is_told_is_put_together_as_it_was(tongue: str) -> None:
    body = {"stream_options": {"include_usage": True}}
    assert folded(tongue, b"".join(told(tongue, ANSWERS[tongue], body))) == ANSWERS[tongue]


@pytest.mark.parametrize("tongue", ANSWERS)
def test_a_stream_that_holds_what_is_not_known_is_not_put_together(tongue: str) -> None:
    events = list(told(tongue, ANSWERS[tongue], {}))
    if tongue == "responses":
        assert folded(tongue, b"".join(events[:-1])) is None  # it is the last event that holds the answer
        return
    strange = {
        "chat": {**CHAT, "choices": [{"index": 0, "delta": {"hologram": "x"}}]},
        "messages": {"type": "content_block_delta", "index": 0, "delta": {"type": "hologram_delta", "hologram": "x"}},
    }[tongue]
    assert folded(tongue, b"".join([*events[:2], to_event(strange), *events[2:]])) is None


@given(st.binary(max_size=200))
def test_bytes_that_are_no_stream_make_no_answer(content: bytes) -> None:
    for tongue in ANSWERS:
        assert folded(tongue, content) is None
    assert folded("chat", b"data: " + content + b"\n\n") is None


@pytest.mark.parametrize(
    ("tongue", "answer"),
    [
        ("chat", {**CHAT, "choices": [{**CHAT["choices"][0], "finish_reason": "length"}]}),
        ("chat", {**CHAT, "choices": [{**CHAT["choices"][0], "finish_reason": "content_filter"}]}),
        ("chat", {**CHAT, "choices": [{**CHAT["choices"][0], "message": {"content": None, "refusal": "I cannot."}}]}),
        ("chat", {"error": {"message": "x"}}),
        ("chat", {}),
        ("messages", {**MESSAGE, "stop_reason": "refusal"}),
        ("messages", {**MESSAGE, "stop_reason": "max_tokens"}),
        ("responses", {**RESPONSE, "status": "incomplete"}),
        (
            "responses",
            {**RESPONSE, "output": [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]},
        ),
    ],
)
def test_what_was_cut_short_refused_or_filtered_is_not_kept(tongue: str, answer: dict[str, Any]) -> None:
    assert worth_keeping(tongue, ANSWERS[tongue])
    assert not worth_keeping(tongue, answer)


ENTRY = Entry("n", 1.5, ("d",), "p", "m", "sync", "v", 5, 2, 3, "rcpt_1", json.dumps(CHAT).encode())


def test_an_entry_comes_back_as_it_was_and_under_its_own_name_only() -> None:
    assert unpacked(ENTRY.packed(), "n") == ENTRY
    assert unpacked(ENTRY.packed(), "another") is None
    assert unpacked(None, "n") is None


@given(st.binary(max_size=80), st.data())
def test_a_damaged_entry_is_none(junk: bytes, data: st.DataObject) -> None:
    assert unpacked(junk, "n") is None
    packed = ENTRY.packed()
    at = data.draw(st.integers(0, packed.index(b"\n")))
    assert unpacked(packed[:at], "n") is None
