"""Names: what a document is called, and which documents and names a text mentions. This is how second hops are found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

MIN_NAME_CHARS = 4  # "It", "1990" as a title says nothing when it is found in a text

_WORD = re.compile(r"[^\W_]+")
_DISAMBIGUATION = re.compile(r"\s*\([^)]*\)\s*$")
_CAPITALISED = re.compile(r"\b[^\W\d_a-z][\w'’.-]*|\b\d{3,4}\b")

# Words that are capitalised at a sentence's beginning without being names. English; other languages' cost a little noise.
_GRAMMAR = """
    the a an of in on at to for and or is are was were be been by with from as that this it its he she his her they their
    who whom which what when where how why did do does has have had not no than then there also after before during into
    about over under between first one two new
"""
_COMMON = frozenset(_GRAMMAR.split())


def plain_words(text: str) -> list[str]:
    """Words in lower case without accents: "Tekezé River" and "tekeze river" are one.

    >>> plain_words("The Tekezé River")
    ['the', 'tekeze', 'river']
    """
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return _WORD.findall(text.lower())


def content_words(text: str) -> set[str]:
    """`plain_words` that are not grammar."""
    return set(plain_words(text)) - _COMMON


def names_of(title: str) -> tuple[str, ...]:
    """What running text may call the document: its title without a disambiguation, and what stands before a comma.

    >>> names_of("Rochester, New York"), names_of("Brother (Pearl Jam song)")
    (('rochester new york', 'rochester'), ('brother',))
    """
    bare = _DISAMBIGUATION.sub("", title)
    names = dict.fromkeys(" ".join(plain_words(part)) for part in (bare, bare.split(",")[0]))
    return tuple(name for name in names if len(name) >= MIN_NAME_CHARS and name not in _COMMON)


def capitalised_words(text: str) -> list[str]:
    """The words of names, and years, in order and in lower case.

    >>> capitalised_words("The 1990 album by Pearl Jam.")
    ['1990', 'pearl', 'jam']
    """
    found = (word for run in _CAPITALISED.findall(text) for word in plain_words(run))
    return [word for word in found if len(word) > 1 and word not in _COMMON]


def mentioned(names: Sequence[tuple[str, ...]], texts: Iterable[Sequence[str]]) -> set[int]:
    """The numbers of the documents (each with its names) that one of the texts (each a list of plain words) mentions."""
    padded = [f" {' '.join(words)} " for words in texts]
    return {number for number, own in enumerate(names) for name in own if any(f" {name} " in text for text in padded)}
