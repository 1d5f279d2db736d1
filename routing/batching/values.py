"""Values out of a provider's JSON: each is read in one place, and none is trusted to be what it should be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from routing.batching.seam import BatchFailed

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_]{1,63}")


def id_of(value: object) -> str:
    """An id that may stand in a path. Raises BatchFailed for anything else: it would be another address."""
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise BatchFailed("an id of a batch or file that is none", "bad_response")


def count_of(table: Mapping[str, Any], name: str) -> int:
    """0 where there is none. Google writes 64-bit numbers as text."""
    value = table.get(name)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def word_of(value: object) -> str:
    """A plain word, else "": nothing else of an error is repeated."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def when_of(value: object) -> datetime | None:
    """A moment as RFC 3339 has it, None for anything else.

    >>> when_of("2026-11-24T16:00:00.123456789Z").isoformat()
    '2026-11-24T16:00:00.123456+00:00'
    """
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", value))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
