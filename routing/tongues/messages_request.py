"""Messages requests: what Anthropic's clients ask, as a chat completion asks it.

Pure; the mirror of `anthropic_request`, and written against the types of anthropic 2.13. A body is read to its last field,
and whatever a chat completion has no word for is refused. What changes no answer, the marks for the cache above all, is
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

from routing.chat_answer import arguments_of
from routing.chat_fields import Fields
from routing.chat_parts import read_cache_control
from routing.errors import UnsupportedParameter
from routing.streams import Garbage
from routing.tongues.limits import limit_of

_IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_EFFORTS: Final = ((1_024, "low"), (8_192, "medium"))
"""Up to how many tokens of thinking are which effort; more is "high". The mirror of `anthropic_request`'s budgets."""
ERROR_MARK: Final = "Error: "
"""Stands before a result that the caller says is an error: a chat completion has no other way to say it."""


def to_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat completion; raises UnsupportedParameter for what would be lost."""
    fields = Fields(body, "")
    # How a call is bought is the offer's to say; where a cache ends changes no answer.
    fields.ignore("service_tier")
    read_cache_control(fields)
    fields.only("speed", "standard")
    chat: dict[str, Any] = {"model": fields.take("model")}
    messages = _system(fields.take("system"))
    for at, message in enumerate(fields.rows("messages")):
        messages += _turn(message, f"messages[{at}]")
    chat["messages"] = messages
    max_tokens = fields.whole("max_tokens", least=1)
    if max_tokens is None:
        raise fields.refuse("max_tokens", "is missing")
    chat |= limit_of(chat["model"], max_tokens)
    if tools := [_tool(each, f"tools[{at}]") for at, each in enumerate(fields.rows("tools"))]:
        chat["tools"] = tools
    chat |= _tool_choice(fields) | _reasoning(fields)
    if stop := fields.rows("stop_sequences"):
        chat["stop"] = list(stop)
    for name in ("temperature", "top_p", "top_k"):
        if (value := fields.take(name)) is not None:
            chat[name] = value
    metadata = Fields(fields.take("metadata") or {}, "metadata")
    if user := metadata.text("user_id"):
        chat["user"] = user
    metadata.close()
    if fields.flag("stream"):
        # Anthropic's streams always say what they took.
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    fields.close()
    return chat


def native(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body for Anthropic itself: as it is, but for thinking that is not signed.

    That was another provider's, told as thinking by `messages_answer`; Anthropic would refuse the whole conversation
    for it, as when the first provider is down and this one takes over.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(_unsigned(block) for each in messages for block in _content_of(each)):
        return body
    left = [
        {**each, "content": [block for block in _content_of(each) if not _unsigned(block)]}
        if _content_of(each)
        else each
        for each in messages
    ]
    return {**body, "messages": left}


def _content_of(message: object) -> list[Any]:
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, list) else []


def _unsigned(block: object) -> bool:
    return isinstance(block, Mapping) and block.get("type") == "thinking" and not block.get("signature")


def _system(value: object) -> list[dict[str, Any]]:
    if value is None:
        return []
    content = _content(value, "system", ("text",))
    return [{"role": "system", "content": content}] if content else []


def _turn(value: object, path: str) -> list[dict[str, Any]]:
    """The messages that one of Anthropic's is: results of tools are messages of their own, and go first."""
    fields = Fields(value, path)
    role = fields.choice("role", "user", "assistant", "system")
    content = fields.take("content")
    fields.close()
    if role is None:
        raise fields.refuse("role", "is missing")
    if role == "assistant":
        return [_assistant(content, f"{path}.content")]
    if role == "system" or isinstance(content, str):
        return [{"role": role, "content": _content(content, f"{path}.content", ("text",))}]
    results: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for at, block in enumerate(_blocks(content, f"{path}.content")):
        where = f"{path}.content[{at}]"
        if isinstance(block, Mapping) and block.get("type") == "tool_result":
            results.append(_result(block, where))
        else:
            rest += _parts(block, where, _USERS)
    return results + ([{"role": "user", "content": _plain(rest)}] if rest else [])


