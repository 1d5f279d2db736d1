"""Payloads of any size: sentences drawn by a seed, so that two of different seeds share no chunk."""

from __future__ import annotations

import random
from typing import Any

from benchmarks.gateways import MODEL

QUESTION = "What is the limit of an upload to the bucket in Frankfurt?"
_WORDS = (
    *(
        "storage",
        "upload",
        "bucket",
        "limit",
        "key",
        "rotates",
        "region",
        "Frankfurt",
        "policy",
        "retention",
        "invoice",
    ),
    *("customer", "contract", "latency", "sensor", "engine", "report", "error", "handler", "function", "returns"),
    *("value", "configuration", "cluster", "node", "replica"),
)
_CHARACTERS_A_TOKEN = 5.4


def chunk(tokens: int, draw: random.Random) -> str:
    """Sentences of about that many tokens, at least one."""
    sentences: list[str] = []
    characters = 0
    while characters < tokens * _CHARACTERS_A_TOKEN:
        words = [draw.choice(_WORDS) for _ in range(min(draw.randint(8, 20), max(3, tokens - 3)))]
        sentences.append(f"{' '.join(words).capitalize()} {draw.randint(1, 9_999)}.")
        characters += len(sentences[-1]) + 1
    return " ".join(sentences)


def chunks(count: int, tokens_each: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [chunk(tokens_each, draw) for _ in range(count)]


def chat(contexts: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """A chat completion's body; with contexts, of which at most three tenths are to be kept."""
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 32,
        **more,
    }
    return body if contexts is None else {**body, "trimtab": {"contexts": contexts, "ratio": 0.3}}
