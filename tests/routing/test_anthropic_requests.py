"""Chat completions as Messages requests: what is sent, word by word, and what is refused by name."""

from __future__ import annotations

import doctest
import json
import re
from typing import Any

import anthropic
import pydantic
import pytest
from hypothesis import given, settings

import routing.anthropic_models
import routing.chat_fields
from routing.anthropic_models import traits_of
from routing.conversion import content_of, encoded
from routing.errors import UnsupportedParameter
from routing.wires import WIRES
from tests.loopback_tongues import anthropic_complaint
from tests.routing.chat_bodies import ANY_JSON, BODIES, PDF, PLAIN, PNG, converted

CONVERSION = WIRES["anthropic"].conversion
assert CONVERSION is not None
HI = [{"role": "user", "content": "Hi"}]
LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
NEW, OLDER, BUDGETS = "claude-opus-5", "claude-opus-4-6", "claude-haiku-4-5"


def sent(body: dict[str, Any], model: str = NEW, stream: bool = False) -> dict[str, Any]:
    """The request's body, which the server must take."""
    outgoing = encoded(CONVERSION, {"model": "auto", "messages": HI, **body}, model, stream)
    assert outgoing.path == "/v1/messages"
    assert anthropic_complaint(outgoing.body, dict(outgoing.headers)["anthropic-version"]) is None
    return dict(outgoing.body)


def refused(body: dict[str, Any], model: str = NEW) -> str:
    with pytest.raises(UnsupportedParameter) as error:
        encoded(CONVERSION, {"model": "auto", "messages": HI, **body}, model, False)
    assert str(error.value).startswith(f"{error.value.param}: ")
    return error.value.param


def test_examples_in_the_docstrings() -> None:
    for module in (routing.anthropic_models, routing.chat_fields):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 0


def test_a_whole_conversation() -> None:
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "developer",
                "content": [{"type": "text", "text": "Cite.", "cache_control": {"type": "ephemeral"}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
                    {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
                    {"type": "file", "file": {"file_data": "data:text/plain;base64,w4Q=", "filename": "a.txt"}},
                ],
            },
            {"role": "user", "content": "And that?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}},
                    {"id": "call.2", "type": "function", "function": {"name": "look_up", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "one"},
            {
                "role": "tool",
                "tool_call_id": "call.2",
                "content": [{"type": "text", "text": "two"}],
                "cache_control": {"type": "ephemeral"},
            },
            {"role": "user", "content": "Well?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look_up", "description": "Looks up.", "parameters": {"type": "object"}},
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
            }
        ],
        "max_completion_tokens": 500,
        "stop": "END",
        "user": "u-1",
    }
    other_id = sent(body)["messages"][1]["content"][2]["id"]
    assert sent(body, stream=True) == {
        "model": NEW,
        "max_tokens": 500,
        "system": [
            {"type": "text", "text": "Be brief."},
            {"type": "text", "text": "Cite.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
                    {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                        "title": "a.pdf",
                    },
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "Ä"},
                        "title": "a.txt",
                    },
                    {"type": "text", "text": "And that?"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "call_1", "name": "look_up", "input": {"a": 1}},
                    {"type": "tool_use", "id": other_id, "name": "look_up", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "one"}]},
                    {
                        "type": "tool_result",
                        "tool_use_id": other_id,
                        "content": [{"type": "text", "text": "two"}],
                        "cache_control": {"type": "ephemeral"},
                    },
                    {"type": "text", "text": "Well?"},
                ],
            },
        ],
        "tools": [
            {
                "name": "look_up",
                "input_schema": {"type": "object"},
                "description": "Looks up.",
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
            }
        ],
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u-1"},
        "stream": True,
    }


def test_what_asks_for_nothing_is_left_out() -> None:
    neutral = {
        **{"temperature": 1, "top_p": 1.0, "n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False},
        **{"top_logprobs": 0, "logit_bias": {}, "modalities": ["text"], "verbosity": "medium", "seed": None},
        **{"metadata": {"a": "b"}, "store": True, "service_tier": "auto", "prompt_cache_key": "k", "tools": []},
        **{"response_format": {"type": "text"}, "stream_options": {"include_usage": True}, "parallel_tool_calls": True},
    }
    expected = {
        "model": NEW,
        "max_tokens": 32_000,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    assert sent(neutral) == expected


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"seed": 1}, "seed"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"frequency_penalty": -0.1}, "frequency_penalty"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"temperature": 0.5}, "temperature"),
        ({"top_k": 5}, "top_k"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"a_field_of_next_year": 1}, "a_field_of_next_year"),
        ({"prediction": {"type": "content", "content": ""}}, "prediction"),
        ({"functions": []}, "functions"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["\n"]}, "stop"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        (
            {"tools": [LOOK_UP], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice.function.name",
        ),
        ({"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "critic", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "messages"),
        ({"messages": [*HI, {"role": "assistant", "content": "It is"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages[0].content[0].type"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}],
                    }
                ]
            },
            "messages[0].content[0].input_audio",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            "messages[0].content[0].file.file_id",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}]}
                ]
            },
            "messages[0].content[0].image_url.detail",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%"}}],
                    }
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[]"}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_cannot_be_honoured_is_named(body: dict[str, Any], param: str) -> None:
    assert refused(body) == param


