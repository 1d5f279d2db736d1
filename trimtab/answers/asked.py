"""Asked: a request by all that decides its answer, and the question in it that may be worded otherwise.

Pure. Two requests with one digest may have one answer; all that is not known to leave the answer alone is in the digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from compressor.payload import OPTIONS
from trimtab.settings import Settings
from trimtab.surfaces import Surface

MAX_QUESTION_CHARACTERS: Final = 400
"""A longer text is no question that somebody else words otherwise: it holds documents, and its vector is theirs."""

_FOR_THE_RECORD: Final = frozenset(
    {"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier", "store"}
)
_HOW_IT_COMES: Final = frozenset({"stream", "stream_options"})
_OUR_OWN: Final = frozenset({"cache", "route", "deadline", "callback_url", "max_latency_ms"})
"""Of our own options, those that say when or how an answer comes and not what it may be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`digest` is that of all that decides the answer; `group` of the same without the question, None where another
    wording is not looked for."""

    digest: str
    group: str | None
    question: str


def asked(surface: Surface, body: Mapping[str, Any], server: str) -> Asked | None:
    """`server` stands for what the server's settings add (`server_of`). None for what is no JSON.

    >>> from trimtab.surfaces import CHAT
    >>> body = {"model": "m", "messages": [{"role": "user", "content": "How large may an upload be?"}]}
    >>> asked(CHAT, body, "") == asked(CHAT, {**body, "user": "ann", "stream": True}, "")
    True
    >>> asked(CHAT, body, "").digest == asked(CHAT, {**body, "temperature": 1}, "").digest
    False
    """
    said = {name: value for name, value in body.items() if name not in _FOR_THE_RECORD | _HOW_IT_COMES}
    if isinstance(own := said.pop(OPTIONS, None), Mapping):
        said[OPTIONS] = {name: value for name, value in own.items() if name not in _OUR_OWN}
    said.setdefault(OPTIONS, {})
    try:
        digest = _digest(surface.path, server, said)
        found = _question(said, surface.api.turns)
        if found is None:
            return Asked(digest, None, "")
        return Asked(digest, _digest(surface.path, server, found[1]), found[0])
    except (TypeError, ValueError, RecursionError):
        return None


def server_of(settings: Settings) -> str:
    """What of the settings decides an answer: who is asked, and how much of a payload is kept."""
    providers = [(each.name, each.kind, each.base_url, each.models) for each in settings.providers]
    trimming = (settings.encoder, settings.ranker, str(settings.calibration), settings.min_coverage, settings.marker)
    return hashlib.sha256(repr((providers, trimming, settings.auto)).encode()).hexdigest()


def _question(said: Mapping[str, Any], turns: str) -> tuple[str, Mapping[str, Any]] | None:
    """The text of the last turn, where it is the user's and nothing but a short text; and the body without it."""
    asked_in = said.get(turns)
    if isinstance(asked_in, str):
        text, rest = asked_in, {**said, turns: None}
    elif isinstance(asked_in, list) and asked_in and isinstance(asked_in[-1], Mapping):
        last = asked_in[-1]
        if last.get("role") != "user":
            return None
        content = last.get("content")
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], Mapping):
            part = content[0]
            if set(part) != {"type", "text"}:
                return None
            content = part["text"]
        if not isinstance(content, str):
            return None
        text, rest = content, {**said, turns: [*asked_in[:-1], {**last, "content": None}]}
    else:
        return None
    return (text, rest) if text.strip() and len(text) <= MAX_QUESTION_CHARACTERS else None


def _digest(path: str, server: str, said: Mapping[str, Any]) -> str:
    content = json.dumps([path, server, said], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()
