"""Chunks: what a chat completion and its chunks say, read with care, for those who tell it in other tongues.

Pure. Raises Garbage for what is not of the shape; what is missing counts as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from routing.streams import Garbage


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, or a piece of one: `id` and `name` come with the first. `index` tells parallel calls apart."""

    index: int
    id: str
    name: str
    arguments: str


def first_choice(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Garbage("no chat completion")
    return choices[0]


def calls_of(said: Mapping[str, Any]) -> list[Call]:
    """The tool calls in a message or a delta."""
    calls = said.get("tool_calls")
    out: list[Call] = []
    for at, call in enumerate(calls if isinstance(calls, list) else ()):
        if not isinstance(call, Mapping):
            raise Garbage("a tool call that is not an object")
        function = table(call, "function")
        index = call.get("index", at)
        if not isinstance(index, int):
            raise Garbage("a tool call whose index is not a number")
        out.append(Call(index, text_of(call, "id"), text_of(function, "name"), text_of(function, "arguments")))
    return out


def text_of(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Garbage(f"a {name} that is no text")
    return value


def table(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = of.get(name)
    return value if isinstance(value, Mapping) else {}
