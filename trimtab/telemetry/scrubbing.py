"""Scrubbing: a text without its secrets, for whatever is about to be written to a log.

Two nets, since neither holds alone: secrets that are known (what the environment holds under the name of a key) go
wherever they stand, in whatever form; and what looks like a secret goes although nobody has heard of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "[secret]"
_LEAST_CHARACTERS: Final = 6
"""A shorter value of the environment is no secret that is worth the name, and would be found in ordinary words."""

_SECRET_NAME: Final = re.compile(
    r"(?i)(^|_)(key|keys|token|secret|secrets|password|passwd|pwd|credentials?|dsn)(_|$)|_KEY_"
)

_SHAPES: Final = re.compile(
    r"""
    \b(?:sk|pk|rk|tt|gsk|xai|pplx|hf|r8|whsec|glpat|fw|nvapi|csk|lsv2)[-_][A-Za-z0-9_\-+/=.]{8,}  # makers' prefixes
    | \bgh[pousr]_[A-Za-z0-9]{16,}
    | \bxox[abeprs]-[A-Za-z0-9-]{8,}
    | \bAIza[A-Za-z0-9_-]{16,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{12,}
    | \bya29\.[A-Za-z0-9_-]{8,}
    | \beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*            # a JSON Web Token
    """,
    re.VERBOSE,
)
_AUTHORIZATION: Final = re.compile(r"(?i)\b(bearer|basic|digest)(\s{1,4}|%20|\+)[^\s'\",;}\]]{4,}")
# Every run before a value is bounded: unbounded ones make the time quadratic in what a caller sends.
# name=value, "name": "value", name: value, (b'name', b'value'): headers, queries, forms, JSON and reprs.
_NAMED: Final = re.compile(
    r"""(?ix)
    ( (?: api[-_]?key | secret | passw(?:or)?d | credential | access[-_]?token | auth[-_]?token | refresh[-_]?token
               | private[-_]?key | authorization | cookie | signature | session )
      | \b(?:key|token|sig|pwd|code) (?= \s*= )
    )
    ( [\w-]{0,40} (?: \\?['"]? \s{0,4} [=:] | \\?['"] \s{0,4} , ) \s{0,4} b?\\?['"]? )
    (?! \s ) (?! b?['"] ) [^\s'"&;,)}\]\\]+
    """
)
# Looked for before _NAMED is tried at every place of a text: most lines have none of them.
_NAMING: Final = re.compile(r"(?i)key|secret|passw|pwd|credential|token|authorization|cookie|sig|session|code")
_USER_IN_URL: Final = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^\s/@'\"]+@")


class Scrubber:
    """Takes secrets out of texts. `known` are values that must never be seen, whatever they look like."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        values = {form for value in known if len(value.strip()) >= _LEAST_CHARACTERS for form in _forms(value.strip())}
        longest_first = sorted(values, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if values else None

    def __call__(self, text: str) -> str:
        """
        >>> Scrubber(["correct horse"])("GET https://x.example/v1?key=AIzaSyA-1234567&q=correct%20horse")
        'GET https://x.example/v1?key=[secret]&q=[secret]'
        """
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        if "://" in text:
            text = _USER_IN_URL.sub(rf"\1{HIDDEN}@", text)
        text = _AUTHORIZATION.sub(rf"\1 {HIDDEN}", text)
        if _NAMING.search(text):
            text = _NAMED.sub(rf"\1\2{HIDDEN}", text)
        return _SHAPES.sub(HIDDEN, text)


def secrets_in(environ: Mapping[str, str], names: Iterable[str] = ()) -> list[str]:
    """The values of `environ` that are secrets by their name, and those of `names`, the variables that settings name."""
    wanted = set(names)
    return [value for name, value in environ.items() if name in wanted or _SECRET_NAME.search(name)]


def _forms(value: str) -> set[str]:
    """The value as it may be written: as it is, in a URL, in a repr."""
    return {value, quote(value), quote(value, safe=""), repr(value)[1:-1]}
