"""What splitting is made of: pieces, and a page, which is a text with its lines found once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

MAX_PIECE_CHARS = 600  # what is longer is cut where its kind allows it: one segment must not eat a whole budget
LINE_GAP = "\n…\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """A span of one text before it is counted.

    `skeleton`: indexes, in the same text, of every piece it makes no sense without, theirs included. A piece that is in
    a skeleton is kept for its own sake only if it has a `stub`: what then stands for all that is under it ("" where
    nothing need). `gap`: what stands before the piece when the one before it was left out, where the kind's own gap would
    not do.
    """

    start: int
    end: int
    kind: str
    skeleton: tuple[int, ...] = ()
    gap: str | None = None
    stub: str | None = None


class Line(NamedTuple):
    """A line that is not blank: `margin` is where it begins, `start:end` what is in it without white space around it."""

    margin: int
    start: int
    end: int


# anchored at line starts and possessive, so that a megabyte of blanks is read once
_LINE = re.compile(r"^[^\S\n]*+(\S[^\n]*)", re.MULTILINE)
_REST_OF_LINE = re.compile(r"[^\S\n]*+(\S[^\n]*)")


@dataclass(frozen=True, slots=True)
class Page:
    """A text and its lines. `memo` is for what a kind's claim learnt of the text and need not learn again."""

    text: str
    lines: tuple[Line, ...]
    memo: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, i: int) -> str:
        """Line `i`, without the white space around it."""
        return self.text[self.lines[i].start : self.lines[i].end]

    def raw(self, i: int) -> str:
        """Line `i` with its indentation."""
        return self.text[self.lines[i].margin : self.lines[i].end]

    def indent(self, i: int) -> str:
        return self.text[self.lines[i].margin : self.lines[i].start]

    def blank_before(self, i: int) -> bool:
        """Whether a blank line, or nothing at all, stands before line `i`."""
        if i == 0:
            return True
        return self.text.count("\n", self.lines[i - 1].end, self.lines[i].margin) > 1

    def span(self, first: int, last: int) -> tuple[int, int]:
        """From the first character of line `first` to the last of line `last - 1`."""
        return self.lines[first].start, self.lines[last - 1].end


def page_of(text: str, start: int = 0, end: int | None = None) -> Page:
    """The page of `text[start:end]`; offsets stay those of `text`."""
    end = len(text) if end is None else end
    rest = _REST_OF_LINE.match(text, start, end) if start and text[start - 1] != "\n" else None
    lines = [_line(text, match) for match in _LINE.finditer(text, rest.end() if rest else start, end)]
    return Page(text, tuple([_line(text, rest), *lines] if rest else lines))


def _line(text: str, match: re.Match[str]) -> Line:
    first, last = match.span(1)
    return Line(match.start(), first, first + len(text[first:last].rstrip()))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of text: how it is told, and how it is split.

    `claim(page, i)` is the number of the line after the last that belongs to a stretch of this kind starting at line
    `i`, and `i` where none starts. It reads no more lines than it claims, give or take a fixed number, so that a whole
    page is read in linear time. `split(page, first, last)` is the pieces of lines `first` to `last - 1`; skeletons are
    indexes into what it returns.
    """

    name: str
    claim: Callable[[Page, int], int]
    split: Callable[[Page, int, int], list[Piece]]


def stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the white space at its ends; empty (start == end) if it holds nothing else."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def shifted(pieces: Iterable[Piece], by: int) -> list[Piece]:
    """The pieces with their skeletons moved: what they point at now stands `by` places further down."""
    return [replace(p, skeleton=tuple(s + by for s in p.skeleton)) if by and p.skeleton else p for p in pieces]


def needing(pieces: Iterable[Piece], skeleton: Sequence[int]) -> list[Piece]:
    """The pieces with `skeleton` added to what each of them needs."""
    return [replace(p, skeleton=tuple(sorted({*p.skeleton, *skeleton}))) for p in pieces]


def gap_at(text: str, start: int) -> str | None:
    """The gap before a piece at the beginning of a line whose indentation says something; None where there is none."""
    indent = text[text.rfind("\n", 0, start) + 1 : start]
    return LINE_GAP + indent if indent and indent.isspace() else None


def settled(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces with their skeletons in order. What a skeleton needs, all that need it must name too."""
    return [replace(p, skeleton=tuple(sorted({*p.skeleton} - {i}))) if p.skeleton else p for i, p in enumerate(pieces)]
