"""Streams with one thing wrong in them, whatever it is: every reader says so or goes on, and none raises or loses words."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.citations import Shown
from compressor.writing import Kept
from routing.conversion import ConvertedReader
from routing.streams import EventSplitter, Garbage, StreamReader, parse_object
from routing.tongues import MESSAGES, RESPONSES, Retelling
from routing.wires import NATIVE, WIRES, Wire
from tests import loopback
from tests.loopback import Request, Step, stream_events
from tests.loopback_responses import OPENAI_OWN
from tests.loopback_tongues import anthropic_events, gemini_events
from trimtab.bills import Bill
from trimtab.citations import resolved_events
from trimtab.expansion import NAME
from trimtab.heard import Heard
from trimtab.surfaces import CHAT, SURFACES
from trimtab.surfaces import MESSAGES as MESSAGES_SURFACE
from trimtab.surfaces import RESPONSES as RESPONSES_SURFACE

STEP = Step(
    text="Paris, of course: Ä €.",
    thinking="Hm. A town.",
    tool_calls=(
        *loopback.calls_tool("look_up", {"city": "Paris"}).tool_calls,
        *loopback.calls_tool(NAME, {"query": "the town"}, call_id="call_2").tool_calls,
    ),
)
CHAT_ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}}


def request(path: str, body: dict[str, Any]) -> Request:
    return Request("POST", path, {}, json.dumps({**body, "stream": True}).encode())


def own_events() -> list[bytes]:
    made = OPENAI_OWN.events(request("/v1/responses", {"model": "m", "input": "hi"}), STEP)
    assert made is not None
    return list(made)


WORDS, CALLS = stream_events(CHAT_ASKED, loopback.ok(STEP.text)), stream_events(CHAT_ASKED, STEP)
STREAMS: dict[str, list[bytes]] = {
    "chat": [*WORDS[:-3], *CALLS[1:]],  # the loopback provider either talks or calls
    "responses": own_events(),
    "anthropic": anthropic_events(request("/v1/messages", {**CHAT_ASKED, "max_tokens": 9}), STEP),
    "gemini": gemini_events(
        request("/v1beta/models/m:streamGenerateContent?alt=sse", {"contents": [{"parts": []}]}), STEP
    ),
}
READ: dict[str, list[Wire]] = {
    "chat": [WIRES["openai"]],
    "responses": [NATIVE["openai", "responses"]],
    "anthropic": [WIRES["anthropic"], NATIVE["anthropic", "messages"]],
    "gemini": [WIRES["gemini"]],
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=5)
    | st.just(10**400)
    | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "index", "id"]), inner)
    ),
    max_leaves=4,
)
GONE = object()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*path, key))


def changed(value: Any, path: tuple[Any, ...], to: Any) -> Any:
    if not path:
        return [] if to is GONE else to
    made = copy.copy(value)
    if len(path) == 1 and to is GONE:
        del made[path[0]]
    else:
        made[path[0]] = changed(value[path[0]], path[1:], to)
    return made


@st.composite
def broken(draw: st.DrawFn, kind: str) -> list[bytes]:
    """A stream of this kind with one value changed or gone, or an event gone, twice there or out of its place."""
    events = list(STREAMS[kind])
    at = draw(st.integers(0, len(events) - 1))
    how = draw(st.sampled_from(["change", "drop", "double", "move"]))
    if how == "drop":
        del events[at]
    elif how == "double":
        events.insert(at, events[at])
    elif how == "move":
        events.insert(draw(st.integers(0, len(events) - 1)), events.pop(at))
    else:
        head, _, data = events[at].partition(b"data: ")
        if data.startswith(b"{"):
            value = json.loads(data)
            path = draw(st.sampled_from(list(places(value))))
            made = changed(value, path, draw(st.just(GONE) | VALUES))
            events[at] = head + b"data: " + json.dumps(made).encode() + b"\n\n"
    return events


def split(draw: Any, content: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(content)), max_size=4)))
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]


@pytest.mark.parametrize("kind", STREAMS)
@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_a_broken_stream_is_read_to_its_end_or_told_to_be_broken(kind: str, data: st.DataObject) -> None:
    events = data.draw(broken(kind))
    for wire in READ[kind]:
        one: StreamReader | ConvertedReader
        if wire.conversion is None:
            one = StreamReader(wire.progress(), wire.read_usage)
        else:
            one = ConvertedReader(wire.conversion, True, 7, wire.read_usage)
        out = b""
        for part in split(data.draw, b"".join(events)):
            out += one.feed(part)
            if one.failure is not None:
                break
        else:
            out += one.end()
        assert out == b"" or out.endswith(b"\n\n")
        assert one.failure is not None or one.finished
        if wire.conversion is None and one.failure is None:
            assert out == b"".join(events)  # to the byte, whatever it says


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_whoever_retells_a_broken_stream_goes_on_or_says_so(data: st.DataObject) -> None:
    content = b"".join(data.draw(broken("chat")))
    parts = split(data.draw, content)
    for tongue in (MESSAGES, RESPONSES):
        assert tongue.teller is not None
        telling = Retelling(tongue.teller({"input": "hi"}))
        told = b"".join([*(telling.feed(part) for part in parts), telling.end()])
        for _, event in EventSplitter().feed(told):
            assert not event or parse_object(event)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_what_is_heard_of_a_broken_stream_loses_no_words(data: st.DataObject) -> None:
    content = b"".join(data.draw(broken("chat")))
    heard = Heard(data.draw(st.sampled_from([{}, {"id": "first", "created": 1}])), after_words=data.draw(st.booleans()))
    out = b"".join([*(heard.feed(part) for part in split(data.draw, content)), heard.end()])
    if not heard.broken:
        heard.said()
        out += heard.ending()
        assert NAME.encode() not in out or not heard.ours
        assert words(out).strip("\n") == words(content).strip("\n")


def words(content: bytes) -> str:
    """The text of the chunks, as a client puts it together."""
    said = ""
    for _, event in EventSplitter().feed(content):
        if not event or event == b"[DONE]":
            continue
        choices = json.loads(event).get("choices") or [{}]
        delta = choices[0].get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        said += text if isinstance(text, str) else ""
    return said


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_bill_and_no_citation_makes_a_reader_raise(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(STREAMS)))
    content = b"".join(data.draw(broken(kind)))
    for surface in (CHAT, MESSAGES_SURFACE, RESPONSES_SURFACE):
        for stream in (True, False):
            bill = Bill(surface, stream=stream)
            for part in split(data.draw, content):
                bill.feed(part)
            assert bill.usage is None or bill.usage.output_tokens >= 0
    shown = {0: Shown.of("One. Two. Three.", Kept("a", "One. … Three.", ((0, 4), (10, 16))))}
    assert resolved_events(content, shown) == content
    for surface in SURFACES:
        assert -1 <= surface.terminal(content) < len(content)


@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()) | st.just(b"[" * 100_000))
def test_bytes_are_an_object_or_garbage(content: bytes) -> None:
    try:
        value = parse_object(content)
    except Garbage:
        return
    assert json.loads(content) == value or value != value or b"NaN" in content
