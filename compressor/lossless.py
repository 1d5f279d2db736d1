"""Lossless: what can go before anything is lost. Second copies, and white space that no reader needs.

One copy of what is said twice is evidence enough, and it is the ranking that chooses which. What counts as a copy is
kept narrow: it may differ in articles, filler words and marks at the edges of words, and in nothing that could carry a
fact; a likeness of words alone would take "before" for "after". White space is only ever taken away, never rewritten, so
that what is left is made of slices of the original; and no run of it goes whole, so that a quotation of what is left is
found in the original by whoever folds white space. (Without any, JSON would be a sixth smaller still.)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from compressor.segments import Segment, Source
from compressor.tokens import count_each

Span = tuple[int, int]

MIN_TWIN_TOKENS = 10  # what is shorter ("Yes, it is.") says different things in different places
MIN_BOILERPLATE_TOKENS = 4
MIN_BOILERPLATE_SOURCES = 3
EDGE_SEGMENTS = 3  # headers, licences, menus and footers stand among the first or last of their source

_FILLERS = frozenset(
    ["the", "a", "an", "that", "also", "just", "really", "very", "quite", "indeed", "thus", "hence", "therefore"]
)
_EDGE_MARKS = ".,;:!\"'“”‘’…"
_MAX_TAIL_CHARS = 40
_FIELD = re.compile(r"[^\W_][\w .'&/-]{0,40}:\s")  # "Status: closed" belongs to the record it stands in
_LOOSE_KINDS = frozenset(("prose", "html"))  # where a copy may be inexact, and may stand in the same source


@dataclass(frozen=True, slots=True)
class Savings:
    """What a payload can lose without losing anything.

    `copies`: numbers of segments that say the same as parts of the same text, or as boilerplate, each group ascending: the
    first stands for all, so that one whole text is kept, not parts of two. `twins`: segments that say the same among
    others, of which any may stand for all. `blanks`: for each source the spans of white space to leave out, ascending,
    disjoint, each between two characters that stay. `tokens`: for each segment, its tokens without the blanks in it.
    """

    copies: tuple[tuple[int, ...], ...]
    twins: tuple[tuple[int, ...], ...]
    blanks: tuple[tuple[Span, ...], ...]
    tokens: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.copies or self.twins) or any(self.blanks)


def no_savings(sources: Sequence[Source], segments: Sequence[Segment]) -> Savings:
    """The savings of a payload that has none."""
    return Savings((), (), ((),) * len(sources), tuple(s.tokens for s in segments))


def savings(sources: Sequence[Source], segments: Sequence[Segment], encoding: str) -> Savings:
    """What can go of a payload split into `segments`."""
    own: list[list[Segment]] = [[] for _ in sources]
    for segment in segments:
        own[segment.source].append(segment)
    blanks = tuple(tuple(_blanks(source.text, each, segments)) for source, each in zip(sources, own, strict=True))
    copies = list(_copies(sources, segments))
    second = {number for group in copies for number in group[1:]}
    edges = _edges(sources, segments)
    twins: list[tuple[int, ...]] = []
    for group in _alike(sources, segments, second, edges):
        if _is_boilerplate(sources, segments, group, edges):
            copies.append(tuple(group))
        elif segments[group[0]].tokens >= MIN_TWIN_TOKENS:
            twins.extend(_of_one_mind(sources, segments, group))
    tokens = tuple(_lean_tokens(sources, segments, blanks, encoding))
    return Savings(tuple(copies), tuple(twins), blanks, tokens)


def without(span: Span, blanks: Sequence[Span]) -> Iterator[Span]:
    """What is left of a span: `blanks` ascend, and those that are within it are left out.

    >>> list(without((0, 10), [(2, 4), (20, 30)]))
    [(0, 2), (4, 10)]
    """
    start, end = span
    for first, last in blanks:
        if start < first and last < end:
            yield start, first
            start = last
    yield start, end


# --- twins -------------------------------------------------------------------------------------------------------------


def _alike(
    sources: Sequence[Source], segments: Sequence[Segment], second: set[int], edges: frozenset[int]
) -> Iterator[list[int]]:
    """Groups of segments that need the same and say the same, without those that stand in a second copy of a source."""
    supports = {s for segment in segments for s in segment.skeleton if segments[s].stub is None}
    candidates: dict[object, list[int]] = defaultdict(list)
    for number, segment in enumerate(segments):
        short = segment.tokens < MIN_TWIN_TOKENS
        if segment.tokens < MIN_BOILERPLATE_TOKENS or number in second or number in supports:
            continue
        if segment.kind.startswith("json") or (short and number not in edges):
            continue
        # most texts are told apart by their last words alone, at a fraction of the price
        candidates[segment.kind, _last_word(sources[segment.source].text, segment)].append(number)
    for candidate in candidates.values():
        groups: dict[object, list[int]] = defaultdict(list)
        for number in candidate if len(candidate) > 1 else ():
            segment = segments[number]
            text = _text(sources, segment)
            if not _FIELD.match(text):
                loose = segment.kind in _LOOSE_KINDS and segment.tokens >= MIN_TWIN_TOKENS
                needs = tuple(_text(sources, segments[s]) for s in segment.skeleton)
                groups[needs, _gist(text) if loose else text].append(number)
        yield from (group for group in groups.values() if len(group) > 1)


def _is_boilerplate(
    sources: Sequence[Source], segments: Sequence[Segment], group: Sequence[int], edges: frozenset[int]
) -> bool:
    """Whether half of the sources say it at one of their ends: that says nothing of the document it stands in."""
    places = {segments[i].source for i in group if i in edges}
    return len(places) >= max(MIN_BOILERPLATE_SOURCES, len(sources) / 2) and not segments[group[0]].skeleton


def _of_one_mind(
    sources: Sequence[Source], segments: Sequence[Segment], group: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Those of a group of like segments that are of the same thing, under the same title: elsewhere the same words are
    another statement."""
    titled: dict[str, list[int]] = defaultdict(list)
    seen: set[tuple[str, int]] = set()
    for i in group:
        place = (sources[segments[i].source].title, segments[i].source)
        # rows, entries and lines of code that recur in one text are counted, or run, more than once
        if segments[i].kind in _LOOSE_KINDS or place not in seen:
            titled[place[0]].append(i)
            seen.add(place)
    yield from (tuple(each) for each in titled.values() if len(each) > 1)


