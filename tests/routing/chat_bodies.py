"""Chat completions in OpenAI's shape, as hypothesis makes them: valid ones, and ones of JSON that nobody would send."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from routing.conversion import Conversion, Outgoing, content_of, encoded
from routing.errors import UnsupportedParameter

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="

TEXTS = st.text(max_size=12) | st.sampled_from(["", " ", "Where is Paris?", "Ä €", "\ud800"])
CACHE = st.just({"type": "ephemeral"}) | st.just({"type": "ephemeral", "ttl": "1h"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def part(kind: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    optional = {"cache_control": CACHE}
    return st.fixed_dictionaries({"type": st.just(kind), **fields}, optional=optional)


TEXT_PARTS = part("text", text=TEXTS)
PARTS = st.one_of(
    TEXT_PARTS,
    part(
        "image_url",
        image_url=st.fixed_dictionaries(
            {"url": st.sampled_from([PNG, "https://x.test/a.png", "http://x.test/a.png", "https://x.test/a"])},
            optional={"detail": st.sampled_from(["auto", "low", "high"])},
        ),
    ),
    part("file", file=st.just({"file_data": PDF, "filename": "a.pdf"}) | st.just({"file_id": "file-1"})),
    part("input_audio", input_audio=st.just({"data": "AAAA", "format": "wav"})),
)
SCHEMAS = st.sampled_from(
    [
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "additionalProperties": False},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": ["string", "null"]},
        {"oneOf": [{"type": "string"}]},
        {},
    ]
)
TOOLS = st.lists(
    st.sampled_from(["look_up", "add"]).flatmap(
        lambda name: st.fixed_dictionaries(
            {
                "type": st.just("function"),
                "function": st.fixed_dictionaries(
                    {"name": st.just(name)},
                    optional={"description": TEXTS, "parameters": SCHEMAS, "strict": st.booleans()},
                ),
            },
            optional={"cache_control": CACHE},
        )
    ),
    max_size=2,
    unique_by=lambda tool: tool["function"]["name"],
)
EXTRAS: dict[str, st.SearchStrategy[Any]] = {
    "temperature": st.floats(0.0, 2.0),
    "top_p": st.floats(0.01, 1.0),
    "top_k": st.integers(1, 50),
    "max_tokens": st.integers(1, 100_000),
    "max_completion_tokens": st.integers(1, 100_000),
    "presence_penalty": st.sampled_from([0, 0.5]),
    "frequency_penalty": st.sampled_from([0, 0.5]),
    "seed": st.integers(-(2**40), 2**40),
    "n": st.integers(1, 3),
    "stop": TEXTS | st.lists(TEXTS, max_size=6),
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 5),
    "logit_bias": st.sampled_from([{}, {"1": 5}]),
    "parallel_tool_calls": st.booleans(),
    "user": TEXTS,
    "metadata": st.just({"a": "b"}),
    "store": st.booleans(),
    "stream_options": st.just({"include_usage": True}),
    "response_format": st.one_of(
        st.just({"type": "text"}),
        st.just({"type": "json_object"}),
        st.builds(lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, SCHEMAS),
    ),
    "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "look_up"}}]),
    "prediction": st.just({"type": "content", "content": "x"}),
}


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns as OpenAI takes them: results follow the calls that they answer."""
    messages: list[dict[str, Any]] = []
    for turn in range(draw(st.integers(1, 5))):
        role = draw(st.sampled_from(["system", "developer", "user", "assistant", "calls"]))
        if role == "user":
            messages.append({"role": role, "content": draw(TEXTS | st.lists(PARTS, max_size=3))})
        elif role != "calls":
            messages.append({"role": role, "content": draw(TEXTS | st.lists(TEXT_PARTS, max_size=2))})
        else:
            ids = [
                f"call:{turn}.{at}" if draw(st.booleans()) else f"call_{turn}_{at}"
                for at in range(draw(st.integers(1, 2)))
            ]
            arguments = st.dictionaries(st.text(max_size=4), JSON, max_size=2).map(json.dumps) | st.just("")
            calls = [
                {"id": one, "type": "function", "function": {"name": "look_up", "arguments": draw(arguments)}}
                for one in ids
            ]
            messages.append({"role": "assistant", "content": draw(st.none() | TEXTS), "tool_calls": calls})
            results = st.sampled_from(["", "ok"]) | st.lists(TEXT_PARTS, max_size=2)
            messages += [{"role": "tool", "tool_call_id": one, "content": draw(results)} for one in ids]
    return messages


BODIES = st.fixed_dictionaries(
    {"model": st.just("auto"), "messages": conversations()},
    optional={**EXTRAS, "tools": TOOLS},
)

PLAIN = st.fixed_dictionaries(
    {"model": st.just("auto"), "messages": conversations()},
    optional={
        "max_tokens": EXTRAS["max_tokens"],
        "user": EXTRAS["user"],
        "stop": st.just(["END"]),
        "tools": TOOLS,
        "tool_choice": st.just("auto"),
    },
)
"""Those that ask for nothing out of the ordinary."""


def converted(
    conversion: Conversion, body: dict[str, Any], model: str, stream: bool = False
) -> tuple[Outgoing, bytes] | UnsupportedParameter:
    """The request and its JSON, or why there is none. Any other error passes."""
    try:
        outgoing = encoded(conversion, body, model, stream)
        return outgoing, content_of(conversion, outgoing, None)
    except UnsupportedParameter as error:
        return error


_NAMES = st.sampled_from(
    [
        *(
            "messages",
            "role",
            "content",
            "tools",
            "function",
            "name",
            "parameters",
            "tool_calls",
            "id",
            "arguments",
            "type",
        ),
        *("image_url", "url", "file", "file_data", "input_audio", "cache_control", "response_format", "json_schema"),
        *(
            "schema",
            "stop",
            "n",
            "seed",
            "tool_choice",
            "reasoning_effort",
            "reasoning_details",
            "extra_content",
            "text",
        ),
    ]
)
_WORDS = st.sampled_from(
    ["user", "assistant", "tool", "text", "function", "json_schema", "image_url", PNG, "data:,", "{}"]
)
ANY_JSON = st.dictionaries(
    _NAMES,
    st.recursive(
        JSON | _WORDS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
        max_leaves=15,
    ),
    max_size=6,
)
"""JSON made of the names of a chat completion, and hardly ever one."""
