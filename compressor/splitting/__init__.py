"""Texts into segments: the smallest spans that are kept or dropped whole.

Every character of a text is in at most one piece; what is in none is white space between two. Spans are offsets into
the original, so that a kept piece is a slice of it, byte for byte. A text is read line by line once: the first kind that
claims a line has it and all that belongs to it, and each stretch is split by its kind. Splitting knows structure, not
relevance, and compiles no text: what looks broken is split as prose.
"""

from __future__ import annotations

import re

from compressor.splitting.chats import claims_chat, split_chat
from compressor.splitting.code import split_code
from compressor.splitting.diffs import claims_diff, split_diff
from compressor.splitting.fences import claims_fence, split_fence
from compressor.splitting.html import claims_html, split_html
from compressor.splitting.json import claims_json, split_json
from compressor.splitting.listings import claims_code
from compressor.splitting.logs import claims_log, split_log
from compressor.splitting.pieces import MAX_PIECE_CHARS, Kind, Piece, page_of, shifted
from compressor.splitting.prose import claims_prose, split_prose
from compressor.splitting.tables import claims_table, split_table

__all__ = ["KINDS", "MAX_PIECE_CHARS", "Kind", "Piece", "split"]

KINDS = (
    Kind("fence", claims_fence, split_fence),
    Kind("json", claims_json, split_json),
    Kind("diff", claims_diff, split_diff),
    Kind("html", claims_html, split_html),
    Kind("log", claims_log, split_log),
    Kind("table", claims_table, split_table),
    Kind("code", claims_code, split_code),
    Kind("chat", claims_chat, split_chat),
    Kind("prose", claims_prose, split_prose),
)

# A long line that opens with a letter and has none of these marks begins no other kind: most of prose is asked no more.
_RUNNING_PROSE = re.compile(r"(?![A-Z]{4}|diff )[^\W\d_](?:[^|\t:：;{}=<>(,]|,\s){60,}+")


def split(text: str) -> list[Piece]:
    """The pieces of `text` in order, disjoint, none empty, none starting or ending in white space.

    >>> [text[p.start:p.end] for text in ["One. Two!"] for p in split(text)]
    ['One.', 'Two!']
    """
    page = page_of(text)
    pieces: list[Piece] = []
    first = 0
    kind = KINDS[-1]
    i = 0
    while i < len(page.lines):
        line = page.lines[i]
        if i and _RUNNING_PROSE.fullmatch(text, line.start, line.end):
            claimant, after = KINDS[-1], i + 1
        else:
            claimant, after = next((kind, after) for kind in KINDS if (after := kind.claim(page, i)) > i)
        if (
            claimant is not kind or claimant is not KINDS[-1]
        ):  # lines of prose that follow each other are split together
            if first < i:
                pieces.extend(shifted(kind.split(page, first, i), len(pieces)))
            first, kind = i, claimant
        i = after
    if first < i:
        pieces.extend(shifted(kind.split(page, first, i), len(pieces)))
    return pieces
