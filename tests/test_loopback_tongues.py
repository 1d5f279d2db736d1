"""The loopback provider speaks Anthropic's wire as it says: the official client understands it, errors included."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import httpx
import pytest

from tests import loopback
from tests.loopback import LoopbackProvider, Step
from tests.loopback_tongues import ANTHROPIC, GEMINI, anthropic_error, anthropic_error_event

ASKED = {"model": "claude-opus-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Where is Paris?"}]}
TOOL = {"name": "look_up", "input_schema": {"type": "object"}}
CALLS = loopback.calls_tool("look_up", {"city": "Paris", "n": 3}, call_id="toolu_1")


@pytest.fixture
def server() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(tongue=ANTHROPIC) as provider:
        yield provider


@pytest.fixture
def client(server: LoopbackProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.base_url, api_key="any", max_retries=0) as made:
        yield made


@pytest.mark.parametrize(
    "step",
    [
        loopback.ok("Paris is in France."),
        Step(text="In France.", thinking="They ask for a place. It is a town."),
        CALLS,
        loopback.calls_tool("look_up", {}, call_id="toolu_2"),
        Step(text="", finish="refusal"),
    ],
)
def test_the_official_client_reads_the_same_from_an_answer_and_from_a_stream(
    server: LoopbackProvider, client: anthropic.Anthropic, step: Step
) -> None:
    server.then(step, step)
    whole = client.messages.create(**ASKED, tools=[TOOL])
    with client.messages.stream(**ASKED, tools=[TOOL]) as stream:
        streamed = stream.get_final_message()
    assert whole.to_dict(exclude_unset=False) == streamed.to_dict(exclude_unset=False)
    assert whole.stop_reason == (step.finish or ("tool_use" if step.tool_calls else "end_turn"))
    assert server.requests[0].headers["anthropic-version"] == "2026-10-21"


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (anthropic_error(529, "overloaded_error"), anthropic.InternalServerError),
        (anthropic_error(429, "rate_limit_error"), anthropic.RateLimitError),
        (anthropic_error(400, "invalid_request_error"), anthropic.BadRequestError),
        (loopback.reset(), anthropic.APIConnectionError),
    ],
)
def test_the_official_client_reads_the_errors(
    server: LoopbackProvider, client: anthropic.Anthropic, step: Step, error: type[Exception]
) -> None:
    server.then(step)
    with pytest.raises(error):
        client.messages.create(**ASKED)


def test_the_official_client_reads_an_error_event(server: LoopbackProvider, client: anthropic.Anthropic) -> None:
    server.then(loopback.raw(anthropic_error_event("overloaded_error", "Overloaded")))
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(client.messages.create(**ASKED, stream=True))


@pytest.mark.parametrize(
    "body",
    [
        {**ASKED, "temperature": 0.5},
        {**ASKED, "a_field": 1},
        {**ASKED, "messages": []},
        {**ASKED, "messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]},
        {**ASKED, "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "nobody's"}]}]},
        {**ASKED, "tool_choice": {"type": "any"}},
    ],
)
def test_what_anthropic_refuses_is_refused(server: LoopbackProvider, body: dict[str, object]) -> None:
    headers = {"x-api-key": "any", "anthropic-version": "2026-10-21"}
    answer = httpx.post(f"{server.base_url}/v1/messages", json=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert httpx.post(f"{server.base_url}/v1/messages", json=ASKED).status_code == 401


def test_gemini_answers_whole_and_in_events_that_add_up_to_the_same() -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "Where is Paris?"}]}]}
    headers = {"x-goog-api-key": "any"}
    step = Step(text="Paris is in France.", thinking="A town.")
    with LoopbackProvider([step, step], tongue=GEMINI) as server:
        address = f"{server.base_url}/v1beta/models/gemini-3-flash"
        whole = httpx.post(f"{address}:generateContent", json=body, headers=headers).json()
        streamed = httpx.post(f"{address}:streamGenerateContent?alt=sse", json=body, headers=headers)
        wrong = httpx.post(f"{address}:generateContent", json={**body, "messages": []}, headers=headers)
        unknown = httpx.post(f"{address}:generateContent", json=body)
    events = [json.loads(event[6:]) for event in streamed.text.split("\r\n\r\n") if event]
    texts: dict[bool, str] = {}
    for event in events:
        for part in event["candidates"][0]["content"]["parts"]:
            thought = part.get("thought", False)
            texts[thought] = texts.get(thought, "") + part["text"]
    assert texts == {part.get("thought", False): part["text"] for part in whole["candidates"][0]["content"]["parts"]}
    assert [event["candidates"][0].get("finishReason") for event in events][-2:] == [None, "STOP"]
    assert wrong.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert unknown.status_code == 403
