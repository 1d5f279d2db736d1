"""Anthropic answers: messages, stream events and errors of the Messages API as OpenAI's chat completions have them.

Pure. Written against the types of anthropic 2.12. Blocks and events that are not known are skipped, as Anthropic asks of
every client (platform.claude.com, "Streaming messages"); those of tools that run at Anthropic are never asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from routing.chat_answer import Frame, Said, arguments_of, choice_of, completion, count, error_of, tool_call, usage_of
from routing.conversion import Fault
from routing.streams import Garbage

FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""A reason that is not here is "stop". `pause_turn` is among those: it comes with tools that run at Anthropic only."""

ERROR_STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What an error event in a stream stands for; 502 for one that is not here."""

_TIERS: Final = {"standard": "default", "priority": "priority"}
FORMAT: Final = "anthropic-claude-v1"
"""Of `reasoning_details`: OpenRouter's name for signed thinking of this wire."""


def decode(answer: Mapping[str, Any], created_s: int) -> dict[str, Any]:
    """The completion that a Message is; raises Garbage for what is no Message."""
    blocks = answer.get("content")
    if answer.get("type") != "message" or not isinstance(blocks, list):
        raise Garbage("not a message")
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for block in blocks:
        kind = _kind(block)
        if kind == "text":
            texts.append(_text(block, "text"))
        elif kind == "tool_use":
            arguments = arguments_of(block.get("input"))
            calls.append(tool_call(_text(block, "id"), _text(block, "name"), arguments))
        elif kind == "thinking":
            thoughts.append(_text(block, "thinking"))
            details.append(_signed(len(details), thoughts[-1], _text(block, "signature")))
        elif kind == "redacted_thinking":
            details.append(_redacted(len(details), _text(block, "data")))
    said = Said(
        "".join(texts) if texts else None,
        reasoning="".join(thoughts),
        tool_calls=calls,
        reasoning_details=details,
        refusal=_refusal(answer),
    )
    usage = _table(answer, "usage")
    return completion(
        _text(answer, "id"),
        _text(answer, "model"),
        created_s,
        [choice_of(0, said, _finish_reason(answer))],
        usage_from(usage),
        _TIERS.get(str(usage.get("service_tier"))),
    )


def usage_from(usage: Mapping[str, Any]) -> dict[str, Any] | None:
    """OpenAI's usage; None where there is none. `input_tokens` leaves out what was read from and written to the cache."""
    if "input_tokens" not in usage and "output_tokens" not in usage:
        return None
    read_tokens, write_tokens = count(usage, "cache_read_input_tokens"), count(usage, "cache_creation_input_tokens")
    return usage_of(
        prompt_tokens=count(usage, "input_tokens") + read_tokens + write_tokens,
        completion_tokens=count(usage, "output_tokens"),
        cached_tokens=read_tokens,
        cache_write_tokens=write_tokens,
        reasoning_tokens=count(_table(usage, "output_tokens_details"), "thinking_tokens"),
    )


def fault(status: int | None, answer: Mapping[str, Any]) -> Fault:
    """The error in an error body or an error event. Its message is Anthropic's own.

    >>> fault(None, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}).status
    529
    """
    error = answer.get("error")
    error = error if isinstance(error, Mapping) else {}
    kind = error.get("type")
    kind = kind if isinstance(kind, str) and kind else "upstream_error"
    details = error.get("details")
    finer = details.get("error_code") if isinstance(details, Mapping) else None
    stands_for = ERROR_STATUSES.get(kind, 502)
    # Money that is used up is told as a plain 400 by some gateways; it is no mistake of the caller's.
    status = 402 if kind == "billing_error" else stands_for if status is None else status
    message = error.get("message")
    message = message if isinstance(message, str) and message else f"the provider answered with status {status}"
    return Fault(status, error_of(message, kind, finer if isinstance(finer, str) else kind))


