"""Quoting: a few words of a recorded text, short, on one line, and without anything that looks like a key."""

from __future__ import annotations

import re
from typing import Final

MAX_EXCERPT_CHARS: Final = 100

_SECRET: Final = re.compile(
    r"\b(?:sk|pk|rk|ghp|gho|ghs|xox[abp]|glpat|hf|AKIA|ASIA|AIza)[-_]?[A-Za-z0-9_-]{12,}"
    r"|\beyJ[\w-]{8,}(?:\.[\w-]+)*"
    r"|\bBearer\s+\S+"
    r"|(?i:\b(?:api[-_ ]?key|password|passwd|secret|token)\b\s*[:=]\s*)\S+"
)


def without_secrets(text: str) -> str:
    """The text with every known form of a key replaced."""
    return _SECRET.sub("[secret]", text)


def excerpt(text: str) -> str:
    """At most MAX_EXCERPT_CHARS of `text`.

    >>> excerpt("The key:\\n sk-abcdefghijklmnop1234 is yours.")
    'The key: [secret] is yours.'
    """
    # The secret first: a cut through the middle of one would hide what it is.
    told = " ".join(without_secrets(text[: 20 * MAX_EXCERPT_CHARS]).split())
    return told if len(told) <= MAX_EXCERPT_CHARS else told[: MAX_EXCERPT_CHARS - 1] + "…"
