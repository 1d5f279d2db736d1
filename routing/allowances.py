"""Allowances: what a provider says it will still take from us, read from the headers of its answers.

Pure. OpenAI and most others name them x-ratelimit-remaining-requests, Anthropic anthropic-ratelimit-requests-remaining.
A provider that sends none (Gemini, vLLM, llama.cpp) has no allowance here, and is taken to have room.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(h|ms|m|s|us|µs|ns)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Allowance:
    """Of requests or of tokens: `remaining` of `limit` at `at_s`, and all of it again at `full_s`."""

    limit: int
    remaining: int
    at_s: float
    full_s: float

    def left(self, now_s: float) -> float:
        """What there is at `now_s`. It comes back evenly: OpenAI and Anthropic both fill a token bucket.

        >>> Allowance(60, 0, at_s=0.0, full_s=60.0).left(15.0)
        15.0
        """
        if now_s >= self.full_s:
            return float(self.limit)
        passed = max(0.0, now_s - self.at_s) / (self.full_s - self.at_s)
        return self.remaining + (self.limit - self.remaining) * passed


def read_allowance(headers: Mapping[str, str], what: str, now_s: float, since_1970_s: float) -> Allowance | None:
    """The allowance of `what` ("requests" or "tokens"), None unless all three of its headers make sense.

    `headers` are in lower case. `now_s` is the time by which the allowance counts, `since_1970_s` the same moment in
    seconds since 1970, for the providers that say when and not how long.

    >>> read_allowance({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59",
    ...     "x-ratelimit-reset-requests": "1m0.5s"}, "requests", 5.0, 0.0)
    Allowance(limit=60, remaining=59, at_s=5.0, full_s=65.5)
    """
    limit, remaining, reset = (
        (headers.get(f"x-ratelimit-{figure}-{what}") or headers.get(f"anthropic-ratelimit-{what}-{figure}", "")).strip()
        for figure in ("limit", "remaining", "reset")
    )
    return _allowance(_whole(limit), _whole(remaining), _seconds(reset, since_1970_s), now_s)


def _allowance(limit: int | None, remaining: int | None, reset_s: float | None, now_s: float) -> Allowance | None:
    if not limit or remaining is None or reset_s is None:
        return None
    return Allowance(limit, min(remaining, limit), now_s, now_s + reset_s)


def _whole(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[0-9]{1,12}", value) else None


def _seconds(value: str, since_1970_s: float) -> float | None:
    """From now: Go's durations (OpenAI, Groq), plain seconds, or a date as in RFC 3339 (Anthropic)."""
    if _SECONDS.fullmatch(value):
        return float(value)
    if _DURATION.fullmatch(value):
        return sum(float(count) * _UNITS_S[unit] for count, unit in _PART.findall(value))
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - since_1970_s)
