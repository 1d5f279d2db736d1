"""With trimming on, only the context's text and the usage differ; citations still resolve; agents' calls keep their results."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.citations import Shown
from compressor.writing import Kept
from tests.loopback import OPENAI, LoopbackProvider, Step, ok, raw
from tests.loopback_responses import OPENAI_OWN
from tests.loopback_tongues import ANTHROPIC
from tests.trimtab.asking import KEY, KEY_ENV, provider, serving
from tests.trimtab.test_anthropic_client import document, message, search_result
from tests.trimtab.test_surfaces import Clients, clients

FACTS = (
    "An upload may be 5 GB.",
    "A bucket holds 100 TB.",
    "Names have at most 63 letters.",
    "There are buckets in Frankfurt, Oregon and Osaka.",
    "Uploads are encrypted at rest with AES-256.",
    "Keys rotate every ninety days, and old ones are kept for a year.",
    "Invoices go out on the first working day of a month.",
    "The office in Tromsø closes early on Fridays in December.",
)
QUESTION = "How large may one upload be?"
ASKS = {"type": "text", "text": QUESTION}


def article(seed: int, sentences: int = 60) -> str:
    chance = random.Random(seed)
    return " ".join(f"{chance.choice(FACTS[1:])[:-1]}, case {seed}-{at}." for at in range(sentences)) + f" {FACTS[0]}"


LONG = [article(seed) for seed in range(4)]
TAGGED = "".join(f'<document title="T{at}">\n{text}\n</document>\n' for at, text in enumerate(LONG))
CALL = {"type": "tool_use", "id": "t1", "name": "read", "input": {"page": LONG[0]}}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "documents": (
        "messages",
        message([*(document(text, f"D{at}") for at, text in enumerate(LONG)), ASKS], system=LONG[0]),
    ),
    "search results": ("messages", message([*(search_result(text, f"R{at}") for at, text in enumerate(LONG)), ASKS])),
    "tags": ("messages", message(f"{TAGGED}\n{QUESTION}")),
    "a tool's results": (
        "messages",
        message()
        | {
            "messages": [
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": [CALL]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": LONG[0]}]},
            ]
        },
    ),
    "a chat": ("chat/completions", {"model": "m", "messages": [{"role": "user", "content": f"{TAGGED}\n{QUESTION}"}]}),
    "a response": ("responses", {"model": "m", "input": f"{TAGGED}\n{QUESTION}", "instructions": LONG[0]}),
    "a search's results": (
        "responses",
        {
            "model": "m",
            "input": [
                {
                    "type": "file_search_call",
                    "id": "fs",
                    "queries": ["limits"],
                    "status": "completed",
                    "results": [
                        {"file_id": str(at), "filename": f"{at}.md", "text": text} for at, text in enumerate(LONG)
                    ],
                },
                {"role": "user", "content": QUESTION},
            ],
        },
    ),
}


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[LoopbackProvider, LoopbackProvider, Any]]:
    """Anthropic and OpenAI themselves, and a trimtab before them that trims."""
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider(tongue=ANTHROPIC) as first,
        LoopbackProvider(tongue=OPENAI_OWN) as second,
        serving(
            provider("a", first, "claude", api_key_env=KEY_ENV),
            provider("b", second, "m", api_key_env=KEY_ENV, responses=True),
        ) as http,
    ):
        patch.setenv(KEY_ENV, KEY)
        yield first, second, http


def differing(before: Any, after: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Every place at which two bodies differ."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        for name in before:
            yield from differing(before[name], after[name], (*path, name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, pair in enumerate(zip(before, after, strict=True)):
            yield from differing(*pair, (*path, at))
    elif before != after:
        yield path, before, after


def shape(value: Any) -> Any:
    """A value without its texts and numbers."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_only_the_contexts_text_and_the_usage_differ(both: Any, name: str, stream: bool) -> None:
    first, second, http = both
    path, body = BODIES[name]
    server = first if path == "messages" else second
    body = {**body, "model": "claude" if path == "messages" else "m", "stream": stream}
    headers = {"x-api-key": KEY, "anthropic-version": "2026-10-21", "authorization": f"Bearer {KEY}"}
    server.then(ok("5 GB."), ok("5 GB."))
    address = f"{server.base_url}/{path}" if server is second else f"{server.base_url}/v1/{path}"
    direct = http.post(address, json=body, headers=headers)
    answer = http.post(f"/v1/{path}", json={**body, "trimtab": {"ratio": 0.5}}, headers=headers)
    assert answer.status_code == direct.status_code == 200
    sent = server.requests[-1].json
    changes = list(differing(body, sent))
    assert changes
    for where, before, after in changes:
        assert where[0] in ("messages", "input"), where
        assert FACTS[0] in before
        assert len(after) < len(before)
        assert QUESTION not in before or after.endswith(QUESTION)
    assert sum(len(after) for *_, after in changes) < 0.7 * sum(len(before) for _, before, _ in changes)
    if stream:
        told, said = _events(answer.content), _events(direct.content)
        assert [shape(each) for each in told] == [shape(each) for each in said]
        assert [_without_usage(each) for each in told] == [_without_usage(each) for each in said]
    else:
        told = [answer.json()]
        receipt = told[0].pop("trimtab")
        assert receipt["tokens_after"] <= 0.5 * receipt["tokens_before"]
        assert _without_usage(told[0]) == _without_usage(direct.json())


