"""Payload: a request as trimtab sees it, the texts that may be cut told from everything that may not.

Parsing finds the sources; `rebuilt` puts kept texts back. All else, unknown fields included, passes through as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from compressor.ranking import Kept
from compressor.recognition import Block, find_blocks, outside
from compressor.segments import Source

OPTIONS = "trimtab"


class BadPayload(ValueError):
    """A request that cannot be understood. `param` names the field in the caller's own terms."""

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(f"{param}: {reason}")
        self.param = param
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the messages a source stands: message, content part (None: the content is a string), and the block in it."""

    message: int
    part: int | None
    block: Block


@dataclass(frozen=True, slots=True)
class Payload:
    """A parsed chat request. `places[i]` is where `sources[i]` came from; None for contexts given beside the messages."""

    query: str
    sources: tuple[Source, ...]
    places: tuple[Place | None, ...]
    body: Mapping[str, Any]

    def rebuilt(self, kept: Sequence[Kept]) -> dict[str, Any]:
        """The body to forward: each source replaced by what is kept of it, our own options taken out.

        Contexts given beside the messages are written before the last user message, in a message of their own, so that
        every message of the caller stays as it was.
        """
        by_place: dict[tuple[int, int | None], list[tuple[Block, str]]] = {}
        beside: list[tuple[Source, str]] = []
        for source, place, keep in zip(self.sources, self.places, kept, strict=True):
            if place is None:
                beside.append((source, keep.text))
            else:
                by_place.setdefault((place.message, place.part), []).append((place.block, keep.text))
        messages = [
            _with_blocks(message, {part: edits for (m, part), edits in by_place.items() if m == number})
            for number, message in enumerate(self.body["messages"])
        ]
        if written := written_contexts(beside):
            messages.insert(_last_user(messages), {"role": "user", "content": written})
        return {name: value for name, value in self.body.items() if name != OPTIONS} | {"messages": messages}

    def fixed_texts(self) -> Iterator[str]:
        """Every text that is sent whatever is cut, as an upper bound: protected words, tools, and the tags around contexts."""
        blocks: dict[tuple[int, int | None], list[Block]] = {}
        for source, place in zip(self.sources, self.places, strict=True):
            if place is None:
                yield _written(source, "")
            else:
                inner = replace(place.block, outer_start=place.block.start, outer_end=place.block.end)
                blocks.setdefault((place.message, place.part), []).append(inner)
        for number, message in enumerate(self.body["messages"]):
            for part, text in _texts(message):
                yield from outside(text, tuple(blocks.get((number, part), ())))
            yield from _strings(message.get("tool_calls"))
        yield from _strings(self.body.get("tools"))
        yield from _strings(self.body.get("response_format"))


def parse_chat(body: Mapping[str, Any], contexts: Sequence[Source] = (), query: str | None = None) -> Payload:
    """A chat completion's body, with what its `trimtab` object said: `contexts` and `query`.

    Without `contexts`, they are looked for in user and tool messages (`recognition`). Without `query`, it is what the
    last user message says outside its context. Raises BadPayload where `messages` is not what the wire promises.
    """
    messages = _checked_messages(body)
    found: list[tuple[Source, Place | None]] = [(source, None) for source in contexts]
    if not contexts:
        for number, message in enumerate(messages):
            if message["role"] in ("user", "tool", "function"):
                for part, text in _texts(message):
                    for block in find_blocks(text, whole=message["role"] != "user"):
                        name = f"messages.{number}" + ("" if part is None else f".{part}") + f":{block.start}"
                        source = Source(name, text[block.start : block.end], block.title)
                        found.append((source, Place(number, part, block)))
    places = tuple(place for _, place in found)
    query = query if query is not None else _question(messages, places)
    return Payload(query, tuple(source for source, _ in found), places, body)


def written_contexts(contexts: Sequence[tuple[Source, str]]) -> str:
    """Kept contexts as one text, each in a `<document>` tag with its title; those of which nothing is kept are left out."""
    documents = [_written(source, text) for source, text in contexts if text]
    return "\n".join(("<context>", *documents, "</context>")) if documents else ""


def _written(source: Source, text: str) -> str:
    title = f' title="{escape(source.title)}"' if source.title else ""
    return f"<document{title}>\n{text}\n</document>"


def _checked_messages(body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadPayload("messages", "must be a list with at least one message")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise BadPayload(f"messages.{number}", 'must be an object with a "role"')
    return messages


def _texts(message: Mapping[str, Any]) -> Iterator[tuple[int | None, str]]:
    """A message's texts with the number of their content part, None where the content is one string."""
    content = message.get("content")
    if isinstance(content, str):
        yield None, content
    elif isinstance(content, list):
        for number, part in enumerate(content):
            if isinstance(part, Mapping) and isinstance(part.get("text"), str):
                yield number, part["text"]


def _with_blocks(message: Mapping[str, Any], edits: Mapping[int | None, list[tuple[Block, str]]]) -> Mapping[str, Any]:
    if not edits:
        return message
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": _edited(content, edits[None])}
    parts = [
        {**part, "text": _edited(part["text"], edits[number])} if number in edits else part
        for number, part in enumerate(content)
    ]
    return {**message, "content": parts}


def _edited(text: str, edits: Sequence[tuple[Block, str]]) -> str:
    out: list[str] = []
    position = 0
    for block, kept in edits:
        original = text[block.start : block.end]
        if kept == original:
            out.append(text[position : block.end])
            position = block.end
        elif kept:
            before, after = _margins(original)
            out.append(text[position : block.start] + before + kept + after)
            position = block.end
        else:
            out.append(text[position : block.outer_start])
            position = block.outer_end
    return "".join((*out, text[position:]))


def _margins(text: str) -> tuple[str, str]:
    """The white space at both ends, which keeps a block apart from its tags and from its neighbours."""
    return text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]


_QUESTION_LABEL = re.compile(
    r"(?:.*\n)?[ \t]*(?:\*\*)?(?:question|query|user question|user query|q)(?:\*\*)?[ \t]*[:：](?:\*\*)?", re.I | re.S
)
_ANSWER_LABEL = re.compile(r"\n[ \t]*(?:helpful )?answer[ \t]*[:：]?\s*$", re.I)


def _question(messages: Sequence[Mapping[str, Any]], places: Sequence[Place | None]) -> str:
    number = _last_user(messages)
    if number == len(messages):
        return ""
    blocks: dict[int | None, list[Block]] = {}
    for place in places:
        if place is not None and place.message == number:
            blocks.setdefault(place.part, []).append(place.block)
    words = [w for part, text in _texts(messages[number]) for w in outside(text, tuple(blocks.get(part, ())))]
    said = _ANSWER_LABEL.sub("", "\n".join(w.strip() for w in words if w.strip()))
    labelled = _QUESTION_LABEL.match(said)
    return said[labelled.end() :].strip() if labelled and said[labelled.end() :].strip() else said


def _last_user(messages: Sequence[Mapping[str, Any]]) -> int:
    """The number of the last user message; len(messages) if there is none."""
    return next((n for n in range(len(messages) - 1, -1, -1) if messages[n]["role"] == "user"), len(messages))


def _strings(value: object) -> Iterator[str]:
    """Keys and values of a JSON tree, as a provider would count them in a prompt."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            stack.extend((*item.keys(), *item.values()))
        elif isinstance(item, list):
            stack.extend(item)
