"""Prose: sentences in many languages, and the lines that stand between paragraphs (headings, list items, fields).

Sentence ends come from sentencex, which knows each language's abbreviations. No cut is made inside a word, number, URL,
address, quotation or code span: a cut stands at white space, or after a mark that ends a sentence without it.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import sentencex

from compressor.splitting.pieces import MAX_PIECE_CHARS, Page, Piece, settled, stripped

MAX_LEAD_IN_CHARS = 120
_MAX_LEADS = 4  # list within list, no deeper
_WRAPPED_CHARS = 50  # a line shorter than this was not broken by a right margin
_WINDOW_CHARS = 2048  # sentencex is quadratic in unclosed quotation marks: it never sees more than this at once
_SPACELESS_WINDOW_CHARS = 512  # and more so in text without spaces
_LANGUAGE_SAMPLE_CHARS = 600

_LIST_ITEM = re.compile(r"(?:[-*+•‣·]|\(?\d{1,3}[.)]|\(?[a-zA-Z]\))\s")
_STRUCTURAL_LINE = re.compile(
    r"""(?:
        [-*+•‣·]\s | \#{1,6}\s | \(?\d{1,3}[.)]\s | \(?[a-zA-Z]\)\s  # list items, headings
      | > | ```                                                     # quotations, fences
      | [A-Z][\w .'&-]{0,40}:\s                                     # "Speaker: ", "Field: "
      | \[?\d{4}-\d\d-\d\d | \[?\d\d:\d\d                           # log lines, time stamps
      | at\s\S+\( | File\s" | Caused\sby:                           # stack traces
      | [+@-]{1,3}\s?\S.*[;{})]$                                    # changed lines
    )""",
    re.VERBOSE,
)
_INDENTED = re.compile(r"[^\S\t]{4}|[^\S\t]*\t")
_UNDERLINE = re.compile(r"={3,}|-{3,}")
_SENTENCE_END = re.compile(r"""[.!?:;。！？…]["'”’)\]]*$""")


class _Block(NamedTuple):
    """Lines that were wrapped from one paragraph, or one structural line. `indent` is in characters."""

    start: int
    end: int
    indent: int
    is_item: bool


def claims_prose(page: Page, i: int) -> int:
    """Every line can be read as prose."""
    return i + 1


def split_prose(page: Page, first: int, last: int) -> list[Piece]:
    """A sentence a piece; a short line that ends in a colon is the skeleton of the list under it."""
    start, end = page.span(first, last)
    language = language_of(page.text[start : min(end, start + _LANGUAGE_SAMPLE_CHARS)])
    pieces: list[Piece] = []
    leads: list[tuple[_Block, int]] = []  # lead-ins, outermost first, each with the index of its piece
    item: _Block | None = None
    for block in _blocks(page, first, last):
        if block.is_item:
            item = block
        elif item is not None and block.indent <= item.indent:
            item = None
        if item is None:
            leads = []
        elif block.is_item:
            leads = [(lead, at) for lead, at in leads if block.indent >= lead.indent + lead.is_item]
        spans = list(sentence_spans(page.text, block.start, block.end, language))
        needed = [at for _, at in leads]
        pieces.extend(Piece(s, e, "prose", tuple(needed)) for s, e in spans)
        s, e = spans[-1]
        if page.text[e - 1] in ":：" and e - s < MAX_LEAD_IN_CHARS:
            leads = [(lead, at) for lead, at in leads if lead.indent < block.indent or block.is_item > lead.is_item]
            leads = [*leads[-_MAX_LEADS:], (block, len(pieces) - 1)]
            item = item or block
    return settled(pieces)


def _blocks(page: Page, first: int, last: int) -> Iterator[_Block]:
    begin = first
    for i in range(first + 1, last + 1):
        if i < last and not _breaks(page, i):
            continue
        line = page.lines[begin]
        is_item = _LIST_ITEM.match(page.text, line.start, line.end) is not None
        yield _Block(line.start, page.lines[i - 1].end, line.start - line.margin, is_item)
        begin = i


def _breaks(page: Page, i: int) -> bool:
    """Whether line `i` begins a block: it does unless it and the line before look like one wrapped paragraph."""
    if page.blank_before(i):
        return True
    line, before = page[i], page[i - 1]
    if _UNDERLINE.fullmatch(line):
        return len(before) > MAX_LEAD_IN_CHARS
    if _STRUCTURAL_LINE.match(line) or _INDENTED.match(page.raw(i)) or _is_row(line) or _is_row(before):
        return True
    if len(before) < _WRAPPED_CHARS:
        return not line[0].islower()
    return _SENTENCE_END.search(before) is not None and not line[0].islower()


def _is_row(line: str) -> bool:
    return "|" in line or line.count("\t") > 1


# --- languages ---------------------------------------------------------------------------------------------------------

# Only languages whose abbreviations change the result. Their most frequent words that English does not have.
_FUNCTION_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "de": "der und das nicht ist ein eine mit von auf für wird dem den sich",
        "fr": "les des est une dans pour qui sur avec sont aux du le la et",
        "es": "los las una por con para del el más como y la que se",
        "it": "il gli della che per una nel sono di è dei la e",
        "pt": "os uma não para com dos da em um ao são que e o",
        "nl": "het een van niet voor zijn op aan ook dat wordt de en",
        "pl": "nie się jest na do że jak przez oraz od dla w z",
    }.items()
}
_ENGLISH = frozenset(("the", "of", "and", "to", "is", "was", "for", "that", "with", "it"))
_SCRIPTS = {"ru": re.compile(r"[\u0400-\u04ff]"), "el": re.compile(r"[\u0370-\u03ff]")}
_MIN_FUNCTION_WORDS = 0.12  # of all words; in English prose no row reaches it


def language_of(sample: str) -> str:
    """The language whose abbreviations to go by: a code that sentencex knows, "en" where nothing else is clear.

    >>> language_of("Das ist nicht der Ort, an dem das Haus steht, und es ist kalt.")
    'de'
    """
    words = sample.lower().split()
    if sum(word in _ENGLISH for word in words) > _MIN_FUNCTION_WORDS * len(words):
        return "en"
    if not sample.isascii():
        for language, script in _SCRIPTS.items():
            if len(script.findall(sample)) * 3 > len(sample):
                return language
    counts = {language: sum(word in known for word in words) for language, known in _FUNCTION_WORDS.items()}
    best = max(counts, key=lambda language: counts[language])
    return best if counts[best] >= 3 and counts[best] > _MIN_FUNCTION_WORDS * len(words) else "en"


# --- sentences ---------------------------------------------------------------------------------------------------------

# Lengths are bounded so that an unclosed mark costs no more than that many characters.
_UNBREAKABLE = re.compile(
    r"""`[^`\n]{1,300}` | (?<![\w"])"(?=\S)[^"]{1,300}"(?!\w) | “[^“”]{1,300}” | «[^«»]{1,300}» | 「[^「」]{1,300}」
      | 『[^『』]{1,300}』 | <[a-zA-Z/][^<>]{0,300}>""",
    re.VERBOSE,
)
_SPACELESS_END = frozenset("。！？｡．…।॥።၊။」』”’）》〉】")
_ABBREVIATED = re.compile(r"(?:^|[\s(])(?:[^\W\d_]{1,4}|(?:[^\W\d_]\.)+[^\W\d_])\.$")
_NUMBERED = re.compile(r"\(?(?:\d{1,3}|[a-zA-Z])[.)]\s+")
# what is not the second half of a name such as "Media.Vision" where a space was lost
_STARTS_SENTENCE = re.compile(
    r"(?:The|This|That|These|It|Its|In|On|At|As|A|An|And|But|If|He|She|They|We|You|There|When|While|After|For|However)\s"
)
_TAIL_CHARS = 12


def sentence_spans(text: str, start: int, end: int, language: str = "en") -> Iterator[tuple[int, int]]:
    """The sentences of `text[start:end]`, those over MAX_PIECE_CHARS in clauses: stripped, none empty."""
    whole = [(m.start(), m.end()) for m in _UNBREAKABLE.finditer(text, start, end)]
    marker = _NUMBERED.match(text, start, end)
    least = marker.end() if marker else start  # "1." is no sentence
    cased = not text[
        least : least + 1
    ].islower()  # else all may be in small letters, and none says that a sentence goes on
    ends = [
        cut for cut in _sentence_ends(text, start, end, language) if cut > least and _may_end(text, cut, end, cased)
    ]
    begin = start
    for cut in [*_outside(ends, whole), end]:
        s, e = stripped(text, begin, cut)
        if s < e:
            yield from _clauses(text, s, e, whole)
        begin = cut


def _sentence_ends(text: str, start: int, end: int, language: str) -> Iterator[int]:
    """Where sentencex sees sentences end, in windows: a sentence that a window cuts off is begun again in the next."""
    size = _WINDOW_CHARS if text.find(" ", start, start + _SPACELESS_WINDOW_CHARS) >= 0 else _SPACELESS_WINDOW_CHARS
    while start < end:
        stop = min(end, start + size)
        cuts = [start + b["end_index"] for b in sentencex.get_sentence_boundaries(language, text[start:stop])]
        if stop == end:
            yield from cuts
            return
        yield from cuts[:-1]
        start = cuts[-2] if len(cuts) > 1 else stop


def _may_end(text: str, cut: int, end: int, cased: bool) -> bool:
    """Whether a sentence may end at `cut`: not within a word, and not after what is likely an abbreviation."""
    if cut >= end:
        return False
    before, after = text[cut - 1], text[cut]
    if not (before.isspace() or after.isspace()):
        return before in _SPACELESS_END or (before == "." and _STARTS_SENTENCE.match(text, cut, end) is not None)
    tail = text[max(0, cut - _TAIL_CHARS) : cut].rstrip()
    following = after if not after.isspace() else text[cut : cut + _TAIL_CHARS].lstrip()[:1]
    return not (((cased and following.islower()) or following.isdigit()) and _ABBREVIATED.search(tail))


def _outside(cuts: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The cuts that are within none of the spans. Both ascend."""
    kept: list[int] = []
    at = 0
    for cut in cuts:
        while at < len(spans) and spans[at][1] <= cut:
            at += 1
        if at == len(spans) or cut <= spans[at][0]:
            kept.append(cut)
    return kept


# --- clauses -----------------------------------------------------------------------------------------------------------

_CLAUSE_END = re.compile(r"(?<=[,;:—)])\s+|\s+(?=(?:and|or|but|which|that|because)\s)|\n|(?<=[，、；：])")
_SPACE = re.compile(r"(?<=[^\W\d_])\s+(?=\D)|(?<=[^\w\s$€£¥№#§])\s+|\s+(?=[^\w\s%°])")  # never between number and unit
_ANY_SPACE = re.compile(r"\s+")


def _clauses(text: str, start: int, end: int, whole: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The span itself, or cut at the last clause end (else white space) before every MAX_PIECE_CHARS."""
    while end - start > MAX_PIECE_CHARS:
        cut = _clause_cut(text, start, end, whole)
        s, e = stripped(text, start, cut)
        if s < e:
            yield s, e
        start, end = stripped(text, cut, end)
    if start < end:
        yield start, end


def _clause_cut(text: str, start: int, end: int, whole: Sequence[tuple[int, int]]) -> int:
    stop = start + MAX_PIECE_CHARS
    near = whole[bisect.bisect_left(whole, (start - MAX_PIECE_CHARS, 0)) : bisect.bisect_left(whole, (stop, 0))]
    for pattern, least in ((_CLAUSE_END, start + MAX_PIECE_CHARS // 3), (_SPACE, start), (_ANY_SPACE, start)):
        cuts = _outside([m.start() for m in pattern.finditer(text, start, stop) if m.start() > least], near)
        if cuts:
            return cuts[-1]
    after = _ANY_SPACE.search(text, stop, end)
    return after.start() if after else end
