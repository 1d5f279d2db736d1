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


class Statement(NamedTuple):
    """A statement with the comments and decorators above it, `start:end`. `indent` is the white space before its own line,
    `margin` that before `start`."""

    start: int
    end: int
    depth: int
    indent: str
    margin: str
    is_clause: bool
    blank_before: bool
    code: int  # where it starts itself

    @property
    def column(self) -> int:
        return _column(self.indent)


class LogicalLine(NamedTuple):
    """A line that really ends. `indent` is the white space before it."""

    start: int
    end: int
    indent: str
    depth: int
    blank_before: bool


def statements(text: str, start: int, end: int, language: Language) -> Iterator[Statement]:
    """The statements of `text[start:end]`, in order: all of it but white space is in one of them."""
    done: Statement | None = None
    above: LogicalLine | None = None  # the first of the comments and decorators whose statement is to come
    above_end, binds = 0, False
    for line in logical_lines(text, start, end, language):
        if above is not None and line.blank_before and not binds and (language.braces or line.depth == 0):
            if done is not None:
                yield done
            done, above = _remarks(text, above, above_end, language), None
        if language.attached.fullmatch(text, line.start, line.end):
            above = above or line
            above_end = line.end
            binds = (binds and above is not line) or not text.startswith(language.remarks, line.start)
            continue
        if done is not None and language.braces and _continues(text, done, line):
            done, above = done._replace(end=line.end), None
            continue
        if done is not None:
            yield done
        done, above = _statement(text, above or line, line, language), None
    if done is not None:
        yield done
    if above is not None:
        yield _remarks(text, above, above_end, language)


def _remarks(text: str, first: LogicalLine, end: int, language: Language) -> Statement:
    """Comments with no statement of their own. Where blocks are told by indentation, they are in none: they cannot fill it."""
    statement = _statement(text, first, first._replace(end=end), language)
    return statement if language.braces else statement._replace(depth=0, indent="")


def _statement(text: str, above: LogicalLine, line: LogicalLine, language: Language) -> Statement:
    is_clause = language.clause.match(text, line.start, line.end) is not None
    return Statement(
        above.start, line.end, line.depth, line.indent, above.indent, is_clause, above.blank_before, line.start
    )


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
