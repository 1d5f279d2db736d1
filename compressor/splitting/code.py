"""Code: statements with the headers (signature, class, loop, branch) that they stand under.

One reading serves all languages: a statement with deeper ones under it is a header, and the skeleton of what is under
it. Nothing is parsed, so that a fragment splits as well as a file. Python that parsed parses whatever is kept, and
languages with braces keep their brackets in balance. A signature may be kept without its body, and what is kept keeps the
imports of its names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from compressor.splitting.imports import imported_names, with_imports
from compressor.splitting.languages import PYTHON, Language, language_of_code
from compressor.splitting.pieces import MAX_PIECE_CHARS, Page, Piece, settled
from compressor.splitting.statements import Statement, statements

MAX_WHOLE_CHARS = 400  # a function, loop or branch up to here is one piece
MAX_RUN_CHARS = 240  # short statements that follow each other are one piece up to here
MAX_CODE_DEPTH = 8
MAX_CLAUSES = 20

_SIGNATURE = re.compile(
    r"""(?:(?:export|default|public|private|protected|internal|static|abstract|final|async|pub(?:\(\w+\))?|unsafe|inline)\s+)*
        (?:def|class|function\b|fn|func|interface|struct|enum|trait|impl|module|namespace|type|record)\b
      | (?!(?:if|for|while|switch|catch|return|else|do|with|elif|try)\b)[^;={}]{0,200}\([^;]*\)[^;()={}]{0,80}\{$  # int f(a) {
    """,
    re.VERBOSE | re.DOTALL,
)


class _Part(NamedTuple):
    """Statement number `head` and the deeper ones under it, numbers `head + 1` to `after - 1`."""

    head: int
    after: int


def split_code(page: Page, first: int, last: int, language: Language | None = None) -> list[Piece]:
    """Statements under their headers. Short functions are one piece, and so are short runs of statements."""
    _, end = page.span(first, last)
    start = page.lines[first].margin
    language = language or language_of_code(page.text[start:end])
    found = tuple(statements(page.text, start, end, language))
    splitter = _Splitter(page.text, found, language)
    splitter.block(0, len(found), (), 0)
    return settled(with_imports(page.text, splitter.pieces, language))


class _Splitter:
    """Appends the pieces of one stretch of code to `pieces`."""

    def __init__(self, text: str, found: Sequence[Statement], language: Language) -> None:
        self._text = text
        self._found = found
        self._language = language
        self.pieces: list[Piece] = []

    def block(self, first: int, after: int, skeleton: tuple[int, ...], depth: int) -> None:
        """The pieces of statements `first` to `after - 1`, which all need `skeleton`."""
        run: tuple[int, int] | None = None  # short statements that will be one piece
        for parts in self._items(first, after):
            head, end = self._found[parts[0].head], self._found[parts[-1].after - 1].end
            if not skeleton and self._is_import(head):
                self._close(run, skeleton)
                self._close((parts[0].head, parts[-1].after), skeleton)
                run = None
            elif not self._is_whole(parts, depth):
                self._close(run, skeleton)
                run = None
                self._item(parts, skeleton, depth)
            elif run is not None and not head.blank_before and end - self._found[run[0]].start <= MAX_RUN_CHARS:
                run = (run[0], parts[-1].after)
            else:
                self._close(run, skeleton)
                run = (parts[0].head, parts[-1].after)
        self._close(run, skeleton)

    def _items(self, first: int, after: int) -> Iterator[list[_Part]]:
        """Each statement with what is under it, and with its clauses: else, except, a closing brace."""
        found = self._found
        while first < after:
            parts: list[_Part] = []
            head = first
            while first < after and (first == head or self._goes_on(head, first)):
                end = first + 1
                while end < after and found[end].depth > found[head].depth:
                    end += 1
                parts.append(_Part(first, end))
                first = end
            yield parts

    def _goes_on(self, head: int, number: int) -> bool:
        """Whether statement `number` is a clause of the item that begins with `head`; with braces, so is what is indented
        under it at the same depth."""
        begun, statement = self._found[head], self._found[number]
        if statement.depth != begun.depth:
            return False
        return statement.is_clause or (self._language.braces and statement.column > begun.column)

    def _is_whole(self, parts: Sequence[_Part], depth: int) -> bool:
        """Whether an item is kept or dropped as one."""
        chars = self._found[parts[-1].after - 1].end - self._found[parts[0].head].start
        flat = all(part.after == part.head + 1 for part in parts)
        handler = self._handler(parts)
        return (
            chars <= MAX_WHOLE_CHARS
            or flat
            or depth == MAX_CODE_DEPTH
            or len(parts) > MAX_CLAUSES
            or (handler is not None and self._chars(handler) > MAX_PIECE_CHARS)
        )

    def _is_import(self, statement: Statement) -> bool:
        """Imports stand for themselves, so that what uses one need not bring its neighbours."""
        return bool(imported_names(self._text[statement.line.start : statement.end], self._language))

    def _chars(self, part: _Part) -> int:
        return self._found[part.after - 1].end - self._found[part.head].start

    def _handler(self, parts: Sequence[_Part]) -> _Part | None:
        """The first clause of a Python `try`, without which none of it parses."""
        code = self._found[parts[0].head].line.start
        is_try = self._language is PYTHON and len(parts) > 1 and self._text.startswith("try", code)
        return parts[1] if is_try else None

    def _item(self, parts: Sequence[_Part], skeleton: tuple[int, ...], depth: int) -> None:
        if self._language is not PYTHON:
            self._item_with_every_clause(parts, skeleton, depth)
            return
        begin, handler = len(self.pieces), self._handler(parts)
        heads: list[int] = []
        for number, part in enumerate(parts):
            at = len(self.pieces)
            if part is handler:
                whole = (self._found[part.head].start, self._found[part.after - 1].end)
                self.pieces.append(Piece(*whole, "code", (), self._clause_gap(parts, number)))
                self._add_need(range(begin, at), at)
                heads.append(at)
                continue
            needed = (*skeleton, *heads)
            stub = None if number else self._stub(part)
            self._head(part, needed, self._clause_gap(parts, number) if number else self._gap(part.head), stub)
            self.block(part.head + 1, part.after, (*needed, at), depth + 1)
            heads.append(at)

    def _item_with_every_clause(self, parts: Sequence[_Part], skeleton: tuple[int, ...], depth: int) -> None:
        """Every header and closing bracket of an item is the skeleton of all that is in it."""
        heads: list[int] = []
        for number, part in enumerate(parts):
            heads.append(len(self.pieces))
            margin = self._found[part.head].margin
            stub = None if number else self._stub(part)
            self._head(part, skeleton, f"\n{margin}" if number else self._gap(part.head), stub)
            self.block(part.head + 1, part.after, skeleton, depth + 1)
        inside = range(heads[0], len(self.pieces))
        for head in heads:
            self._add_need(inside, head)

    def _head(self, part: _Part, skeleton: tuple[int, ...], gap: str, stub: str | None) -> None:
        head = self._found[part.head]
        self.pieces.append(Piece(head.start, head.end, "code", skeleton, gap, stub))

    def _stub(self, part: _Part) -> str | None:
        """What stands for the body of a signature that is kept alone; None for all that is no signature."""
        head = self._found[part.head]
        if part.after == part.head + 1 or not _SIGNATURE.match(self._text, head.line.start, head.end):
            return None
        dots = "..." if self._language is PYTHON else f"{self._language.comment} …"
        return f"\n{self._found[part.head + 1].indent}{dots}"

    def _add_need(self, indexes: range, needed: int) -> None:
        for i in indexes:
            piece = self.pieces[i]
            if i != needed:
                self.pieces[i] = replace(piece, skeleton=(*piece.skeleton, needed))

    def _close(self, run: tuple[int, int] | None, skeleton: tuple[int, ...]) -> None:
        if run is not None:
            start, end = self._found[run[0]].start, self._found[run[1] - 1].end
            self.pieces.append(Piece(start, end, "code", skeleton, self._gap(run[0])))

    def _gap(self, number: int) -> str:
        margin = self._found[number].margin
        return f"\n{margin}{self._language.comment} …\n{margin}"

    def _clause_gap(self, parts: Sequence[_Part], number: int) -> str:
        """What stands before a Python clause for the body of the one before it, whether or not some of that is kept."""
        margin, before = self._found[parts[number].head].margin, parts[number - 1]
        if before.after == before.head + 1:
            return f"\n{margin}"
        return f"\n{self._found[before.head + 1].indent}...\n{margin}"
