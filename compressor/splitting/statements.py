"""Statements: lines of code that really end, found without parsing.

A line end within a string, a comment or brackets is none. Depth is counted in braces where the language has them, else
in columns of indentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from compressor.splitting.languages import Language
from compressor.splitting.pieces import stripped

_TAB_COLUMNS = 8
_OPENED_BY = {")": "(", "]": "[", "}": "{"}
_GOES_ON = re.compile(r"[.?:&|+*/=<>,-]")
_UNFINISHED = re.compile(r"(?:[*%&|=?([!^~]|(?<!\+)\+|(?<!-)-|=>|\b(?:else|return|in|of|new|await))$")


class LogicalLine(NamedTuple):
    """A line that really ends. `indent` is the white space before it."""

    start: int
    end: int
    indent: str
    depth: int
    blank_before: bool


class Statement(NamedTuple):
    """A statement from `start`, where the comments and decorators above it begin, to the end of its own `line`. `margin` is
    the white space before `start`."""

    start: int
    line: LogicalLine
    is_clause: bool
    margin: str
    blank_before: bool

    @property
    def end(self) -> int:
        return self.line.end

    @property
    def depth(self) -> int:
        return self.line.depth

    @property
    def indent(self) -> str:
        return self.line.indent

    @property
    def column(self) -> int:
        return _column(self.line.indent)


def statements(text: str, start: int, end: int, language: Language) -> Iterator[Statement]:
    """The statements of `text[start:end]`, in order: all of it but white space is in one of them."""
    done: Statement | None = None
    above: list[LogicalLine] = []  # comments and decorators whose statement is to come
    for line in logical_lines(text, start, end, language):
        if language.attached.fullmatch(text, line.start, line.end):
            above.append(line)
            continue
        is_clause = language.clause.match(text, line.start, line.end) is not None
        if done is not None and language.braces and _continues(text, done, line):
            done, above = done._replace(line=done.line._replace(end=line.end)), []
            continue
        if done is not None:
            yield done
        # where blocks are told by indentation, comments by themselves would fill one: they are parted outside of any
        apart = _apart(text, above, line, language) if language.braces or (line.depth == 0 and not is_clause) else 0
        if apart:
            yield _remarks(above[:apart], language)
        first = above[apart] if apart < len(above) else line
        done, above = Statement(first.start, line, is_clause, first.indent, first.blank_before), []
    if done is not None:
        yield done
    if above:
        yield _remarks(above, language)


def _apart(text: str, above: list[LogicalLine], line: LogicalLine, language: Language) -> int:
    """How many of the comments above a statement a blank line parts from it; none if one of them is a decorator."""
    if not all(text.startswith(language.remarks, remark.start) for remark in above):
        return 0
    following = [*above[1:], line]
    return max((i + 1 for i in range(len(above)) if following[i].blank_before), default=0)


def _remarks(above: list[LogicalLine], language: Language) -> Statement:
    """Comments with no statement of their own: where blocks are told by indentation, at the margin."""
    line = above[0]._replace(end=above[-1].end)
    own = line if language.braces else line._replace(depth=0, indent="")
    return Statement(line.start, own, False, line.indent, line.blank_before)


def _continues(text: str, done: Statement, line: LogicalLine) -> bool:
    """Whether a line of a language with braces goes on with the statement before: it is indented under it at the same
    depth, opens its block on a line of its own, or begins with an operator."""
    if line.depth != done.depth or done.is_clause or text[line.start] == "}":
        return False
    if _column(line.indent) > done.column:
        return True
    if text[done.end - 1] in ";{}":
        return False
    if text[line.start] == "{" or (_GOES_ON.match(text, line.start) is not None and not line.blank_before):
        return True
    return _UNFINISHED.search(text, max(done.start, done.end - 8), done.end) is not None


def logical_lines(text: str, start: int, end: int, language: Language) -> Iterator[LogicalLine]:
    """The lines of `text[start:end]` that really end, blank ones left out."""
    stack: list[str] = []
    braces = depth = 0
    begin, blank = start, False
    for token in language.tokens.finditer(text, start, end):
        mark = token.group()
        if mark in _OPENED_BY:
            if stack and stack[-1] == _OPENED_BY[mark]:
                stack.pop()
                braces -= mark == "}"
        elif mark in ("(", "[", "{"):
            stack.append(mark)
            braces += mark == "{"
        elif mark == "\n" and not (stack and not (language.braces and stack[-1] == "{")):
            line = _logical_line(text, begin, token.start(), depth, blank, language)
            if line is not None:
                yield line
            blank = line is None
            begin, depth = token.end(), braces
    line = _logical_line(text, begin, end, depth, blank, language)
    if line is not None:
        yield line


def _logical_line(text: str, begin: int, end: int, braces: int, blank: bool, language: Language) -> LogicalLine | None:
    s, e = stripped(text, begin, end)
    if s == e:
        return None
    margin = text[text.rfind("\n", 0, s) + 1 : s]
    indent = margin if margin.isspace() else ""
    depth = max(0, braces - (text[s] == "}")) if language.braces else _column(indent)
    return LogicalLine(s, e, indent, depth, blank)


def _column(indent: str) -> int:
    return len(indent.expandtabs(_TAB_COLUMNS))
