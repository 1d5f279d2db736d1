"""Responses answers: a chat completion and its stream as clients of OpenAI's Responses API have them.

Pure, and written against the types of openai 3.57. A stream's last event holds the whole response again, so the teller
builds it as it goes: `from_chat` and the stream end in the same object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from routing.chat_answer import count, error_of, to_bytes
from routing.streams import Garbage, parse_object
from routing.tongues.chunks import Call, calls_of, first_choice, table, text_of
from routing.tongues.responses_request import FOREIGN

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What a response says of its request, and what it says where the request is silent."""


def from_chat(answer: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The Response that a chat completion is; raises Garbage for what is none."""
    choice = first_choice(answer)
    said = table(choice, "message")
    made = _Made(text_of(answer, "id"))
    if thought := text_of(said, "reasoning_content") or text_of(said, "reasoning"):
        made.reasoning(thought)
    text, refusal = text_of(said, "content"), text_of(said, "refusal")
    if text or refusal:
        made.message(text, refusal, _logprobs(choice))
    for call in calls_of(said):
        made.call(call)
    return _response(answer, asked) | _finished(made.output, choice.get("finish_reason"), answer.get("usage"), answer)


def _response(answer: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """A response of which nothing is known yet but what was asked."""
    echoed = {name: default if asked.get(name) is None else asked[name] for name, default in _ECHOED.items()}
    return {
        "id": f"resp_{text_of(answer, 'id')}",
        "object": "response",
        "created_at": count(answer, "created"),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": text_of(answer, "model"),
        "output": [],
        "previous_response_id": None,
        "store": False,
        "usage": None,
        **echoed,
    }


def _finished(output: Sequence[Any], reason: object, usage: object, answer: Mapping[str, Any]) -> dict[str, Any]:
    why = _INCOMPLETE.get(str(reason))
    tier = answer.get("service_tier")
    return {
        "status": "completed" if why is None else "incomplete",
        "incomplete_details": None if why is None else {"reason": why},
        "output": list(output),
        "usage": usage_of(usage),
        **({"service_tier": tier} if isinstance(tier, str) else {}),
    }


def usage_of(usage: object) -> dict[str, Any] | None:
    """The Responses API's usage; None where nothing was said."""
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = table(usage, "prompt_tokens_details"), table(usage, "completion_tokens_details")
    read, written = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": count(prompt, "cached_tokens") or count(usage, "prompt_cache_hit_tokens"),
            "cache_write_tokens": count(prompt, "cache_write_tokens"),
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": count(completion, "reasoning_tokens")},
        "total_tokens": count(usage, "total_tokens") or read + written,
    }


def _logprobs(choice: Mapping[str, Any]) -> list[Any]:
    content = table(choice, "logprobs").get("content")
    return content if isinstance(content, list) else []


class _Made:
    """The items of one response. Their ids are made from the answer's own."""

    __slots__ = ("_id", "output")

    def __init__(self, answer_id: str) -> None:
        self._id = answer_id
        self.output: list[dict[str, Any]] = []

    def id(self, prefix: str) -> str:
        return f"{prefix}_{self._id}_{len(self.output)}"

    def reasoning(self, text: str) -> dict[str, Any]:
        item = {"id": self.id(FOREIGN.removesuffix("_")), "type": "reasoning", "summary": [], "status": "completed"}
        return self._add({**item, "content": [{"type": "reasoning_text", "text": text}]})

    def message(self, text: str, refusal: str, logprobs: Sequence[Any]) -> dict[str, Any]:
        content = [_output_text(text, logprobs)] if text else []
        content += [{"type": "refusal", "refusal": refusal}] if refusal else []
        item = {"id": self.id("msg"), "type": "message", "role": "assistant", "status": "completed"}
        return self._add({**item, "content": content})

    def call(self, call: Call) -> dict[str, Any]:
        named = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
        return self._add({"id": self.id("fc"), "type": "function_call", "status": "completed", **named})

    def _add(self, item: dict[str, Any]) -> dict[str, Any]:
        self.output.append(item)
        return item


