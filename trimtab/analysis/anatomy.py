"""Anatomy: a recorded request as the provider reads it, part by part and in its order, with tokens.

Tools stand first, as they do in every provider's prompt cache; then the system prompt and the conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from compressor.payload import BadPayload, Payload, parse
from compressor.prompts import Api, Path
from compressor.tokens import count_each, encoding_for_model
from trimtab.analysis.recorded import Recorded, called
from trimtab.request import IMAGE_TOKENS, MESSAGE_TOKENS

Role = Literal["tool schema", "system", "user", "assistant", "tool", "other"]

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "tool": "tool",
    "context": "user",
    "fixed": "assistant",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A text of a request. `position` is how many tokens stand before it; `path` is () for what has none of its own.
    `name` is that of a tool."""

    role: Role
    text: str = field(repr=False)
    turn: int
    path: Path
    tokens: int
    position: int
    name: str = ""


@dataclass(frozen=True)
class Anatomy:
    """`input_tokens` is our count of the whole request. `called` names every tool that the conversation or the answer
    called. `marked`: a part of it is marked for the provider's cache."""

    parts: tuple[Part, ...]
    input_tokens: int
    called: frozenset[str]
    marked: bool
    turns: int
    _parse: tuple[Api, Mapping[str, Any]] | None = field(default=None, repr=False)

    @cached_property
    def payload(self) -> Payload | None:
        """The request with its contexts found; None where there are no texts."""
        return None if self._parse is None else parse(*self._parse)

    @property
    def user_turns(self) -> int:
        return len({part.turn for part in self.parts if part.role == "user"})


NOTHING = Anatomy((), 0, frozenset(), False, 0)
"""Of a request whose texts were not recorded."""


class Counter:
    """Counts tokens, each text once: system prompts and histories come again in every request."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    def each(self, texts: Sequence[str], encoding: str) -> list[int]:
        new = list(dict.fromkeys(text for text in texts if (encoding, text) not in self._known))
        self._known.update({(encoding, text): n for text, n in zip(new, count_each(new, encoding), strict=True)})
        return [self._known[encoding, text] for text in texts]


def anatomy(request: Recorded, counter: Counter) -> Anatomy:
    """The parts of a request. Raises ValueError, which quotes nothing, where the conversation is not what its API promises."""
    if request.api is None:
        return NOTHING
    try:
        raw = list(_raw(request.api, request.body))
    except BadPayload as error:
        raise ValueError(f"{error.param} {error.reason}") from None
    counts = counter.each([text for _, text, *_ in raw], encoding_for_model(request.model))
    parts: list[Part] = []
    position, turn_before = 0, -1
    for (role, text, turn, path, name), tokens in zip(raw, counts, strict=True):
        position += MESSAGE_TOKENS if turn != turn_before else 0
        turn_before = turn
        parts.append(Part(role, text, turn, path, tokens, position, name))
        position += tokens
    payload = (request.api, request.body)
    turns = request.body.get(request.api.turns)
    images = Payload("", (), (), request.body, request.api).images
    return Anatomy(
        tuple(parts),
        position + images * IMAGE_TOKENS,
        frozenset(called(turns)) | (request.calls or frozenset()),
        any(text.ends_prefix for text in request.api.texts(request.body)),
        len(turns) if isinstance(turns, list) else 1,
        payload,
    )


_Raw = tuple[Role, str, int, Path, str]


def _raw(api: Api, body: Mapping[str, Any]) -> Iterator[_Raw]:
    tools = body.get("tools")
    for at, tool in enumerate(tools if isinstance(tools, list) else ()):
        yield (
            "tool schema",
            json.dumps(tool, ensure_ascii=False, separators=(",", ":")),
            -1,
            ("tools", at),
            tool_name(tool),
        )
    rest = {name: value for name, value in body.items() if name != "tools"}
    texts = sorted((text for text in api.texts(rest) if text.text), key=lambda text: text.turn)  # stable: order stays
    for text in texts:
        role = _ROLES[text.role] if text.path else "other"
        yield role, text.text, text.turn, text.path, text.title


def tool_name(tool: object) -> str:
    """What a tool is called, in either API; "" where it has no name, as those that OpenAI runs itself have none."""
    if not isinstance(tool, Mapping):
        return ""
    function = tool.get("function")
    holder = function if isinstance(function, Mapping) else tool
    name = holder.get("name")
    return name if isinstance(name, str) else ""
