"""Responses requests: what OpenAI's Responses API is asked, as a chat completion asks it.

Pure, and written against the types of openai 3.57. Nothing is kept here between two requests, so what builds on an earlier
response is refused, and so are OpenAI's built-in tools and all else that a chat completion has no word for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from routing.chat_fields import Fields
from routing.errors import UnsupportedParameter
from routing.tongues.limits import limit_of

_STATELESS: Final = (
    "needs the provider's own memory of earlier responses, and this model's provider has none; send it all"
)
_LOGPROBS: Final = "message.output_text.logprobs"
FOREIGN: Final = "rs_trimtab_"
"""How the ids of reasoning begin that is not OpenAI's own."""
_ROLES: Final = ("user", "assistant", "system", "developer")


def to_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat completion; raises UnsupportedParameter for what would be lost."""
    fields = Fields(body, "")
    for name in ("previous_response_id", "conversation", "prompt"):
        if fields.take(name) is not None:
            raise fields.refuse(name, _STATELESS)
    if fields.flag("store"):
        raise fields.refuse("store", "this model's provider stores no responses; leave it out, or say false")
    if fields.flag("background"):
        raise fields.refuse("background", "this model's provider answers at once only; leave it out, or say false")
    # Set from the offer, an echo, hints to a cache, and a limit on tools that run at OpenAI, of which there are none.
    fields.ignore("service_tier", "metadata", "prompt_cache_options", "prompt_cache_retention", "max_tool_calls")
    fields.only("truncation", "disabled")
    chat: dict[str, Any] = {"model": fields.take("model")}
    instructions = fields.text("instructions")
    system = [{"role": "system", "content": instructions}] if instructions else []
    chat["messages"] = system + _messages(fields.take("input"))
    max_tokens = fields.whole("max_output_tokens", least=1)
    if max_tokens is not None:
        chat |= limit_of(chat["model"], max_tokens)
    if tools := [_tool(each, f"tools[{at}]") for at, each in enumerate(fields.rows("tools"))]:
        chat["tools"] = tools
    chat |= _tool_choice(fields) | _reasoning(fields) | _text(fields) | _logprobs(fields)
    for name in ("temperature", "top_p", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "user"):
        if (value := fields.take(name)) is not None:
            chat[name] = value
    options = Fields(fields.take("stream_options") or {}, "stream_options")
    options.ignore("include_obfuscation")  # padding against eavesdroppers, which the provider adds or does not
    options.close()
    if fields.flag("stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    fields.close()
    return chat


def native(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body for OpenAI itself: as it is, but for reasoning that another provider's answer was told with."""
    items = body.get("input")
    if not isinstance(items, list) or not any(map(_foreign, items)):
        return body
    return {**body, "input": [item for item in items if not _foreign(item)]}


def _foreign(item: object) -> bool:
    return isinstance(item, Mapping) and item.get("type") == "reasoning" and str(item.get("id")).startswith(FOREIGN)


def _messages(value: object) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list | tuple):
        raise UnsupportedParameter("input", "must be a text or an array of items")
    messages: list[dict[str, Any]] = []
    for at, item in enumerate(value):
        fields = Fields(item, f"input[{at}]")
        kind = fields.take("type") or "message"
        fields.ignore("id", "status", "phase")  # echoes of an answer
        if kind == "reasoning":
            continue  # void to any model but the one that it came from
        if kind == "message":
            messages.append(_message(fields, f"input[{at}]"))
        elif kind == "function_call":
            call = _call(fields)
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            output = _content(fields.take("output"), f"input[{at}].output")
            messages.append({"role": "tool", "tool_call_id": fields.required_text("call_id"), "content": output})
        else:
            raise fields.refuse("type", "is of an item that only OpenAI's own Responses API knows")
        if kind == "function_call_output":
            fields.ignore("name")
        fields.close()
    return messages


def _message(fields: Fields, path: str) -> dict[str, Any]:
    role = fields.choice("role", *_ROLES)
    if role is None:
        raise fields.refuse("role", "is missing")
    return {"role": role, "content": _content(fields.take("content"), f"{path}.content")}


def _call(fields: Fields) -> dict[str, Any]:
    function = {"name": fields.required_text("name"), "arguments": fields.text("arguments") or "{}"}
    return {"id": fields.required_text("call_id"), "type": "function", "function": function}


