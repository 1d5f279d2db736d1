"""Cache marks: where a provider that caches only what is marked is told to cache up to.

Anthropic's `cache_control`, as its own API and chat completions (OpenRouter's and LiteLLM's form) both write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from compressor.prompts import CACHE_MARKS, RESPONSES, Api

MARK: Final[Mapping[str, Any]] = {"cache_control": {"type": "ephemeral"}}


_CAN_BEAR: Final = frozenset(
    ("text", "image", "document", "search_result", "tool_use", "tool_result", "image_url", "file")
)
"""Kinds of blocks, Anthropic's and those of chat completions that become one; its thinking can bear none, for example."""


def marked(api: Api, body: Mapping[str, Any], turn: int) -> Mapping[str, Any] | None:
    """The body with its prefix marked up to the end of message `turn` (-1: of what stands before the conversation).

    None where the caller marks prefixes itself, since its marks are its own business, and where no block there can bear
    one.
    """
    if api is RESPONSES or last_mark(api, body) is not None:
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


def last_mark(api: Api, body: Mapping[str, Any]) -> int | None:
    """The last message that bears a mark, -1 where only what stands before the conversation does; None for no mark."""
    turns = body.get(api.turns)
    turns = turns if isinstance(turns, list) else []
    if any(body.get(name) is not None for name in CACHE_MARKS):  # stands for a mark on the last block
        return len(turns) - 1
    last = next((turn for turn in reversed(range(len(turns))) if _has_marks(turns[turn])), -1)
    head = [value for name, value in body.items() if name != api.turns]
    return last if last >= 0 or _has_marks(head) else None


def _bearing(content: object) -> list[Any] | None:
    """Content whose last block that can bears the mark; None for content that has no such block."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(blocks, list):
        return None
    for at in reversed(range(len(blocks))):
        block = blocks[at]
        if isinstance(block, Mapping) and block.get("type") in _CAN_BEAR and not _is_blank(block):
            return [*blocks[:at], {**block, **MARK}, *blocks[at + 1 :]]
    return None


def _is_blank(block: Mapping[str, Any]) -> bool:
    return block["type"] == "text" and not str(block.get("text") or "").strip()


def _has_marks(value: object) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            if any(item.get(name) is not None for name in CACHE_MARKS):
                return True
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False
