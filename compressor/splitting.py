"""Texts into segments: the smallest spans that are kept or dropped whole.

Every character of a text is in at most one segment; what is in none is white space between two. Spans are offsets into
the original, so that a kept segment is a slice of it, byte for byte. Splitting knows structure, not relevance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import sentencex

MAX_SEGMENT_CHARS = 600  # a longer sentence is cut at clause ends: one segment must not eat a whole budget


@dataclass(frozen=True, slots=True)
class Piece:
    """A span of one text before it is counted. `skeleton`: indexes, in the same text, of pieces it makes no sense without."""

    start: int
    end: int
    kind: str
    skeleton: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of text is recognised, split, and rejoined where something was left out."""

    name: str
    recognise: Callable[[str], bool]
    split: Callable[[str], list[Piece]]


def split(text: str) -> list[Piece]:
    """The pieces of `text` in order, disjoint, none empty, none starting or ending in white space.

    >>> [text[p.start:p.end] for text in ["One. Two!"] for p in split(text)]
    ['One.', 'Two!']
    """
    kind = next(kind for kind in KINDS if kind.recognise(text))
    return kind.split(text)


# --- prose, and the lines that stand in it ---------------------------------------------------------------------------

_STRUCTURAL_LINE = re.compile(
    r"""\s*(?:
        [-*+•‣]\s | \#{1,6}\s | \d{1,3}[.)]\s | \(?[a-z]\)\s      # list items, headings
      | \|  | >\s | ```                                           # table rows, quotations, fences
      | [A-Z][\w .'&-]{0,40}:\s                                   # "Speaker: ", "Field: "
      | \[?\d{4}-\d\d-\d\d | \[?\d\d:\d\d                         # log lines, time stamps
      | at\s\S+\( | File\s" | Caused\sby:                         # stack traces
      | [+@-]{1,3}\s?\S.*[;{})]$ | \s{4,}\S | \t                  # diffs, indented code
    )""",
    re.VERBOSE,
)
_TABLE_ROW = re.compile(r"[^|\n]*\|[^|\n]*\|?|[^\t\n]+\t[^\t\n]+\t")
_SENTENCE_END = re.compile(r"""[.!?:;。！？…]["'”’)\]]*$""")
_WRAPPED_CHARS = 50  # a line shorter than this was not broken by a right margin
_CLAUSE_END = re.compile(r"(?<=[,;:—)])\s+|\s+(?=(?:and|or|but|which|that|because)\s)|\n")