def test_no_value_of_the_callers_is_in_the_message() -> None:
    with pytest.raises(UnsupportedParameter) as error:
        encoded(CONVERSION, {"messages": HI, "reasoning_effort": "sk-secret"}, NEW, False)
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (
            NEW,
            "minimal",
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
        ),
        (
            NEW,
            "xhigh",
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}},
        ),
        (NEW, "none", {"thinking": {"type": "disabled"}}),
        ("claude-sonnet-5-5", "none", {"thinking": {"type": "between_tools"}}),
        ("claude-haiku-5-5", "none", {"thinking": {"type": "disabled"}}),
        (BUDGETS, "low", {"thinking": {"type": "enabled", "budget_tokens": 1_024}}),
        (BUDGETS, "high", {"thinking": {"type": "enabled", "budget_tokens": 24_576}}),
        (BUDGETS, None, {}),
        ("claude-opus-5-5", "none", None),
        ("claude-fable-5-1", "none", None),
        ("claude-opus-4-6", "xhigh", None),
        (BUDGETS, "max", None),
        ("claude-3-5-haiku-latest", "low", None),
        ("claude-3-5-haiku-latest", "none", {}),
    ],
)
def test_reasoning(model: str, effort: str | None, expected: dict[str, Any] | None) -> None:
    body = {"reasoning_effort": effort}
    if expected is None:
        assert refused(body, model) == "reasoning_effort"
    else:
        body = sent(body, model)
        assert {name: value for name, value in body.items() if name in ("thinking", "output_config")} == expected


def test_a_budget_leaves_room_for_the_answer() -> None:
    assert sent({"reasoning_effort": "high", "max_tokens": 2_000}, BUDGETS)["thinking"]["budget_tokens"] == 1_600
    assert refused({"reasoning_effort": "high", "max_tokens": 1_200}, BUDGETS) == "reasoning_effort"


def test_sampling_goes_to_the_models_that_have_it_in_the_version_that_has_it() -> None:
    outgoing = encoded(CONVERSION, {"messages": HI, "temperature": 0.2, "top_k": 4}, OLDER, False)
    assert {name: outgoing.body[name] for name in ("temperature", "top_k")} == {"temperature": 0.2, "top_k": 4}
    assert outgoing.headers == (("anthropic-version", "2023-06-01"),)
    assert encoded(CONVERSION, {"messages": HI}, OLDER, False).headers == (("anthropic-version", "2026-10-21"),)
    assert refused({"temperature": 1.5}, OLDER) == "temperature"
    assert refused({"temperature": 0.5, "top_p": 0.5}, OLDER) == "top_p"
    assert refused({"temperature": 0.5, "reasoning_effort": "low"}, OLDER) == "temperature"


def test_tool_choice() -> None:
    def choice(model: str = OLDER, **body: Any) -> Any:
        return sent({"tools": [LOOK_UP], **body}, model).get("tool_choice")

    named = {"type": "function", "function": {"name": "look_up"}}
    assert choice() is None
    assert choice(tool_choice="auto") == {"type": "auto"}
    assert choice(tool_choice="none") == {"type": "none"}
    assert choice(tool_choice="required") == {"type": "any"}
    assert choice(tool_choice=named) == {"type": "tool", "name": "look_up"}
    assert choice(parallel_tool_calls=False) == {"type": "auto", "disable_parallel_tool_use": True}
    assert choice(parallel_tool_calls=False, tool_choice="required") == {
        "type": "any",
        "disable_parallel_tool_use": True,
    }
    # A model that thinks unasked is told not to; one that always thinks cannot be forced.
    assert sent({"tools": [LOOK_UP], "tool_choice": "required"}, NEW)["thinking"] == {"type": "disabled"}
    assert refused({"tools": [LOOK_UP], "tool_choice": "required"}, "claude-opus-5-5") == "tool_choice"
    assert (
        refused({"tools": [LOOK_UP], "tool_choice": "required", "reasoning_effort": "low"}, NEW) == "reasoning_effort"
    )


