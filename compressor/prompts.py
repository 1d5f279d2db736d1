"""Prompts: where a model's texts stand in a request, one row for each API that requests come in.

A reader walks a body and names every text in it with what may be done to it. It knows the shapes of the APIs and nothing
of what a text says; what looks like no text of its API is left to whoever answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

Path = tuple[str | int, ...]
Role = Literal["fixed", "user", "tool", "system", "context"]

CACHE_MARKS: Final = ("cache_control", "prompt_cache_breakpoint")
"""Fields of a block that end a prefix which the provider is to cache: Anthropic's, and OpenAI's."""


class BadPayload(ValueError):
    """A request that cannot be understood. `param` names the field in the caller's own terms."""

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(f"{param}: {reason}")
        self.param = param
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Text:
    """A text that the model reads, `path` from the body's root; an empty path for one that nothing is ever done to.

    `role`: "user" and "tool" texts are searched for context, "system" ones for the known templates of context alone, a
    "context" is one as a whole (called `title`, and `form` says what holds it), and "fixed" ones stay. `turn` is the
    message's number among those of the conversation, -1 for what stands outside of it. `ends_prefix`: the provider is to
    cache everything up to here, so that none of it may change. `cited`: the answer will point into it.
    """

    path: Path
    text: str
    role: Role = "fixed"
    turn: int = -1
    title: str = ""
    ends_prefix: bool = False
    cited: bool = False
    form: str = ""


@dataclass(frozen=True, slots=True)
class Api:
    """One row. `turns` is the field that holds the conversation. `texts` are all of a body's texts, in order; it raises
    BadPayload where the conversation is not what the API promises. `blank` is what a text becomes of which nothing is
    kept, for APIs that take no empty one."""

    name: str
    turns: str
    texts: Callable[[Mapping[str, Any]], Iterator[Text]]
    blank: str = ""


# --- chat completions -------------------------------------------------------------------------------------------------

DOCUMENT: Final = "document block"
SEARCH_RESULT: Final = "search result"
FILE_SEARCH_RESULT: Final = "file search result"

_CHAT_ROLES: Final[Mapping[str, Role]] = {
    **{"user": "user", "tool": "tool", "function": "tool"},
    **{"system": "system", "developer": "system"},
}


def _chat(body: Mapping[str, Any]) -> Iterator[Text]:
    for turn, message in enumerate(_messages(body)):
        role = _CHAT_ROLES.get(message["role"], "fixed")
        yield Text((), "", role, turn)
        yield from _contents(("messages", turn, "content"), message.get("content"), role, turn)
        yield from fixed(message.get("tool_calls"), turn)
        if _marked(message):
            yield Text((), "", ends_prefix=True)
    yield from fixed(body.get("tools"))
    yield from fixed(body.get("response_format"))


def _contents(path: Path, content: object, role: Role, turn: int) -> Iterator[Text]:
    """The texts of a string, or of parts that have a `text`."""
    if isinstance(content, str):
        yield Text(path, content, role, turn)
    for at, part in enumerate(content if isinstance(content, list) else ()):
        if isinstance(part, Mapping):
            if isinstance(part.get("text"), str):
                yield Text((*path, at, "text"), part["text"], role, turn)
            if _marked(part):
                yield Text((), "", ends_prefix=True)


# --- Anthropic's messages ---------------------------------------------------------------------------------------------


_MESSAGE_ROLES: Final[Mapping[str, Role]] = {"user": "user", "system": "system", "developer": "system"}


def _anthropic(body: Mapping[str, Any]) -> Iterator[Text]:
    yield from fixed(body.get("tools"))
    yield from _contents(("system",), body.get("system"), "system", -1)
    yield from fixed(body.get("output_config"))
    for turn, message in enumerate(_messages(body)):
        role = _MESSAGE_ROLES.get(message["role"], "fixed")
        path = ("messages", turn, "content")
        content = message.get("content")
        if isinstance(content, str):
            yield Text(path, content, role, turn)
        for at, block in enumerate(content if isinstance(content, list) else ()):
            if isinstance(block, Mapping):
                yield from _block((*path, at), block, role, turn)
    if _marked(body):  # stands for a mark on the last block
        yield Text((), "", ends_prefix=True)


def _block(path: Path, block: Mapping[str, Any], role: Role, turn: int) -> Iterator[Text]:
    kind, content = block.get("type"), block.get("content")
    if kind == "text" and isinstance(block.get("text"), str):
        yield Text((*path, "text"), block["text"], role, turn)
    elif kind == "document":
        yield from fixed([block.get("title"), block.get("context")], turn)
        yield from _held(block, _document((*path, "source"), block, turn))
    elif kind == "search_result":
        yield from fixed([block.get("title"), block.get("source")], turn)
        yield from _held(block, _inner((*path, "content"), content, turn, _title(block), SEARCH_RESULT))
    elif kind == "tool_result":
        yield Text((), "", "tool", turn)
        if isinstance(content, str):
            yield Text((*path, "content"), content, "tool", turn)
        for at, each in enumerate(content if isinstance(content, list) else ()):
            if isinstance(each, Mapping):
                yield from _block((*path, "content", at), each, "tool", turn)
    elif kind != "image":
        yield from fixed({name: value for name, value in block.items() if name != "data"}, turn)
    if _marked(block):
        yield Text((), "", ends_prefix=True)


