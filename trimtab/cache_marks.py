"""Cache marks: where a provider that caches only what is marked is told to cache up to.

Anthropic's `cache_control`, as its own API and chat completions (OpenRouter's and LiteLLM's form) both write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from compressor.prompts import CACHE_MARKS, RESPONSES, Api

MARK: Final = {"cache_control": {"type": "ephemeral"}}


def marked(api: Api, body: Mapping[str, Any], turn: int) -> Mapping[str, Any] | None:
    """The body with its prefix marked up to the end of message `turn` (-1: of what stands before the conversation).

    None where the caller marks prefixes itself, since its marks are its own business, and where there is no text that
    could bear one.
    """
    if api is RESPONSES or _has_marks(body):
        return None
    if turn < 0:
        system = _bearing(body.get("system"))
        return None if system is None else {**body, "system": system}
    turns = body.get(api.turns)
    if not isinstance(turns, list) or turn >= len(turns) or not isinstance(turns[turn], Mapping):
        return None
    content = _bearing(turns[turn].get("content"))
    if content is None:
        return None
    return {**body, api.turns: [*turns[:turn], {**turns[turn], "content": content}, *turns[turn + 1 :]]}


def _bearing(content: object) -> list[Any] | None:
    """Content whose last block bears the mark; None for content that has no such block."""
    if isinstance(content, str) and content.strip():
        return [{"type": "text", "text": content, **MARK}]
    if (
        isinstance(content, list)
        and content
        and isinstance(content[-1], Mapping)
        and content[-1].get("type") != "thinking"
    ):
        return [*content[:-1], {**content[-1], **MARK}]
    return None


def _has_marks(body: Mapping[str, Any]) -> bool:
    stack: list[object] = [body]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            if any(name in item for name in CACHE_MARKS):
                return True
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False