def _content(value: object, path: str) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise UnsupportedParameter(path, "must be a text or an array of parts")
    parts = [_part(Fields(part, f"{path}[{at}]")) for at, part in enumerate(value)]
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(fields: Fields) -> dict[str, Any]:
    kind = fields.choice("type", "input_text", "output_text", "refusal", "input_image", "input_file")
    fields.ignore("prompt_cache_breakpoint")
    if kind == "refusal":
        part: dict[str, Any] = {"type": "text", "text": fields.text("refusal") or ""}
    elif kind == "input_image":
        _no_file_id(fields)
        image = {"url": fields.required_text("image_url"), "detail": fields.text("detail")}
        part = {"type": "image_url", "image_url": {name: each for name, each in image.items() if each is not None}}
    elif kind == "input_file":
        _no_file_id(fields)
        fields.only("detail", "auto")
        fields.only("file_url")
        file = {"filename": fields.text("filename"), "file_data": fields.required_text("file_data")}
        part = {"type": "file", "file": {name: each for name, each in file.items() if each is not None}}
    elif kind is None:
        raise fields.refuse("type", "is missing")
    else:
        fields.ignore("annotations", "logprobs")  # of an answer that is handed back
        part = {"type": "text", "text": fields.text("text") or ""}
    fields.close()
    return part


def _no_file_id(fields: Fields) -> None:
    if fields.take("file_id") is not None:
        raise fields.refuse("file_id", "is a file of another provider's account")


def _tool(value: object, path: str) -> dict[str, Any]:
    fields = Fields(value, path)
    if fields.take("type") != "function":
        raise fields.refuse("type", "must be function: this model's provider runs none of OpenAI's built-in tools")
    fields.only("allowed_callers", ["direct"])
    fields.only("defer_loading", False)
    fields.ignore("output_schema")  # says what the caller's code gives, and binds no model
    function: dict[str, Any] = {"name": fields.required_text("name")}
    for name in ("description", "parameters", "strict"):
        if (value := fields.take(name)) is not None:
            function[name] = value
    fields.close()
    return {"type": "function", "function": function}


def _tool_choice(fields: Fields) -> dict[str, Any]:
    value = fields.take("tool_choice")
    if value is None or value in ("auto", "none", "required"):
        return {} if value is None else {"tool_choice": value}
    inner = Fields(value, "tool_choice")
    if inner.take("type") != "function":
        raise inner.refuse("type", "must be function, or tool_choice one of auto, none, required")
    chosen = {"type": "function", "function": {"name": inner.required_text("name")}}
    inner.close()
    return {"tool_choice": chosen}


def _reasoning(fields: Fields) -> dict[str, Any]:
    inner = Fields(fields.take("reasoning") or {}, "reasoning")
    effort = inner.text("effort")
    # What the provider shows of its reasoning is passed on, asked for or not.
    inner.ignore("summary", "generate_summary")
    inner.only("context", "auto")
    inner.only("mode", "standard")
    inner.close()
    return {} if effort is None else {"reasoning_effort": effort}


def _text(fields: Fields) -> dict[str, Any]:
    inner = Fields(fields.take("text") or {}, "text")
    asked: dict[str, Any] = {}
    if (verbosity := inner.text("verbosity")) is not None:
        asked["verbosity"] = verbosity
    if (value := inner.take("format")) is not None:
        wanted = Fields(value, "text.format")
        kind = wanted.choice("type", "text", "json_object", "json_schema")
        if kind == "json_schema":
            schema = {name: each for name in _SCHEMA if (each := wanted.take(name)) is not None}
            asked["response_format"] = {"type": kind, "json_schema": schema}
        elif kind == "json_object":
            asked["response_format"] = {"type": kind}
        wanted.close()
    inner.close()
    return asked


_SCHEMA: Final = ("name", "description", "schema", "strict")


def _logprobs(fields: Fields) -> dict[str, Any]:
    """`include`: but for log probabilities it asks for more of what tools do, and of reasoning that is sealed; there is
    neither here."""
    included = fields.rows("include")
    top = fields.whole("top_logprobs", least=0)
    if _LOGPROBS not in included and not top:
        return {}
    return {"logprobs": True} | ({"top_logprobs": top} if top else {})