def _split_prose(text: str) -> list[Piece]:
    pieces: list[Piece] = []
    for start, end in _blocks(text):
        for s, e in _sentences(text, start, end):
            pieces.extend(Piece(a, b, "prose") for a, b in _clauses(text, s, e))
    return pieces


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that were wrapped from one paragraph; a structural line is a block of its own."""
    start: int | None = None
    previous = ""
    position = 0
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if start is not None and (not bare or _breaks(previous, line)):
            yield start, position
            start = None
        if bare and start is None:
            start = position
        previous = line
        position += len(line)
    if start is not None:
        yield start, position


def _breaks(previous: str, line: str) -> bool:
    """Whether the end of `previous` ends a block: it does unless the two lines look like one wrapped paragraph."""
    if _STRUCTURAL_LINE.match(line) or _TABLE_ROW.match(line) or _TABLE_ROW.match(previous):
        return True
    before = previous.rstrip()
    if len(before) < _WRAPPED_CHARS:
        return not line.lstrip()[:1].islower()
    return bool(_SENTENCE_END.search(before)) and not line.lstrip()[:1].islower()


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    block = text[start:end]
    for boundary in sentencex.get_sentence_boundaries("en", block):
        span = _stripped(text, start + boundary["start_index"], start + boundary["end_index"])
        if span[0] < span[1]:
            yield span


def _clauses(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span itself, or cut at the last clause end (else white space) before every MAX_SEGMENT_CHARS."""
    while end - start > MAX_SEGMENT_CHARS:
        window = text[start : start + MAX_SEGMENT_CHARS]
        cuts = [m.start() for m in _CLAUSE_END.finditer(window) if m.start() > MAX_SEGMENT_CHARS // 3]
        cut = cuts[-1] if cuts else max(window.rfind(" "), window.rfind("\n"), window.rfind("\t"))
        if cut <= 0:
            after = re.compile(r"\s").search(text, start + MAX_SEGMENT_CHARS, end)
            cut = (after.start() if after else end) - start
        s, e = _stripped(text, start, start + cut)
        if s < e:
            yield s, e
        start += cut
        start, end = _stripped(text, start, end)
    if start < end:
        yield start, end


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


# --- tables -----------------------------------------------------------------------------------------------------------

_RULE = re.compile(r"[\s|:+=-]*[-=]{2,}[\s|:+=-]*")


def _is_table(text: str) -> bool:
    """Most lines have the same cell separator: Markdown, pipes, tabs or (with a constant count) commas."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return False
    if sum("|" in line for line in lines) >= 0.8 * len(lines) or sum("\t" in line for line in lines) >= 0.8 * len(
        lines
    ):
        return True
    commas = {line.count(",") for line in lines}
    return len(lines) >= 3 and len(commas) == 1 and commas.pop() >= 2


def _split_table(text: str) -> list[Piece]:
    """A row a piece; the header (with the rule under it, if there is one) is the skeleton of every row."""
    lines = list(_lines(text))
    header = 2 if len(lines) > 1 and _RULE.fullmatch(text[slice(*lines[1])]) else 1
    head = (lines[0][0], lines[header - 1][1])
    return [Piece(*head, "table"), *(Piece(s, e, "table", (0,)) for s, e in lines[header:])]


def _lines(text: str) -> Iterator[tuple[int, int]]:
    """The spans of the lines that are not blank, without the white space around them."""
    position = 0
    for line in text.splitlines(keepends=True):
        span = _stripped(text, position, position + len(line))
        if span[0] < span[1]:
            yield span
        position += len(line)


# --- JSON ---------------------------------------------------------------------------------------------------------------

MAX_JSON_MEMBER_CHARS = 200
MAX_JSON_DEPTH = 16

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def _is_json(text: str) -> bool:
    bare = text.strip()
    if not (bare.startswith(("{", "[")) and bare.endswith(("}", "]"))):
        return False
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _split_json(text: str) -> list[Piece]:
    """A member a piece (with its key), the brackets around it its skeleton; a small or very deep container is one piece."""
    tokens = [(m.group(), m.start(), m.end()) for m in _JSON_TOKEN.finditer(text)]
    closing = _matching_brackets(tokens)
    pieces: list[Piece] = []
    closer_of: dict[int, int] = {}

    def visit(first: int, last: int, openers: tuple[int, ...]) -> None:
        """Tokens first..last are one member: its key, if any, and its value."""
        opening = first + 2 if first < last and tokens[first + 1][0] == ":" else first
        start, end = tokens[first][1], tokens[last][2]
        small = bool(openers) and end - start <= MAX_JSON_MEMBER_CHARS
        if tokens[opening][0] not in "{[" or small or opening + 1 == last or len(openers) == MAX_JSON_DEPTH:
            pieces.append(Piece(start, end, "json", openers))
            return
        opener = len(pieces)
        pieces.append(Piece(start, tokens[opening][2], "json-open", openers))
        for inner_first, inner_last in _json_members(tokens, closing, opening + 1, last):
            visit(inner_first, inner_last, (*openers, opener))
        closer_of[opener] = len(pieces)
        pieces.append(Piece(tokens[last][1], end, "json-close", (*openers, opener)))

    visit(0, len(tokens) - 1, ())
    return [
        replace(piece, skeleton=tuple(sorted({*piece.skeleton, *(closer_of[o] for o in piece.skeleton)} - {i})))
        for i, piece in enumerate(pieces)
    ]


def _json_members(
    tokens: list[tuple[str, int, int]], closing: dict[int, int], first: int, last: int
) -> Iterator[tuple[int, int]]:
    """The members between an opening bracket and its closing one at `last`, as ranges of tokens without their commas."""
    member = i = first
    while i < last:
        i = closing.get(i, i) + 1
        if i == last or tokens[i][0] == ",":
            yield member, i - 1
            member = i = i + 1


def _matching_brackets(tokens: list[tuple[str, int, int]]) -> dict[int, int]:
    stack: list[int] = []
    closing: dict[int, int] = {}
    for i, (mark, _, _) in enumerate(tokens):
        if mark in "{[":
            stack.append(i)
        elif mark in "}]":
            closing[stack.pop()] = i
    return closing


KINDS = (
    Kind("json", _is_json, _split_json),
    Kind("table", _is_table, _split_table),
    Kind("prose", lambda text: True, _split_prose),
)
