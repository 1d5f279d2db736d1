"""Every field of a chat completion is honoured or refused by each wire: none can be forgotten."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from openai.types.chat import completion_create_params

from routing.chat_request import ChatRequest, JsonFormat, Tool, read_chat_request
from routing.conversion import Outgoing
from routing.errors import UnsupportedParameter
from routing.wires import WIRES

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SET: dict[str, Any] = {
    "tools": (Tool("f", "tools[0]", None, {"type": "object"}, False),),
    "tool_choice": "required",
    "named_tool": "f",
    "parallel_tool_calls": False,
    "max_tokens": 5_000,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 3,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "seed": 1,
    "n": 2,
    "stop": ("x",),
    "response_format": JsonFormat({"type": "string"}),
    "reasoning_effort": "high",
    "logprobs": True,
    "top_logprobs": 2,
    "user": "u",
}
NEEDS: dict[str, dict[str, Any]] = {
    "tool_choice": {"tools": SET["tools"]},
    "named_tool": {"tools": SET["tools"], "tool_choice": "named"},
    "parallel_tool_calls": {"tools": SET["tools"]},
    "top_logprobs": {"logprobs": True},
}
STAYS_BEHIND = {("gemini", "user")}
"""Fields without a counterpart that change no answer; the wire's module says so."""


@pytest.mark.parametrize("name", sorted(SET))
@pytest.mark.parametrize(("kind", "model"), [("anthropic", "claude-opus-4-6"), ("gemini", "gemini-3.1-pro")])
def test_a_field_changes_the_request_or_is_refused(kind: str, model: str, name: str) -> None:
    conversion = WIRES[kind].conversion
    assert conversion is not None

    def encode(request: ChatRequest) -> Outgoing | str:
        try:
            return conversion.encode(request, model, False)
        except UnsupportedParameter as error:
            return error.param

    without = replace(read_chat_request(BODY), **NEEDS.get(name, {}))
    with_it = encode(replace(without, **{name: SET[name]}))
    assert (with_it == encode(without)) is ((kind, name) in STAYS_BEHIND) or with_it == "logprobs"


def test_the_table_above_is_complete() -> None:
    # `messages` have tests of their own, and `include_usage` concerns the answer.
    assert {field.name for field in fields(ChatRequest)} - set(SET) == {"messages", "include_usage"}


def test_every_parameter_of_the_official_client_is_known_or_refused_by_name() -> None:
    known = set(completion_create_params.CompletionCreateParamsStreaming.__annotations__)
    known |= set(completion_create_params.CompletionCreateParamsBase.__annotations__)
    assert len(known) > 30
    for name in known - {"messages"}:
        odd = {"an": ["odd", "value"]}
        ignored = name in ("model", "stream", "service_tier", "metadata", "store", "prompt_cache_key")
        if ignored:
            assert read_chat_request({**BODY, name: odd}) == read_chat_request(BODY)
            continue
        with pytest.raises(UnsupportedParameter) as error:
            read_chat_request({**BODY, name: odd})
        assert error.value.param.split(".")[0] == name


def test_null_counts_as_absent_everywhere() -> None:
    nothing = dict.fromkeys(completion_create_params.CompletionCreateParamsBase.__annotations__)
    message = {"role": "user", "content": "Hi", "name": None}
    assert read_chat_request({**nothing, "messages": [message]}) == read_chat_request(BODY)


def test_a_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(UnsupportedParameter) as error:
        read_chat_request({**BODY, "x" * 5_000: 1})
    assert len(str(error.value)) < 200
