"""Readers: every recorder's form gives the same request, and no input breaks them or leaks a secret."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing.offers import Usage
from trimtab.analysis import BadRecording, read
from trimtab.analysis.anatomy import Counter, anatomy
from trimtab.analysis.recorded import Recorded, moment
from trimtab.analysis.shapes import shape_of

AT = "2026-11-16T09:30:00+00:00"
MOMENT = datetime(2026, 11, 16, 9, 30, tzinfo=UTC)
SECRET = "sk-live-0123456789abcdef0123"

CHAT = {
    "model": "gpt-5",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How large may a file be?"}],
    "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
    "max_tokens": 100,
}
CALL = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
ANSWER = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [CALL]}}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 20}},
}
USAGE = Usage(50, 7, 20, 0)

HAR = {
    "startedDateTime": AT,
    "request": {
        "method": "POST",
        "url": f"https://api.openai.com/v1/chat/completions?key={SECRET}",
        "headers": [
            {"name": "Authorization", "value": f"Bearer {SECRET}"},
            {"name": "User-Agent", "value": "nightly-job/1.0"},
            {"name": "Cookie", "value": SECRET},
        ],
        "postData": {"mimeType": "application/json", "text": json.dumps(CHAT)},
    },
    "response": {"status": 200, "content": {"mimeType": "application/json", "text": json.dumps(ANSWER)}},
}
LITELLM_PARAMETERS = {"tools": CHAT["tools"], "max_tokens": 100}
STANDARD_PAYLOAD = {
    "id": "chatcmpl-1", "call_type": "acompletion", "status": "success", "model": "gpt-5", "custom_llm_provider": "openai",
    "startTime": MOMENT.timestamp(), "prompt_tokens": 50, "completion_tokens": 7, "total_tokens": 57, "stream": False,
    "messages": CHAT["messages"], "model_parameters": LITELLM_PARAMETERS, "response": ANSWER, "cache_hit": None,
    "metadata": {"user_api_key_hash": SECRET}, "request_tags": ["job: nightly"],
}  # fmt: skip
SPEND_LOG = {
    "request_id": "chatcmpl-1", "call_type": "acompletion", "api_key": SECRET, "model": "openai/gpt-5", "startTime": AT,
    "prompt_tokens": 50, "completion_tokens": 7, "cache_hit": "False", "request_tags": '["job: nightly"]',
    "metadata": json.dumps({"usage_object": ANSWER["usage"]}), "messages": "{}", "response": json.dumps(ANSWER),
    "proxy_server_request": json.dumps(CHAT), "custom_llm_provider": "openai", "session_id": "s",
}  # fmt: skip
LANGFUSE = {
    "id": "chatcmpl-1", "traceId": "t", "type": "GENERATION", "startTime": AT, "model": "gpt-5", "name": "nightly-job",
    "input": {"messages": CHAT["messages"], "tools": CHAT["tools"]}, "modelParameters": {"max_tokens": 100},
    "output": ANSWER["choices"][0]["message"],  # type: ignore[index]
    "usageDetails": {"input": 30, "input_cached_tokens": 20, "output": 7, "total": 57},
}  # fmt: skip

SAME: dict[str, dict[str, Any]] = {
    "pair": {"id": "chatcmpl-1", "at": AT, "request": CHAT, "response": ANSWER},
    "pair of texts": {"timestamp": AT, "request": json.dumps(CHAT), "response": json.dumps(ANSWER)},
    "batch output": {
        "at": AT,
        "custom_id": "chatcmpl-1",
        "body": CHAT,
        "response": {"status_code": 200, "body": ANSWER},
    },
    "HAR": HAR,
    "LiteLLM's payload": STANDARD_PAYLOAD,
    "LiteLLM's spend log": SPEND_LOG,
    "Langfuse": LANGFUSE,
}


def one(tmp_path: Path, entry: object, name: str = "one.jsonl") -> Recorded:
    file = tmp_path / name
    file.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    (request,) = read(file, 10).requests
    return request


@pytest.mark.parametrize("name", SAME)
def test_every_form_gives_the_same_request(name: str, tmp_path: Path) -> None:
    request = one(tmp_path, SAME[name])
    assert request.model.removeprefix("openai/") == "gpt-5"
    assert (request.id, request.at, request.usage) == ("chatcmpl-1", MOMENT, USAGE)
    assert request.body["messages"] == CHAT["messages"]
    assert request.body["max_tokens"] == 100
    assert request.calls == {"look_up"}
    found = anatomy(request, Counter())
    assert [part.role for part in found.parts] == ["tool schema", "system", "user"]
    assert SECRET not in repr(request)
    assert "How large" not in repr((request, found))


def test_who_sent_it_is_read_and_no_more(tmp_path: Path) -> None:
    assert one(tmp_path, HAR).signs == ("nightly-job/1.0", "path: /v1/chat/completions")
    assert one(tmp_path, STANDARD_PAYLOAD).signs == ("job: nightly",)
    assert "nightly-job" in one(tmp_path, LANGFUSE).signs
    told = {"request": CHAT, "metadata": {"job": "import", "api_key": SECRET, "task_token": SECRET, "colour": "red"}}
    assert one(tmp_path, told).signs == ("job: import",)


def test_anthropic_and_responses_are_told_apart(tmp_path: Path) -> None:
    message = {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
    told = {"type": "message", "content": [{"type": "tool_use", "name": "f", "input": {}}],
            "usage": {"input_tokens": 5, "output_tokens": 2,
                      "cache_read_input_tokens": 10, "cache_creation_input_tokens": 4}}  # fmt: skip
    request = one(tmp_path, {"request": message, "response": told})
    assert request.api is not None
    assert request.api.name == "messages"
    assert (request.usage, request.calls) == (Usage(19, 2, 10, 4), {"f"})
    responses = {"model": "gpt-5", "instructions": "Be brief.", "input": "Hi."}
    request = one(tmp_path, responses)
    assert request.api is not None
    assert request.api.name == "responses"
    assert [part.role for part in anatomy(request, Counter()).parts] == ["system", "user"]
    assert (request.usage, request.at, request.calls) == (None, None, None)


def test_a_stream_in_a_har_is_billed(tmp_path: Path) -> None:
    events = [
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "look_up", "arguments": ""}}]}}]},
        {"choices": [], "usage": ANSWER["usage"]},
    ]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    content = {"mimeType": "text/event-stream", "encoding": "base64", "text": base64.b64encode(text.encode()).decode()}
    request = one(tmp_path, HAR | {"response": {"status": 200, "content": content}})
    assert (request.usage, request.calls) == (USAGE, {"look_up"})


def test_langfuse_totals_say_whether_cached_tokens_are_counted_twice(tmp_path: Path) -> None:
    within = LANGFUSE | {"usageDetails": {"input": 50, "input_cached_tokens": 20, "output": 7, "total": 57}}
    assert one(tmp_path, within).usage == USAGE
    assert (
        one(tmp_path, LANGFUSE | {"usageDetails": {"input": 30, "cache_read_input_tokens": 20, "output": 7}}).usage
        == USAGE
    )


def test_what_is_no_request_is_passed_over(tmp_path: Path) -> None:
    entries = [
        HAR | {"request": {"method": "GET", "url": "https://example.com/logo.png"}},
        HAR | {"response": {"status": 429}},
        LANGFUSE | {"type": "SPAN"},
        SPEND_LOG | {"cache_hit": "True"},
        SPEND_LOG | {"call_type": "aembedding"},
        SPEND_LOG | {"status": "failure"},
        {"request": {"model": "text-embedding-3-small", "input": ["a", "b"]}},
        CHAT,
    ]
    file = tmp_path / "many.json"
    file.write_text(json.dumps(entries))
    recording = read(file, 100)
    assert (len(recording.requests), recording.passed, recording.problems) == (1, 7, [])


def test_a_spend_log_without_texts_still_counts(tmp_path: Path) -> None:
    request = one(tmp_path, SPEND_LOG | {"proxy_server_request": "{}", "response": "{}"})
    assert (request.api, request.body, request.usage) == (None, {}, USAGE)


def test_containers_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.har").write_text(json.dumps({"log": {"entries": [HAR]}}, indent=1))
    (tmp_path / "b.json").write_text(json.dumps({"data": [LANGFUSE], "meta": {"page": 1}}))
    (tmp_path / "c.json").write_text(json.dumps(CHAT, indent=2))
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as out:
        out.write(f"{json.dumps(CHAT)}\n\n{json.dumps(CHAT)}\n")
    (tmp_path / "notes.txt").write_text("not looked at")
    heard: list[int] = []
    recording = read(tmp_path, 100, heard.append)
    assert [request.where for request in recording.requests] == [
        "a.har entry 1", "b.json entry 1", "c.json entry 1", "d.jsonl.gz line 1", "d.jsonl.gz line 3",
    ]  # fmt: skip
    assert sum(heard) > 0
    limited = read(tmp_path, 2)
    assert (len(limited.requests), limited.more) == (2, True)


def test_bad_lines_are_counted_and_named_and_quoted_never(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    good, secret = json.dumps(CHAT), json.dumps({"password": SECRET})
    deep = "[" * 100_000
    file.write_text("\n".join([good, "{" + SECRET, secret, "3", deep, '{"model": "gpt-5", "messages": 3}', good]))
    recording = read(file, 100)
    assert [request.where for request in recording.requests] == [
        "line 1",
        "line 6",
        "line 7",
    ]
    assert [problem.partition(":")[0] for problem in recording.problems] == [f"line {n}" for n in (2, 3, 4, 5)]
    assert SECRET not in str(recording.problems)
    with pytest.raises(ValueError, match="messages must be a list"):
        anatomy(recording.requests[1], Counter())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("hello there", "is not JSON"),
        ('{"a": 1}\n{"b": 2}\n', "no request of a known shape"),
        ('[{"a": "sk-live-0123456789abcdef0123"}]', "HAR"),
        ("\x80\x81", "is not UTF-8"),
    ],
)
def test_an_unknown_file_says_what_can_be_read(content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "unknown.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(BadRecording, match=says) as caught:
        read(file, 10)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.jsonl", b"\xef\xbb\xbf{0}\r\n\r\n{0}\r\n", ["line 1", "line 3"]),
        ("a.jsonl", b"{0}", ["line 1"]),
        ("a.json", b"\n {0}  \n\n", ["entry 1"]),
        ("a.json", b"{0}\n{0}\n", ["line 1", "line 2"]),
        ("a.json", b"[\n{0},\n{0}\n]", ["entry 1", "entry 2"]),
        ("a.jsonl", b"[\n{0},\n{0}\n]", ["entry 1", "entry 2"]),
        ("a.jsonl", b"garbage\n{0}\n{0}\n", ["line 2", "line 3"]),
        ("a.jsonl", b'{"cut": \n{0}\n', ["line 2"]),
        ("a.jsonl", b"{0}\n\xff\xfe\n{0}\n", ["line 1", "line 3"]),
        ("a.jsonl", b"null\n{0}\n", ["line 2"]),
    ],
)
def test_lines_and_documents_are_told_apart(name: str, content: bytes, places: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.replace(b"{0}", json.dumps(CHAT).encode()))
    assert [request.where for request in read(tmp_path / name, 10).requests] == places


def test_a_damaged_file_costs_no_other(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps(CHAT | {"n": n}) + "\n" for n in range(5_000)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.json.gz").write_bytes(b"no gzip")
    (tmp_path / "whole.jsonl").write_text(json.dumps(CHAT))
    recording = read(tmp_path, 10_000)
    assert recording.requests[-1].where == "whole.jsonl line 1"
    assert 1 < len(recording.requests) < 5_000
    assert [problem.partition(":")[0] for problem in recording.problems] == ["cut.jsonl.gz", "none.json.gz"]
    assert "cut off" in read(tmp_path / "cut.jsonl.gz", 10_000).problems[0]
    with pytest.raises(BadRecording, match="cannot be read"):
        read(tmp_path / "none.json.gz", 10)


def test_missing_and_empty_places(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="no such file"):
        read(tmp_path / "none.json", 10)
    with pytest.raises(BadRecording, match="no file that ends in"):
        read(tmp_path, 10)


def test_moments() -> None:
    assert moment("2026-11-16T09:30:00Z") == moment("2026-11-16 09:30:00") == moment(MOMENT.timestamp()) == MOMENT
    assert moment(MOMENT.timestamp() * 1000) == MOMENT
    for nothing in (None, True, "", "soon", float("nan"), float("inf"), 1e300, "0001-01-01T00:00:00+23:59", [], {}):
        assert moment(nothing) is None


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ALL = {**SAME, "plain": CHAT}


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A recorded entry with one of its values, anywhere, replaced by any other."""
    entry = json.loads(json.dumps(ALL[draw(st.sampled_from(sorted(ALL)))]))
    at = entry
    while True:
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
            at[key] = draw(VALUES)
            return entry
        at = at[key]


@given(entry=damaged())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_entry_is_read_or_refused_and_never_breaks(entry: Any) -> None:
    shape = shape_of(entry)
    if shape is None:
        return
    told = ""
    try:
        request = shape.read(entry, "line 1")
        told = repr(request)
        if request is not None:
            found = anatomy(request, Counter())
            assert sum(part.tokens for part in found.parts) <= found.input_tokens
            assert found.payload is None or found.payload.query is not None
    except ValueError as error:
        told += str(error)
    assert SECRET not in told


@given(bodies=st.lists(st.text(max_size=200), min_size=1, max_size=5), indent=st.sampled_from([None, 2]))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_and_documents_hold_the_same(bodies: list[str], indent: int | None, tmp_path: Path) -> None:
    entries = [{"model": "gpt-5", "messages": [{"role": "user", "content": text}]} for text in bodies]
    (tmp_path / "x.json").write_text(json.dumps(entries, indent=indent))
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    one, other = read(tmp_path / "x.json", 10), read(tmp_path / "x.jsonl", 10)
    assert [request.body for request in one.requests] == [request.body for request in other.requests] == entries
