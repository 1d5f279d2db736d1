"""Judgement: what a provider's whole answer is worth, and what a caller is shown of it. Pure but for the second of `created`.

The same for the answer to a call and for a line of a batch's results.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from routing.attempts import Outcome, outcome_of
from routing.chat_answer import to_bytes
from routing.conversion import Conversion, read_fault
from routing.streams import Garbage, parse_object
from routing.tongues import Tongue, error_bytes
from routing.wires import Reported, Wire, error_code, means_spent


@dataclass(frozen=True, slots=True)
class Judged:
    """What an answer is worth: `status` and `body` are what a caller would be shown of it."""

    outcome: Outcome
    detail: str
    status: int
    body: bytes | None
    reported: Reported | None = None
    retry_after_ms: float | None = None


def judge(status: int, content: bytes, wire: Wire) -> Judged:
    """A whole answer in the wire's own shape."""
    if wire.conversion is not None:
        return _judge_converted(status, content, wire, wire.conversion)
    if not 200 <= status < 300:
        code = error_code(content)
        outcome: Outcome = "rejected" if status in (400, 429) and means_spent(code) else outcome_of(status)
        detail = f"HTTP {status} {code}".rstrip()
        # A redirect means nothing to a caller who sent no request there.
        return Judged(outcome, detail, status, content) if status >= 400 else Judged(outcome, detail, 502, None)
    try:
        answer = parse_object(content)
    except Garbage as garbage:
        return Judged("bad_response", f"the answer is {garbage}", 502, None)
    if (own := wire.error_status(answer)) is not None:
        return judge_error(own, content)
    return Judged("ok", "", status, content, wire.read_usage(answer))


def _judge_converted(status: int, content: bytes, wire: Wire, conversion: Conversion) -> Judged:
    """The same for a whole answer of another wire, which is converted on the way."""
    if 300 <= status < 400:
        return Judged(outcome_of(status), f"HTTP {status}", 502, None)
    if not 200 <= status < 300:
        fault = read_fault(conversion, status, content)
        body = to_bytes(fault.error)
        detail = f"HTTP {status} {error_code(body)}".rstrip()
        return Judged(outcome_of(fault.status), detail, fault.status, body, retry_after_ms=fault.retry_after_ms)
    try:
        answer = parse_object(content)
        if answer.get("error"):
            fault = conversion.fault(None, answer)
            judged = judge_error(fault.status, to_bytes(fault.error))
            return replace(judged, retry_after_ms=fault.retry_after_ms)
        converted = conversion.decode(answer, int(time.time()))
    except Garbage as garbage:
        return Judged("bad_response", f"the answer is {garbage}", 502, None)
    return Judged("ok", "", status, to_bytes(converted), wire.read_usage(converted))


def judge_error(code: int | None, body: bytes) -> Judged:
    """An error object inside an answer whose status says success."""
    code = code or 502
    return Judged(outcome_of(code), f"an error object ({code}) in a success", code, body)


def retold(judged: Judged, tongue: Tongue, asked: Mapping[str, Any]) -> Judged:
    """What was made of a chat completion, in the tongue of the body that asked."""
    content = judged.body or b""
    try:
        answer = parse_object(content)
    except Garbage:
        answer = {}
    if judged.outcome != "ok":
        error = answer.get("error")
        told = error if isinstance(error, Mapping) else {"message": content.decode(errors="replace")[:500]}
        return replace(judged, body=error_bytes(tongue, judged.status, told))
    try:
        return replace(judged, body=to_bytes(tongue.from_chat(answer, asked)))
    except Garbage as garbage:
        return Judged("bad_response", f"the answer is {garbage}", 502, None)
