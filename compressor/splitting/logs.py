"""Logs: one entry a piece. What is indented under an entry, or is its stack trace, belongs to it.

Of a stack trace too long to be kept whole, the line that says what happened, its first frame and its last, and the
exception stay together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from compressor.splitting.pieces import MAX_PIECE_CHARS, Page, Piece, gap_at, settled

MAX_ENTRY_CHARS = 2000  # a longer entry (a deep stack trace) is cut, its ends the skeleton of the rest
MAX_END_LINES = 5
_LOOK_AHEAD_LINES = 40

_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|CRIT(?:ICAL)?|FATAL|SEVERE|EMERG|ALERT)"
_ENTRY = re.compile(
    rf"""(?:
        [\[(<]?\d{{4}}[-/.]\d\d[-/.]\d\d(?:[T\s]|[,.:]\s?\d\d:)            # 2024-01-31 12:00, [2024/01/31
      | [\[(]?\d\d:\d\d:\d\d\b                                         # 12:00:01
      | [\[(]?\d{{1,2}}[/\s-](?:\d\d|[A-Z][a-z]{{2}})[/\s-]\d{{2,4}}[:\s]\d\d:\d\d # 31/Jan/2024:12:00
      | [A-Z][a-z]{{2}}\s{{1,2}}\d{{1,2}}\s\d\d:\d\d:\d\d\s               # Jan 31 12:00:01 (syslog)
      | (?:\d{{1,3}}\.){{3}}\d{{1,3}}\s\S+\s\S+\s\[                       # 10.0.0.1 - - [ (access log)
      | [\[<(]?{_LEVEL}[\]>)]?[\s:|\[-] | [IWEF]\d{{4}}\s\d\d:             # ERROR: ..., I0131 12:00 (glog)
      | level=\S | ts=\S | \d{{10}}(?:\.\d{{3,}})?\s | \[\s*\d+\.\d{{6}}\]    # logfmt, epochs, dmesg
    )""",
    re.VERBOSE,
)
_CONTINUED = re.compile(
    r"""at\s\S | Caused\sby: | Suppressed: | \.\.\.\s\d+\s(?:more|common) | Traceback\s\(most | File\s" | During\shandling
      | The\sabove\sexception | [\w$.]{0,200}(?:Error|Exception|Warning|Interrupt|Exit)\b(?::|$) | goroutine\s\d | \#\d+\s""",
    re.VERBOSE,
)
_TRACE_START = re.compile(r"Traceback \(most recent|Exception in thread |panic: |[\w$.]{0,200}(?:Error|Exception): ")
_LOWER_STARTS = ("level=", "ts=", "panic: ", "java", "org.", "com.")
_FRAME = re.compile(r"at\s\S|File\s\"|goroutine\s\d|Caused\sby:|\.\.\.\s\d+\smore")


def claims_log(page: Page, i: int) -> int:
    """Two entries or more in a row with what belongs to each, or a stack trace that stands by itself."""
    line = page[i]
    if line[0].islower() and not line.startswith(_LOWER_STARTS):
        return i
    if _ENTRY.match(line):
        if len(list(_entries(page, i, len(page.lines), i + _LOOK_AHEAD_LINES))) > 1:
            *_, (_, after) = _entries(page, i, len(page.lines))
            return after
    elif not _TRACE_START.match(line):
        return i
    framed = any(_FRAME.match(page[k]) for k in range(i + 1, min(len(page.lines), i + 6)))
    return _after_entry(page, i, len(page.lines)) if framed else i


def _entries(page: Page, first: int, last: int, until: int | None = None) -> Iterator[tuple[int, int]]:
    """Line ranges of the entries, up to the first line that is of none; no further than line `until` if that is given."""
    i = first
    while i < last and (i == first or _ENTRY.match(page[i])) and (until is None or i < until):
        after = _after_entry(page, i, last if until is None else min(last, until))
        yield i, after
        i = after


def _after_entry(page: Page, i: int, last: int) -> int:
    """The line after the last that belongs to the entry of line `i`."""
    after = i + 1
    indent = page.lines[i].start - page.lines[i].margin
    while after < last:
        line = page.lines[after]
        deeper = line.start - line.margin > indent and not page.blank_before(after)
        if not (deeper or _CONTINUED.match(page[after])) or (not deeper and _ENTRY.match(page[after])):
            break
        after += 1
    return after


def split_log(page: Page, first: int, last: int) -> list[Piece]:
    """An entry a piece. One over MAX_ENTRY_CHARS: its first line, and the rest in runs of lines that need it."""
    pieces: list[Piece] = []
    for begin, after in _entries(page, first, last):
        start, end = page.span(begin, after)
        if end - start <= MAX_ENTRY_CHARS or after - begin < 3:
            pieces.append(Piece(start, end, "log"))
            continue
        first, last = _ends(page, begin, after)
        head, spans = len(pieces), list(runs(page, first, last))
        foot = (head + len(spans) + 1,) if last < after else ()
        pieces.append(Piece(*page.span(begin, first), "log", foot, stub=""))
        pieces.extend(Piece(s, e, "log", (head, *foot), gap_at(page.text, s)) for s, e in spans)
        if foot:
            start, end = page.span(last, after)
            pieces.append(Piece(start, end, "log", (head,), gap_at(page.text, start), stub=""))
    return settled(pieces)


def _ends(page: Page, begin: int, after: int) -> tuple[int, int]:
    """What a long entry is told by: the line after its first lines, and the first of its last.

    Of a stack trace these are what stands above its frames and the first of those, and the last frame and what stands
    under it, which in Python is the exception. Of any other entry they are the first line, and nothing.
    """
    frames = [i for i in range(begin + 1, after) if _FRAME.match(page[i])]
    if not frames:
        return begin + 1, after
    first, last = frames[0] + 1, frames[-1]
    if first < after and page[frames[0]].startswith('File "') and first not in frames:
        first += 1  # the line of code that a Python frame shows
    first = first if first - begin <= MAX_END_LINES else begin + 1
    return first, last if after - last <= MAX_END_LINES and last > first else after


def runs(page: Page, first: int, last: int, most: int = MAX_PIECE_CHARS) -> Iterator[tuple[int, int]]:
    """Whole lines together, up to `most` characters; one line alone may be longer."""
    begin = first
    for i in range(first + 1, last + 1):
        if i == last or page.lines[i].end - page.lines[begin].start > most:
            yield page.span(begin, i)
            begin = i
