"""Requests in and out: what is not context passes byte for byte, whatever is kept of the context."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor import Kept, Source
from compressor.payload import BadPayload, Payload, parse_chat, written_contexts
from compressor.ranking import whole
from compressor.tokens import count_each
from tests.compressor.test_recognition import ANTHROPIC_DOCS, ANTHROPIC_SEARCH, DOC, LONG, PIECES

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"what": "limits"}'}}
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "description": "Looks it up", "parameters": {"type": "object"}},
}


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": list(messages), **fields}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def kept(payload: Payload, *texts: str) -> list[Kept]:
    return [
        Kept(source.id, text, ((0, 1),) if text else ()) for source, text in zip(payload.sources, texts, strict=True)
    ]


def nothing(payload: Payload) -> list[Kept]:
    return kept(payload, *("" for _ in payload.sources))


BODIES = [
    chat(user("Hello.")),
    chat({"role": "system", "content": ANTHROPIC_DOCS}, user(ANTHROPIC_DOCS)),
    chat(user(ANTHROPIC_SEARCH), {"role": "assistant", "content": ANTHROPIC_DOCS}, user("And now?")),
    chat(user([{"type": "text", "text": ANTHROPIC_DOCS}, IMAGE, {"type": "text", "text": "What is it?"}])),
    chat(
        user("How large may an upload be?"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": LONG},
        tools=[TOOL],
        tool_choice="auto",
    ),
    chat(user(f"[1] {DOC}\n[2] {DOC}\n\nWhat?"), {"role": "tool", "content": [{"type": "text", "text": LONG}]}),
    chat(
        user(f"# A\n{LONG}\n\n# B\n{DOC}\n\nHow large?"),
        stream=True,
        temperature=0.3,
        logit_bias={"1": 2},
        unknown=[{"x": None}],
    ),
    chat(user(f"{LONG}\n\nHow large?"), metadata={"trace": "é\u0000"}, seed=7),
    chat(
        {"role": "developer", "content": LONG},
        user(""),
        user(None),
        {"role": "user"},
        user(17),
        user([17, None, "x", {"text": 3}]),
    ),
]


@pytest.mark.parametrize("body", BODIES)
def test_with_everything_kept_nothing_changes(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    payload = parse_chat(body)
    assert payload.rebuilt(whole(payload.sources)) == before
    assert body == before
    assert json.dumps(payload.rebuilt(whole(payload.sources))) == json.dumps(before)


@pytest.mark.parametrize("body", BODIES)
def test_with_nothing_kept_only_the_context_goes(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    payload = parse_chat(body)
    after = payload.rebuilt(nothing(payload))
    assert body == before  # a new value, never an edit
    assert {k: v for k, v in after.items() if k != "messages"} == {k: v for k, v in before.items() if k != "messages"}
    assert len(after["messages"]) == len(before["messages"])
    for new, old in zip(after["messages"], before["messages"], strict=True):
        assert {k: v for k, v in new.items() if k != "content"} == {k: v for k, v in old.items() if k != "content"}
        if old["role"] in ("system", "developer", "assistant"):
            assert new == old
        if isinstance(old.get("content"), list):
            assert [p for p in new["content"] if not isinstance(p, dict) or p.get("type") != "text"] == [
                p for p in old["content"] if not isinstance(p, dict) or p.get("type") != "text"
            ]


def test_dropped_documents_leave_no_tags() -> None:
    payload = parse_chat(chat(user(ANTHROPIC_DOCS)))
    (message,) = payload.rebuilt(nothing(payload))["messages"]
    assert "".join(message["content"].split()) == "<documents></documents>" + "".join(
        ANTHROPIC_DOCS.split("</documents>")[1].split()
    )
    (message,) = payload.rebuilt(kept(payload, "", "Two rivals."))["messages"]
    assert message["content"].count("<document ") == 1
    assert '<document index="2">\n    <source>competitor_analysis_q2.xlsx</source>' in message["content"]
    assert "<document_content>\n      Two rivals.\n    </document_content>" in message["content"]


def test_what_is_kept_stands_where_it_stood() -> None:
    text = f"Use these.\n\nDocument [1](Title: A) {DOC}\nDocument [2](Title: B) {DOC}\nDocument [3](Title: C) {DOC}\n\nHow large?"
    payload = parse_chat(chat(user(text)))
    assert [source.title for source in payload.sources] == ["A", "B", "C"]
    (message,) = payload.rebuilt(kept(payload, "Uploads may be 5 GB.", "", "A bucket holds 100 TB"))["messages"]
    assert message["content"] == (
        "Use these.\n\nDocument [1](Title: A) Uploads may be 5 GB.\nDocument [3](Title: C) A bucket holds 100 TB\n\nHow large?"
    )


def test_tool_outputs_and_content_parts() -> None:
    body = chat(
        user([{"type": "text", "text": ANTHROPIC_SEARCH, "x-note": {"n": 1}}, IMAGE]),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": LONG},
    )
    payload = parse_chat(body)
    question, call = payload.query.rsplit("\n", 1)
    assert question.endswith("How large may an upload be?")
    assert call == 'look_up {"what": "limits"}'
    assert [source.text.strip() for source in payload.sources] == ["Uploads may be 5 GB.", "Keys are rotated.", LONG]
    after = payload.rebuilt(kept(payload, "Uploads may be 5 GB.", "", "A bucket holds 100 TB"))["messages"]
    assert after[0]["content"][1] == IMAGE
    assert after[0]["content"][0]["x-note"] == {"n": 1}
    assert "Keys are rotated" not in after[0]["content"][0]["text"]
    assert after[1] == body["messages"][1]
    assert after[2] == {"role": "tool", "tool_call_id": "call_1", "content": "A bucket holds 100 TB"}


def test_only_our_own_options_are_taken_out() -> None:
    body = chat(user("Hello."), trimtab={"ratio": 0.5}, stream_options={"include_usage": True}, x=1)
    assert parse_chat(body).rebuilt([]) == chat(user("Hello."), stream_options={"include_usage": True}, x=1)


# --- contexts beside the messages ---------------------------------------------------------------------------------------------


def test_contexts_beside_the_messages_come_before_the_question() -> None:
    body = chat(
        {"role": "system", "content": "Be brief."},
        user("Hi."),
        {"role": "assistant", "content": "Hi."},
        user("How large?"),
    )
    contexts = [Source("a", DOC, 'Limits & "keys"'), Source("b", DOC), Source("c", "gone")]
    payload = parse_chat(body, contexts)
    assert payload.query == "How large?"
    after = payload.rebuilt(kept(payload, "Uploads may be 5 GB.", DOC, ""))["messages"]
    assert [m for n, m in enumerate(after) if n != 3] == body["messages"]
    assert after[3] == user(
        "<context>\n"
        '<document title="Limits &amp; &quot;keys&quot;">\nUploads may be 5 GB.\n</document>\n'
        f"<document>\n{DOC}\n</document>\n"
        "</context>"
    )
    assert payload.rebuilt(nothing(payload))["messages"] == body["messages"]


def test_with_contexts_beside_them_the_messages_are_not_searched() -> None:
    payload = parse_chat(chat(user(ANTHROPIC_DOCS)), [Source("a", DOC)], "What grew?")
    assert [source.id for source in payload.sources] == ["a"]
    assert payload.query == "What grew?"


def test_contexts_without_a_user_message_come_last() -> None:
    body = chat({"role": "system", "content": "Be brief."})
    after = parse_chat(body, [Source("a", DOC)], "q").rebuilt(whole([Source("a", DOC)]))["messages"]
    assert [m["role"] for m in after] == ["system", "user"]


def test_written_contexts() -> None:
    assert written_contexts([]) == ""
    assert written_contexts([(Source("a", "x"), "")]) == ""
    assert (
        written_contexts([(Source("a", "x", "T"), "x")])
        == '<context>\n<document title="T">\nx\n</document>\n</context>'
    )


# --- the question ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("How large?", "How large?"),
        (f"<document>{DOC}</document>\nHow large?", "How large?"),
        (f"How large?\n<document>{DOC}</document>", "How large?"),
        (f"Use it.\n<document>{DOC}</document>\nHow large?\n", "Use it.\nHow large?"),
        (f"<document>{DOC}</document>\nQuestion: How large?\nAnswer:", "How large?"),
        (f"<document>{DOC}</document>\n**Question:** How large?", "How large?"),
        (f"[1] {DOC}\n[2] {DOC}\n\nQuery: how large\nHelpful Answer: ", "how large"),
        (f"<document>{DOC}</document>\n问题：上限是多少？", "问题：上限是多少？"),
        ("Question:", "Question:"),
        ("", ""),
        (f"<document>{DOC}</document>", ""),
        ("What is <document>, and what is </p>?", "What is <document>, and what is </p>?"),
    ],
)
def test_the_question(text: str, query: str) -> None:
    assert parse_chat(chat(user(text))).query == query


def test_the_question_is_the_last_users() -> None:
    assert (
        parse_chat(chat(user("First?"), {"role": "assistant", "content": "Yes."}, user("Second?"))).query == "Second?"
    )
    assert parse_chat(chat({"role": "system", "content": "Be brief."})).query == ""
    parts = [{"type": "text", "text": f"<doc>{DOC}</doc>"}, IMAGE, {"type": "text", "text": "How large?"}]
    assert parse_chat(chat(user(parts))).query == "How large?"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ({}, "messages"),
        ("hello", "messages"),
        ([17], "messages.0"),
        ([user("x"), {"content": "y"}], "messages.1"),
        ([{"role": 3, "content": "y"}], "messages.0"),
        ([None], "messages.0"),
    ],
)
def test_messages_that_are_none(messages: object, param: str) -> None:
    with pytest.raises(BadPayload) as caught:
        parse_chat({"model": "m", "messages": messages})
    assert caught.value.param == param
    assert str(caught.value).startswith(f"{param}: must be")


# --- anything -----------------------------------------------------------------------------------------------------------------

texts = st.lists(PIECES, max_size=12).map("".join)
parts = st.one_of(texts.map(lambda t: {"type": "text", "text": t}), st.just(IMAGE))
contents = st.one_of(texts, st.lists(parts, max_size=3), st.none())
messages = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant", "tool"]),
        contents,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(messages, st.data())
def test_any_messages(given_messages: list[dict[str, Any]], data: st.DataObject) -> None:
    body = chat(*given_messages, extra={"x": [1]})
    before = copy.deepcopy(body)
    payload = parse_chat(body)
    assert payload.rebuilt(whole(payload.sources)) == before
    chosen = [data.draw(st.sampled_from(["", "kept", source.text])) for source in payload.sources]
    after = payload.rebuilt(kept(payload, *chosen))
    assert body == before
    touched = {place.turn for place in payload.places if place is not None}
    for number, (new, old) in enumerate(zip(after["messages"], before["messages"], strict=True)):
        if number not in touched:
            assert new == old
    everything = json.dumps(after["messages"], ensure_ascii=False)
    for fixed in protected(payload):
        assert json.dumps(fixed, ensure_ascii=False)[1:-1] in everything


def protected(payload: Payload) -> list[str]:
    """The user's own words around the blocks, read off the places and nothing else."""
    out: list[str] = []
    for number, message in enumerate(payload.body["messages"]):
        content = message["content"]
        for part, text in (
            [(None, content)] if isinstance(content, str) else enumerate(p.get("text") for p in content or ())
        ):
            position = 0
            for place in payload.places:
                path = ("messages", number, "content", *(() if part is None else (part, "text")))
                if place is not None and place.path == path:
                    out.append(text[position : place.block.outer_start])
                    position = place.block.outer_end
            out.append((text or "")[position:])
    return out


def test_fixed_texts_are_all_that_is_sent_beside_the_context() -> None:
    """An upper bound: what is counted as fixed, with the context, is no less than the words that are sent."""
    for body in BODIES[:8]:
        payload = parse_chat(body)
        counted = sum(count_each([*payload.fixed_texts(), *(source.text for source in payload.sources)]))
        sent = [text for message in body["messages"] for text in texts_of(message)]
        assert counted >= sum(count_each(sent))


def texts_of(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    parts = (
        [content]
        if isinstance(content, str)
        else [part["text"] for part in content or () if part.get("type") == "text"]
    )
    return parts + [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
