"""Tables: Markdown, pipes, tabs and comma-separated values. A row is a piece, and its header goes with it."""

from __future__ import annotations

import re
from collections.abc import Callable

from compressor.splitting.pieces import Page, Piece, gap_at

MAX_HEADER_ROWS = 4
_MIN_VALUE_ROWS = 3
_TRIAL_ROWS = 8  # what shows whether values parted by marks are a table
_MAX_ROW_LINES = 20
_MAX_CELL_CHARS = 60  # on average, where only commas or semicolons part the cells: more is prose

_RULE = re.compile(r"[|+:\s=-]*+")
_RULE_MARK = re.compile(r"--|==|:-|-:")
_QUOTED = re.compile(r'"[^"]*"')
_NUMBER = re.compile(r"[-+($€£¥]*\d")


def claims_table(page: Page, i: int) -> int:
    """Rows with the same separator, one under the other: pipes, tabs, or a constant number of commas or semicolons."""
    line = page[i]
    if _has_pipes(line) or _is_rule(line):
        return _claims_rows(page, i, lambda row: _has_pipes(row) or _is_rule(row.strip()))
    if "\t" in _whole_line(page, i):
        return _claims_rows(page, i, lambda row: "\t" in row)
    comma = _cell_mark(line)
    return _claims_values(page, i, comma) if comma else i


def _has_pipes(line: str) -> bool:
    """Two pipes with space around them are an operator, not an empty cell."""
    return "|" in line and "|" in line.replace(" || ", "")


def _claims_rows(page: Page, i: int, is_row: Callable[[str], bool]) -> int:
    """Two rows or more, or one and its rule."""
    after, rows, was_rule = i, 0, False
    while after < len(page.lines) and (after == i or not page.blank_before(after)):
        rule = _is_rule(page[after])
        if not is_row(_whole_line(page, after)) or (rule and was_rule):
            break
        rows += not rule
        was_rule = rule
        after += 1
    return after if rows >= 2 or (rows and after - i > rows) else i


def _whole_line(page: Page, i: int) -> str:
    """Line `i` with the white space around it: in a table with tabs, that is empty cells."""
    line = page.lines[i]
    end = page.text.find("\n", line.end)
    return page.text[line.margin : end if end >= 0 else len(page.text)]


def _is_rule(line: str) -> bool:
    return line[0] in "|+:-=" and _RULE_MARK.search(line) is not None and _RULE.fullmatch(line) is not None


def _cell_mark(line: str) -> str:
    """Which mark parts the cells of a line, if any does: a comma, or two semicolons and more."""
    if line.count(";") >= 2 and line[-1] != ";":
        return ";"
    return "," if "," in line else ""


def _claims_values(page: Page, i: int, mark: str) -> int:
    """Three rows or more with as many marks each, short cells, and no sign of being sentences."""
    cells = _count(page[i], mark)
    if not cells or len(page[i]) > 3 * _MAX_CELL_CHARS * (cells + 1) or page[i][-1] in ".!?:":
        return i
    after, rows, chars, numbers, spaced = i, 0, 0, 0, 0
    while after < len(page.lines) and not (rows and page.blank_before(after)):
        end = _after_row(page, after)
        row = page.text[page.lines[after].start : page.lines[end - 1].end]
        if _count(row, mark) != cells or row[-1] in ".!?:":
            break
        after, rows = end, rows + 1
        if rows <= _TRIAL_ROWS:
            chars += len(row)
            numbers += _NUMBER.match(row[row.rindex(mark) + 1 :].strip(' "')) is not None
            spaced += mark + " " in row
        if rows == _TRIAL_ROWS and not _is_tabular(rows, chars, numbers, spaced, cells):
            return i
    return (
        after if rows >= _MIN_VALUE_ROWS and _is_tabular(min(rows, _TRIAL_ROWS), chars, numbers, spaced, cells) else i
    )


def _is_tabular(rows: int, chars: int, numbers: int, spaced: int, marks: int) -> bool:
    """Two columns, or a space after each mark, are common in prose: then most rows must end in a number."""
    if chars > _MAX_CELL_CHARS * (marks + 1) * rows:
        return False
    return (marks > 1 and 2 * spaced < rows) or 2 * numbers >= rows


def _after_row(page: Page, i: int) -> int:
    """The line after a row that may hold line ends within quotation marks."""
    if page[i].count('"') % 2 == 0:
        return i + 1
    for k in range(i + 1, min(i + 1 + _MAX_ROW_LINES, len(page.lines))):
        if page[k].count('"') % 2:
            return k + 1
    return i + 1


def _count(row: str, mark: str) -> int:
    """Marks that part cells: those within quotation marks do not."""
    return (_QUOTED.sub('""', row) if '"' in row else row).count(mark)


def split_table(page: Page, first: int, last: int) -> list[Piece]:
    """A row a piece; the header (with the rule under it, if there is one) is the skeleton of every row, and may be kept
    alone: it names the columns."""
    body = _first_row(page, first, last)
    if body >= last:
        return [Piece(*page.span(first, last), "table")]
    pieces = [Piece(*page.span(first, body), "table", stub="")]
    in_lines = "|" in page[first] or "\t" in _whole_line(page, first) or _is_rule(page[first])
    while body < last:
        after = body + 1 if in_lines else min(_after_row(page, body), last)
        start, end = page.span(body, after)
        pieces.append(Piece(start, end, "table", (0,), gap_at(page.text, start)))
        body = after
    return pieces


def _first_row(page: Page, first: int, last: int) -> int:
    """The line after the header: what is above a rule, else the first line and more lines whose first cell is empty."""
    top = first
    while top < last and _is_rule(page[top]):
        top += 1  # a grid's own upper edge
    for i in range(top + 1, min(top + 1 + MAX_HEADER_ROWS, last)):
        if _is_rule(page[i]):
            return i + 1
    body = top + 1
    while body < min(top + MAX_HEADER_ROWS, last - 1) and "|" in page[top] and _first_cell(page, body) == "":
        body += 1
    return body


def _first_cell(page: Page, i: int) -> str:
    """The text of the first cell of a pipe row. A Markdown row opens with a pipe, and one without a label with two."""
    row = page[i]
    cells = row.split("|", 2)
    return cells[1 if row.endswith("|") and len(cells) > 1 else 0].strip()
