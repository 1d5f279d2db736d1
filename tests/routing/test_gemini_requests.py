"""Chat completions as generateContent requests: what is sent, word by word, and what is refused by name."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings

from routing.conversion import encoded
from routing.errors import UnsupportedParameter
from routing.gemini_request import NO_SIGNATURE
from routing.wires import WIRES
from tests.loopback_tongues import gemini_complaint
from tests.routing.chat_bodies import ANY_JSON, BODIES, PDF, PLAIN, PNG, converted

CONVERSION = WIRES["gemini"].conversion
assert CONVERSION is not None
HI = [{"role": "user", "content": "Hi"}]
LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
PRO, FLASH, OLDER = "gemini-3.1-pro", "gemini-3-flash", "gemini-2.5-flash"


def sent(body: dict[str, Any], model: str = PRO) -> dict[str, Any]:
    """The request's body, which the server must take."""
    outgoing = encoded(CONVERSION, {"model": "auto", "messages": HI, **body}, model, False)
    assert gemini_complaint(outgoing.body) is None
    return dict(outgoing.body)


def generation(body: dict[str, Any], model: str = PRO) -> Any:
    return sent(body, model).get("generationConfig", {})


def refused(body: dict[str, Any], model: str = PRO) -> str:
    with pytest.raises(UnsupportedParameter) as error:
        encoded(CONVERSION, {"model": "auto", "messages": HI, **body}, model, False)
    return error.value.param


def test_where_it_goes() -> None:
    whole, stream = (encoded(CONVERSION, {"messages": HI}, PRO, stream) for stream in (False, True))
    assert (whole.path, whole.query) == ("/v1beta/models/gemini-3.1-pro:generateContent", ())
    assert (stream.path, stream.query) == ("/v1beta/models/gemini-3.1-pro:streamGenerateContent", (("alt", "sse"),))
    assert encoded(CONVERSION, {"messages": HI}, "a b?c", False).path == "/v1beta/models/a%20b%3Fc:generateContent"


def test_a_whole_conversation() -> None:
    calls = [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "look_up", "arguments": '{"a": 1}'},
            "extra_content": {"google": {"thought_signature": "sig"}},
        },
        {"id": "call_2", "type": "function", "function": {"name": "look_up", "arguments": ""}},
    ]
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png?size=2"}},
                    {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                ],
            },
            {"role": "user", "content": "And that?"},
            {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "call_1", "content": "one"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "two"}]},
            {"role": "developer", "content": "In French."},
        ],
        "tools": [{"type": "function", "function": {"name": "look_up", "description": "Looks up."}}],
        "tool_choice": "required",
        "max_tokens": 500,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "seed": 7,
        "n": 2,
        "stop": ["END", "STOP"],
        "logprobs": True,
        "top_logprobs": 4,
        "user": "u",
    }
    assert sent(body) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "In French."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "What is this?"},
                    {
                        "inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="},
                        "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"},
                    },
                    {"fileData": {"fileUri": "https://x.test/a.png?size=2", "mimeType": "image/png"}},
                    {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
                    {"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}},
                    {"text": "And that?"},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Let me see."},
                    {"functionCall": {"id": "call_1", "name": "look_up", "args": {"a": 1}}, "thoughtSignature": "sig"},
                    {"functionCall": {"id": "call_2", "name": "look_up", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "call_1", "name": "look_up", "response": {"output": "one"}}},
                    {"functionResponse": {"id": "call_2", "name": "look_up", "response": {"output": "two"}}},
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "look_up",
                        "description": "Looks up.",
                        "parametersJsonSchema": {"type": "object", "properties": {}},
                    }
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 3,
            "candidateCount": 2,
            "maxOutputTokens": 500,
            "stopSequences": ["END", "STOP"],
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "seed": 7,
            "responseLogprobs": True,
            "logprobs": 4,
        },
    }