def _events(content: bytes) -> list[Any]:
    found = [line[6:] for line in content.splitlines() if line.startswith(b"data: ") and line != b"data: [DONE]"]
    events = [json.loads(data) for data in found]
    return [event for event in events if "trimtab" not in event]


def _without_usage(value: Any) -> Any:
    if isinstance(value, dict):
        # ids and echoes of what was asked, in the loopback's answers
        return {
            name: _without_usage(each) for name, each in value.items() if name not in ("usage", "id", "input_tokens")
        }
    return [_without_usage(each) for each in value] if isinstance(value, list) else value


# --- citations --------------------------------------------------------------------------------------------------------


def cites(sent: dict[str, Any]) -> list[dict[str, Any]]:
    """Citations of each fact, as Anthropic would make them from the documents that it was sent."""
    found = []
    documents = [block for block in sent["messages"][0]["content"] if block["type"] == "document"]
    for number, block in enumerate(documents):
        text = block["source"]["data"]
        for at in range(0, len(text) - 20, 37):
            cited = {"cited_text": text[at : at + 20], "start_char_index": at, "end_char_index": at + 20}
            found.append({"type": "char_location", "document_index": number, "document_title": block["title"], **cited})
    return found


def test_citations_resolve_in_the_originals() -> None:
    cited = {"citations": {"enabled": True}}
    originals = [f"\n {LONG[0]}\n", LONG[1], LONG[2]]
    body = message([*(document(text, f"D{at}", **cited) for at, text in enumerate(originals)), ASKS])
    with clients(ANTHROPIC, min_coverage=0.9) as made:
        extra = {"trimtab": {"ratio": 0.3}}
        made.anthropic.messages.create(**body, extra_body=extra)
        sent = made.server.requests[-1].json
        documents = [block["source"]["data"] for block in sent["messages"][0]["content"][:-1]]
        assert len(documents) == 3
        assert sum(map(len, documents)) < 0.5 * sum(map(len, originals))
        body["messages"] = [
            *body["messages"],
            {"role": "assistant", "content": "5 GB."},
            {"role": "user", "content": "And a bucket?"},
        ]
        made.anthropic.messages.create(**body, extra_body=extra)
        citations = cites(made.server.requests[-1].json)
        for stream in (False, True):
            made.server.then(_citing(citations, stream))
            if stream:
                with made.anthropic.messages.stream(**body, extra_body=extra) as events:
                    told = events.get_final_message().content[0].citations  # type: ignore[union-attr]
            else:
                told = made.anthropic.messages.create(**body, extra_body=extra).content[0].citations  # type: ignore[union-attr]
            assert told is not None
            assert len(told) == len(citations)
            for citation, of in zip(told, citations, strict=True):
                original = originals[citation.document_index]  # type: ignore[union-attr]
                assert original[citation.start_char_index : citation.end_char_index] == citation.cited_text  # type: ignore[union-attr]
                if "…" not in of["cited_text"]:
                    assert citation.cited_text.strip() == of["cited_text"].strip()


def _citing(citations: list[dict[str, Any]], stream: bool) -> Step:
    whole: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "5 GB.", "citations": citations}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    if not stream:
        return raw(json.dumps(whole).encode(), content_type="application/json")
    block = {"type": "text", "text": "", "citations": []}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "5 GB."}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": each}}
            for each in citations
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return raw(b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events))


def test_no_block_goes_where_blocks_are_cited() -> None:
    cited = {"citations": {"enabled": True}}
    with clients(ANTHROPIC) as made:
        blocks = [*(search_result(text, f"R{at}", **cited) for at, text in enumerate(LONG)), ASKS]
        made.anthropic.messages.create(**message(blocks), extra_body={"trimtab": {"budget_tokens": 10}})
        sent = made.server.requests[-1].json["messages"][0]["content"]
    assert [block["type"] for block in sent] == [block["type"] for block in blocks]
    assert all(block["content"][0]["text"] for block in sent[:-1])


