"""Plain requests: a body alone, one beside its answer, or a line of OpenAI's batch file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from trimtab.analysis.recorded import Beside, Recorded, moment, recorded, signs_in

_TIMES: Final = ("at", "timestamp", "time", "created_at", "created", "start_time", "startTime")
_ANSWERS: Final = ("response", "answer", "completion")
_SIGNS: Final = ("route", "path", "endpoint", "user_agent", "source", "job", "tags", "metadata")


def recognises(entry: Mapping[str, Any]) -> bool:
    return _request(entry) is not None


def read(entry: Mapping[str, Any], where: str) -> Recorded | None:
    body = _request(entry)
    if body is None:
        raise ValueError("holds no request")
    if is_embedding(body):
        return None
    answer = next((value for name in _ANSWERS if (value := opened(entry.get(name))) is not None), None)
    if isinstance(answer, Mapping) and isinstance(answer.get("body"), Mapping):  # OpenAI's batch output
        answer = answer["body"]
    if isinstance(answer, Mapping) and isinstance(answer.get("error"), Mapping):
        return None
    at = next((at for name in _TIMES if (at := moment(entry.get(name))) is not None), None)
    if at is None and isinstance(answer, Mapping):
        at = moment(answer.get("created") or answer.get("created_at"))
    beside = Beside(
        id=next((value for name in ("id", "request_id", "custom_id") if isinstance(value := entry.get(name), str)), ""),
        at=at,
        answer=answer,
        signs=tuple(_signs(entry)) if body is not entry else (),
        conversation=_text(entry, "conversation_id") or _text(entry, "session_id"),
    )
    return recorded(body, where, beside)


def opened(value: object) -> object:
    """The JSON in a text; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def is_embedding(body: Mapping[str, Any]) -> bool:
    """Whether it asks for vectors, of which nothing can be restructured here."""
    given = body.get("input")
    texts = isinstance(given, list) and bool(given) and not any(isinstance(each, Mapping) for each in given)
    return "messages" not in body and (texts or "embed" in str(body.get("model", "")))


def _request(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for name in ("request", "body"):
        inner = opened(entry.get(name))
        if isinstance(inner, Mapping) and isinstance(inner.get("body"), Mapping):
            inner = inner["body"]
        if isinstance(inner, Mapping) and ("messages" in inner or "input" in inner):
            return inner
    return entry if "messages" in entry or ("input" in entry and "model" in entry) else None


def _signs(entry: Mapping[str, Any]) -> Iterator[str]:
    for name in _SIGNS:
        yield from signs_in(entry.get(name))
    headers = entry.get("headers")
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if str(name).lower() == "user-agent" and isinstance(value, str):
            yield value


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
