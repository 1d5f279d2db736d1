"""JSON and JSON lines: members with the brackets around them, so that whatever is kept parses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from compressor.splitting.pieces import LINE_GAP, Page, Piece

MAX_JSON_MEMBER_CHARS = 200
MAX_JSON_ELEMENT_CHARS = 400  # an array's element stands for itself: an object is one record
MAX_NUMBERS_CHARS = 100
MAX_JSON_DEPTH = 16

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++', re.DOTALL)
_DECODER = json.JSONDecoder()
_NOT_BEFORE = "json: no value starts before"

_Token = tuple[str, int, int]


def claims_json(page: Page, i: int) -> int:
    """Lines that hold one object or array and nothing else."""
    start = page.lines[i].start
    if page.text[start] not in "{[" or start < page.memo.get(_NOT_BEFORE, 0):
        return i
    try:
        _, end = _DECODER.raw_decode(page.text, start)
    except json.JSONDecodeError as error:
        page.memo[_NOT_BEFORE] = error.pos  # what was read once is not read again
        return i
    except RecursionError:
        page.memo[_NOT_BEFORE] = len(page.text)
        return i
    after = i + 1
    while after < len(page.lines) and page.lines[after].start < end:
        after += 1
    if page.lines[after - 1].end != end:
        page.memo[_NOT_BEFORE] = end
        return i
    return after if end - start > 2 else i


def split_json(page: Page, first: int, last: int) -> list[Piece]:
    """A member a piece (with its key), the brackets around it its skeleton; a small or very deep container is one piece."""
    tokens = [(m.group(), m.start(), m.end()) for m in _JSON_TOKEN.finditer(page.text, *page.span(first, last))]
    start, end = tokens[0][1], tokens[-1][2]
    if end - start <= MAX_JSON_MEMBER_CHARS or (_one_line(page, first, last) and end - start <= MAX_JSON_ELEMENT_CHARS):
        return [Piece(start, end, "json", gap="\n")]
    closing = _matching_brackets(tokens)
    pieces: list[Piece] = []
    closer_of: dict[int, int] = {}

    def visit(first: int, last: int, openers: tuple[int, ...], most: int) -> None:
        """Tokens first..last are one member: its key, if any, and its value."""
        opening = first + 2 if first < last and tokens[first + 1][0] == ":" else first
        start, end = tokens[first][1], tokens[last][2]
        whole = end - start <= most or len(openers) == MAX_JSON_DEPTH
        if tokens[opening][0] not in "{[" or opening + 1 == last or whole:
            pieces.append(Piece(start, end, "json", openers))
            return
        opener = len(pieces)
        pieces.append(Piece(start, tokens[opening][2], "json-open"))
        members = _json_members(tokens, closing, opening + 1, last)
        in_array = tokens[opening][0] == "["
        most = MAX_JSON_ELEMENT_CHARS if in_array else MAX_JSON_MEMBER_CHARS
        for inner_first, inner_last in _with_numbers_together(tokens, members) if in_array else members:
            visit(inner_first, inner_last, (*openers, opener), most)
        closer_of[opener] = len(pieces)
        pieces.append(Piece(tokens[last][1], end, "json-close"))

    visit(0, len(tokens) - 1, (), 0)
    pieces = [replace(p, skeleton=(*p.skeleton, *(closer_of[o] for o in reversed(p.skeleton)))) for p in pieces]
    return [replace(pieces[0], gap="\n" if _one_line(page, first, last) else LINE_GAP), *pieces[1:]]


def _one_line(page: Page, first: int, last: int) -> bool:
    """A value on one line may be one of many: between JSON lines there is nothing but the end of the line."""
    return last == first + 1


def _json_members(tokens: list[_Token], closing: dict[int, int], first: int, last: int) -> Iterator[tuple[int, int]]:
    """The members between an opening bracket and its closing one at `last`, as ranges of tokens without their commas."""
    member = i = first
    while i < last:
        i = closing.get(i, i) + 1
        if i == last or tokens[i][0] == ",":
            yield member, i - 1
            member = i = i + 1


def _with_numbers_together(tokens: list[_Token], members: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """An array's members, but numbers (true, false, null) that follow each other in runs of up to MAX_NUMBERS_CHARS."""
    begun: tuple[int, int] | None = None
    for first, last in members:
        bare = first == last and tokens[first][0][0] != '"'
        if begun is not None and bare and tokens[last][2] - tokens[begun[0]][1] <= MAX_NUMBERS_CHARS:
            begun = (begun[0], last)
            continue
        if begun is not None:
            yield begun
        begun = (first, last) if bare else None
        if not bare:
            yield first, last
    if begun is not None:
        yield begun


def _matching_brackets(tokens: list[_Token]) -> dict[int, int]:
    stack: list[int] = []
    closing: dict[int, int] = {}
    for i, (mark, _, _) in enumerate(tokens):
        if mark in "{[":
            stack.append(i)
        elif mark in "}]":
            closing[stack.pop()] = i
    return closing
