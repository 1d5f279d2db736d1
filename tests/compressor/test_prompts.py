"""Where texts stand in the bodies of each API, and what is done to them there."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor import Kept, Source
from compressor.payload import Payload, parse
from compressor.prompts import CHAT, MESSAGES, RESPONSES, Api, BadPayload
from compressor.ranking import whole
from tests.compressor.test_recognition import DOC, LONG

MARK = {"cache_control": {"type": "ephemeral"}}
ASKS = {"type": "text", "text": "How large may an upload be?"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
CALL = {"type": "tool_use", "id": "t1", "name": "look_up", "input": {"what": "limits", "deep": [{"x": LONG}]}}


def document(text: str, title: str = "Limits", **more: Any) -> dict[str, Any]:
    return {
        "type": "document",
        "title": title,
        "source": {"type": "text", "media_type": "text/plain", "data": text},
        **more,
    }


def listed(*texts: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text} for text in texts]
    return {"type": "document", "title": "Listed", "source": {"type": "content", "content": content}, **more}


def found(*texts: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text} for text in texts]
    return {"type": "search_result", "title": "Found", "source": "https://x.test", "content": content, **more}


def result(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t1", "content": content, **more}


def messages(*contents: Any, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user" if at % 2 == 0 else "assistant", "content": each} for at, each in enumerate(contents)]
    return {"model": "m", "max_tokens": 9, "messages": turns, **more}


def responses(what: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "input": what, **more}


def searched(*texts: str) -> dict[str, Any]:
    rows = [{"file_id": f"f{at}", "filename": f"{at}.md", "text": text, "score": 0.5} for at, text in enumerate(texts)]
    return {"type": "file_search_call", "id": "fs", "queries": ["limits"], "status": "completed", "results": rows}


OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": LONG}

CASES: list[tuple[Api, dict[str, Any], list[str]]] = [
    (MESSAGES, messages([document(DOC), document(LONG, "Long"), ASKS]), [DOC, LONG]),
    (MESSAGES, messages([listed(DOC, LONG), ASKS]), [DOC, LONG]),
    (MESSAGES, messages([{"type": "document", "source": {"type": "content", "content": DOC}}, ASKS]), [DOC]),
    (MESSAGES, messages([found(DOC, LONG), PNG, ASKS]), [DOC, LONG]),
    (MESSAGES, messages("How large?", [CALL], [result(LONG)]), [LONG]),
    (
        MESSAGES,
        messages("How large?", [CALL], [result([found(DOC), {"type": "text", "text": LONG}, PNG])]),
        [DOC, LONG],
    ),
    (MESSAGES, messages(f"<document>{DOC}</document>\nHow large?"), [DOC]),
    (MESSAGES, messages("How large?", [CALL], [result("short")], system=LONG), []),
    (MESSAGES, messages([{"type": "document", "source": {"type": "url", "url": "https://x.test"}}, ASKS]), []),
    (RESPONSES, responses(f"<document>{DOC}</document>\nHow large?"), [DOC]),
    (RESPONSES, responses([searched(DOC, LONG), {"role": "user", "content": "How large?"}]), [DOC, LONG]),
    (RESPONSES, responses([{"role": "user", "content": "How large?"}, OUTPUT], instructions=LONG), [LONG]),
    (
        RESPONSES,
        responses([{"role": "user", "content": [{"type": "input_text", "text": f"<doc>{DOC}</doc> How large?"}]}]),
        [DOC],
    ),
    (
        RESPONSES,
        responses([{**OUTPUT, "output": [{"type": "input_text", "text": LONG}]}, {"type": "x", "y": LONG}]),
        [LONG],
    ),
    (RESPONSES, {"model": "m"}, []),
]


def nothing(payload: Payload) -> list[Kept]:
    return [Kept(source.id, "", ()) for source in payload.sources]


@pytest.mark.parametrize(("api", "body", "contexts"), CASES)
def test_contexts_are_found(api: Api, body: dict[str, Any], contexts: list[str]) -> None:
    before = copy.deepcopy(body)
    payload = parse(api, body)
    assert [source.text for source in payload.sources] == contexts
    assert len({source.id for source in payload.sources}) == len(contexts)
    assert json.dumps(payload.rebuilt(whole(payload.sources))) == json.dumps(before)
    payload.rebuilt(nothing(payload))
    assert body == before


def texts_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts_of(each)]
    return [text for each in value for text in texts_of(each)] if isinstance(value, list) else []


@pytest.mark.parametrize(("api", "body", "contexts"), CASES)
def test_with_nothing_kept_nothing_is_left_empty(api: Api, body: dict[str, Any], contexts: list[str]) -> None:
    """Anthropic refuses an empty text, and an empty list of blocks; a result stays with its call."""
    payload = parse(api, body)
    after = payload.rebuilt(nothing(payload))
    assert all(text.strip() for text in texts_of(after))
    turns = after.get(api.turns)
    assert len(turns or ()) == len(body.get(api.turns) or ()) if isinstance(turns, list) else True
    names = ("id", "tool_use_id", "call_id")
    assert [found for name in names for found in ids(after, name)] == [
        found for name in names for found in ids(body, name)
    ]
    assert all(message["content"] for message in after.get("messages", ()))


def ids(value: Any, name: str) -> list[Any]:
    if isinstance(value, dict):
        own = [value[name]] if name in value else []
        return own + [found for each in value.values() for found in ids(each, name)]
    return [found for each in value for found in ids(each, name)] if isinstance(value, list) else []


def test_a_block_of_which_nothing_is_kept_goes() -> None:
    body = messages([document(DOC, "A"), listed(DOC, "kept"), found("x", DOC), ASKS], [CALL], [result([found(DOC)])])
    payload = parse(MESSAGES, body)
    kept = [Kept(source.id, source.text if source.text == "kept" else "", ()) for source in payload.sources]
    first, _, last = payload.rebuilt(kept)["messages"]
    assert first["content"] == [listed("kept"), ASKS]
    assert last["content"] == [result("…")]


def test_titles_go_along() -> None:
    payload = parse(MESSAGES, messages([document(DOC, "A"), found(DOC), document(DOC, None), ASKS]))  # type: ignore[arg-type]
    assert [source.title for source in payload.sources] == ["A", "Found", ""]
    assert [source.title for source in parse(RESPONSES, responses([searched(DOC)])).sources] == ["0.md"]


# --- prefixes that are cached -----------------------------------------------------------------------------------------


def test_what_is_cached_stays() -> None:
    marked = messages([document(DOC, **MARK), document(LONG), ASKS], [CALL], [result(LONG)])
    assert [source.text for source in parse(MESSAGES, marked).sources] == [LONG, LONG]
    at_the_call = messages([document(DOC), ASKS], [{**CALL, **MARK}], [result(LONG)])
    assert [source.text for source in parse(MESSAGES, at_the_call).sources] == [LONG]
    at_the_result = messages([document(DOC), ASKS], [CALL], [result([found(DOC)], **MARK), {**result(LONG)}])
    assert [source.text for source in parse(MESSAGES, at_the_result).sources] == [LONG]
    assert parse(MESSAGES, messages([document(DOC), ASKS], **MARK)).sources == ()
    tools = messages([document(DOC), ASKS], tools=[{"name": "x", "input_schema": {}, **MARK}])
    assert [source.text for source in parse(MESSAGES, tools).sources] == [DOC]


def test_what_is_cached_stays_on_openais_surfaces_too() -> None:
    part = {"type": "text", "text": f"<doc>{DOC}</doc>"}
    chat = {
        "messages": [{"role": "user", "content": [{**part, **MARK}, {"type": "text", "text": f"<doc>{LONG}</doc>?"}]}]
    }
    assert [source.text for source in parse(CHAT, chat).sources] == [LONG]
    whole_message = {"messages": [{"role": "user", "content": part["text"], **MARK}, {"role": "tool", "content": LONG}]}
    assert [source.text for source in parse(CHAT, whole_message).sources] == [LONG]
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    items = [{"role": "user", "content": [{"type": "input_text", "text": f"<doc>{DOC}</doc>?", **mark}]}, OUTPUT]
    assert [source.text for source in parse(RESPONSES, responses(items)).sources] == [LONG]


# --- the question, and contexts beside the conversation ---------------------------------------------------------------


def test_the_question_is_the_users_last_word() -> None:
    asked = parse(MESSAGES, messages([document(DOC), ASKS], [CALL], [result(LONG)])).query
    assert asked.splitlines()[0] == ASKS["text"]  # and what the tool was asked since (test_calls)
    said = [result(LONG), {"type": "text", "text": "And now?"}]
    assert parse(MESSAGES, messages([document(DOC), ASKS], [CALL], said)).query == "And now?"
    assert parse(RESPONSES, responses("How large?")).query == "How large?"
    assert parse(RESPONSES, responses([{"role": "user", "content": "How large?"}, OUTPUT])).query == "How large?"


def test_contexts_never_part_a_call_from_its_result() -> None:
    source = Source("a", DOC)
    said = [result("short"), {"type": "text", "text": "And now?"}]
    for body in (messages("How large?", [CALL], said), messages("How large?", [CALL], [result("short")])):
        after = parse(MESSAGES, body, [source]).rebuilt(whole([source]))["messages"]
        assert DOC in after[0]["content"]
        assert after[1:] == body["messages"]
    body = responses([{"role": "user", "content": "How large?"}, {"type": "function_call", "call_id": "c1"}, OUTPUT])
    after = parse(RESPONSES, body, [source]).rebuilt(whole([source]))["input"]
    assert DOC in after[0]["content"]
    assert after[1:] == body["input"]
    after = parse(RESPONSES, responses("How large?"), [source]).rebuilt(whole([source]))["input"]
    assert [each["content"] for each in after][1:] == ["How large?"]


@pytest.mark.parametrize(
    ("api", "body", "param"),
    [
        (MESSAGES, {"messages": []}, "messages"),
        (MESSAGES, {"messages": [{"content": "x"}]}, "messages.0"),
        (RESPONSES, {"input": 7}, "input"),
        (RESPONSES, {"input": ["x"]}, "input.0"),
    ],
)
def test_what_is_no_conversation(api: Api, body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadPayload) as caught:
        parse(api, body)
    assert caught.value.param == param


# --- anything ---------------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.sampled_from([DOC, "", "x", LONG])
names = st.sampled_from(
    [
        "type",
        "text",
        "content",
        "source",
        "data",
        "title",
        "citations",
        "enabled",
        "cache_control",
        "role",
        "output",
        "results",
    ]
)
kinds = st.sampled_from(
    [
        "text",
        "document",
        "search_result",
        "tool_result",
        "content",
        "function_call_output",
        "file_search_call",
        "message",
    ]
)
trees = st.recursive(
    scalars | kinds,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner | kinds, max_size=5),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([MESSAGES, RESPONSES, CHAT]), st.lists(trees, min_size=1, max_size=3), st.data())
def test_any_content(api: Api, contents: list[Any], data: st.DataObject) -> None:
    body = {api.turns: [{"role": "user", "content": content} for content in contents]}
    before = copy.deepcopy(body)
    payload = parse(api, body)
    assert payload.rebuilt(whole(payload.sources)) == before
    kept = [data.draw(st.sampled_from(["", "kept", source.text])) for source in payload.sources]
    after = payload.rebuilt([Kept(source.id, text, ()) for source, text in zip(payload.sources, kept, strict=True)])
    assert body == before
    assert len(after[api.turns]) == len(contents)
    list(payload.fixed_texts())
    assert payload.images >= 0
