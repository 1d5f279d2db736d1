"""OpenAI's own client, asking for responses and embeddings: from a provider that serves them itself, and from any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from tests.loopback import LoopbackProvider, Step, calls_tool, cut, echo, ok, status
from tests.loopback_responses import OPENAI_OWN
from tests.loopback_tongues import ANTHROPIC
from tests.trimtab.asking import CALLERS_KEY, CONTEXTS, KEY, KEY_ENV, QUESTION, provider, serving
from tests.trimtab.test_surfaces import STEPS as ANY_STEPS
from tests.trimtab.test_surfaces import Clients, chat, each  # fixtures

__all__ = ["chat", "each"]

TOOL = {
    "type": "function",
    "name": "find",
    "description": "Finds a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": None,
}
CALL = {"type": "function_call", "call_id": "call_1", "name": "find", "arguments": '{"city": "Ōsaka"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "Japan 🇯🇵"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}
FILE = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}
FOUND = {
    "type": "file_search_call",
    "id": "fs_1",
    "queries": ["limits"],
    "status": "completed",
    "results": [{"file_id": "f", "filename": "limits.md", "text": "An upload may be 5 GB.", "score": 0.9}],
}


def asked(what: Any = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "m", "input": what, **more}


REQUESTS: dict[str, dict[str, Any]] = {
    "text": asked(),
    "instructions": asked(instructions="Be brief.", temperature=0.1, max_output_tokens=64, metadata={"a": "b"}),
    "items": asked(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, IMAGE, FILE]},
        ]
    ),
    "tools": asked(tools=[TOOL], tool_choice="auto", parallel_tool_calls=False),
    "tool results": asked(
        [
            {"role": "user", "content": "Where is Ōsaka?"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "eHl6"},
            CALL,
            {**CALL, "call_id": "call_2"},
            OUTPUT,
            {**OUTPUT, "call_id": "call_2", "output": [{"type": "input_text", "text": "Japan"}]},
        ],
        tools=[TOOL],
        include=["reasoning.encrypted_content"],
        store=False,
    ),
    "a schema": asked(
        text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": True}}
    ),
    "what only OpenAI has": asked(
        [FOUND, {"role": "user", "content": QUESTION}],
        tools=[{"type": "web_search"}],
        previous_response_id="resp_0",
        store=True,
        truncation="auto",
    ),
    "what it refuses": asked(extra_body={"future": {"a": [None]}}),
}
STEPS: dict[str, Step] = {
    "echo": echo(),
    "one call": calls_tool("find", {"city": "Ōsaka \U0001f1ef\U0001f1f5"}),
    "reasoning, cut short": Step(text="Five.", thinking="Let me see ...", finish="incomplete"),
    "a failure": Step(text="", finish="failed"),
}


@dataclass(frozen=True)
class Pair:
    """OpenAI, and a trimtab before it. `to_server` and `to_trimtab` are official clients."""

    server: LoopbackProvider
    trimtab: httpx.Client
    to_server: openai.OpenAI
    to_trimtab: openai.OpenAI


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    more: dict[str, Any] = {"api_key": CALLERS_KEY, "max_retries": 0}
    with (
        pytest.MonkeyPatch.context() as patch,
        LoopbackProvider(tongue=OPENAI_OWN) as server,
        serving(provider("a", server, "m", api_key_env=KEY_ENV, responses=True), min_coverage=1.0) as http,
        openai.OpenAI(base_url=server.base_url, **more) as to_server,
        openai.OpenAI(base_url=f"{str(http.base_url).rstrip('/')}/v1", **more) as to_trimtab,
    ):
        patch.setenv(KEY_ENV, KEY)
        yield Pair(server, http, to_server, to_trimtab)


def seen(client: openai.OpenAI, body: dict[str, Any], stream: bool) -> Any:
    try:
        answer = client.responses.create(**body, stream=stream)
        answers = [said.model_dump() for said in (answer if stream else [answer])]
    except openai.APIStatusError as error:
        return type(error).__name__, error.status_code, error.body, error.request_id
    for said in answers:
        said.pop("trimtab", None)
    return answers


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("stream", [False, True])
def test_the_client_gets_what_openai_gives(pair: Pair, request_name: str, step: str, stream: bool) -> None:
    got = []
    for client in (pair.to_server, pair.to_trimtab):
        if request_name != "what it refuses":
            pair.server.then(STEPS[step])
        got.append((seen(client, REQUESTS[request_name], stream), pair.server.requests[-1]))
    (direct, asked_directly), (through, forwarded) = got
    assert through == direct
    assert json.dumps(forwarded.json) == json.dumps(asked_directly.json)
    assert forwarded.path == asked_directly.path == "/v1/responses"


def test_the_bytes_are_openais(pair: Pair) -> None:
    for stream in (False, True):
        pair.server.then(echo(), echo())
        body = asked("Wo liegt Köln? 🇯🇵", stream=stream)
        direct = pair.trimtab.post(f"{pair.server.base_url}/responses", json=body)
        answer = pair.trimtab.post("/v1/responses", json=body)
        if stream:
            before, _, after = answer.content.partition(b": trimtab ")
            told, _, after = after.partition(b"\n\n")
            assert before + after == direct.content
            assert after.startswith(b"event: response.completed\n")
        else:
            at = answer.content.rindex(b',"trimtab":')
            told = answer.content[at + len(b',"trimtab":') : -1]
            assert answer.content[:at] + b"}" == direct.content
        receipt = json.loads(told)
        usage = json.loads(direct.content)["usage"] if not stream else None
        assert receipt["input_tokens_billed"] == (usage["input_tokens"] if usage else 4)
        assert receipt["attempts"][0]["outcome"] == "ok"


def test_a_stream_that_breaks_off_says_so(pair: Pair) -> None:
    pair.server.then(cut(5))
    events = [event.type for event in pair.to_trimtab.responses.create(**asked(), stream=True)]
    assert events[0] == "response.created"
    assert events[-1] == "error"


# --- from a provider that knows chat completions only, or another wire ------------------------------------------------


@pytest.mark.parametrize("step", ANY_STEPS)
def test_a_response_streamed_is_the_response_whole(each: Clients, step: str) -> None:
    each.server.then(ANY_STEPS[step], ANY_STEPS[step])
    whole = each.openai.responses.create(**asked(tools=[TOOL]))
    events = list(each.openai.responses.create(**asked(tools=[TOOL]), stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[1].type, events[-1].type] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    final = events[-1].response  # type: ignore[union-attr]
    volatile = {"id", "created_at", "service_tier"}  # Anthropic's streams do not say which tier it was
    streamed, told = final.model_dump(exclude=volatile), whole.model_dump(exclude={*volatile, "trimtab"})
    for item in (*streamed["output"], *told["output"]):
        item.pop("id")
        item["arguments"] = json.loads(item.get("arguments") or "{}")
    assert streamed == told
    assert whole.usage is not None
    assert whole.usage.input_tokens > 0
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == whole.output_text == final.output_text
    calls = [item for item in whole.output if item.type == "function_call"]
    wanted = [json.loads(call["function"]["arguments"]) for call in ANY_STEPS[step].tool_calls]
    assert [json.loads(call.arguments) for call in calls] == wanted
    done = [event.item.model_dump() for event in events if event.type == "response.output_item.done"]
    assert done == [item.model_dump() for item in final.output]


def test_the_clients_own_stream_helper_follows(chat: Clients) -> None:
    chat.server.then(ANY_STEPS["two calls"])
    with chat.openai.responses.stream(**asked(tools=[TOOL])) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    assert [item.type for item in final.output] == ["function_call", "function_call"]


def test_a_conversation_with_tools_is_understood_everywhere(each: Clients) -> None:
    each.server.then(ok("Japan."))
    body = asked(REQUESTS["tool results"]["input"], tools=[TOOL], instructions="Be brief.", store=False)
    assert each.openai.responses.create(**body).output_text == "Japan."


def test_what_a_chat_completion_is_asked(chat: Clients) -> None:
    body = {
        **REQUESTS["a schema"],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "What?"}, IMAGE, FILE]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            CALL,
            OUTPUT,
        ],
        "instructions": "Be brief.",
        "tools": [TOOL],
        "tool_choice": {"type": "function", "name": "find"},
        "max_output_tokens": 9,
        "reasoning": {"effort": "low", "summary": "auto"},
        "top_logprobs": 2,
    }
    chat.openai.responses.create(**body)
    assert chat.server.requests[-1].json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image_url", "image_url": {"url": IMAGE["image_url"], "detail": "low"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": FILE["file_data"]}},
                ],
            },
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": CALL["arguments"]}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "Japan 🇯🇵"},
        ],
        "max_tokens": 9,
        "tools": [
            {
                "type": "function",
                "function": {"name": "find", "description": "Finds a city.", "parameters": TOOL["parameters"]},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "find"}},
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True},
        },
        "logprobs": True,
        "top_logprobs": 2,
    }


LOST = [
    (asked(previous_response_id="resp_0"), "previous_response_id"),
    (asked(conversation="conv_0"), "conversation"),
    (asked(store=True), "store"),
    (asked(background=True), "background"),
    (asked(truncation="auto"), "truncation"),
    (asked(tools=[{"type": "web_search"}]), "tools[0].type"),
    (asked([FOUND]), "input[0].type"),
    (asked([{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]), "input[0].content[0].file_id"),
    (asked(extra_body={"future": 1}), "future"),
    (asked(tool_choice={"type": "allowed_tools", "mode": "auto", "tools": []}), "tool_choice.type"),
]


@pytest.mark.parametrize(("body", "field"), LOST, ids=[field for _, field in LOST])
def test_what_would_be_lost_is_refused(chat: Clients, body: dict[str, Any], field: str) -> None:
    sent = len(chat.server.requests)
    with pytest.raises(openai.BadRequestError) as caught:
        chat.openai.responses.create(**body)
    assert caught.value.param == field
    assert caught.value.code == "unsupported_parameter"
    assert len(chat.server.requests) == sent


def test_contexts_beside_the_input_go_before_the_question(chat: Clients) -> None:
    for what in (QUESTION, [{"role": "user", "content": QUESTION}]):
        extra = {"trimtab": {"contexts": CONTEXTS, "budget_tokens": 20}}
        chat.openai.responses.create(**asked(what), extra_body=extra)
        written, last = chat.server.requests[-1].json["messages"]
        assert "An upload may be 5 GB." in written["content"]
        assert "Frankfurt" not in written["content"]
        assert last == {"role": "user", "content": QUESTION}


# --- embeddings, and the models ---------------------------------------------------------------------------------------


def test_embeddings_are_passed_through_and_priced(pair: Pair) -> None:
    body: dict[str, Any] = {"model": "m", "input": ["Wo liegt Köln?", "x"], "encoding_format": "float"}
    direct = pair.to_server.embeddings.create(**body)
    answer = pair.to_trimtab.embeddings.with_raw_response.create(**body)
    assert answer.parse() == direct
    assert json.loads(answer.content)["data"] == direct.model_dump()["data"]
    assert answer.headers["x-trimtab-provider"] == "a"
    assert answer.headers["x-trimtab-receipt-id"]
    assert pair.server.requests[-1].json == body


def test_embeddings_need_a_provider_that_makes_them() -> None:
    with LoopbackProvider(tongue=ANTHROPIC) as server, serving(provider("a", server)) as http:
        answer = http.post("/v1/embeddings", json={"model": "m", "input": "x"})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unsupported_parameter"


def test_one_model(pair: Pair) -> None:
    assert pair.to_trimtab.models.retrieve("m").owned_by == "a"
    with pytest.raises(openai.NotFoundError) as caught:
        pair.to_trimtab.models.retrieve("org/x")
    assert caught.value.code == "model_not_found"


def test_errors_come_back_as_they_are(pair: Pair) -> None:
    pair.server.then(status(400, "no", error_type="invalid_request_error"))
    with pytest.raises(openai.BadRequestError) as caught:
        pair.to_trimtab.responses.create(**asked())
    assert caught.value.body == {"message": "no", "type": "invalid_request_error", "param": None, "code": None}  # type: ignore[comparison-overlap]


def test_embeddings_have_their_makers_price() -> None:
    listed = {"name": "openai", "kind": "openai", "models": ["text-embedding-3-small"]}
    with LoopbackProvider(tongue=OPENAI_OWN) as server, serving({**listed, "base_url": server.base_url}) as http:
        answer = http.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "one two three"})
        assert answer.status_code == 200
        assert float(answer.headers["x-trimtab-expected-cost-usd"]) < 1e-6
        assert "trimtab" not in answer.json()
