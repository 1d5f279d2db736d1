"""Reading a stream: an oracle splitter that sees everything at once, and every way of cutting the bytes up."""

from __future__ import annotations

import doctest
import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routing.streams
from routing.streams import ChatProgress, EventSplitter, Garbage, StreamReader, error_event, parse_object
from tests import loopback

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}}
EVENTS = loopback.stream_events(ASKED, loopback.ok("Paris, of course: Ä €."))
WHOLE = b"".join(EVENTS)


def reader(seen: list[object] | None = None) -> StreamReader:
    return StreamReader(ChatProgress(), (lambda _: None) if seen is None else seen.append)


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [content[start:end] for start, end in itertools.pairwise(bounds)]


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(routing.streams).failed == 0
    assert doctest.testmod(routing.streams).attempted > 0


LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b": comment", b"event: x", b"id: 1", b"data:  two", b"other: y", b""]
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30),
    st.lists(st.integers(0, 1_000), max_size=8),
)
def test_events_do_not_depend_on_where_the_bytes_are_split(lines, cuts) -> None:
    content = b"".join(line + end for line, end in lines)
    splitter = EventSplitter()
    found = [event for piece in pieces(content, cuts) for event in splitter.feed(piece)]
    last_raw, last_data = splitter.rest()
    assert b"".join(raw for raw, _ in found) + last_raw == content
    # The oracle: line ends made uniform first, over the whole at once.
    uniform = re.sub(rb"\r\n|\r", b"\n", content)
    blocks = [block.split(b"\n") for block in re.split(rb"\n\n", uniform)]
    expected = [
        b"\n".join(line[5:].removeprefix(b" ") for line in block if line.startswith(b"data:") or line == b"data")
        for block in blocks
    ]
    assert [data for data in [*(data for _, data in found), last_data] if data] == [data for data in expected if data]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_a_stream_passes_to_the_byte_however_it_is_split(cuts: list[int]) -> None:
    seen: list[object] = []
    one = reader(seen)
    relayed = [one.feed(piece) for piece in pieces(WHOLE, cuts)]
    assert b"".join(relayed) + one.end() == WHOLE
    assert one.failure is None
    assert one.done
    assert one.events == len(EVENTS)
    assert seen == [json.loads(event[6:]) for event in EVENTS[:-1]]


@settings(deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_stream_cut_anywhere_relays_whole_events_only(cut: int) -> None:
    one = reader()
    relayed = one.feed(WHOLE[:cut]) + one.end()
    assert WHOLE.startswith(relayed)
    whole = sum(len(b"".join(EVENTS[: count + 1])) <= cut for count in range(len(EVENTS)))
    finish = next(number for number, event in enumerate(EVENTS) if b'"finish_reason": "stop"' in event)
    if one.failure is not None:
        assert relayed == b"".join(EVENTS[:whole])
        assert whole <= finish
    else:
        # After its finish reason the answer is complete; an event that lacks its blank line only counts.
        assert relayed.startswith(b"".join(EVENTS[:finish]) + EVENTS[finish].rstrip(b"\n"))


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_at_all_do_not_raise(content: bytes, cuts: list[int]) -> None:
    one = reader()
    relayed = b""
    for piece in pieces(content, cuts):
        relayed += one.feed(piece)
        if one.failure is not None:
            break
    else:
        relayed += one.end()
    assert content.startswith(relayed)
    assert one.failure is not None or one.finished


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"42",
        b"[]",
        b"nul",
        b'{"choices":[1]}',
        b'{"choices":[{"index":"0"}]}',
        b"[" * 100_000,
        b"\xff",
        b"9" * 5_000,
    ],
)
def test_what_is_no_chunk_stops_the_stream_and_is_held_back(data: bytes) -> None:
    one = reader()
    assert one.feed(EVENTS[0] + b"data: " + data + b"\n\n" + EVENTS[1]) == EVENTS[0]
    assert one.failure is not None
    assert data.decode("latin-1") not in one.failure or len(data) < 3


def test_an_error_event_is_let_through_and_stops_the_stream() -> None:
    one = reader()
    own = b'data: {"error": {"message": "overloaded"}}\n\n'
    assert one.feed(EVENTS[0] + own + EVENTS[1]) == EVENTS[0] + own
    assert one.error == {"error": {"message": "overloaded"}}
    assert one.failure is not None


def test_an_event_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing.streams, "MAX_EVENT_BYTES", 1_000)
    one = reader()
    for _ in range(100):
        one.feed(b"data: " + b"x" * 20)
    assert one.failure == "an event of more than 1000 bytes"


def test_every_choice_must_finish() -> None:
    def chunk(index: int, finish: str | None) -> bytes:
        return json.dumps({"choices": [{"index": index, "delta": {}, "finish_reason": finish}]}).encode()

    progress = ChatProgress()
    assert not progress.finished
    for index, finish in ((0, None), (1, None), (0, "stop")):
        progress.see(chunk(index, finish))
        assert not progress.finished
    progress.see(b'{"choices": [], "usage": null}')
    assert not progress.finished
    progress.see(chunk(1, "length"))
    assert progress.finished
    assert not progress.done
    assert progress.see(b" [DONE]") is None
    assert progress.done


def test_only_objects_are_parsed() -> None:
    assert parse_object(b'{"a": 1}') == {"a": 1}
    with pytest.raises(Garbage, match="not a JSON object"):
        parse_object(b"[]")


def test_the_error_event_is_one_event_whatever_it_says() -> None:
    event = error_event('a "quoted"\n\ndata: line', "x")
    assert event.count(b"\n\n") == 1
    assert json.loads(event[6:])["error"]["message"] == 'a "quoted"\n\ndata: line'