def test_a_schema_is_closed_and_what_would_not_be_enforced_is_refused() -> None:
    def schema(of: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": of, **more}}}

    person = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "name": {"type": ["string", "null"], "default": "x"},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
        },
        "$defs": {"tag": {"enum": ["a", "b"]}},
        "required": ["name"],
    }
    assert sent(schema(person, description="A person.", strict=True))["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {
                    "name": {"type": ["string", "null"]},
                    "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
                },
                "$defs": {"tag": {"enum": ["a", "b"]}},
                "required": ["name"],
                "additionalProperties": False,
                "description": "A person.",
            },
        }
    }
    prefix = "response_format.json_schema.schema"
    assert refused(schema({"type": "integer", "minimum": 1})) == f"{prefix}.minimum"
    assert (
        refused(schema({"type": "object", "properties": {"a": {"type": "string", "pattern": "a"}}}))
        == f"{prefix}.properties.a.pattern"
    )
    assert (
        refused(schema({"type": "object", "additionalProperties": {"type": "string"}}))
        == f"{prefix}.additionalProperties"
    )
    assert refused(schema({})) == prefix
    assert refused(schema(person), "claude-opus-4-1") == "response_format"
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        deep = {"type": "array", "items": deep}
    assert refused(schema(deep)).startswith(prefix)
    strict = {
        "type": "function",
        "function": {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {}}},
    }
    assert sent({"tools": [strict]})["tools"][0] == {
        "name": "f",
        "strict": True,
        "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
    }


def test_a_system_message_in_the_middle_keeps_its_place_where_it_may() -> None:
    later = {"role": "system", "content": "Now in French."}
    asked = {"messages": [*HI, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Go on"}, later]}
    in_place = sent(asked)
    assert "system" not in in_place
    assert in_place["messages"][-1] == {"role": "system", "content": [{"type": "text", "text": "Now in French."}]}
    for body, model in ((asked, OLDER), ({"messages": [*HI, later, *HI]}, NEW)):
        hoisted = sent(body, model)
        assert hoisted["system"] == [{"type": "text", "text": "Now in French."}]
        assert [turn["role"] for turn in hoisted["messages"]][-1] == "user"


def test_signed_thinking_goes_back_and_a_strangers_does_not() -> None:
    details = [
        {"type": "reasoning.text", "text": "Hm", "signature": "sig", "format": "anthropic-claude-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "xyz", "format": "anthropic-claude-v1", "index": 1},
        {"type": "reasoning.text", "text": "unsigned"},
        {"type": "reasoning.encrypted", "data": "openai's", "format": "openai-responses-v1"},
    ]
    call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    asked = {
        "messages": [
            *HI,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call],
                "reasoning_details": details,
                "reasoning_content": "Hm",
            },
            {"role": "tool", "tool_call_id": "c", "content": "ok"},
        ],
        "reasoning_effort": "low",
        "tools": [LOOK_UP],
    }
    assert sent(asked, BUDGETS)["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "tool_use", "id": "c", "name": "look_up", "input": {}},
    ]
    del asked["messages"][1]["reasoning_details"]
    assert refused(asked, BUDGETS) == "reasoning_effort"


def test_a_server_of_somebody_elses_gets_the_version_that_it_copied() -> None:
    outgoing = encoded(CONVERSION, {"messages": HI}, "deepseek-v4", False)
    assert outgoing.headers == (("anthropic-version", "2023-06-01"),)


def test_every_model_that_the_official_client_names_has_its_row() -> None:
    names = list(anthropic.types.model.Model.__args__[0].__args__)
    assert len(names) > 15
    rows = {name: traits_of(name) for name in names}
    assert all(row.official and row.thinking != "none" for row in rows.values())
    # anthropic 2.12, `MODELS_TO_WARN_WITH_THINKING_ENABLED` and the docs: sampling ended with 4.7.
    accepts = {name for name, row in rows.items() if row.sampling}
    assert accepts == {name for name in names if any(version in name for version in ("-4-5", "-4-6"))}


TAKEN = pydantic.TypeAdapter(anthropic.types.MessageCreateParams)


@settings(deadline=None, max_examples=200)
@given(BODIES | PLAIN)
def test_any_chat_completion_converts_or_is_refused_by_name(body: dict[str, Any]) -> None:
    for model in (NEW, OLDER, BUDGETS, "claude-opus-5-5", "m"):
        found = converted(CONVERSION, body, model)
        if isinstance(found, UnsupportedParameter):
            assert re.split(r"[.\[]", found.param)[0] in {*body, "messages"}
            continue
        outgoing, content = found
        assert anthropic_complaint(json.loads(content), dict(outgoing.headers)["anthropic-version"]) is None
        TAKEN.validate_python(outgoing.body)


@settings(deadline=None, max_examples=200)
@given(ANY_JSON)
def test_any_json_at_all_converts_or_is_refused(body: dict[str, Any]) -> None:
    for model in (NEW, OLDER):
        converted(CONVERSION, body, model)


def test_most_plain_completions_do_convert() -> None:
    """So that the two tests above cannot pass by refusing everything."""
    counts: list[bool] = []

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(PLAIN)
    def tally(body: dict[str, Any]) -> None:
        counts.append(not isinstance(converted(CONVERSION, body, OLDER), UnsupportedParameter))

    tally()
    assert sum(counts) > len(counts) / 3


def test_tools_nested_beyond_json_are_refused() -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(3_000):
        deep = {"type": "object", "properties": {"a": deep}}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    outgoing = encoded(CONVERSION, {"messages": HI, "tools": [tool]}, NEW, False)
    with pytest.raises(UnsupportedParameter, match="tools"):
        content_of(CONVERSION, outgoing, None)
