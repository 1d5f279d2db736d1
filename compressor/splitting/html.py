"""HTML: blocks of text with the tags around them. No tag is cut, and a table's row keeps its header row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from compressor.splitting.pieces import MAX_PIECE_CHARS, Page, Piece, settled, stripped
from compressor.splitting.prose import language_of, sentence_spans

_BLOCK = (
    "html|head|body|div|section|article|aside|main|nav|header|footer|table|thead|tbody|tfoot|tr|caption|ul|ol|dl|li|dt|dd|p|"
    "h[1-6]|blockquote|pre|figure|figcaption|form|fieldset|details|summary|address|hr|br|title|script|style|template|svg|"
    "noscript|option|select|textarea"
)
_TAG = re.compile(
    r"""<!--.*?(?:-->|\Z) | <(?P<raw>script|style|svg|pre|textarea)\b[^<>]*+>.*?(?:</(?P=raw)\s*>|\Z)
      | <[!?][^<>]*+> | <(?P<close>/)?(?P<name>[a-zA-Z][\w:-]*+)(?:"[^"]*+"|'[^']*+'|[^<>"'])*+>""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_OPENING = re.compile(
    r"<(?:!doctype\s+html|!--|\?xml|(?:html|head|body|div|section|article|aside|main|nav|header|footer|table|ul|ol|dl|p|h[1-6]"
    r"|form|script|style|blockquote|pre|figure|title|meta|link|svg|tr|td|li|details|center|iframe)\b[^<>]*>)",
    re.IGNORECASE,
)
_BLOCK_NAME = re.compile(rf"(?:{_BLOCK})$", re.IGNORECASE)
_OPTIONAL_END = frozenset(
    (
        "p",
        "li",
        "dt",
        "dd",
        "tr",
        "td",
        "th",
        "thead",
        "tbody",
        "tfoot",
        "option",
        "br",
        "hr",
        "img",
        "input",
        "meta",
        "link",
        "base",
        "col",
        "area",
        "wbr",
    )
)
_ROW_PARTS = frozenset(("tr", "table", "thead", "tbody", "tfoot"))  # what ends a row that does not say where it ends
_MAX_LOOK_BACK = 50
_TABLE_OPENS = re.compile(r"<table\b", re.IGNORECASE)
_TABLE_CLOSES = re.compile(r"</table\s*>", re.IGNORECASE)
_ROW_OPENS = re.compile(r"<tr\b", re.IGNORECASE)
_ANY_TAG = re.compile(r"<[^<>]*>")
_LANGUAGE_SAMPLE_CHARS = 2000


class _Part(NamedTuple):
    """A run of characters that begins or ends at a block's tag. `has_text` tells it from bare tags."""

    start: int
    end: int
    has_text: bool
    opens: bool  # bare tags of which the last one opens


def claims_html(page: Page, i: int) -> int:
    """From a line that opens a block to the line on which everything opened so far is closed again."""
    line = page.lines[i]
    if page.text[line.start] != "<" or not _OPENING.match(page.text, line.start):
        return i
    end = _closed(page.text, line.start)
    after = i + 1
    while after < len(page.lines) and page.lines[after].start < end:
        after += 1
    return after


def _closed(text: str, start: int) -> int:
    """Where all that is open from `start` on is closed, at the end of a line; the end of the text if that never comes."""
    open_names: list[str] = []
    end = start
    for tag in _TAG.finditer(text, start):
        if not open_names and "\n" in text[end : tag.start()] and end > start:
            return end
        end = tag.end()
        name = (tag["name"] or "").lower()
        if not name or name in _OPTIONAL_END or text[end - 2] == "/":
            continue
        if not tag["close"]:
            open_names.append(name)
        elif name in open_names[-_MAX_LOOK_BACK:]:
            while open_names.pop() != name:
                pass
    return len(text) if open_names else end


def split_html(page: Page, first: int, last: int) -> list[Piece]:
    """A block of text a piece, bare tags with the text that they open or close; table rows with their header row."""
    start, end = page.span(first, last)
    language = language_of(_ANY_TAG.sub(" ", page.text[start : min(end, start + _LANGUAGE_SAMPLE_CHARS)]))
    pieces: list[Piece] = []
    headers: list[int | None] = []  # for each table that is open, the piece of its first row
    for part in _joined(list(_parts(page.text, start, end))):
        body = page.text[part.start : part.end]
        headers.extend([None] * len(_TABLE_OPENS.findall(body)))
        needed = tuple(header for header in headers if header is not None)
        if headers and _ROW_OPENS.search(body):
            is_header = headers[-1] is None
            if is_header:
                headers[-1] = len(pieces)
            pieces.append(Piece(part.start, part.end, "html", needed, stub="" if is_header else None))
        else:
            pieces.extend(Piece(s, e, "html", needed) for s, e in _texts(page.text, part, language))
        del headers[max(0, len(headers) - len(_TABLE_CLOSES.findall(body))) :]
    return settled(pieces)


def _texts(text: str, part: _Part, language: str) -> Iterator[tuple[int, int]]:
    if part.end - part.start <= MAX_PIECE_CHARS or not part.has_text:
        yield part.start, part.end
    else:
        yield from sentence_spans(text, part.start, part.end, language)


def _parts(text: str, start: int, end: int) -> Iterator[_Part]:
    """Cut before every block's opening tag and after its closing one, but never within a table's row."""
    begin = position = start
    has_text = opens = in_row = False
    for tag in _TAG.finditer(text, start, end):
        has_text = has_text or bool(tag["raw"]) or _says(text, position, tag.start())
        position = tag.end()
        name = (tag["name"] or "").lower()
        if not _BLOCK_NAME.match(name) or (in_row and name not in _ROW_PARTS):
            continue
        if in_row and name == "table" and not tag["close"]:
            continue  # a table within a cell: its rows are cut where they begin
        in_row = name == "tr" and not tag["close"]
        cut = tag.end() if tag["close"] or name in ("br", "hr") else tag.start()
        s, e = stripped(text, begin, cut)
        if s < e:
            yield _Part(s, e, has_text, opens)
        begin, opens, has_text = cut, not tag["close"], False
    s, e = stripped(text, begin, end)
    if s < e:
        yield _Part(s, e, has_text or _says(text, position, end), opens)


def _says(text: str, start: int, end: int) -> bool:
    return start < end and not text[start:end].isspace()


def _joined(parts: list[_Part]) -> Iterator[_Part]:
    """Bare opening tags go with the text after them, bare closing ones with the text before."""
    waiting: _Part | None = None
    done: _Part | None = None
    for part in parts:
        if part.has_text:
            if done is not None:
                yield done
            done = _Part(waiting.start if waiting else part.start, part.end, True, True)
            waiting = None
        elif part.opens or done is None or waiting is not None:
            waiting = _Part(waiting.start if waiting else part.start, part.end, False, True)
        else:
            done = _Part(done.start, part.end, True, True)
    if done is not None:
        yield done
    if waiting is not None:
        yield waiting