@settings(max_examples=200, deadline=None)
@given(st.text("ab .…", max_size=40), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=4), st.data())
def test_a_kept_place_is_found_again(original: str, cuts: list[tuple[int, int]], data: st.DataObject) -> None:
    spans: list[tuple[int, int]] = []
    for start, length in sorted(cuts):
        if start + length <= len(original) and (not spans or start > spans[-1][1]):
            spans.append((start, start + length))
    kept = Kept("a", "|".join(original[start:end] for start, end in spans), tuple(spans))
    shown = Shown.of(original, kept)
    assert [length for _, _, length in shown.pieces] == [end - start for start, end in spans]
    for (at, origin, length), (start, _) in zip(shown.pieces, spans, strict=True):
        assert origin == start
        inner = data.draw(st.integers(0, length - 1))
        assert shown.span(at + inner, at + length) == (start + inner, start + length)
    start, end = shown.span(*sorted((data.draw(st.integers(0, 60)), data.draw(st.integers(0, 60)))))
    assert 0 <= start <= end <= len(original)


# --- agents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [ANTHROPIC, OPENAI], ids=["anthropic", "openai"])
def test_an_agent_on_messages_keeps_its_calls_and_results(wire: Any) -> None:
    """15 turns; the loopback refuses a result whose call is not in the turn before."""
    tool = {"name": "read", "input_schema": {"type": "object", "properties": {"page": {"type": "integer"}}}}
    with clients(wire, min_coverage=0.5) as made:
        for turn in range(15):
            arguments = json.dumps({"page": turn})
            made.server.then(
                Step(
                    text=None,
                    tool_calls=tuple(
                        {
                            "id": f"call_{turn}_{at}",
                            "type": "function",
                            "function": {"name": "read", "arguments": arguments},
                        }
                        for at in range(1 + turn % 2)
                    ),
                )
            )
        made.server.then(ok("5 GB."))
        turns: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
        for turn in range(16):
            answer = made.anthropic.messages.create(model="m", max_tokens=99, messages=turns, tools=[tool])  # type: ignore[arg-type]
            _check_pairs(made, turns)
            turns.append({"role": "assistant", "content": [block.to_dict() for block in answer.content]})
            calls = [block for block in answer.content if block.type == "tool_use"]
            if not calls:
                break
            results = [
                {"type": "tool_result", "tool_use_id": call.id, "content": article(turn, 10 + 2 * turn)}
                for call in calls
            ]
            turns.append({"role": "user", "content": results})
        assert turn == 15
        assert answer.content[0].text == "5 GB."  # type: ignore[union-attr]
        assert answer.trimtab["tokens_after"] < answer.trimtab["tokens_before"]  # type: ignore[attr-defined]


def _check_pairs(made: Clients, turns: list[dict[str, Any]]) -> None:
    """What was sent holds every call and every result of the conversation, in their places."""
    sent = made.server.requests[-1].json["messages"]
    made_of = [block for turn in turns if isinstance(turn["content"], list) for block in turn["content"]]
    calls = [block["id"] for block in made_of if block["type"] == "tool_use"]
    results = [block["tool_use_id"] for block in made_of if block["type"] == "tool_result"]
    if made.server.tongue is ANTHROPIC:
        blocks = [block for turn in sent if isinstance(turn["content"], list) for block in turn["content"]]
        assert [block["id"] for block in blocks if block["type"] == "tool_use"] == calls
        assert [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"] == results
        assert all(block["content"] for block in blocks if block["type"] == "tool_result")
        return
    _check_chat_pairs(sent, calls, results)


def _check_chat_pairs(sent: list[dict[str, Any]], calls: list[str], results: list[str]) -> None:
    assert [call["id"] for message in sent for call in message.get("tool_calls") or ()] == calls
    assert [message["tool_call_id"] for message in sent if message["role"] == "tool"] == results
    open_calls: list[str] = []
    for each in sent:
        if each["role"] == "tool":
            assert each["tool_call_id"] in open_calls
            open_calls.remove(each["tool_call_id"])
        else:
            assert not open_calls
            open_calls = [call["id"] for call in each.get("tool_calls") or ()]
    assert not open_calls


def test_an_agent_on_chat_completions_keeps_its_calls_and_results() -> None:
    tool = {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}
    with clients(OPENAI, min_coverage=0.5) as made:
        messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
        for turn in range(15):
            made_calls = [
                {"id": f"c{turn}_{at}", "type": "function", "function": {"name": "read", "arguments": "{}"}}
                for at in (0, 1)
            ]
            made.server.then(Step(text=None, tool_calls=tuple(made_calls)))
            answer = made.openai.chat.completions.create(model="m", messages=messages, tools=[tool])  # type: ignore[list-item]
            calls = [call["id"] for each in messages for call in each.get("tool_calls") or ()]
            results = [each["tool_call_id"] for each in messages if each["role"] == "tool"]
            _check_chat_pairs(made.server.requests[-1].json["messages"], calls, results)
            said = answer.choices[0].message
            called = [call.model_dump() for call in said.tool_calls or ()]
            messages.append({"role": "assistant", "content": None, "tool_calls": called})
            page = article(turn, 10 + 2 * turn)
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": page} for call in called]
        assert answer.trimtab["tokens_after"] < answer.trimtab["tokens_before"]  # type: ignore[attr-defined]
