"""Gemini answers: responses, stream events and errors of generateContent as OpenAI's chat completions have them.

Pure. Written against google-genai 3.4 (`types.py`). A stream has no end mark: it is over when the connection closes
after every candidate has its finish reason.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from routing.chat_answer import Frame, Said, arguments_of, choice_of, completion, count, error_of, tool_call, usage_of
from routing.conversion import Fault
from routing.streams import Garbage

FINISH_REASONS: Final = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
"""A reason that is neither here nor in BROKEN is "content_filter": all others say that an answer was withheld."""

BROKEN: Final = frozenset(
    (
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    )
)
"""The model has failed. OpenAI has no word for it, and "stop" would pass nothing off as an answer."""

ERROR_STATUSES: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_DELAY: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")


def decode(answer: Mapping[str, Any], created_s: int) -> dict[str, Any]:
    """The completion that a response is; raises Garbage for what is none, and for a candidate that is BROKEN."""
    candidates = _candidates(answer)
    choices = [_choice(at, candidate) for at, candidate in enumerate(candidates)]
    if not choices and not answer.get("promptFeedback"):
        raise Garbage("a response without a candidate")
    if not choices:
        choices = [choice_of(0, Said("", refusal=_blocked(answer)), "content_filter")]
    return completion(
        _text(answer, "responseId"), _text(answer, "modelVersion"), created_s, choices, usage_from(answer)
    )


def usage_from(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """OpenAI's usage; None where there is none. Thoughts are billed as output and are not among the candidates' tokens."""
    usage = answer.get("usageMetadata")
    if not isinstance(usage, Mapping) or "promptTokenCount" not in usage:
        return None
    thoughts = count(usage, "thoughtsTokenCount")
    details = usage.get("promptTokensDetails")
    audio_tokens = sum(
        count(row, "tokenCount")
        for row in (details if isinstance(details, list) else ())
        if isinstance(row, Mapping) and row.get("modality") == "AUDIO"
    )
    return usage_of(
        prompt_tokens=count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount"),
        completion_tokens=count(usage, "candidatesTokenCount") + thoughts,
        cached_tokens=count(usage, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
        audio_tokens=audio_tokens,
    )


def fault(status: int | None, answer: Mapping[str, Any]) -> Fault:
    """The error in an error body or an error event, with the pause that its RetryInfo asks for.

    A wrong key is a 400 at Google, told apart by its reason only: it is no mistake of the caller's, so it is a 401.

    >>> fault(429, {"error": {"status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "2s"}]}}).retry_after_ms
    2000.0
    """
    error = answer.get("error")
    error = error if isinstance(error, Mapping) else {}
    word, own_code = error.get("status"), error.get("code")
    word = word if isinstance(word, str) else ""
    if status is None:
        is_status = isinstance(own_code, int) and 400 <= own_code <= 599
        status = own_code if isinstance(own_code, int) and is_status else ERROR_STATUSES.get(word, 502)
    details = error.get("details")
    rows = [row for row in (details if isinstance(details, list) else ()) if isinstance(row, Mapping)]
    if any(row.get("reason") == "API_KEY_INVALID" for row in rows):
        status = 401
    delays = (_DELAY.fullmatch(str(row.get("retryDelay"))) for row in rows)
    waits_ms = next((float(found[1]) * 1000.0 for found in delays if found), None)
    message = error.get("message")
    message = message if isinstance(message, str) and message else f"the provider answered with status {status}"
    kind = word.lower() or "upstream_error"
    return Fault(status, error_of(message, kind, kind), waits_ms)


class GeminiStream:
    """The chunks of one stream of responses. `done` never comes, see the module's text."""

    __slots__ = ("_calls", "_created_s", "_frame", "_include_usage", "_open", "_seen", "done", "usage")

    def __init__(self, include_usage: bool, created_s: int) -> None:
        self._include_usage = include_usage
        self._created_s = created_s
        self._frame: Frame | None = None
        self._calls: dict[int, int] = {}
        """How many tools each candidate has called."""
        self._open: set[int] = set()
        self._seen: set[int] = set()
        self.usage: dict[str, Any] | None = None
        self.done = False

    @property
    def finished(self) -> bool:
        return bool(self._seen) and not self._open

    def see(self, event: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        candidates = _candidates(event)
        self.usage = usage_from(event) or self.usage
        if self._frame is None:
            answer_id, model = _text(event, "responseId"), _text(event, "modelVersion")
            self._frame = Frame(answer_id, model, self._created_s, self._include_usage)
        chunks: list[dict[str, Any]] = []
        for at, candidate in enumerate(candidates):
            chunks += self._candidate(self._frame, _index(candidate, at), candidate)
        if not candidates and not self._seen and event.get("promptFeedback"):
            self._seen.add(0)
            delta = {"role": "assistant", "content": "", "refusal": _blocked(event)}
            chunks.append(self._frame.chunk(delta, finish_reason="content_filter"))
        return chunks

    def last(self) -> Sequence[dict[str, Any]]:
        return () if self._frame is None else self._frame.usage_chunk(self.usage)

    def _candidate(self, frame: Frame, index: int, candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
        chunks: list[dict[str, Any]] = []
        if index not in self._seen:
            self._seen.add(index)
            self._open.add(index)
            chunks.append(frame.chunk({"role": "assistant", "content": ""}, index=index))
        said = _said(candidate)
        before = self._calls.get(index, 0)
        self._calls[index] = before + len(said.tool_calls)
        calls = [{"index": before + at, **call} for at, call in enumerate(said.tool_calls)]
        logprobs = _logprobs(candidate)
        for name, value in (
            ("reasoning_content", said.reasoning),
            ("content", said.text),
            ("images", list(said.images)),
            ("tool_calls", calls),
        ):
            if value:
                chunks.append(frame.chunk({name: value}, index=index, logprobs=logprobs))
                logprobs = None
        reason = candidate.get("finishReason")
        if reason and index in self._open:
            self._open.discard(index)
            finish_reason = _finish_reason(reason, bool(self._calls[index]))
            chunks.append(frame.chunk({}, index=index, finish_reason=finish_reason, logprobs=logprobs))
        return chunks


def _choice(at: int, candidate: Mapping[str, Any]) -> dict[str, Any]:
    reason = candidate.get("finishReason")
    if not reason:
        raise Garbage("a candidate that is not finished")
    said = _said(candidate)
    return choice_of(_index(candidate, at), said, _finish_reason(reason, bool(said.tool_calls)), _logprobs(candidate))


def _finish_reason(reason: object, called: bool) -> str:
    word = str(reason)
    if word in BROKEN:
        raise Garbage(f"a candidate that ended with {word}")
    found = FINISH_REASONS.get(word, "content_filter")
    return "tool_calls" if called and found == "stop" else found


def _said(candidate: Mapping[str, Any]) -> Said:
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else None
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, Mapping):
            raise Garbage("a part that is not an object")
        if "text" in part:
            (thoughts if part.get("thought") else texts).append(_text(part, "text"))
        elif isinstance(part.get("functionCall"), Mapping):
            calls.append(_call(part))
        elif isinstance(part.get("inlineData"), Mapping):
            images.append(_image(part["inlineData"]))
    return Said("".join(texts) if texts else None, "".join(thoughts), calls, images=images)


def _call(part: Mapping[str, Any]) -> dict[str, Any]:
    call = part["functionCall"]
    arguments = call.get("args")
    if arguments is not None and not isinstance(arguments, Mapping):
        raise Garbage("a call whose arguments are no object")
    signature = part.get("thoughtSignature")
    return tool_call(
        # Older models give none, and the caller needs one to tell its results apart.
        _text(call, "id") or f"call_{uuid.uuid4().hex[:24]}",
        _text(call, "name"),
        arguments_of(arguments),
        signature=signature if isinstance(signature, str) else None,
    )


def _image(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:{_text(data, 'mimeType')};base64,{_text(data, 'data')}"}}


def _logprobs(candidate: Mapping[str, Any]) -> dict[str, Any] | None:
    result = candidate.get("logprobsResult")
    chosen = result.get("chosenCandidates") if isinstance(result, Mapping) else None
    if not isinstance(result, Mapping) or not isinstance(chosen, list):
        return None
    tops = result.get("topCandidates")
    tops = tops if isinstance(tops, list) else []
    content = []
    for at, row in enumerate(chosen):
        top = tops[at].get("candidates") if at < len(tops) and isinstance(tops[at], Mapping) else None
        others = [_logprob(other) for other in top] if isinstance(top, list) else []
        content.append({**_logprob(row), "top_logprobs": others})
    return {"content": content, "refusal": None}


def _logprob(row: object) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise Garbage("a log probability that is not an object")
    token, value = _text(row, "token"), row.get("logProbability", 0.0)
    if not isinstance(value, int | float):
        raise Garbage("a log probability that is no number")
    return {"token": token, "logprob": value, "bytes": list(token.encode(errors="replace"))}


def _candidates(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    candidates = answer.get("candidates") or []
    if not isinstance(candidates, list) or not all(isinstance(each, Mapping) for each in candidates):
        raise Garbage("candidates that are no objects")
    if not candidates and "usageMetadata" not in answer and "promptFeedback" not in answer:
        raise Garbage("not a response")
    return candidates


def _blocked(answer: Mapping[str, Any]) -> str:
    feedback = answer.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, Mapping) else None
    return f"The prompt was blocked: {reason}." if isinstance(reason, str) else "The provider gave no answer."


def _index(candidate: Mapping[str, Any], at: int) -> int:
    index = candidate.get("index", at)
    if not isinstance(index, int):
        raise Garbage("a candidate whose index is not a number")
    return index


def _text(of: Mapping[str, Any], name: str) -> str:
    value = of.get(name, "")
    if not isinstance(value, str):
        raise Garbage(f"a {name} that is no text")
    return value
