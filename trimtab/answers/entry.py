"""Entry: an answer as it is kept, with what its account needs. Pure.

An answer is kept whole, in the form of the surface that it was asked on, whether it came as a stream or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

MAX_BYTES: Final = 4 * 2**20
"""A longer answer is not kept."""
MAX_CONTEXTS: Final = 1_000
"""An answer that rests on more is not kept: whether one of them was withdrawn is looked up for each."""

_ENDED_WELL: Final = {
    "chat": ("finish_reason", {"stop", "tool_calls", "function_call"}),
    "messages": ("stop_reason", {"end_turn", "tool_use", "stop_sequence"}),
    "responses": ("status", {"completed"}),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """`name` is where it lies, so that one that was moved to another place is known for it. `at_s` is when its request
    came. `contexts` are the digests of what it rests on. `input_tokens` and `output_tokens` are what the caller's own model
    would have read and written, untrimmed. `receipt_id` is that of the request that paid for it."""

    name: str
    at_s: float
    contexts: tuple[str, ...]
    provider: str
    model: str
    processing: str
    prices_version: str
    input_tokens: int
    output_tokens: int
    tokens_before: int
    receipt_id: str
    answer: bytes

    def packed(self) -> bytes:
        head = asdict(self)
        del head["answer"]
        return orjson.dumps(head) + b"\n" + self.answer


_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "name": str,
    "at_s": (int, float),
    "contexts": list,
    "provider": str,
    "model": str,
    "processing": str,
    "prices_version": str,
    "input_tokens": int,
    "output_tokens": int,
    "tokens_before": int,
    "receipt_id": str,
}


def unpacked(raw: bytes | None, name: str) -> Entry | None:
    """The entry that lies under `name`; None for anything else that may lie there."""
    if raw is None:
        return None
    first, _, answer = raw.partition(b"\n")
    try:
        head = orjson.loads(first)
        whole = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(head, dict) or not isinstance(whole, dict) or head.keys() != _KINDS.keys():
        return None
    if not all(isinstance(head[field], kind) for field, kind in _KINDS.items()) or head["name"] != name:
        return None
    if not all(isinstance(each, str) for each in head["contexts"]):
        return None
    if not 0 <= head["at_s"] < 1e11 or min(head["input_tokens"], head["output_tokens"], head["tokens_before"]) < 0:
        return None
    return Entry(**{**head, "contexts": tuple(head["contexts"])}, answer=answer)


def worth_keeping(tongue: str, answer: Mapping[str, Any]) -> bool:
    """Whether it is a whole answer that the model meant to give: not cut short, not refused, not filtered."""
    if answer.get("error"):
        return False
    if tongue == "embeddings":
        return isinstance(answer.get("data"), list)
    field, well = _ENDED_WELL[tongue]
    if tongue != "chat":
        blocks = _tables(answer.get("output"))
        parts = [part for block in blocks for part in _tables(block.get("content"))]
        return answer.get(field) in well and not any(part.get("type") == "refusal" for part in parts)
    choices = _tables(answer.get("choices"))
    refused = any(_table(choice.get("message")).get("refusal") for choice in choices)
    return bool(choices) and not refused and all(choice.get(field) in well for choice in choices)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tables(value: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