def _copies(sources: Sequence[Source], segments: Sequence[Segment]) -> Iterator[tuple[int, ...]]:
    """The segments of sources with the same title and text, each with its like."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, source in enumerate(sources):
        alike[source.title, source.text].append(number)
    groups = [group for group in alike.values() if len(group) > 1]
    if not groups:
        return
    own: dict[int, list[int]] = defaultdict(list)
    for index, segment in enumerate(segments):
        own[segment.source].append(index)
    for group in groups:
        yield from zip(*(own[number] for number in group), strict=True)


def _edges(sources: Sequence[Source], segments: Sequence[Segment]) -> frozenset[int]:
    """Those of the first and the last EDGE_SEGMENTS of every source that have their lines to themselves."""
    firsts: dict[int, int] = {}
    lasts: dict[int, int] = {}
    for index, segment in enumerate(segments):
        firsts.setdefault(segment.source, index)
        lasts[segment.source] = index
    return frozenset(
        index
        for source, first in firsts.items()
        for start in (first, max(first, lasts[source] - EDGE_SEGMENTS + 1))
        for index in range(start, min(start + EDGE_SEGMENTS, lasts[source] + 1))
        if _fills_lines(sources[source].text, segments[index])
    )


def _fills_lines(text: str, segment: Segment) -> bool:
    before = text[text.rfind("\n", 0, segment.start) + 1 : segment.start]
    line_end = text.find("\n", segment.end)
    return not (before + text[segment.end : line_end if line_end >= 0 else len(text)]).strip()


def _gist(text: str) -> tuple[str, ...]:
    """The words of a text that may carry a fact. Two texts with the same say the same.

    Case counts, but for that of the first word: "us" is not "US". So does every mark within a word, and every sign:
    "1.5" is not "15", "-5" is not "5".

    >>> _gist("The limit is 5 GB.") == _gist("Limit is just 5 GB"), _gist("It is not 5.") == _gist("It is 5.")
    (True, False)
    """
    words = [word.rstrip(_EDGE_MARKS).lstrip("\"'“‘") for word in text.split()]
    told = [word for word in words if word and word.lower() not in _FILLERS]
    if told and told[0].istitle():
        told[0] = told[0].lower()
    return tuple(told)


def _last_word(text: str, segment: Segment) -> str:
    tail = text[max(segment.start, segment.end - _MAX_TAIL_CHARS) : segment.end].split()
    return tail[-1].strip(_EDGE_MARKS) if tail else ""


def _text(sources: Sequence[Source], segment: Segment) -> str:
    return sources[segment.source].text[segment.start : segment.end]


# --- white space -------------------------------------------------------------------------------------------------------

# Code, diffs and fenced text keep theirs: there it means something. So does the end of a row with tabs.
_LINED_KINDS = frozenset(("prose", "chat", "chat-part", "log", "html"))
_SUSPECT = re.compile(r"[ \t]\r?\n|\n[ \t\r]*+\n[ \t\r]*+\n|\n[ \t]++<|  \||\|  ")
_JSON = re.compile(r'"(?:[^"\\]|\\.)*+"|(?P<open>[{\[])|(?P<close>[}\]])|(?P<blank>\s+)', re.DOTALL)
_LINE_ENDS = re.compile(r"(?<![ \t])[ \t]*+\r?\n(?:[ \t\r]*+\n)*")
_HTML_INDENT = re.compile(r"\n([ \t]++)(?=<)")
_KEPT_AS_IT_STANDS = re.compile(r"<(?:pre|textarea|script|style|!--)\b", re.IGNORECASE)
_CELL_PADDING = re.compile(r"(?<=\|) ( +)|(?<=\S)( +)(?= \|)")


def _blanks(text: str, segments: Sequence[Segment], payload: Sequence[Segment]) -> Iterator[Span]:
    """White space to leave out of one source, whose `segments` are some of the `payload`'s: in JSON between its tokens,
    elsewhere at the ends of lines."""
    suspect = _SUSPECT.search(text) is not None
    first = 0
    while first < len(segments):
        kind = segments[first].kind
        after = first + 1
        if kind.startswith("json"):
            while after < len(segments) and segments[after].kind.startswith("json"):
                after += 1
            if not any(payload[s].kind == "fence" for each in segments[first:after] for s in each.skeleton):
                yield from _json_blanks(text, segments[first].start, segments[after - 1].end)
        elif suspect and kind in _LINED_KINDS:
            while after < len(segments) and segments[after].kind in _LINED_KINDS:
                after += 1
            yield from _lined_blanks(text, segments[first:after])
        elif suspect and kind == "table":
            row = segments[first]
            yield from _captured(_CELL_PADDING, text, row.start, row.end)
        first = after


def _json_blanks(text: str, start: int, end: int) -> Iterator[Span]:
    """White space between tokens but for one character of each run, a line's end where there is one. What stands between
    two values parts them: JSON lines are lines."""
    depth = 0
    for token in _JSON.finditer(text, start, end):
        if token.lastgroup == "blank":
            if depth and len(token.group()) > 1:
                kept = token.start() + max(token.group().find("\n"), 0)
                yield from ((a, b) for a, b in ((token.start(), kept), (kept + 1, token.end())) if a < b)
        elif token.lastgroup:
            depth += 1 if token.lastgroup == "open" else -1


def _lined_blanks(text: str, segments: Sequence[Segment]) -> Iterator[Span]:
    """Blanks at the ends of lines, and all but one of the blank lines in a row; in HTML, indentation too."""
    found: list[Span] = []
    raw = [(s.start, s.end) for s in segments if s.kind == "html" and _KEPT_AS_IT_STANDS.search(text, s.start, s.end)]
    for run in _LINE_ENDS.finditer(text, segments[0].start, segments[-1].end):
        newline = text.index("\n", run.start(), run.end())
        last = run.end() - 1
        trailing = newline - (text[newline - 1] == "\r")
        # two blanks at the end of a line that goes on are a line break in Markdown
        if trailing > run.start() and (last > newline or "  " not in run.group()):
            found.append((run.start(), trailing))
        if last > newline + 1:
            found.append((newline + 1, last))
    for s in segments:
        if s.kind == "html":
            found.extend(_captured(_HTML_INDENT, text, s.start, s.end))
    for before, after in pairwise(segments):
        if before.kind == after.kind == "html":
            found.extend(_captured(_HTML_INDENT, text, before.end, min(after.start + 1, after.end)))
    yield from sorted(span for span in found if not any(a <= span[0] and span[1] <= b for a, b in raw))


def _captured(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[Span]:
    return (match.span(match.lastindex or 0) for match in pattern.finditer(text, start, end))


def _lean_tokens(
    sources: Sequence[Source], segments: Sequence[Segment], blanks: Sequence[Sequence[Span]], encoding: str
) -> Iterable[int]:
    """Tokens of each segment, those counted again that have blanks in them."""
    tokens = [segment.tokens for segment in segments]
    changed: list[int] = []
    texts: list[str] = []
    at = dict.fromkeys(range(len(sources)), 0)
    for index, segment in enumerate(segments):
        own = blanks[segment.source]
        first = at[segment.source]
        while first < len(own) and own[first][0] < segment.start:
            first += 1
        last = first
        while last < len(own) and own[last][1] <= segment.end:
            last += 1
        at[segment.source] = last
        if last > first:
            text = sources[segment.source].text
            changed.append(index)
            left = without((segment.start, segment.end), own[first:last])
            texts.append(" " + "".join(text[a:b] for a, b in left))
    for index, count in zip(changed, count_each(texts, encoding), strict=True):
        tokens[index] = count
    return tokens