def _assistant(content: object, path: str) -> dict[str, Any]:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for at, block in enumerate(_blocks(content, path)):
        where = f"{path}[{at}]"
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind in ("thinking", "redacted_thinking"):
            continue  # void to any model but the one that signed it, as Anthropic has it too
        if kind == "tool_use":
            calls.append(_call(Fields(block, where)))
        else:
            parts += _parts(block, where, ("text",))
    message: dict[str, Any] = {"role": "assistant", "content": _plain(parts) if parts else None}
    return message | ({"tool_calls": calls} if calls else {})


def _call(fields: Fields) -> dict[str, Any]:
    fields.only("type", "tool_use")
    fields.ignore("caller")  # an echo of the answer
    read_cache_control(fields)
    try:
        arguments = arguments_of(fields.take("input"))
    except Garbage:
        raise fields.refuse("input", "is nested too deeply") from None
    function = {"name": fields.required_text("name"), "arguments": arguments}
    call = {"id": fields.required_text("id"), "type": "function", "function": function}
    fields.close()
    return call


def _result(block: Mapping[str, Any], path: str) -> dict[str, Any]:
    fields = Fields(block, path)
    fields.ignore("type")
    read_cache_control(fields)
    call_id = fields.required_text("tool_use_id")
    content = fields.take("content")
    said = "" if content is None else _content(content, f"{path}.content", _RESULTS)
    if fields.flag("is_error"):
        said = ERROR_MARK + said if isinstance(said, str) else [{"type": "text", "text": ERROR_MARK}, *said]
    fields.close()
    return {"role": "tool", "tool_call_id": call_id, "content": said}


_USERS: Final = ("text", "image", "document", "search_result")
_RESULTS: Final = _USERS


def _content(value: object, path: str, kinds: tuple[str, ...]) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    return _plain(
        [part for at, block in enumerate(_blocks(value, path)) for part in _parts(block, f"{path}[{at}]", kinds)]
    )


