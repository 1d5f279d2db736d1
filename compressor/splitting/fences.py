"""Fenced blocks in Markdown: the fence is the skeleton of what stands in it, which is split as the kind of text it is."""

from __future__ import annotations

import re

from compressor.splitting.code import split_code
from compressor.splitting.json import claims_json, split_json
from compressor.splitting.languages import language_named
from compressor.splitting.pieces import MAX_PIECE_CHARS, Page, Piece, needing, settled, shifted

MAX_FENCED_CHARS = MAX_PIECE_CHARS  # a block up to here is one piece

_FENCE = re.compile(r"(?P<fence>`{3,}|~{3,})[ \t]*\{?\.?(?P<tag>[\w+#-]*)")
_JSON_TAGS = frozenset(("json", "jsonc", "json5", "jsonl"))


def claims_fence(page: Page, i: int) -> int:
    """From a fence to the one that closes it, or to the end of the text."""
    opening = _FENCE.match(page[i])
    if opening is None or "`" in page[i][opening.end("fence") :]:
        return i
    fence = opening["fence"]
    for k in range(i + 1, len(page.lines)):
        if page[k].startswith(fence) and not page[k].strip(fence[0]):
            return k + 1
    return len(page.lines)


def split_fence(page: Page, first: int, last: int) -> list[Piece]:
    """One piece where it is short; else the fences, and between them pieces that need both."""
    start, end = page.span(first, last)
    opening = _FENCE.match(page[first])
    if end - start <= MAX_FENCED_CHARS or opening is None or last - first < 3:
        return [Piece(start, end, "fence")]
    closed = page[last - 1].startswith(opening["fence"]) and not page[last - 1].strip(opening["fence"][0])
    inside = _split_inside(page, first + 1, last - closed, opening["tag"].lower())
    opened = Piece(*page.span(first, first + 1), "fence", gap="\n…\n")
    if not closed:
        return settled([opened, *needing(shifted(inside, 1), (0,))])
    closing = Piece(*page.span(last - 1, last), "fence", gap="\n")
    return settled([opened, *needing(shifted(inside, 1), (0, len(inside) + 1)), closing])


def _split_inside(page: Page, first: int, last: int, tag: str) -> list[Piece]:
    if (tag in _JSON_TAGS or not tag) and claims_json(page, first) == last:
        return split_json(page, first, last)
    return split_code(page, first, last, language_named(tag) if tag else None)
