"""Recorded: one request that was made, whoever wrote it down, and how its parts are told from plain JSON.

What a recording holds beside the request (headers, keys, addresses) is left out here, but for a few words that say who
sent it: a user agent, the path without its query, tags. So no secret of a header can reach a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from compressor.prompts import CHAT, MESSAGES, Api
from routing.offers import Usage
from routing.wires import read_chat_usage, read_messages_usage, read_responses_usage
from trimtab.errors import BadRequest
from trimtab.surfaces import surface_of

_MAX_SIGNS: Final = 12
_MAX_MODEL_CHARS: Final = 200
_MAX_SIGN_CHARS: Final = 120
_SERVICES: Final = {"flex": "flex", "priority": "priority", "batch": "batch"}


class Prefix(NamedTuple):
    """A digest of what stands before a conversation, and its tokens."""

    digest: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """`where` names the file and the line or entry. `body` is empty where the recording has counts and no texts.

    `api` is None then too. `at` is None where the recording says no time. `usage` is what the provider billed, None where
    that is not recorded. `signs` are words of whoever sent it (user agent, path, tags, metadata), short and few. `calls`
    are the tools that the answer called; None where the answer is not recorded. `seller` is the provider's name in the
    price list, "" for the maker of the model. `conversation` is an id that the recorder gave, "" for none. `prefix` is what
    stands before the conversation, where it is recorded without its text.
    """

    id: str
    where: str
    model: str
    body: Mapping[str, Any] = field(repr=False)
    api: Api | None
    at: datetime | None = None
    usage: Usage | None = None
    processing: str = "sync"
    streamed: bool = False
    signs: tuple[str, ...] = ()
    calls: frozenset[str] | None = None
    seller: str = ""
    conversation: str = ""
    prefix: Prefix | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """What a recording says beside the request itself. None and "" for what it does not say; `usage` goes before what the
    answer says."""

    id: str = ""
    model: str = ""
    at: datetime | None = None
    answer: object = field(default=None, repr=False)
    usage: Usage | None = None
    streamed: bool = False
    signs: tuple[str, ...] = ()
    seller: str = ""
    conversation: str = ""


def recorded(body: Mapping[str, Any], where: str, beside: Beside) -> Recorded:
    """The request that a recording holds. Raises ValueError, which quotes nothing, for what is none of a known API."""
    try:
        surface = surface_of(body)
    except BadRequest:
        raise ValueError("holds no request: neither messages nor input") from None
    answer = beside.answer if isinstance(beside.answer, Mapping) else None
    api = _spoken(surface.api, body, answer)
    model = beside.model or body.get("model") or (answer or {}).get("model")
    if not isinstance(model, str) or not 0 < len(model) <= _MAX_MODEL_CHARS:
        raise ValueError("names no model")
    usage = beside.usage if beside.usage is not None else usage_of(api, answer)
    return Recorded(
        id=beside.id or _id_of(answer) or where,
        where=where,
        model=model,
        body=body,
        api=api,
        at=beside.at,
        usage=usage,
        processing=_processing(body, answer),
        streamed=beside.streamed or body.get("stream") is True,
        signs=tuple(_signs((*beside.signs, *signs_in(body.get("metadata")), *signs_in(body.get("user"))))),
        calls=None if answer is None else frozenset(called(answer)),
        seller=beside.seller,
        conversation=beside.conversation,
    )


def usage_of(api: Api, answer: Mapping[str, Any] | None) -> Usage | None:
    """What an answer says it took."""
    if answer is None:
        return None
    read = {"chat completions": read_chat_usage, "messages": read_messages_usage}.get(api.name, read_responses_usage)
    reported = read(answer)
    return None if reported is None else reported.usage


def called(value: object) -> Iterator[str]:
    """The names of the tools that an answer, or a conversation, calls: OpenAI's both ways, and Anthropic's."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            function = item.get("function")
            if item.get("type") in ("tool_use", "server_tool_use", "function_call", "custom_tool_call", "mcp_call"):
                yield str(item.get("name", ""))
            elif isinstance(function, Mapping) and "arguments" in function:
                yield str(function.get("name", ""))
            elif isinstance(item.get("function_call"), Mapping):
                yield str(item["function_call"].get("name", ""))
            stack.extend(value for name, value in item.items() if name != "arguments")
        elif isinstance(item, list):
            stack.extend(item)


def moment(value: object) -> datetime | None:
    """A time as recorders write it: ISO 8601, or seconds (or milliseconds) since 1970. One without a zone is in UTC.

    >>> moment("2026-11-24T12:00:00Z").isoformat(), moment(1_795_521_600_000).isoformat()
    ('2026-11-24T12:00:00+00:00', '2026-11-24T12:00:00+00:00')
    """
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, int | float):
            seconds = value / 1000 if abs(value) > 1e11 else value
            return datetime.fromtimestamp(seconds, UTC)
        at = datetime.fromisoformat(value.strip()) if isinstance(value, str) and value.strip() else None
        # astimezone, because the first and the last hours of the calendar have no UTC
        return None if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def signs_in(value: object) -> Iterator[str]:
    """The short texts of metadata: its values, with their names before them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (f"{name}: {each}" for name, each in value.items() if isinstance(each, str) and _tells(str(name)))
    elif isinstance(value, list | tuple):
        yield from (each for each in value if isinstance(each, str))


_TELLING: Final = ("job", "task", "route", "source", "tag", "name", "agent", "workload", "pipeline", "user", "feature")


def _tells(name: str) -> bool:
    """Whether a field of metadata says who sends, and no key: what else is there is nobody's business."""
    lower = name.lower()
    return any(word in lower for word in _TELLING) and not any(word in lower for word in ("key", "token", "secret"))


def _signs(words: tuple[str, ...]) -> Iterator[str]:
    yield from (word[:_MAX_SIGN_CHARS] for word in dict.fromkeys(words[:_MAX_SIGNS]) if word.strip())


def _spoken(api: Api, body: Mapping[str, Any], answer: Mapping[str, Any] | None) -> Api:
    """Anthropic's API where the answer or the model's name says so: many a request fits both."""
    if api is not CHAT:
        return api
    said = (answer or {}).get("type") == "message" or (
        str(body.get("model", "")).startswith("claude") and "choices" not in (answer or {}) and "max_tokens" in body
    )
    return MESSAGES if said else CHAT


def _processing(body: Mapping[str, Any], answer: Mapping[str, Any] | None) -> str:
    told = (answer or {}).get("service_tier") or body.get("service_tier")
    return _SERVICES.get(str(told), "sync")


def _id_of(answer: Mapping[str, Any] | None) -> str:
    value = (answer or {}).get("id")
    return value if isinstance(value, str) else ""