def _document(path: Path, block: Mapping[str, Any], turn: int) -> Iterator[Text]:
    source = block.get("source")
    if isinstance(source, Mapping) and source.get("type") == "text" and isinstance(source.get("data"), str):
        yield Text((*path, "data"), source["data"], "context", turn, _title(block), form=DOCUMENT)
    elif isinstance(source, Mapping) and source.get("type") == "content":
        yield from _inner((*path, "content"), source.get("content"), turn, _title(block), DOCUMENT)


def _inner(path: Path, content: object, turn: int, title: str, form: str) -> Iterator[Text]:
    return (replace(text, title=title, form=form) for text in _contents(path, content, "context", turn))


def _held(block: Mapping[str, Any], texts: Iterator[Text]) -> Iterator[Text]:
    citations = block.get("citations")
    cited = isinstance(citations, Mapping) and citations.get("enabled") is True
    return (replace(text, cited=True) if cited else text for text in texts)


def documents(body: Mapping[str, Any]) -> tuple[Path, ...]:
    """Where the documents of an Anthropic body stand, in the order in which citations count them."""
    found: list[Path] = []
    for turn, message in enumerate(_messages(body)):
        found += _documents(("messages", turn, "content"), message.get("content"))
    return tuple(found)


def _documents(path: Path, content: object) -> Iterator[Path]:
    for at, block in enumerate(content if isinstance(content, list) else ()):
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "document":
            yield (*path, at)
        elif kind == "tool_result":
            yield from _documents((*path, at, "content"), block.get("content"))


def _title(block: Mapping[str, Any]) -> str:
    title = block.get("title")
    return title if isinstance(title, str) else ""


# --- OpenAI's responses -----------------------------------------------------------------------------------------------

_OUTPUTS: Final = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")


def _responses(body: Mapping[str, Any]) -> Iterator[Text]:
    yield from fixed(body.get("tools"))
    yield from _contents(("instructions",), body.get("instructions"), "system", -1)
    yield from fixed(body.get("text"))
    items = body.get("input")
    if isinstance(items, str):
        yield Text(("input",), items, "user", 0)
        return
    if items is not None and not isinstance(items, list):
        raise BadPayload("input", "must be a text or a list of items")
    for turn, item in enumerate(items or ()):
        if not isinstance(item, Mapping):
            raise BadPayload(f"input.{turn}", "must be an object")
        yield from _item(("input", turn), item, turn)


def _item(path: Path, item: Mapping[str, Any], turn: int) -> Iterator[Text]:
    kind = item.get("type")
    if kind in (None, "message"):
        role = _MESSAGE_ROLES.get(str(item.get("role")), "fixed")
        yield Text((), "", role, turn)
        yield from _contents((*path, "content"), item.get("content"), role, turn)
    elif kind in _OUTPUTS:
        yield from _contents((*path, "output"), item.get("output"), "tool", turn)
    elif kind == "file_search_call":
        results = item.get("results")
        for at, result in enumerate(results if isinstance(results, list) else ()):
            if isinstance(result, Mapping) and isinstance(result.get("text"), str):
                title = result.get("filename")
                title = title if isinstance(title, str) else ""
                yield Text(
                    (*path, "results", at, "text"), result["text"], "context", turn, title, form=FILE_SEARCH_RESULT
                )
        yield from fixed(item.get("queries"), turn)
    else:
        yield from fixed({name: value for name, value in item.items() if name != "encrypted_content"}, turn)


# --- all of them ------------------------------------------------------------------------------------------------------


def _messages(body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadPayload("messages", "must be a list with at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise BadPayload(f"messages.{number}", 'must be an object with a "role"')
    return messages


def _marked(block: Mapping[str, Any]) -> bool:
    return any(block.get(name) is not None for name in CACHE_MARKS)


def fixed(value: object, turn: int = -1) -> Iterator[Text]:
    """Keys and values of a JSON tree, as a provider would count them in a prompt."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield Text((), item, turn=turn)
        elif isinstance(item, Mapping):
            stack.extend((*item.keys(), *item.values()))
        elif isinstance(item, list):
            stack.extend(item)


CHAT: Final = Api("chat completions", "messages", _chat)
MESSAGES: Final = Api("messages", "messages", _anthropic, blank="…")
RESPONSES: Final = Api("responses", "input", _responses, blank="…")
EMBEDDINGS: Final = Api("embeddings", "input", lambda body: fixed(body.get("input")))
