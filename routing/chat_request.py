"""Chat requests: a chat completion in OpenAI's shape as one frozen value, for the wires that speak another tongue.

Pure. `read_chat_request` takes a body apart completely: what it does not know is refused by name and never dropped. It
knows OpenAI's API (openai 3.54, `types/chat/completion_create_params.py`) and nothing of the providers'; each wire then
honours or refuses every field of `ChatRequest`. The openai wire does not come here: its bodies pass untouched.

Three fields that are not OpenAI's are read, each as its first maker has it: `cache_control` on a message, part or tool
(Anthropic's, as OpenRouter and LiteLLM take it), `reasoning_details` of an assistant message (OpenRouter's: signed
thinking that must be handed back), `extra_content.google.thought_signature` of a tool call (Gemini's own).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from routing.chat_fields import Fields
from routing.chat_parts import Part, read_cache_control, read_parts
from routing.errors import UnsupportedParameter

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_EFFORTS: Final[tuple[Effort, ...]] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made earlier. `signature` is Gemini's, opaque."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message; a developer's counts as a system message. `tool_call_id` and `name` are those of a tool's result."""

    role: Literal["system", "user", "assistant", "tool"]
    path: str
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    reasoning_details: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is its JSON schema."""

    name: str
    path: str
    description: str | None
    parameters: Mapping[str, Any]
    strict: bool
    cache_control: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """The answer must be JSON: of any kind (`schema` None), or as the schema has it."""

    schema: Mapping[str, Any] | None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat completion. None and empty mean that the caller asks for nothing and the provider's default holds.

    `tool_choice` "named" goes with `named_tool`. `max_tokens` bounds all output, reasoning included. `n` is 1 or more.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required", "named"] | None = None
    named_tool: str | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    response_format: JsonFormat | None = None
    reasoning_effort: Effort | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    user: str | None = None
    include_usage: bool = False


def read_chat_request(body: Mapping[str, Any]) -> ChatRequest:
    """The body, read to its last field; raises UnsupportedParameter for anything that would be lost otherwise."""
    fields = Fields(body, "")
    # Set from the offer and the call: `model`, `stream` and `service_tier`. `metadata` and `store` concern OpenAI's
    # own log, `prompt_cache_key` which of its machines is asked; none of them changes an answer.
    fields.ignore("model", "stream", "service_tier", "metadata", "store", "prompt_cache_key")
    tools = tuple(_tool(each, f"tools[{at}]") for at, each in enumerate(fields.rows("tools")))
    tool_choice, named_tool = _tool_choice(fields, tools)
    logprobs, top_logprobs = fields.flag("logprobs") or False, fields.whole("top_logprobs", least=0)
    if top_logprobs and not logprobs:
        raise fields.refuse("top_logprobs", "needs logprobs to be true")
    user, safety_identifier = fields.text("user"), fields.text("safety_identifier")
    request = ChatRequest(
        messages=tuple(_message(each, f"messages[{at}]") for at, each in enumerate(fields.rows("messages"))),
        tools=tools,
        tool_choice=tool_choice,
        named_tool=named_tool,
        parallel_tool_calls=fields.flag("parallel_tool_calls"),
        max_tokens=_max_tokens(fields),
        temperature=fields.number("temperature", neutral=1.0),
        top_p=fields.number("top_p", neutral=1.0),
        top_k=fields.whole("top_k", least=1),
        presence_penalty=fields.number("presence_penalty", neutral=0.0),
        frequency_penalty=fields.number("frequency_penalty", neutral=0.0),
        seed=fields.whole("seed"),
        n=fields.whole("n", least=1) or 1,
        stop=_stop(fields),
        response_format=_response_format(fields),
        reasoning_effort=_effort(fields),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        user=user or safety_identifier,
        include_usage=_include_usage(fields),
    )
    fields.only("logit_bias", {})
    fields.only("modalities", ["text"])
    fields.only("verbosity", "medium")
    fields.close()
    if not request.messages:
        raise UnsupportedParameter("messages", "must hold a message")
    return request


def _max_tokens(fields: Fields) -> int | None:
    newer, older = fields.whole("max_completion_tokens", least=1), fields.whole("max_tokens", least=1)
    if newer is not None and older is not None and newer != older:
        raise fields.refuse("max_tokens", "differs from max_completion_tokens")
    return older if newer is None else newer


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.take("stop")
    rows = (value,) if isinstance(value, str) else () if value is None else value
    if not isinstance(rows, list | tuple) or not all(isinstance(row, str) and row for row in rows):
        raise fields.refuse("stop", "must be a text or an array of texts, none of them empty")
    return tuple(rows)


def _effort(fields: Fields) -> Effort | None:
    value = fields.choice("reasoning_effort", *_EFFORTS)
    return next((effort for effort in _EFFORTS if effort == value), None)


def _include_usage(fields: Fields) -> bool:
    options = fields.take("stream_options")
    if options is None:
        return False
    inner = Fields(options, "stream_options")
    include_usage = inner.flag("include_usage") or False
    inner.only("include_obfuscation", False)
    inner.close()
    return include_usage


def _response_format(fields: Fields) -> JsonFormat | None:
    value = fields.take("response_format")
    if value is None:
        return None
    inner = Fields(value, "response_format")
    kind = inner.choice("type", "text", "json_object", "json_schema")
    found: JsonFormat | None = None
    if kind == "json_object":
        found = JsonFormat(None)
    if kind == "json_schema":
        named = Fields(inner.take("json_schema"), "response_format.json_schema")
        # A schema's `name` is a label. `strict` false asks for less than what is given here.
        named.ignore("name", "strict")
        schema = named.take("schema")
        if not isinstance(schema, Mapping):
            raise named.refuse("schema", "must be an object")
        found = JsonFormat(schema, named.text("description"))
        named.close()
    inner.close()
    return found


def _tool(value: object, path: str) -> Tool:
    outer = Fields(value, path)
    outer.only("type", "function")
    inner = Fields(outer.take("function"), f"{path}.function")
    parameters = inner.take("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise inner.refuse("parameters", "must be an object")
    tool = Tool(
        name=inner.required_text("name"),
        path=f"{path}.function",
        description=inner.text("description"),
        parameters=parameters or {"type": "object", "properties": {}},
        strict=inner.flag("strict") or False,
        cache_control=read_cache_control(outer) or read_cache_control(inner),
    )
    outer.close()
    inner.close()
    return tool


def _tool_choice(
    fields: Fields, tools: tuple[Tool, ...]
) -> tuple[Literal["auto", "none", "required", "named"] | None, str | None]:
    value = fields.take("tool_choice")
    if value is None:
        return None, None
    if value == "auto":
        return "auto", None
    if value == "none":
        return "none", None
    if value == "required":
        if not tools:
            raise fields.refuse("tool_choice", "requires a tool, and there is none")
        return "required", None
    outer = Fields(value, "tool_choice")
    outer.only("type", "function")
    inner = Fields(outer.take("function"), "tool_choice.function")
    name = inner.required_text("name")
    outer.close()
    inner.close()
    if name not in [tool.name for tool in tools]:
        raise inner.refuse("name", "is not the name of one of the tools")
    return "named", name


def _message(value: object, path: str) -> Message:
    fields = Fields(value, path)
    role = fields.choice("role", "system", "developer", "user", "assistant", "tool")
    if role is None:
        raise fields.refuse("role", "is missing")
    parts = read_parts(fields, path, role)
    cache_control = read_cache_control(fields)
    if cache_control is not None and parts:
        last = parts[-1]
        parts = (*parts[:-1], replace(last, cache_control=last.cache_control or cache_control))
    if role == "assistant":
        message = _assistant(fields, path, parts)
    elif role == "tool":
        # The function's name, of old: its id says which call is answered.
        fields.ignore("name")
        message = Message("tool", path, parts, tool_call_id=fields.required_text("tool_call_id"))
    elif role == "user":
        message = Message("user", path, parts)
    else:
        message = Message("system", path, parts)
    fields.close()
    return message


def _assistant(fields: Fields, path: str, parts: tuple[Part, ...]) -> Message:
    refusal = fields.text("refusal")
    if refusal:
        parts = (*parts, Part("text", f"{path}.refusal", refusal))
    calls = fields.rows("tool_calls")
    details = fields.rows("reasoning_details")
    if not all(isinstance(detail, Mapping) for detail in details):
        raise fields.refuse("reasoning_details", "must be an array of objects")
    # An answer of ours or of OpenAI's, handed back whole: what the model thought is void without its signature, and
    # those are in reasoning_details; annotations and images are echoes of the answer.
    fields.ignore("reasoning_content", "reasoning", "annotations", "images")
    return Message(
        "assistant",
        path,
        parts,
        tool_calls=tuple(_tool_call(each, f"{path}.tool_calls[{at}]") for at, each in enumerate(calls)),
        reasoning_details=details,
    )


def _tool_call(value: object, path: str) -> ToolCall:
    outer = Fields(value, path)
    outer.only("type", "function")
    outer.ignore("index")  # of a streamed call that was put together
    inner = Fields(outer.take("function"), f"{path}.function")
    text = inner.text("arguments") or "{}"
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise inner.refuse("arguments", "must be a JSON object")
    call = ToolCall(outer.required_text("id"), inner.required_text("name"), arguments, _signature(outer))
    outer.close()
    inner.close()
    return call


def _signature(fields: Fields) -> str | None:
    extra = fields.take("extra_content")
    if extra is None:
        return None
    outer = Fields(extra, fields.path("extra_content"))
    inner = Fields(outer.take("google") or {}, outer.path("google"))
    signature = inner.text("thought_signature")
    inner.close()
    outer.close()
    return signature
