"""Chat answers: OpenAI's shapes of an answer, a chunk, a usage and an error, built from what another wire said.

Pure, and the one place that knows how these look; the wires say what goes in. Bytes are JSON without spaces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from routing.streams import Garbage

DONE: Final = b"data: [DONE]\n\n"


def usage_of(
    *,
    prompt_tokens: int,
    completion_tokens: int,
    cached_tokens: int = 0,
    cache_write_tokens: int = 0,
    reasoning_tokens: int = 0,
    audio_tokens: int = 0,
) -> dict[str, Any]:
    """OpenAI's usage. Everything read counts as prompt, cache reads and writes included; reasoning is completion.

    `cache_write_tokens` is OpenAI's too (openai 3.54, `types/completion_usage.py`).
    """
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": cached_tokens,
            "cache_write_tokens": cache_write_tokens,
            "audio_tokens": audio_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }


def count(table: Mapping[str, Any], name: str) -> int:
    """A token count of a provider's; 0 for one that is missing or makes no sense."""
    value = table.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


@dataclass(frozen=True, slots=True)
class Said:
    """What one choice says. `text` None means no text at all; `tool_calls` and `reasoning_details` are OpenAI-shaped."""

    text: str | None
    reasoning: str = ""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    reasoning_details: Sequence[Mapping[str, Any]] = ()
    images: Sequence[Mapping[str, Any]] = ()
    refusal: str | None = None


def choice_of(index: int, said: Said, finish_reason: str, logprobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One choice. Reasoning is `reasoning_content` (DeepSeek's name, which clients know); OpenAI has no field for it."""
    text = said.text if said.text is not None or said.tool_calls else ""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": said.refusal}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.reasoning_details:
        message["reasoning_details"] = list(said.reasoning_details)
    if said.images:
        message["images"] = list(said.images)
    if said.tool_calls:
        message["tool_calls"] = list(said.tool_calls)
    return {"index": index, "message": message, "finish_reason": finish_reason, "logprobs": logprobs}


def tool_call(
    call_id: str, name: str, arguments: str, *, index: int | None = None, signature: str | None = None
) -> dict[str, Any]:
    """A tool call; with an `index`, as the first delta of a streamed one."""
    call: dict[str, Any] = {} if index is None else {"index": index}
    call |= {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    if signature is not None:
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def arguments_of(value: object) -> str:
    """A call's arguments as OpenAI has them, JSON in a text; raises Garbage for ones nested beyond Python's limit."""
    try:
        return json.dumps({} if value is None else value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise Garbage("a call whose arguments are nested too deeply") from None


def completion(
    answer_id: str,
    model: str,
    created_s: int,
    choices: Sequence[Mapping[str, Any]],
    usage: Mapping[str, Any] | None,
    service_tier: str | None = None,
) -> dict[str, Any]:
    """A whole chat completion. `answer_id` and `model` are the provider's own words."""
    answer = {
        "id": answer_id,
        "object": "chat.completion",
        "created": created_s,
        "model": model,
        "choices": list(choices),
        "usage": usage,
    }
    return answer if service_tier is None else {**answer, "service_tier": service_tier}


@dataclass(frozen=True, slots=True)
class Frame:
    """What every chunk of one stream has in common."""

    answer_id: str
    model: str
    created_s: int
    include_usage: bool

    def chunk(
        self,
        delta: Mapping[str, Any],
        *,
        index: int = 0,
        finish_reason: str | None = None,
        logprobs: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._common(), "choices": [choice]}
        return {**chunk, "usage": None} if self.include_usage else chunk

    def usage_chunk(self, usage: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The chunk that `stream_options.include_usage` asks for, as the only item; empty if nobody asked."""
        return [{**self._common(), "choices": [], "usage": usage}] if self.include_usage else []

    def _common(self) -> dict[str, Any]:
        return {
            "id": self.answer_id,
            "object": "chat.completion.chunk",
            "created": self.created_s,
            "model": self.model,
        }


def error_of(message: str, kind: str, code: str | None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def to_bytes(value: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair is legal in JSON, as an escape only
        return json.dumps(value, separators=(",", ":")).encode()


def to_event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + to_bytes(value) + b"\n\n"
