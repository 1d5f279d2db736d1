"""Listings: code that stands in a text without a fence, or is all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from compressor.splitting.languages import language_of_code
from compressor.splitting.pieces import Page
from compressor.splitting.statements import logical_lines

_CODE_LINE = re.compile(
    r"""(?:
        (?:def|class|if|for|while|elif|else|try|except|finally|with|async|match|case|switch|do|loop|unless)\b
        (?:[^.!?]|[.!?](?!\s))*+:?(?<=:)$
      | (?:import|package|use|using|from|include|require|module|namespace)\s[\w.*{}:/"'<>@-]+(?:\s(?:import|as|from)\b.*|;)?$
      | (?:return|raise|del|throw|yield|assert|await)\b(?:\s[\w.(\[{"'-][^.!?]*)?$ | (?:pass|break|continue|end|fi|done)$
      | (?:const|let|var|local|val|auto|final|static)\s[\w\[{].*=
      | [\w.<>\[\]:*&]+(?:[ ][\w.<>\[\]:*&]+){1,3}\s?[-+*/|&%]?=(?!=)\s?\S     # int x = 1
      | [\w.$\[\]"'*&>-]+(?::\s?[\w\[\], .|]+)?\s?[-+*/|&%]?:?=(?!=)\s?\S
      | [\w.:<>*&\[\]]+(?:\s[\w.:<>*&\[\],]+){0,2};$
      | (?:static|extern|inline|const|unsigned|void|int|char|double|float|bool|struct|enum|size_t|u?int\d+_t)\b
        (?:[ ][\w*]+){0,3}(?:\s?\(.*)?[),(]?$                                 # C: a signature before its brace
      | [\w.:$]+[(\[].*[)\],({]$ | [})\]]+[;,]?$ | [})\]]
      | \#include\b | \#!/ | //|/\*|\*/ | @\w[\w.]*(?:\(.*\))?$ | \"\"\" | ''' | <\?php
    )""",
    re.VERBOSE,
)
_CODE_ENDS = ("{", "}", "};", "},", "})", "});", "=>", "->", "\\", " then", " do")
# a line that ends in a semicolon and has none of these may be a clause of law
_CODE_WITHIN = ("(", "=", "->", "::", "++", "--")
_MAX_LINE_CHARS = 300
_ALSO_TELLING = ("#include", "#!", "*/")
_NEUTRAL_LINE = re.compile(r"\#|\*|--")
_STRONG_LINE = re.compile(
    r"""(?:
        (?:async\s)?def\s\w+\( | class\s\w+.*[:{(,]$ | \#include\b | \#!/
      | from\s\.+\s?import\b | (?:import|from)\s[\w.]+(?:\simport\s.*|\sas\s\w+|,[\w., ]+)?;?$
      | (?:export\s|default\s|async\s)*function\b.*\( | (?:public|private|protected|internal|static|abstract|sealed)\s.*[({;]$
      | (?:const|let|var)\s[\w{\[].*= | (?:pub\s(?:\(\w+\)\s)?)?(?:fn|struct|enum|impl|trait|mod|use)\s.*[{;(,]$ | func\s.*\{$
      | export\s(?:declare|type|const|default|async|function|class|interface|enum|abstract|let|[{*]) | declare\s\w+\s\w
      | import\s(?:type\s)?[{*"'] | import\s.*\sfrom\s["']
      | package\s[\w.]+;?$ | using\s[\w.]+;$ | namespace\s[\w:.]+ | <\?php | @\w[\w.]*(?:\(.*\))?$ | template\s?<
      | [\w:<>*&\s]+\s\**\w+\([^()]*\)\s?\{$ | (?:typedef|struct|enum|union|interface)\s.*[{;]$ | if\s__name__
    )""",
    re.VERBOSE,
)
_MIN_SHARE = 0.6
_REMARK = re.compile(r"\s{1,20}(?:#|//).*")
_OPENINGS = ('"""', "'''", 'r"""', "# ")
_NAMED_OPENINGS = ("#!/", "<?php")  # what says itself that all of it is code
_READ_CHARS = 60_000
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
    """Whether most statements at the margin read as code, and some lines do beyond doubt."""
    if page[0].startswith(_NAMED_OPENINGS):
        return True
    strong = sum(_STRONG_LINE.match(page[k]) is not None for k in range(min(_FIRST_LINES, len(page.lines))))
    strong += page[0].startswith(_OPENINGS)
    if not strong:
        return False
    sample = page.text[:_READ_CHARS]
    at_margin = [
        sample[line.start : line.end].partition("\n")[0].rstrip()
        for line in logical_lines(sample, 0, len(sample), language_of_code(sample))
        if not line.indent
    ]
    if strong + len(at_margin) < 3 or any(line.startswith(("```", "~~~")) for line in at_margin):
        return False
    return _share(at_margin) >= _MIN_SHARE


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
    if len(line) > _MAX_LINE_CHARS or line.startswith(("{{", "{%")):  # a template's blanks
        return False
    line = _REMARK.sub("", line) or line
    if line.endswith(_CODE_ENDS) or (line[-1] == ";" and any(mark in line for mark in _CODE_WITHIN)):
        return True
    return _CODE_LINE.match(line) is not None or _STRONG_LINE.match(line) is not None
