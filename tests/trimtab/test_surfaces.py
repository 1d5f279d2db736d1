"""Every surface over every wire: what the official clients make of an answer that came from somebody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pytest

from tests.loopback import OPENAI, LoopbackProvider, Step, Tongue, calls_tool, cut, ok, raw, reset, status
from tests.loopback_responses import OPENAI_OWN
from tests.loopback_tongues import ANTHROPIC, GEMINI, anthropic_error
from tests.trimtab.asking import CALLERS_KEY, KEY, KEY_ENV, QUESTION, provider, serving
from tests.trimtab.test_anthropic_client import CALL, PDF, PNG, RESULT, TOOL, document, message, search_result

WIRES = {"openai": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI}
TWO_CALLS = Step(
    text="I look.",
    tool_calls=tuple(
        {"id": f"call_{at}", "type": "function", "function": {"name": "find", "arguments": json.dumps({"city": city})}}
        for at, city in ((1, "Ōsaka"), (2, "Köln"))
    ),
)
STEPS = {
    "text": ok("An upload may be 5 GB. 🇯🇵"),
    "one call": calls_tool("find", {"city": "Ōsaka"}),
    "no arguments": calls_tool("find", {}),
    "two calls": TWO_CALLS,
}


class Clients:
    """A provider that speaks one wire, and official clients of a trimtab before it."""

    def __init__(self, server: LoopbackProvider, url: str) -> None:
        self.server = server
        self.url = url
        self.anthropic = anthropic.Anthropic(base_url=url, api_key=CALLERS_KEY, max_retries=0)
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key=CALLERS_KEY, max_retries=0)


@contextmanager
def clients(tongue: Tongue, more: dict[str, Any] | None = None, **settings: Any) -> Iterator[Clients]:
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider(tongue=tongue) as server,
        serving(
            provider("a", server, "m", api_key_env=KEY_ENV, **(more or {})), **{"min_coverage": 1.0, **settings}
        ) as http,
    ):
        patch.setenv(KEY_ENV, KEY)
        made = Clients(server, str(http.base_url).rstrip("/"))
        with made.anthropic, made.openai:
            yield made


@pytest.fixture(scope="module", params=WIRES)
def each(request: pytest.FixtureRequest) -> Iterator[Clients]:
    with clients(WIRES[request.param]) as made:
        yield made


@pytest.fixture(scope="module")
def chat() -> Iterator[Clients]:
    with clients(OPENAI) as made:
        yield made


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_message_streamed_is_the_message_whole(each: Clients, step: str) -> None:
    each.server.then(STEPS[step], STEPS[step])
    whole = each.anthropic.messages.create(**message(tools=[TOOL]))
    with each.anthropic.messages.stream(**message(tools=[TOOL])) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    told = [block.model_dump(exclude={"citations", "parsed_output"}) for block in whole.content]
    assert [block.model_dump(include=set(told[at])) for at, block in enumerate(streamed.content)] == told
    assert (streamed.stop_reason, streamed.model) == (whole.stop_reason, whole.model)
    assert streamed.usage.input_tokens == whole.usage.input_tokens > 0
    assert streamed.usage.output_tokens == whole.usage.output_tokens > 0
    assert whole.trimtab["attempts"][0]["outcome"] == "ok"  # type: ignore[attr-defined]
    called = [block for block in whole.content if block.type == "tool_use"]
    assert whole.stop_reason == ("tool_use" if called else "end_turn")
    asked = [json.loads(call["function"]["arguments"]) for call in STEPS[step].tool_calls]
    assert [block.input for block in called] == asked
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


@pytest.mark.parametrize("step", STEPS)
def test_the_events_come_in_anthropics_order(chat: Clients, step: str) -> None:
    chat.server.then(STEPS[step])
    events = [event.model_dump() for event in chat.anthropic.messages.create(**message(tools=[TOOL]), stream=True)]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    open_at: int | None = None
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert open_at is None
            open_at = event["index"]
        assert event["index"] == open_at
        open_at = None if event["type"] == "content_block_stop" else open_at
    assert open_at is None
    starts = [event["index"] for event in events if event["type"] == "content_block_start"]
    assert starts == list(range(len(starts)))


def test_a_conversation_with_tools_is_understood_everywhere(each: Clients) -> None:
    each.server.then(ok("Japan."))
    body = message(tools=[TOOL], system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Please."}])
    body["messages"] = [
        {"role": "user", "content": [{"type": "text", "text": "Where is Ōsaka?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, CALL, {**CALL, "id": "toolu_2"}]},
        {
            "role": "user",
            "content": [
                RESULT,
                {**RESULT, "tool_use_id": "toolu_2", "is_error": True},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    assert each.anthropic.messages.create(**body).content[0].text == "Japan."  # type: ignore[union-attr]
    assert each.server.requests[-1].json.get("model", "m") == "m"


def test_what_a_chat_completion_is_asked(chat: Clients) -> None:
    text = {"type": "text", "text": "What is this?"}
    body = message(
        [document("5 GB.", 'A & "B"', context="old"), search_result("Keys rotate.", "Keys"), PDF, PNG, text],
        system="Be brief.",
        tools=[{**TOOL, "strict": True, "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["\n"],
        metadata={"user_id": "u"},
        thinking={"type": "adaptive"},
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        extra_body={"temperature": 0.5},
    )
    chat.anthropic.messages.create(**body)
    assert chat.server.requests[-1].json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {
                        "type": "text",
                        "text": '<document title="A &amp; &quot;B&quot;" context="old">\n5 GB.\n</document>',
                    },
                    {
                        "type": "text",
                        "text": '<search_result title="Keys" source="https://x.test/Keys">\nKeys rotate.\n</search_result>',
                    },
                    {
                        "type": "file",
                        "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                    },
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                    {"type": "text", "text": "What is this?"},
                ],
            },
        ],
        "max_tokens": 64,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "find",
                    "description": "Finds a city.",
                    "parameters": TOOL["input_schema"],
                    "strict": True,
                },
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
        },
        "stop": ["\n"],
        "temperature": 0.5,
        "user": "u",
    }


LOST = [
    (message(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "tools[0].type"),
    (message([document("5 GB.", citations={"enabled": True}), {"type": "text", "text": "?"}]), "citations.enabled"),
    (message(extra_body={"mcp_servers": []}), "mcp_servers"),
    (message(extra_body={"inference_geo": "eu"}), "inference_geo"),
    (message(extra_body={"speed": "fast"}), "speed"),
    (message([{"type": "container_upload", "file_id": "f"}]), "messages[0].content[0].type"),
    (message([{"type": "image", "source": {"type": "file", "file_id": "f"}}]), "messages[0].content[0].source.type"),
    (message([{"type": "text", "text": "x", "future": 1}]), "messages[0].content[0].future"),
]


@pytest.mark.parametrize(("body", "field"), LOST, ids=[field for _, field in LOST])
def test_what_would_be_lost_is_refused(chat: Clients, body: dict[str, Any], field: str) -> None:
    sent = len(chat.server.requests)
    with pytest.raises(anthropic.BadRequestError) as caught:
        chat.anthropic.messages.create(**body)
    assert field in caught.value.body["error"]["message"]  # type: ignore[index]
    assert len(chat.server.requests) == sent


def test_errors_of_other_providers_have_anthropics_shape(each: Clients) -> None:
    native = each.server.tongue is ANTHROPIC
    refused = anthropic_error if native else lambda code, kind, says: status(code, says, error_type=kind)
    each.server.then(refused(400, "invalid_request_error", "too long"))
    with pytest.raises(anthropic.BadRequestError) as caught:
        each.anthropic.messages.create(**message())
    assert caught.value.body["error"] == {"type": "invalid_request_error", "message": "too long"}  # type: ignore[index]


@pytest.mark.parametrize(
    "step",
    [cut(4), raw(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\ndata: {"error":{"message":"no"}}\n\n')],
)
def test_a_stream_that_breaks_off_is_an_error(chat: Clients, step: Step) -> None:
    chat.server.then(step, step)
    with chat.anthropic.messages.create(**message(), stream=True) as events:
        assert next(events).type == "message_start"
        with pytest.raises(anthropic.APIError):
            list(events)
    seen = [event.type for event in chat.openai.responses.create(model="m", input=QUESTION, stream=True)]
    assert seen[0] == "response.created"
    assert seen[-1] == "error"


def test_reasoning_is_thinking(chat: Clients) -> None:
    said = {"role": "assistant", "reasoning_content": "Let me see.", "content": "5 GB."}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    chunk = {**answer, "object": "chat.completion.chunk"}
    deltas = [
        {"role": "assistant", "reasoning_content": "Let "},
        {"reasoning_content": "me see."},
        {"content": "5 GB."},
        {},
    ]
    chunks = [
        {**chunk, "choices": [{"index": 0, "delta": d, "finish_reason": None if d else "length"}]} for d in deltas
    ]
    stream = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n"
    whole = json.dumps({**answer, "choices": [{"index": 0, "message": said, "finish_reason": "length"}]}).encode()
    for made in (raw(whole, content_type="application/json"), raw(stream)):
        chat.server.then(made)
        with chat.anthropic.messages.stream(**message()) if made.body == stream else _whole(chat) as told:
            final = told.get_final_message() if made.body == stream else told
        assert [block.type for block in final.content] == ["thinking", "text"]
        assert final.content[0].thinking == "Let me see."
        assert final.stop_reason == "max_tokens"


@contextmanager
def _whole(chat: Clients) -> Iterator[Any]:
    yield chat.anthropic.messages.create(**message())


def test_tokens_are_counted_here_where_nobody_else_does(chat: Clients) -> None:
    count = chat.anthropic.messages.count_tokens(model="m", messages=[{"role": "user", "content": "word " * 100}])
    assert 100 <= count.input_tokens <= 110
    assert not any("count_tokens" in each.path for each in chat.server.requests)


@pytest.mark.parametrize("broken", [reset(), status(503)])
def test_another_wire_takes_over(broken: Step) -> None:
    """Anthropic is down, and the Message comes from a provider that knows no Messages."""
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider([broken, broken], tongue=ANTHROPIC) as first,
        LoopbackProvider([ok("From elsewhere."), ok("From elsewhere.")]) as second,
        serving(provider("a", first, "m", api_key_env=KEY_ENV), provider("b", second, "m"), max_attempts=3) as http,
        anthropic.Anthropic(base_url=str(http.base_url), api_key="any", max_retries=0) as asked,
    ):
        patch.setenv(KEY_ENV, KEY)
        answer = asked.messages.create(**message())
        assert answer.content[0].text == "From elsewhere."  # type: ignore[union-attr]
        assert answer.trimtab["provider"] == "b"  # type: ignore[attr-defined]


def test_what_another_model_thought_is_not_shown_to_anthropic() -> None:
    """A conversation that began elsewhere goes on at Anthropic, which refuses thinking that it did not sign."""
    turns = [
        {"role": "user", "content": "Where is Ōsaka?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, CALL]},
        {"role": "user", "content": [RESULT]},
    ]
    with clients(ANTHROPIC) as made:
        made.anthropic.messages.create(model="m", max_tokens=9, messages=turns)  # type: ignore[arg-type]
        assert made.server.requests[-1].json["messages"] == [turns[0], {**turns[1], "content": [CALL]}, turns[2]]
    reasoning = {"type": "reasoning", "id": "rs_trimtab_x_0", "summary": [], "content": []}
    said = {"role": "user", "content": QUESTION}
    with clients(OPENAI_OWN, {"responses": True}) as made:
        made.openai.responses.create(model="m", input=[reasoning, {**reasoning, "id": "rs_1"}, said])  # type: ignore[list-item, misc]
        assert made.server.requests[-1].json["input"] == [{**reasoning, "id": "rs_1"}, said]
