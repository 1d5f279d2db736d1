"""Unified diffs: a hunk keeps its file's header; a long hunk is cut between changes, and keeps its own header too."""

from __future__ import annotations

import re
from collections.abc import Iterator

from compressor.splitting.logs import runs
from compressor.splitting.pieces import MAX_PIECE_CHARS, Page, Piece, gap_at

_HEADER = re.compile(
    r"diff --git |diff -|Index: |index [0-9a-f]+\.\.|--- |\+\+\+ |(?:new|deleted) file mode|(?:old|new) mode|Binary files "
    r"|(?:similarity|dissimilarity) index |(?:rename|copy) (?:from|to) |={20,}$|GIT binary patch"
)
_HUNK = re.compile(r"@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@")


def claims_diff(page: Page, i: int) -> int:
    """From a file's header, or a hunk's, to the last line of a hunk."""
    if _HUNK.match(page[i]):
        return _after_hunk(page, i, len(page.lines))
    if page[i].startswith(("diff -", "Index: ")) or _is_file_mark(page, i):
        after = _after_header(page, i, len(page.lines))
        if after < len(page.lines) and _HUNK.match(page[after]):
            return _after_hunks(page, after, len(page.lines))
        return after if page[i].startswith("diff --git ") else i
    return i


def _is_file_mark(page: Page, i: int) -> bool:
    return page[i].startswith("--- ") and i + 1 < len(page.lines) and page[i + 1].startswith("+++ ")


def _after_header(page: Page, i: int, last: int) -> int:
    """Header lines up to a hunk, or up to the next file where this one has none."""
    marked = page[i].startswith("--- ")
    i += 1
    while i < last and _HEADER.match(page[i]) and not page[i].startswith(("diff -", "Index: ")):
        if _is_file_mark(page, i):
            if marked:
                break
            marked = True
        i += 1
    return i


def _after_hunks(page: Page, i: int, last: int) -> int:
    while i < last and _HUNK.match(page[i]):
        i = _after_hunk(page, i, last)
    return i


def _after_hunk(page: Page, i: int, last: int) -> int:
    """Lines that begin, at the margin, as a hunk's lines do. Blank context lines are on no page's list of lines."""
    i += 1
    while i < last and page.text[page.lines[i].margin] in " +-\\\t" and not _is_file_mark(page, i):
        i += 1
    return i


def split_diff(page: Page, first: int, last: int) -> list[Piece]:
    """A hunk a piece, with its file's header as skeleton; one over MAX_PIECE_CHARS in runs of changed and of other lines."""
    pieces: list[Piece] = []
    i = first
    while i < last:
        header: tuple[int, ...] = ()
        after = i if _HUNK.match(page[i]) else _after_header(page, i, last)
        if after > i:
            header = (len(pieces),)
            pieces.append(Piece(*page.span(i, after), "diff", stub=""))
        i = after
        while i < last and _HUNK.match(page[i]):
            after = _after_hunk(page, i, last)
            start, end = page.span(i, after)
            if end - start <= MAX_PIECE_CHARS:
                pieces.append(Piece(start, end, "diff", header))
            else:
                needed = (*header, len(pieces))
                pieces.append(Piece(start, page.lines[i].end, "diff"))
                spans = _changes(page, i + 1, after)
                pieces.extend(Piece(s, e, "diff", needed, gap_at(page.text, s)) for s, e in spans)
            i = after
    return pieces


def _changes(page: Page, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Runs of changed lines and runs of context, each cut at MAX_PIECE_CHARS."""
    begin = first
    for i in range(first + 1, last + 1):
        if i == last or _is_changed(page, i) != _is_changed(page, begin):
            yield from runs(page, begin, i)
            begin = i


def _is_changed(page: Page, i: int) -> bool:
    return page.text[page.lines[i].margin] in "+-"
