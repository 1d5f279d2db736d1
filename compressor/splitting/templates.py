"""Templates: which entries of a log say the same of different things.

A simple form of Drain (He et al., "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017): entries of
as many words, of one level, that begin alike are compared word by word. `drain3` is not used because it pins old versions of two
packages exactly, which would bind everyone who installs this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MIN_ALIKE = 0.6  # share of a template's words that an entry of it has
MAX_TEMPLATES = 50  # compared with, of those that begin alike; then the last one takes what is like none
MAX_WORDS = 60
_VARIABLE = ""  # no word is empty
_LEVEL_WORDS = 8  # among which a level stands


def templates_of(entries: Iterable[str]) -> list[int]:
    """For each entry the number of its template, counted from 0 in the order of first appearance.

    >>> templates_of(["10:00:01 INFO took 5 ms", "10:00:02 INFO took 9 ms", "10:00:03 WARN disk is full"])
    [0, 0, 1]
    """
    groups: dict[tuple[int, bool, tuple[str, ...]], list[tuple[int, list[str]]]] = {}
    found: list[int] = []
    count = 0
    for entry in entries:
        words = _words(entry)
        group = groups.setdefault((len(words), "\n" in entry, _head(words)), [])
        alike, number, template = max(
            ((_alike(known, words), -n, known) for n, known in group), default=(0.0, 1, words)
        )
        number = -number
        if number < 0 or (alike < MIN_ALIKE and len(group) < MAX_TEMPLATES):
            number, count = count, count + 1
            group.append((number, words))
        else:
            template[:] = [a if a == b else _VARIABLE for a, b in zip(template, words, strict=True)]
        found.append(number)
    return found


_LEVELS = frozenset(
    [
        "TRACE",
        "DEBUG",
        "INFO",
        "NOTICE",
        "WARN",
        "WARNING",
        "ERROR",
        "CRIT",
        "CRITICAL",
        "FATAL",
        "SEVERE",
        "EMERG",
        "ALERT",
    ]
)
_DIGIT = re.compile(r"\d")
_VALUE = re.compile(r"(?<==).+|\"[^\"]*\"|'[^']*'|0x[\da-fA-F]+")


def _words(entry: str) -> list[str]:
    """The words of an entry's first line; those that vary from one to the next are empty."""
    words = entry.partition("\n")[0].split()[:MAX_WORDS]
    return [_VARIABLE if _DIGIT.search(word) else _VALUE.sub(_VARIABLE, word) for word in words]


def _head(words: list[str]) -> tuple[str, ...]:
    """The first word that does not vary, and the entry's level."""
    first = next((word for word in words if word), "")
    levels = (word.strip("[]<>():,|").upper() for word in words[:_LEVEL_WORDS])
    return first, next((word for word in levels if word in _LEVELS), "")


def _alike(template: list[str], words: list[str]) -> float:
    """The share of a template's words that the entry has. Where the template varies, a word counts half against it: else
    one that varies nearly everywhere would take in everything."""
    same = sum(a == b != _VARIABLE for a, b in zip(template, words, strict=True))
    of = sum(1.0 if a else 0.5 * bool(b) for a, b in zip(template, words, strict=True))
    return same / of if of else 1.0