def _output_text(text: str, logprobs: Sequence[Any]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


# --- streams ----------------------------------------------------------------------------------------------------------


class ResponsesTeller:
    """The events of one Response, made from a chat completion's chunks. One item is open at a time."""

    __slots__ = (
        "_answer",
        "_asked",
        "_call",
        "_calls",
        "_finish",
        "_logprobs",
        "_made",
        "_number",
        "_open",
        "_parts",
        "_usage",
    )

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        self._answer: Mapping[str, Any] | None = None
        self._made = _Made("")
        self._open: dict[str, Any] | None = None
        self._call: object = None
        self._calls: set[object] = set()
        self._parts: list[tuple[str, list[str]]] = []
        self._logprobs: list[Any] = []
        self._finish: object = None
        self._usage: object = None
        self._number = -1

    def see(self, chunk: Mapping[str, Any]) -> list[bytes]:
        """The events that this chunk makes; raises Garbage for what is no chunk."""
        out: list[bytes] = []
        if self._answer is None:
            self._answer = chunk
            self._made = _Made(text_of(chunk, "id"))
            response = _response(chunk, self._asked)
            out += [self._event(f"response.{state}", response=response) for state in ("created", "in_progress")]
        self._usage = chunk.get("usage") or self._usage
        if not chunk.get("choices"):
            return out
        choice = first_choice(chunk)
        delta = table(choice, "delta")
        if thought := text_of(delta, "reasoning_content") or text_of(delta, "reasoning"):
            out += self._said("reasoning", "reasoning_text", thought)
        if text := text_of(delta, "content"):
            out += self._said("message", "output_text", text, _logprobs(choice))
        if refusal := text_of(delta, "refusal"):
            out += self._said("message", "refusal", refusal)
        for call in calls_of(delta):
            out += self._called(call)
        self._finish = choice.get("finish_reason") or self._finish
        return out

    def last(self) -> list[bytes]:
        """The events that end a finished answer."""
        if self._answer is None:
            return []
        out = self._closed()
        finished = _finished(self._made.output, self._finish, self._usage, self._answer)
        response = _response(self._answer, self._asked) | finished
        return [*out, self._event(f"response.{response['status']}", response=response)]

    def failed(self, error: Mapping[str, Any]) -> list[bytes]:
        code = error.get("code")
        said = {"code": code if isinstance(code, str) else None, "message": text_of(error, "message"), "param": None}
        return [self._event("error", **said)]

    def _said(self, item: str, part: str, text: str, logprobs: Sequence[Any] = ()) -> list[bytes]:
        out: list[bytes] = []
        if self._open is None or self._open["type"] != item:
            out += self._closed()
            made = self._made.reasoning("") if item == "reasoning" else self._made.message("", "", ())
            out += self._opened(made, {**made, "status": "in_progress", "content": []})
        if not self._parts or self._parts[-1][0] != part:
            out += self._part_closed()
            self._parts.append((part, []))
            out.append(self._event("response.content_part.added", **self._at_part(), part=self._part("")))
        self._parts[-1][1].append(text)
        self._logprobs += logprobs
        more = {"logprobs": list(logprobs)} if part == "output_text" else {}
        return [*out, self._event(f"response.{part}.delta", **self._at_part(), delta=text, **more)]

    def _called(self, call: Call) -> list[bytes]:
        out: list[bytes] = []
        if self._open is None or self._open["type"] != "function_call" or self._call != call.index:
            if call.index in self._calls:
                raise Garbage("a tool call that goes on after another one began")
            self._calls.add(call.index)
            out += self._closed()
            self._call = call.index
            made = self._made.call(Call(call.index, call.id, call.name, ""))
            out += self._opened(made, {**made, "status": "in_progress"})
        if call.arguments:
            assert self._open is not None
            self._open["arguments"] += call.arguments
            out.append(self._event("response.function_call_arguments.delta", **self._at(), delta=call.arguments))
        return out

    def _opened(self, item: dict[str, Any], shown: Mapping[str, Any]) -> list[bytes]:
        self._open = item
        self._parts = []
        self._logprobs = []
        return [self._event("response.output_item.added", output_index=len(self._made.output) - 1, item=shown)]

    def _closed(self) -> list[bytes]:
        """The events that end the open item."""
        item = self._open
        if item is None:
            return []
        out = self._part_closed()
        if item["type"] == "function_call":
            said = {"arguments": item["arguments"], "name": item["name"]}
            out.append(self._event("response.function_call_arguments.done", **self._at(), **said))
        else:
            item["content"] = [_whole(kind, "".join(texts), self._logprobs) for kind, texts in self._parts]
        out.append(self._event("response.output_item.done", output_index=len(self._made.output) - 1, item=item))
        self._open = None
        return out

    def _part_closed(self) -> list[bytes]:
        if not self._parts:
            return []
        kind, texts = self._parts[-1]
        text = "".join(texts)
        said = {"refusal": text} if kind == "refusal" else {"text": text}
        more = {"logprobs": list(self._logprobs)} if kind == "output_text" else {}
        done = self._event(f"response.{kind}.done", **self._at_part(), **said, **more)
        return [done, self._event("response.content_part.done", **self._at_part(), part=self._part(text))]

    def _part(self, text: str) -> dict[str, Any]:
        return _whole(self._parts[-1][0], text, self._logprobs if text else ())

    def _at(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self._made.output) - 1}

    def _at_part(self) -> dict[str, Any]:
        return {**self._at(), "content_index": len(self._parts) - 1}

    def _event(self, kind: str, **data: Any) -> bytes:
        self._number += 1
        return event({"type": kind, "sequence_number": self._number, **data})


def _whole(kind: str, text: str, logprobs: Sequence[Any]) -> dict[str, Any]:
    if kind == "output_text":
        return _output_text(text, logprobs)
    return {"type": kind, "refusal": text} if kind == "refusal" else {"type": kind, "text": text}


def event(data: Mapping[str, Any]) -> bytes:
    """An event, named for its type."""
    return f"event: {data['type']}\n".encode() + b"data: " + to_bytes(data) + b"\n\n"


def error_event(message: str, code: str) -> bytes:
    """What ends a stream that broke off. Its number is not known here, and stands for none."""
    return event({"type": "error", "code": code, "message": message, "param": None, "sequence_number": -1})


class ResponsesProgress:
    """The provider's own streams: over when the response is completed, incomplete or failed.

    `see` gives an error event as other tongues have it, an object with an `error`.
    """

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    @property
    def finished(self) -> bool:
        return self.done

    def see(self, data: bytes) -> Mapping[str, Any] | None:
        if data.strip() == b"[DONE]":
            self.done = True
            return None
        seen = parse_object(data)
        kind = seen.get("type")
        if kind == "error":
            error = seen.get("error")
            said = error if isinstance(error, Mapping) else seen
            message = said.get("message")
            code = said.get("code")
            return error_of(
                message if isinstance(message, str) else "", "upstream_error", code if isinstance(code, str) else None
            )
        self.done = self.done or kind in _TERMINAL
        return seen


_TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")
TERMINAL: Final[Sequence[bytes]] = tuple(f"event: {kind}".encode() for kind in _TERMINAL)
"""How the event begins that ends a stream."""