class AnthropicStream:
    """The chunks of one stream of Messages events. `usage` adds up `message_start` and the running `message_delta`s."""

    __slots__ = (
        "_arguments",
        "_calls",
        "_created_s",
        "_details",
        "_frame",
        "_include_usage",
        "_usage",
        "done",
        "finished",
    )

    def __init__(self, include_usage: bool, created_s: int) -> None:
        self._include_usage = include_usage
        self._created_s = created_s
        self._frame: Frame | None = None
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, int] = {}
        """The position among the tool calls, by the block's index."""
        self._details: dict[int, int] = {}
        self._arguments: set[int] = set()
        self.finished = False
        self.done = False

    @property
    def usage(self) -> dict[str, Any] | None:
        return usage_from(self._usage)

    def see(self, event: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        kind = event.get("type")
        if kind == "ping" and self._frame is None:
            return ()
        if kind == "message_start":
            return self._started(_table(event, "message"))
        if not isinstance(kind, str):
            raise Garbage("an event without a type")
        if self._frame is None:
            raise Garbage("an event before the message's start")
        if kind == "content_block_start":
            return self._block_started(self._frame, _index(event), _table(event, "content_block"))
        if kind == "content_block_delta":
            return self._delta(self._frame, _index(event), _table(event, "delta"))
        if kind == "content_block_stop":
            return self._block_stopped(self._frame, _index(event))
        if kind == "message_delta":
            return self._message_delta(self._frame, event)
        if kind == "message_stop":
            if not self.finished:
                raise Garbage("a message that stops without a reason")
            self.done = True
        return ()

    def last(self) -> Sequence[dict[str, Any]]:
        return () if self._frame is None else self._frame.usage_chunk(self.usage)

    def _started(self, message: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        if self._frame is not None:
            raise Garbage("a second message in one stream")
        self._usage |= _table(message, "usage")
        answer_id, model = _text(message, "id"), _text(message, "model")
        self._frame = frame = Frame(answer_id, model, self._created_s, self._include_usage)
        return (frame.chunk({"role": "assistant", "content": ""}),)

    def _block_started(self, frame: Frame, index: int, block: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        kind = _kind(block)
        if kind == "tool_use":
            self._calls[index] = at = len(self._calls)
            # The arguments come in deltas. One that is here already is whole (a server that does not stream them).
            early = block.get("input") or None
            arguments = "" if early is None else arguments_of(early)
            if early is not None:
                self._arguments.add(index)
            call = tool_call(_text(block, "id"), _text(block, "name"), arguments, index=at)
            return (frame.chunk({"tool_calls": [call]}),)
        if kind == "text" and _text(block, "text"):
            return (frame.chunk({"content": _text(block, "text")}),)
        if kind == "thinking":
            self._details[index] = len(self._details)
            return self._thought(frame, index, _text(block, "thinking"))
        if kind == "redacted_thinking":
            self._details[index] = at = len(self._details)
            return (frame.chunk({"reasoning_details": [_redacted(at, _text(block, "data"))]}),)
        return ()

    def _delta(self, frame: Frame, index: int, delta: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        kind = delta.get("type")
        if kind == "text_delta":
            return (frame.chunk({"content": _text(delta, "text")}),)
        if kind == "input_json_delta" and index in self._calls:
            part = _text(delta, "partial_json")
            if not part:
                return ()
            self._arguments.add(index)
            call = {"index": self._calls[index], "function": {"arguments": part}}
            return (frame.chunk({"tool_calls": [call]}),)
        if kind == "thinking_delta":
            return self._thought(frame, index, _text(delta, "thinking"))
        if kind == "signature_delta":
            detail = _signed(self._details.get(index, 0), "", _text(delta, "signature"))
            del detail["text"]
            return (frame.chunk({"reasoning_details": [detail]}),)
        return ()

    def _thought(self, frame: Frame, index: int, text: str) -> Sequence[dict[str, Any]]:
        if not text:
            return ()
        detail = {"type": "reasoning.text", "text": text, "format": FORMAT, "index": self._details.get(index, 0)}
        return (frame.chunk({"reasoning_content": text, "reasoning_details": [detail]}),)

    def _block_stopped(self, frame: Frame, index: int) -> Sequence[dict[str, Any]]:
        if index not in self._calls or index in self._arguments:
            return ()
        # A call without arguments comes without deltas, and OpenAI's clients parse what they have put together.
        return (frame.chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": "{}"}}]}),)

    def _message_delta(self, frame: Frame, event: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        self._usage |= {name: value for name, value in _table(event, "usage").items() if value is not None}
        delta = _table(event, "delta")
        if not delta.get("stop_reason") or self.finished:
            return ()
        self.finished = True
        refusal = _refusal(delta)
        said = {} if refusal is None else {"refusal": refusal}
        return (frame.chunk(said, finish_reason=_finish_reason(delta)),)


def _finish_reason(of: Mapping[str, Any]) -> str:
    return FINISH_REASONS.get(str(of.get("stop_reason")), "stop")


def _refusal(of: Mapping[str, Any]) -> str | None:
    details = of.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, Mapping) else None
    return explanation if of.get("stop_reason") == "refusal" and isinstance(explanation, str) else None


def _signed(index: int, text: str, signature: str) -> dict[str, Any]:
    return {"type": "reasoning.text", "text": text, "signature": signature, "format": FORMAT, "index": index}


def _redacted(index: int, data: str) -> dict[str, Any]:
    return {"type": "reasoning.encrypted", "data": data, "format": FORMAT, "index": index}


def _kind(block: object) -> str:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if not isinstance(kind, str):
        raise Garbage("a content block without a type")
    return kind


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name, "")
    if not isinstance(value, str):
        raise Garbage(f"a {name} that is no text")
    return value


def _table(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = of.get(name)
    return value if isinstance(value, Mapping) else {}


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    if not isinstance(index, int):
        raise Garbage("a content block without an index")
    return index