def test_what_asks_for_nothing_is_left_out() -> None:
    neutral = {"temperature": 1, "n": 1, "logit_bias": {}, "store": True, "tools": [], "parallel_tool_calls": False}
    assert sent(neutral) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"seed": 2**31}, "seed"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"stop": list("abcdef")}, "stop"),
        ({"tools": [LOOK_UP], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"reasoning_effort": "max"}, "reasoning_effort"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"a_field_of_next_year": 1}, "a_field_of_next_year"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "?"}]}, "messages[0].tool_call_id"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x.test/a.png"}}]}
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a"}}]}
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_what_cannot_be_honoured_is_named(body: dict[str, Any], param: str) -> None:
    assert refused(body) == param


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (PRO, "minimal", {"thinkingLevel": "LOW", "includeThoughts": True}),
        (PRO, "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        (FLASH, "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-flash-latest", "high", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        (OLDER, "low", {"thinkingBudget": 1_024, "includeThoughts": True}),
        (OLDER, "high", {"thinkingBudget": 24_576, "includeThoughts": True}),
        (OLDER, "none", {"thinkingBudget": 0}),
        ("gemini-2.0-flash", "none", None),
        (PRO, None, None),
    ],
)
def test_reasoning(model: str, effort: str | None, expected: dict[str, Any] | None) -> None:
    assert generation({"reasoning_effort": effort}, model).get("thinkingConfig") == expected


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        (PRO, "none"),
        (FLASH, "none"),
        ("gemini-2.5-pro", "none"),
        (OLDER, "xhigh"),
        ("gemini-3-pro", "medium"),
        ("gemini-2.0-flash", "low"),
    ],
)
def test_reasoning_that_a_model_cannot_do(model: str, effort: str) -> None:
    assert refused({"reasoning_effort": effort}, model) == "reasoning_effort"


def test_a_call_that_another_model_made_gets_the_documented_signature() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    asked = {"messages": [*HI, {"role": "assistant", "tool_calls": [call, {**call, "id": "d"}]}]}
    first, second = sent(asked, FLASH)["contents"][1]["parts"]
    assert first["thoughtSignature"] == NO_SIGNATURE
    assert "thoughtSignature" not in second
    assert "thoughtSignature" not in sent(asked, OLDER)["contents"][1]["parts"][0]


def test_json_output() -> None:
    schema = {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer", "minimum": 1}}}
    asked = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    assert generation(asked) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {
            "type": "object",
            "properties": {"kind": {"enum": ["a"]}, "n": {"type": "integer", "minimum": 1}},
        },
    }
    assert generation({"response_format": {"type": "json_object"}}) == {"responseMimeType": "application/json"}
    schema["properties"]["n"] = {"type": "string", "pattern": "a"}
    assert refused(asked) == "response_format.json_schema.schema.properties.n.pattern"
    assert refused({"response_format": {"type": "json_object"}, "tools": [LOOK_UP]}, OLDER) == "response_format"


def test_tool_choice() -> None:
    def config(**body: Any) -> Any:
        return sent({"tools": [LOOK_UP], **body}).get("toolConfig", {}).get("functionCallingConfig")

    named = {"type": "function", "function": {"name": "look_up"}}
    assert config() is None
    assert config(tool_choice="auto") == {"mode": "AUTO"}
    assert config(tool_choice="none") == {"mode": "NONE"}
    assert config(tool_choice=named) == {"mode": "ANY", "allowedFunctionNames": ["look_up"]}
    strict = {"type": "function", "function": {**LOOK_UP["function"], "strict": True}}
    assert config(tools=[strict]) == {"mode": "VALIDATED"}


@settings(deadline=None, max_examples=200)
@given(BODIES | PLAIN)
def test_any_chat_completion_converts_or_is_refused_by_name(body: dict[str, Any]) -> None:
    for model in (PRO, FLASH, OLDER):
        found = converted(CONVERSION, body, model)
        if isinstance(found, UnsupportedParameter):
            assert re.split(r"[.\[]", found.param)[0] in {*body, "messages"}
            continue
        assert gemini_complaint(json.loads(found[1])) is None


@settings(deadline=None, max_examples=200)
@given(ANY_JSON)
def test_any_json_at_all_converts_or_is_refused(body: dict[str, Any]) -> None:
    converted(CONVERSION, body, PRO)