def _plain(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """One text as a string, which every server takes."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _blocks(value: object, path: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UnsupportedParameter(path, "must be a text or an array of blocks")
    return value


def _parts(block: object, path: str, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """The parts that a block is: mostly one."""
    fields = Fields(block, path)
    kind = fields.choice("type", *kinds)
    if kind is None:
        raise fields.refuse("type", "is missing")
    read_cache_control(fields)
    if kind == "text":
        fields.ignore("citations")  # of an answer that is handed back: the text stands without them
        parts = [_text(fields.text("text") or "")]
    elif kind == "image":
        parts = [_image(Fields(fields.take("source"), f"{path}.source"))]
    else:
        citations = Fields(fields.take("citations") or {}, f"{path}.citations")
        citations.only("enabled", False)
        citations.close()
        parts = _document(fields, path) if kind == "document" else _search_result(fields, path)
    fields.close()
    return parts


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(source: Fields) -> dict[str, Any]:
    kind = source.choice("type", "base64", "url")
    if kind == "url":
        url = source.required_text("url")
    else:
        url = f"data:{source.choice('media_type', *_IMAGE_TYPES)};base64,{source.required_text('data')}"
    source.close()
    return {"type": "image_url", "image_url": {"url": url}}


def _document(fields: Fields, path: str) -> list[dict[str, Any]]:
    """A PDF as a file; a text in tags, as trimtab itself writes contexts."""
    title, context = fields.text("title"), fields.text("context")
    source = Fields(fields.take("source"), f"{path}.source")
    kind = source.choice("type", "base64", "text", "content")
    if kind == "base64":
        source.only("media_type", "application/pdf")
        data = f"data:application/pdf;base64,{source.required_text('data')}"
        source.close()
        note = [_text(f"{title or 'document.pdf'}: {context}")] if context else []
        return [*note, {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}]
    if kind == "text":
        source.only("media_type", "text/plain")
        parts = [_text(source.text("data") or "")]
    elif kind == "content":
        parts = _listed(_content(source.take("content"), f"{path}.source.content", ("text", "image")))
    else:
        raise source.refuse("type", "is missing")
    source.close()
    return _tagged("document", {"title": title, "context": context}, parts)


def _search_result(fields: Fields, path: str) -> list[dict[str, Any]]:
    attributes = {"title": fields.text("title"), "source": fields.text("source")}
    parts = _listed(_content(fields.take("content"), f"{path}.content", ("text",)))
    return _tagged("search_result", attributes, parts)


def _listed(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_text(content)] if isinstance(content, str) else content


def _tagged(name: str, attributes: Mapping[str, str | None], parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    said = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items() if value)
    if len(parts) == 1 and parts[0]["type"] == "text":
        return [_text(f"<{name}{said}>\n{parts[0]['text']}\n</{name}>")]
    return [_text(f"<{name}{said}>"), *parts, _text(f"</{name}>")]


def _tool(value: object, path: str) -> dict[str, Any]:
    fields = Fields(value, path)
    # A tool with a type of its own runs at Anthropic, or is one that only its models were taught.
    fields.only("type", "custom")
    read_cache_control(fields)
    # How a call's arguments are streamed, and "from the model itself", which is the only way here.
    fields.ignore("eager_input_streaming")
    fields.only("allowed_callers", ["direct"])
    fields.only("defer_loading", False)
    schema = fields.take("input_schema")
    if not isinstance(schema, Mapping):
        raise fields.refuse("input_schema", "must be an object")
    function = {"name": fields.required_text("name"), "description": fields.text("description"), "parameters": schema}
    function = {name: each for name, each in function.items() if each is not None}
    strict = fields.flag("strict")
    fields.close()
    return {"type": "function", "function": function | ({"strict": strict} if strict is not None else {})}


def _tool_choice(fields: Fields) -> dict[str, Any]:
    value = fields.take("tool_choice")
    if value is None:
        return {}
    inner = Fields(value, "tool_choice")
    kind = inner.choice("type", "auto", "any", "tool", "none")
    chosen: dict[str, Any] = {"tool_choice": {"any": "required"}.get(str(kind), kind)}
    if kind == "tool":
        chosen = {"tool_choice": {"type": "function", "function": {"name": inner.required_text("name")}}}
    if inner.flag("disable_parallel_tool_use"):
        chosen["parallel_tool_calls"] = False
    inner.close()
    return chosen


def _reasoning(fields: Fields) -> dict[str, Any]:
    """`thinking` and `output_config`: how much it may think, and what the answer must look like."""
    asked: dict[str, Any] = {}
    thinking = Fields(fields.take("thinking") or {}, "thinking")
    kind = thinking.choice("type", "enabled", "adaptive", "between_tools", "disabled")
    thinking.choice("display", "summarized", "omitted")  # what is thought is shown as the provider shows it
    if kind == "enabled":
        budget = thinking.whole("budget_tokens", least=1) or 0
        asked["reasoning_effort"] = next((effort for most, effort in _EFFORTS if budget <= most), "high")
    elif kind in ("disabled", "between_tools"):
        asked["reasoning_effort"] = "none"
    thinking.close()
    output = Fields(fields.take("output_config") or {}, "output_config")
    effort = output.choice("effort", "low", "medium", "high", "xhigh", "max")
    if effort is not None and asked.get("reasoning_effort") != "none":
        asked["reasoning_effort"] = effort
    if (value := output.take("format")) is not None:
        inner = Fields(value, "output_config.format")
        inner.only("type", "json_schema")
        schema = {"name": "answer", "strict": True, "schema": inner.take("schema")}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
        inner.close()
    output.close()
    return asked
