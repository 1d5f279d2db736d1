"""Calls: what a conversation last asked its tools, by API.

An agent's newest outputs answer its newest calls, and not only the task that the user set twenty turns ago: what the calls
ask for is part of the question.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from compressor.prompts import CHAT, MESSAGES, RESPONSES, Api

MAX_CHARS: Final = 600  # of the arguments: whoever writes a file in a call asks nothing with its text


def latest_calls(api: Api, body: Mapping[str, Any], after_turn: int) -> str:
    """The names and arguments of the calls in the last turn that has any, if it comes after `after_turn`; else ""."""
    turns = body.get(api.turns)
    found: list[str] = []
    at = 0
    for turn, item in enumerate(turns if isinstance(turns, list) else ()):
        calls = list(_OF[api.name](item)) if isinstance(item, Mapping) and api.name in _OF else []
        if calls:
            # Responses put each call into an item of its own: those that stand together are one turn's.
            found = [*found, *calls] if found and turn == at + 1 else calls
            at = turn
    return "\n".join(found) if found and at > after_turn else ""


def _chat(message: Mapping[str, Any]) -> Iterator[str]:
    for call in _listed(message.get("tool_calls")):
        function = call.get("function")
        if isinstance(function, Mapping):
            yield _call(function.get("name"), function.get("arguments"))


def _messages(message: Mapping[str, Any]) -> Iterator[str]:
    for block in _listed(message.get("content")):
        if block.get("type") == "tool_use":
            yield _call(block.get("name"), block.get("input"))


def _responses(item: Mapping[str, Any]) -> Iterator[str]:
    if item.get("type") == "function_call":
        yield _call(item.get("name"), item.get("arguments"))


_OF: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]]] = {
    CHAT.name: _chat,
    MESSAGES.name: _messages,
    RESPONSES.name: _responses,
}


def _call(name: object, arguments: object) -> str:
    told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    return f"{name} {told[:MAX_CHARS]}"


def _listed(value: object) -> Sequence[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
