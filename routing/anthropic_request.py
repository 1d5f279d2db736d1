"""Anthropic requests: a chat completion as the Messages API takes it.

Pure. Written against the types of anthropic 2.12 and API version 2026-10-21 (platform.claude.com, "API versioning"),
which has no temperature, top_p and top_k any more; the models that still take them are asked in version 2023-06-01.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from routing.anthropic_models import Traits, traits_of
from routing.chat_parts import Part
from routing.chat_request import ChatRequest, Message, Tool
from routing.conversion import Outgoing
from routing.errors import UnsupportedParameter
from routing.output_schema import Dialect, enforceable

VERSION: Final = "2026-10-21"
SAMPLING_VERSION: Final = "2023-06-01"
"""The version that still knows temperature, top_p and top_k. Servers that copy the API know this one."""

DEFAULT_MAX_TOKENS: Final = 32_000
"""Where the caller sets no limit, since this API must have one. Within the limits of every model of anthropic 2.12
(64k or 128k); a higher one would refuse some of them, and a longer answer ends with finish_reason "length"."""

_BUDGETS: Final = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
"""Thinking tokens for models that take a budget and no effort: what Google's OpenAI-compatible endpoint makes of the
same words, so that one word means one thing on both wires."""
_LEAST_BUDGET: Final = 1_024

# The SDK's `lib/_parse/_transform.py`; what it moves into a description is not enforced, and refused here.
_SCHEMA: Final = Dialect(
    keywords=frozenset(
        (
            *("type", "enum", "const", "anyOf", "allOf", "$ref", "$defs", "definitions", "title", "description"),
            *("properties", "required", "additionalProperties", "items", "minItems", "format"),
        )
    ),
    formats=frozenset(
        ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"),
    ),
    closed_objects=True,
    const=True,
    least_items=1,
)
_IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LONGEST_USER: Final = 256


def encode(request: ChatRequest, model: str, stream: bool) -> Outgoing:
    """The body of POST /v1/messages; raises UnsupportedParameter for what it, or this model, cannot be asked."""
    traits = traits_of(model)
    _refuse_what_is_not_there(request)
    body: dict[str, Any] = {"model": model, "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS}
    system, messages = _conversation(request, traits)
    if system:
        body["system"] = system
    body["messages"] = messages
    if request.tools:
        body["tools"] = [_tool(tool, traits) for tool in request.tools]
    if choice := _tool_choice(request, traits):
        body["tool_choice"] = choice
    thinking, effort = _thinking(request, traits, body["max_tokens"])
    if thinking:
        body["thinking"] = thinking
    output = ({"effort": effort} if effort else {}) | _format(request, traits)
    if output:
        body["output_config"] = output
    sampling = _sampling(request, traits)
    body |= sampling
    if request.stop:
        body["stop_sequences"] = _stop(request.stop)
    if request.user and len(request.user) <= _LONGEST_USER:
        body["metadata"] = {"user_id": request.user}
    if stream:
        body["stream"] = True
    version = SAMPLING_VERSION if sampling or not traits.official else VERSION
    return Outgoing("/v1/messages", body, headers=(("anthropic-version", version),))


def _refuse_what_is_not_there(request: ChatRequest) -> None:
    for name, value in (
        ("seed", request.seed),
        ("presence_penalty", request.presence_penalty),
        ("frequency_penalty", request.frequency_penalty),
        ("logprobs", request.logprobs or None),
    ):
        if value is not None:
            raise UnsupportedParameter(name, "has no counterpart in Anthropic's API")
    if request.n > 1:
        raise UnsupportedParameter("n", "Anthropic gives one answer for a request")


def _stop(stop: tuple[str, ...]) -> list[str]:
    if not all(each.strip() for each in stop):
        raise UnsupportedParameter("stop", "Anthropic takes no stop sequence that is white space only")
    return list(stop)


def _sampling(request: ChatRequest, traits: Traits) -> dict[str, Any]:
    given = {name: value for name in ("temperature", "top_p", "top_k") if (value := getattr(request, name)) is not None}
    if not given:
        return {}
    first = next(iter(given))
    if not traits.sampling:
        raise UnsupportedParameter(first, "is not taken by this model, which samples as it is made to")
    if request.reasoning_effort not in (None, "none"):
        raise UnsupportedParameter(first, "cannot be set while the model reasons")
    if len(given) > 1 and traits.one_sampling and "top_k" not in given:
        raise UnsupportedParameter("top_p", "cannot be set together with temperature for this model")
    if not 0.0 <= given.get("temperature", 0.0) <= 1.0:
        raise UnsupportedParameter("temperature", "must be between 0 and 1 for Anthropic")
    if not 0.0 <= given.get("top_p", 0.0) <= 1.0:
        raise UnsupportedParameter("top_p", "must be between 0 and 1")
    return given


def _thinking(request: ChatRequest, traits: Traits, max_tokens: int) -> tuple[dict[str, Any] | None, str | None]:
    """The `thinking` and the `output_config.effort` that the caller's reasoning effort asks for."""
    asked = request.reasoning_effort
    forced = request.tool_choice in ("required", "named")
    if asked is None:
        # A model that thinks unless told otherwise takes no forced tool choice while it does.
        return ({"type": traits.off}, None) if forced and traits.thinks_unasked and traits.off else (None, None)
    if asked == "none":
        if traits.thinking == "none":
            return None, None
        if traits.off is None:
            raise UnsupportedParameter("reasoning_effort", "this model's reasoning cannot be switched off")
        return {"type": traits.off}, None
    if traits.thinking == "none":
        raise UnsupportedParameter("reasoning_effort", "this model does not reason")
    if forced:
        raise UnsupportedParameter("reasoning_effort", "Anthropic forces no tool call on a model that reasons")
    if traits.thinking == "adaptive":
        effort = "low" if asked == "minimal" else asked  # the lowest there is
        if effort not in traits.efforts:
            raise UnsupportedParameter("reasoning_effort", f"this model takes {', '.join(traits.efforts)}")
        # Without this, newer models send their thinking blocks empty.
        return {"type": "adaptive", "display": "summarized"}, effort
    if asked not in _BUDGETS:
        raise UnsupportedParameter("reasoning_effort", f"this model takes {', '.join(_BUDGETS)}")
    # Some of the output is left for the answer itself: thinking counts towards max_tokens.
    budget = min(_BUDGETS[asked], max_tokens * 4 // 5)
    if budget < _LEAST_BUDGET:
        raise UnsupportedParameter("reasoning_effort", f"needs max_tokens of {_LEAST_BUDGET * 5 // 4} or more")
    if _calls_unsigned(request.messages):
        raise UnsupportedParameter(
            "reasoning_effort", "this model reasons on only where the reasoning_details of its tool calls are sent back"
        )
    return {"type": "enabled", "budget_tokens": budget}, None


def _calls_unsigned(messages: tuple[Message, ...]) -> bool:
    """Whether the conversation ends in tool results whose calls came without the thinking that led to them."""
    if messages[-1].role != "tool":
        return False
    last = next((message for message in reversed(messages) if message.role == "assistant"), None)
    return last is not None and not last.reasoning_details


def _format(request: ChatRequest, traits: Traits) -> dict[str, Any]:
    wanted = request.response_format
    if wanted is None:
        return {}
    if wanted.schema is None:
        raise UnsupportedParameter("response_format", "Anthropic gives JSON by a schema only; use json_schema")
    if not traits.structured:
        raise UnsupportedParameter("response_format", "this model's answers cannot be held to a schema")
    schema = enforceable(wanted.schema, _SCHEMA, "response_format.json_schema.schema")
    if wanted.description:
        schema.setdefault("description", wanted.description)
    return {"format": {"type": "json_schema", "schema": schema}}


def _tool(tool: Tool, traits: Traits) -> dict[str, Any]:
    out: dict[str, Any] = {"name": tool.name, "input_schema": dict(tool.parameters)}
    if tool.parameters.get("type") != "object":
        raise UnsupportedParameter(f"{tool.path}.parameters.type", "must be object for Anthropic")
    if tool.description is not None:
        out["description"] = tool.description
    if tool.strict:
        if not traits.structured:
            raise UnsupportedParameter(f"{tool.path}.strict", "this model's calls cannot be held to a schema")
        out |= {"strict": True, "input_schema": enforceable(tool.parameters, _SCHEMA, f"{tool.path}.parameters")}
    if tool.cache_control is not None:
        out["cache_control"] = tool.cache_control
    return out


def _tool_choice(request: ChatRequest, traits: Traits) -> dict[str, Any] | None:
    if not request.tools:
        return None
    choice: dict[str, Any] = {"type": {"required": "any", "named": "tool"}.get(request.tool_choice or "auto", "auto")}
    if request.tool_choice == "none":
        return {"type": "none"}
    if choice["type"] != "auto" and not traits.forced_tools:
        raise UnsupportedParameter("tool_choice", "this model cannot be made to call a tool")
    if request.tool_choice == "named":
        choice["name"] = request.named_tool
    if request.parallel_tool_calls is False:
        return {**choice, "disable_parallel_tool_use": True}
    return choice if request.tool_choice is not None else None


def _conversation(request: ChatRequest, traits: Traits) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`system` and `messages`. Neighbours of one role become one message, and tool results are a user's.

    A system message in the middle keeps its place where the model knows that and the place is allowed (after a user's
    turn, before an assistant's or at the end); else it goes up to the others, as Anthropic's own OpenAI-compatible
    endpoint does it.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    messages = request.messages
    for at, message in enumerate(messages):
        if message.role == "system":
            blocks = [_text(part) for part in message.parts if part.text.strip()]
            follows_user = bool(turns) and turns[-1]["role"] == "user"
            stays = follows_user and (at + 1 == len(messages) or messages[at + 1].role == "assistant")
            if blocks and stays and traits.system_turns:
                turns.append({"role": "system", "content": blocks})
            else:
                system += blocks
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise UnsupportedParameter(
            "messages", "Anthropic needs a message of a user or an assistant that says something"
        )
    if turns[-1]["role"] == "assistant" and not traits.prefill:
        raise UnsupportedParameter("messages", "the last one is the assistant's, and this model does not go on from it")
    return system, turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    content = [_block(part) for part in message.parts if part.kind != "text" or part.text.strip()]
    if message.role == "tool":
        return [_tool_result(message, content)]
    if message.role == "user":
        return content
    calls = [
        {"type": "tool_use", "id": _tool_id(call.id), "name": call.name, "input": call.arguments}
        for call in message.tool_calls
    ]
    return [*_thoughts(message), *content, *calls]


def _tool_result(message: Message, content: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": _tool_id(message.tool_call_id)}
    # A mark for the cache stands on the result itself, the outermost block.
    marked = content[-1].pop("cache_control", None) if content else None
    if marked is not None:
        result["cache_control"] = marked
    if content:
        result["content"] = content
    return result


def _tool_id(call_id: str) -> str:
    """The id itself where Anthropic takes it; else another, the same for the call and for its result."""
    if _ID.fullmatch(call_id):
        return call_id
    return "call_" + hashlib.sha256(call_id.encode(errors="surrogatepass")).hexdigest()[:24]


def _thoughts(message: Message) -> list[dict[str, Any]]:
    """The signed thinking that an earlier answer of this wire came with. Another model's is void here."""
    found: list[dict[str, Any]] = []
    for detail in message.reasoning_details:
        signature, data = detail.get("signature"), detail.get("data")
        if detail.get("format") not in (None, "anthropic-claude-v1"):
            continue
        if detail.get("type") == "reasoning.text" and isinstance(signature, str) and signature:
            text = detail.get("text")
            thinking = text if isinstance(text, str) else ""
            found.append({"type": "thinking", "thinking": thinking, "signature": signature})
        elif detail.get("type") == "reasoning.encrypted" and isinstance(data, str):
            found.append({"type": "redacted_thinking", "data": data})
    return found


def _text(part: Part) -> dict[str, Any]:
    return _marked({"type": "text", "text": part.text}, part.cache_control)


def _block(part: Part) -> dict[str, Any]:
    if part.kind == "text":
        return _text(part)
    if part.kind == "audio":
        raise UnsupportedParameter(part.path, "Anthropic's models do not listen")
    if part.kind == "file":
        return _marked(_document(part), part.cache_control)
    if part.detail in ("low", "original"):
        raise UnsupportedParameter(f"{part.path}.detail", "Anthropic has one level of detail")
    if part.url:
        return _marked({"type": "image", "source": {"type": "url", "url": part.url}}, part.cache_control)
    if part.media_type not in _IMAGE_TYPES:
        raise UnsupportedParameter(f"{part.path}.url", f"must be one of {', '.join(_IMAGE_TYPES)}")
    source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    return _marked({"type": "image", "source": source}, part.cache_control)


def _document(part: Part) -> dict[str, Any]:
    if part.media_type == "application/pdf":
        source = {"type": "base64", "media_type": "application/pdf", "data": part.data}
    elif part.media_type == "text/plain":
        try:
            text = part.decoded.decode()
        except UnicodeDecodeError:
            raise UnsupportedParameter(f"{part.path}.file_data", "is not UTF-8") from None
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        raise UnsupportedParameter(f"{part.path}.file_data", "must be application/pdf or text/plain for Anthropic")
    return {"type": "document", "source": source} | ({"title": part.name} if part.name else {})


def _marked(block: dict[str, Any], cache_control: Mapping[str, Any] | None) -> dict[str, Any]:
    return block if cache_control is None else {**block, "cache_control": cache_control}
