"""Messages answers: a chat completion, its stream and its errors as Anthropic's clients have them.

Pure; the mirror of `anthropic_answer`, and written against the types of anthropic 2.13.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from routing.anthropic_answer import ERROR_STATUSES
from routing.chat_answer import count, to_bytes
from routing.streams import Garbage, parse_object
from routing.tongues.chunks import Call, calls_of, first_choice, table, text_of

STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""A reason that is not here is "end_turn". Which of the caller's stop sequences it was, a chat completion does not say."""

_KINDS: Final = {status: kind for kind, status in ERROR_STATUSES.items()}


def from_chat(answer: Mapping[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
    """The Message that a chat completion is; raises Garbage for what is none, or calls a tool with no JSON object."""
    choice = first_choice(answer)
    said = table(choice, "message")
    blocks: list[dict[str, Any]] = []
    if thought := text_of(said, "reasoning_content") or text_of(said, "reasoning"):
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    refusal = text_of(said, "refusal")
    if text := text_of(said, "content") or refusal:
        blocks.append({"type": "text", "text": text, "citations": None})
    calls = calls_of(said)
    blocks += [{"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in calls]
    message = _message(text_of(answer, "id"), text_of(answer, "model"), usage_of(answer.get("usage")))
    return message | {"content": blocks} | _stopped(choice.get("finish_reason"), refusal)


def _input(call: Call) -> dict[str, Any]:
    return parse_object((call.arguments or "{}").encode(errors="surrogatepass"))


def _message(answer_id: str, model: str, usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": answer_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": dict(usage),
    }


def _stopped(finish_reason: object, refusal: str) -> dict[str, Any]:
    reason = "refusal" if refusal else STOP_REASONS.get(str(finish_reason), "end_turn")
    details = {"type": "refusal", "category": None, "explanation": refusal or None} if reason == "refusal" else None
    return {"stop_reason": reason, "stop_sequence": None, "stop_details": details}


def usage_of(usage: object) -> dict[str, Any]:
    """Anthropic's usage: `input_tokens` leaves out what was read from and written to the cache."""
    given = usage if isinstance(usage, Mapping) else {}
    prompt = table(given, "prompt_tokens_details")
    read = count(prompt, "cached_tokens") or count(given, "prompt_cache_hit_tokens")
    write = count(prompt, "cache_write_tokens")
    return {
        "input_tokens": max(0, count(given, "prompt_tokens") - read - write),
        "cache_creation_input_tokens": write,
        "cache_read_input_tokens": read,
        "output_tokens": count(given, "completion_tokens"),
        "output_tokens_details": {
            "thinking_tokens": count(table(given, "completion_tokens_details"), "reasoning_tokens")
        },
    }


def error_of(status: int, error: Mapping[str, Any]) -> dict[str, Any]:
    """An error object of OpenAI's, with the status it comes with, in Anthropic's shape.

    >>> error_of(429, {"message": "Slow down."})["error"]
    {'type': 'rate_limit_error', 'message': 'Slow down.'}
    """
    kind = _KINDS.get(status) or ("invalid_request_error" if 400 <= status < 500 else "api_error")
    message = error.get("message")
    message = message if isinstance(message, str) and message else f"the provider answered with status {status}"
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def event(data: Mapping[str, Any]) -> bytes:
    """An event, named for its type."""
    return f"event: {data['type']}\n".encode() + b"data: " + to_bytes(data) + b"\n\n"


class MessagesTeller:
    """The events of one Message, made from a chat completion's chunks.

    One block is open at a time, as Anthropic has it, so a chunk that goes back to a call whose block is closed cannot
    be told. The stop reason waits for the usage, which chat completions send after it.
    """

    __slots__ = ("_call", "_calls", "_finish", "_index", "_open", "_refusal", "_started", "_usage")

    def __init__(self, _: Mapping[str, Any]) -> None:
        self._started = False
        self._index = -1
        self._open: str | None = None
        self._call: object = None
        self._calls: set[object] = set()
        self._finish: object = None
        self._refusal = ""
        self._usage: object = None

    def see(self, chunk: Mapping[str, Any]) -> list[bytes]:
        """The events that this chunk makes; raises Garbage for what is no chunk."""
        out: list[bytes] = []
        if not self._started:
            self._started = True
            message = _message(text_of(chunk, "id"), text_of(chunk, "model"), usage_of(None))
            out += [event({"type": "message_start", "message": message}), event({"type": "ping"})]
        self._usage = chunk.get("usage") or self._usage
        if not chunk.get("choices"):
            return out
        choice = first_choice(chunk)
        delta = table(choice, "delta")
        if thought := text_of(delta, "reasoning_content") or text_of(delta, "reasoning"):
            out += self._opened("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            out.append(self._delta({"type": "thinking_delta", "thinking": thought}))
        refusal = text_of(delta, "refusal")
        self._refusal += refusal
        if text := text_of(delta, "content") or refusal:
            out += self._opened("text", {"type": "text", "text": "", "citations": None})
            out.append(self._delta({"type": "text_delta", "text": text}))
        for call in calls_of(delta):
            out += self._called(call)
        self._finish = choice.get("finish_reason") or self._finish
        return out

    def _called(self, call: Call) -> list[bytes]:
        out: list[bytes] = []
        if self._open != "tool_use" or self._call != call.index:
            if call.index in self._calls:
                raise Garbage("a tool call that goes on after another one began")
            self._calls.add(call.index)
            out += self._closed()
            self._call = call.index
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            out += self._opened("tool_use", block)
            out.append(self._delta({"type": "input_json_delta", "partial_json": ""}))
        if call.arguments:
            out.append(self._delta({"type": "input_json_delta", "partial_json": call.arguments}))
        return out

    def last(self) -> list[bytes]:
        """The events that end a finished answer."""
        if not self._started:
            return []
        stop = event(
            {
                "type": "message_delta",
                "delta": _stopped(self._finish, self._refusal),
                "usage": usage_of(self._usage),
            }
        )
        return [*self._closed(), stop, event({"type": "message_stop"})]

    def failed(self, error: Mapping[str, Any]) -> list[bytes]:
        return [error_event(text_of(error, "message"), "")]

    def _opened(self, kind: str, block: Mapping[str, Any]) -> list[bytes]:
        if self._open == kind and kind != "tool_use":
            return []
        out = self._closed()
        self._index += 1
        self._open = kind
        return [*out, event({"type": "content_block_start", "index": self._index, "content_block": block})]

    def _closed(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [event({"type": "content_block_stop", "index": self._index})]

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return event({"type": "content_block_delta", "index": self._index, "delta": delta})


def error_event(message: str, _: str) -> bytes:
    """What ends a stream that broke off: Anthropic's clients raise it."""
    return event(error_of(500, {"message": message}))


class MessagesProgress:
    """Anthropic's own streams: complete when a stop reason has come, over at `message_stop`.

    `see` gives an event with all of the usage that has been told by then, which is spread over two of them.
    """

    __slots__ = ("_usage", "done", "finished")

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}
        self.finished = False
        self.done = False

    def see(self, data: bytes) -> Mapping[str, Any]:
        seen = parse_object(data)
        kind = seen.get("type")
        if kind == "message_start":
            self._usage |= table(table(seen, "message"), "usage")
        elif kind == "message_delta":
            self._usage |= {name: value for name, value in table(seen, "usage").items() if value is not None}
            self.finished = self.finished or bool(table(seen, "delta").get("stop_reason"))
            return {**seen, "usage": self._usage}
        elif kind == "message_stop":
            self.done = True
        return seen


TERMINAL: Final[Sequence[bytes]] = (b"event: message_stop",)
"""How the event begins that ends a stream."""
