"""What is heard of one round's stream of chat chunks: words pass, calls are held until it is known whose they are.

Pure: bytes in, the bytes that may be passed on out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routing.chat_answer import to_event
from routing.streams import EventSplitter, Garbage, error_event, parse_object
from routing.tongues.chunks import first_choice, table
from trimtab.expansion import NAME


def is_ours(call: object) -> bool:
    """Whether a tool call is one of `trimtab_expand`."""
    return isinstance(call, Mapping) and table(call, "function").get("name") == NAME


def calls_in(said: Mapping[str, Any]) -> list[Any]:
    """The tool calls of a message or a delta, as they are."""
    calls = said.get("tool_calls")
    return calls if isinstance(calls, list) else []


class Heard:
    """One round's stream. Words pass as they come; calls, and what comes after, are held until it is known whose they are.

    `first` is the first chunk of the first round: later ones are told under its id.
    """

    def __init__(self, first: Mapping[str, Any], *, after_words: bool) -> None:
        self.first = first
        self.frame: Mapping[str, Any] = {}
        self.usage: Any = None
        self.broken = False
        self.spoke = False
        self._later = bool(first)
        self._gap = after_words
        self._splitter = EventSplitter()
        self._held: list[dict[str, Any]] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._texts: dict[str, str] = {}
        self._details: dict[Any, dict[str, Any]] = {}

    @property
    def ours(self) -> list[Mapping[str, Any]]:
        return [call for call in self._calls.values() if is_ours(call)]

    def said(self) -> Mapping[str, Any]:
        """The message that the chunks made, without its calls."""
        details = {"reasoning_details": list(self._details.values())} if self._details else {}
        return {**self._texts, **details}

    def feed(self, part: bytes) -> bytes:
        return b"".join(self._seen(raw, data) for raw, data in self._splitter.feed(part))

    def end(self) -> bytes:
        raw, data = self._splitter.rest()
        return self._seen(raw, data) if data else b""

    def ending(self) -> bytes:
        """What was held, without the calls of our own."""
        ours = {at for at, call in self._calls.items() if is_ours(call)}
        out = []
        for chunk in self._held:
            choice = first_choice(chunk)
            delta = dict(table(choice, "delta"))
            left = [call for call in calls_in(delta) if _index(call) not in ours]
            if calls_in(delta):
                delta["tool_calls"] = left
                if not left:
                    del delta["tool_calls"]
            reason = choice.get("finish_reason")
            if ours and len(ours) == len(self._calls) and reason == "tool_calls":
                reason = "stop"
            if delta or reason is not None:
                out.append(to_event({**chunk, "choices": [{**choice, "delta": delta, "finish_reason": reason}]}))
        return b"".join(out)

    def _seen(self, raw: bytes, data: bytes) -> bytes:
        if self.broken:
            return b""
        if not data:
            return raw
        if data.strip() == b"[DONE]":
            return b""
        try:
            return self._chunk(raw, parse_object(data))
        except Garbage:
            self.broken = True
            return error_event("The provider's stream broke off: not a chunk.", "stream_cut_off")

    def _chunk(self, raw: bytes, chunk: dict[str, Any]) -> bytes:
        if chunk.get("error"):
            self.broken = True
            return raw
        self.usage = chunk.get("usage") or self.usage
        self.first = self.first or chunk
        chunk |= {name: self.first[name] for name in ("id", "created") if name in self.first}
        self.frame = {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
        if not chunk.get("choices"):
            return b""
        choice = first_choice(chunk)
        delta = table(choice, "delta")
        self._note(delta)
        if self._held or calls_in(delta) or choice.get("finish_reason") is not None:
            self._held.append(chunk)
            return b""
        return self._told(raw, chunk, dict(choice), dict(delta))

    def _told(self, raw: bytes, chunk: dict[str, Any], choice: dict[str, Any], delta: dict[str, Any]) -> bytes:
        words = delta.get("content")
        self.spoke = self.spoke or bool(words)
        if not self._later:
            return raw
        delta.pop("role", None)
        if words and self._gap:
            self._gap = False
            delta["content"] = "\n\n" + words
        if not any(delta.values()):
            return b""
        return to_event({**chunk, "choices": [{**choice, "delta": delta}]})

    def _note(self, delta: Mapping[str, Any]) -> None:
        for name in ("content", "reasoning_content"):
            if isinstance(text := delta.get(name), str):
                self._texts[name] = self._texts.get(name, "") + text
        details = delta.get("reasoning_details")
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, Mapping):
                at = detail.get("index")
                self._details[at] = _joined(self._details.get(at, {}), detail, ("text", "signature", "data"))
        for call in calls_in(delta):
            if not isinstance(call, Mapping):
                raise Garbage("a tool call that is not an object")
            at = _index(call)
            before = self._calls.get(at, {})
            function = _joined(table(before, "function"), table(call, "function"), ("arguments",))
            rest = {name: value for name, value in call.items() if name != "index" and value is not None}
            self._calls[at] = {**before, **rest, "function": function}


def _joined(before: Mapping[str, Any], more: Mapping[str, Any], grows: tuple[str, ...]) -> dict[str, Any]:
    """Two pieces of one object: texts that come in pieces are put together, and what is set later stands."""
    out = {**before, **{name: value for name, value in more.items() if value is not None}}
    for name in grows:
        if isinstance(before.get(name), str) and isinstance(more.get(name), str):
            out[name] = before[name] + more[name]
    return out


def _index(call: Any) -> int:
    index = call.get("index", 0) if isinstance(call, Mapping) else 0
    if not isinstance(index, int):
        raise Garbage("a tool call whose index is not a number")
    return index
