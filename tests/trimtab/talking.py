"""Conversations as chat clients hold them: every earlier turn comes back, its chunks included."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from trimtab import Trimtab
from trimtab.experience import Experience

RULES = "\n".join(f"Rule {n}: answer from the documents alone, and say which one you used." for n in range(90))
"""A system prompt that is longer than the shortest prefix that OpenAI caches."""
LONG_RULES = "\n".join(f"Rule {n}: answer from the documents alone, and say which one you used." for n in range(300))
"""And one that is longer than what any provider's cache asks for."""

TOPICS = ("uploads", "buckets", "invoices", "refunds", "regions", "keys", "seats", "quotas")

Where = Literal["message", "tool", "beside"]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def clocked(trimtab: Trimtab) -> Clock:
    """The clock that `trimtab` goes by from now on, for all that it learns of offers."""
    clock = Clock()
    trimtab.experience = Experience(trimtab.catalog, clock=clock)
    return clock


def chunk(seed: int, topic: str, sentences: int = 5) -> str:
    """A text in which one sentence is of the topic."""
    others = [each for each in TOPICS if each != topic]
    said = [f"Plan {seed} has {n + seed} {others[(n + seed) % len(others)]} in city {n}." for n in range(sentences)]
    return " ".join([*said[:2], f"The {topic} of plan {seed} cost {seed + 7} dollars.", *said[2:]])


def tagged(texts: Iterable[str]) -> str:
    return "\n".join(f"<document>\n{text}\n</document>" for text in texts)


def asks(topic: str, texts: Sequence[str] = ()) -> str:
    """A user's message: documents, if there are any, and the question."""
    question = f"What do the {topic} cost?"
    return f"{tagged(texts)}\n\n{question}" if texts else question


def as_bytes(messages: Iterable[object]) -> list[bytes]:
    return [json.dumps(message, ensure_ascii=False).encode() for message in messages]


def bare(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Anthropic's messages as its cache tells them apart: a text is a block of text, and marks are no part of it."""
    return [{**each, "content": _bare(each["content"])} for each in messages]


def _bare(content: object) -> object:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    assert isinstance(blocks, list)
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in blocks]


def marks(body: object) -> int:
    """How many cache marks there are."""
    if isinstance(body, Mapping):
        return ("cache_control" in body) + sum(map(marks, body.values()))
    return sum(map(marks, body)) if isinstance(body, (list, tuple)) else 0
