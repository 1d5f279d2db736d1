"""Code: statements with the headers (signature, class, loop, branch) that they stand under.

One reading serves all languages: a statement with deeper ones under it is a header, and the skeleton of what is under
it. Nothing is parsed, so that a fragment splits as well as a file. Python that parsed parses whatever is kept, and
languages with braces keep their brackets in balance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compressor.splitting.languages import PYTHON, Language, language_of_code
from compressor.splitting.pieces import MAX_PIECE_CHARS, Page, Piece, settled
from compressor.splitting.statements import Statement, statements

MAX_WHOLE_CHARS = 400  # a function, loop or branch up to here is one piece
MAX_RUN_CHARS = 240  # short statements that follow each other are one piece up to here
MAX_CODE_DEPTH = 8
MAX_CLAUSES = 20


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
    return settled(splitter.pieces)


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
            if not self._is_whole(parts, depth):
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
            while first < after and (
                first == head or (found[first].is_clause and found[first].depth == found[head].depth)
            ):
                end = first + 1
                while end < after and found[end].depth > found[head].depth:
                    end += 1
                parts.append(_Part(first, end))
                first = end
            yield parts

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

    def _chars(self, part: _Part) -> int:
        return self._found[part.after - 1].end - self._found[part.head].start

    def _handler(self, parts: Sequence[_Part]) -> _Part | None:
        """The first clause of a Python `try`, without which none of it parses."""
        code = self._found[parts[0].head].code
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
            self._head(part, needed, self._clause_gap(parts, number) if number else self._gap(part.head))
            self.block(part.head + 1, part.after, (*needed, at), depth + 1)
            heads.append(at)

    def _item_with_every_clause(self, parts: Sequence[_Part], skeleton: tuple[int, ...], depth: int) -> None:
        """Every header and closing bracket of an item is the skeleton of all that is in it."""
        heads: list[int] = []
        for number, part in enumerate(parts):
            heads.append(len(self.pieces))
            margin = self._found[part.head].margin
            self._head(part, skeleton, f"\n{margin}" if number else self._gap(part.head))
            self.block(part.head + 1, part.after, skeleton, depth + 1)
        inside = range(heads[0], len(self.pieces))
        for head in heads:
            self._add_need(inside, head)

    def _head(self, part: _Part, skeleton: tuple[int, ...], gap: str) -> None:
        head = self._found[part.head]
        self.pieces.append(Piece(head.start, head.end, "code", skeleton, gap))

    def _add_need(self, indexes: range, needed: int) -> None:
        for i in indexes:
            piece = self.pieces[i]
            if i != needed:
                self.pieces[i] = Piece(piece.start, piece.end, piece.kind, (*piece.skeleton, needed), piece.gap)

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


# --- code that stands in a text without a fence --------------------------------------------------------------------------

_CODE_LINE = re.compile(
    r"""(?:
        (?:def|class|if|for|while|elif|else|try|except|finally|with|async|match|case|switch|do|loop|unless)\b[^.!?]*:$
      | (?:import|package|use|using|from|include|require|module|namespace)\s[\w.*{}:/"'<>@-]+(?:\s(?:import|as|from)\b.*|;)?$
      | (?:return|raise|throw|yield|assert|await)\b(?:\s[\w.(\[{"'-][^.!?]*)?$ | (?:pass|break|continue|end|fi|done)$
      | (?:const|let|var|local|val|auto|final|static)\s[\w\[{].*=
      | [\w.$\[\]"'*&>-]+(?::\s?[\w\[\], .|]+)?\s?[-+*/|&%]?:?=(?!=)\s?\S
      | [\w.:<>*&\[\]]+(?:\s[\w.:<>*&\[\],]+){0,2};$
      | [\w.:$]+[(\[].*[)\],({]$ | [})\]]+[;,]?$ | [})\]]
      | \#include\b | \#!/ | //|/\*|\*/ | @\w[\w.]*(?:\(.*\))?$ | \"\"\" | ''' | <\?php
    )""",
    re.VERBOSE,
)
_CODE_ENDS = ("{", "}", "};", "},", "})", "});", "=>", "->", "\\", " then", " do")
_CODE_WITHIN = (
    "(",
    "=",
    "->",
    "::",
    "++",
    "--",
)  # a line that ends in a semicolon and has none of these may be a clause of law
_MAX_LINE_CHARS = 300
_ALSO_TELLING = ("#include", "#!", "*/")
_NEUTRAL_LINE = re.compile(r"\#|\*|--")
_STRONG_LINE = re.compile(
    r"""(?:
        (?:async\s)?def\s\w+\( | class\s\w+.*[:{(,]$ | (?:import|from)\s[\w.]+(?:\simport\s.*|\sas\s\w+|,[\w., ]+)?;?$ | \#include\b | \#!/
      | (?:export\s|default\s|async\s)*function\b.*\( | (?:public|private|protected|internal|static|abstract|sealed)\s.*[({;]$
      | (?:const|let|var)\s[\w{\[].*= | (?:pub\s(?:\(\w+\)\s)?)?(?:fn|struct|enum|impl|trait|mod|use)\s.*[{;(,]$ | func\s.*\{$
      | package\s[\w.]+;?$ | using\s[\w.]+;$ | namespace\s[\w:.]+ | <\?php | @\w[\w.]*(?:\(.*\))?$ | template\s?<
      | [\w:<>*&\s]+\s\**\w+\([^()]*\)\s?\{$ | (?:typedef|struct|enum|union|interface)\s.*[{;]$ | if\s__name__
    )""",
    re.VERBOSE,
)
_ASIDE = re.compile(
    r'''"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\Z)|\'{3}(?:[^'\\]|\\.|'(?!\'\'))*+(?:\'{3}|\Z)|/\*.*?(?:\*/|\Z)''', re.DOTALL
)
_MARGIN_LINE = re.compile(r"^(\S[^\n]{0,300}?)\s*$", re.MULTILINE)
_ANY_LINE = re.compile(r"^[^\S\n]*+(\S[^\n]{0,300}?)\s*$", re.MULTILINE)
_MIN_SHARE = 0.75
_FIRST_LINES = 300  # among which code shows itself
_TRIAL_LINES = 16
_MIN_LINES = 3


def claims_code(page: Page, i: int) -> int:
    """A whole text of code; else paragraphs of which most lines read as code, the first of them beyond doubt."""
    if i == 0 and _is_all_code(page):
        return len(page.lines)
    if not _is_code(page[i]):
        return i
    lines = [page[k] for k in range(i, min(i + _TRIAL_LINES, len(page.lines)))]
    strong = any(_STRONG_LINE.match(line) for line in lines if len(line) <= _MAX_LINE_CHARS)
    if len(lines) < _MIN_LINES or _share(lines) < (0.6 if strong else 0.8) or (not strong and lines[0][0].isupper()):
        return i
    after, open_marks = i, 0
    while after < len(page.lines):
        end = _after_paragraph(page, after)
        paragraph = page.text[page.lines[after].start : page.lines[end - 1].end]
        if after > i and not open_marks and not _goes_on(page, after, end):
            break
        marks = paragraph.count('"""') + paragraph.count("'''")
        open_marks = (open_marks + marks) % 2
        after = end
    return after


def _is_all_code(page: Page) -> bool:
    """Whether nearly all lines at the margin read as code, strings and comments left out, and some do beyond doubt."""
    if not any(_STRONG_LINE.match(page[k]) for k in range(min(_FIRST_LINES, len(page.lines)))):
        return False
    bare = _ASIDE.sub("", page.text)
    at_margin = _MARGIN_LINE.findall(bare)
    strong = sum(_STRONG_LINE.match(line) is not None for line in _ANY_LINE.findall(bare))
    if not strong or len(at_margin) < 2:
        return False
    return _share(at_margin) >= _MIN_SHARE and not any(line.startswith(("```", "~~~")) for line in at_margin)


def _after_paragraph(page: Page, i: int) -> int:
    i += 1
    while i < len(page.lines) and not page.blank_before(i):
        i += 1
    return i


def _goes_on(page: Page, first: int, after: int) -> bool:
    if page[first].startswith(("```", "~~~")):
        return False
    lines = [page[k] for k in range(first, min(after, first + _TRIAL_LINES))]
    return _share(lines) >= 0.5 or (page.lines[first].start > page.lines[first].margin and _share(lines) > 0)


def _share(lines: Sequence[str]) -> float:
    """Of the lines that say anything, those that read as code. A comment in one language is a heading in another."""
    telling = [line for line in lines if not _NEUTRAL_LINE.match(line) or line.startswith(_ALSO_TELLING)]
    if not telling:
        return 0.0
    return sum(_is_code(line) for line in telling) / len(telling)


def _is_code(line: str) -> bool:
    if len(line) > _MAX_LINE_CHARS:
        return False
    if line.endswith(_CODE_ENDS) or (line[-1] == ";" and any(mark in line for mark in _CODE_WITHIN)):
        return True
    return _CODE_LINE.match(line) is not None or _STRONG_LINE.match(line) is not None
