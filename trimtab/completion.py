"""Completion: a finished answer, as Python callers get it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from routing.receipt import Receipt
from routing.replies import Reply


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished chat completion. `answer` is the provider's own object, `status` its HTTP status."""

    status: int
    answer: Mapping[str, Any]
    receipt: Receipt


def answer_of(reply: Reply) -> Mapping[str, Any]:
    """The provider's object. A success is one for certain; an error page that is none is wrapped in OpenAI's shape."""
    try:
        answer = orjson.loads(reply.body or b"")
    except orjson.JSONDecodeError:
        answer = None
    if isinstance(answer, dict):
        return answer
    said = (reply.body or b"").decode(errors="replace")[:500]
    return {"error": {"message": said, "type": "upstream_error", "param": None, "code": None}}
