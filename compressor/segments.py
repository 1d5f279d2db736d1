"""Segments: what a payload is made of once it is split and counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from compressor.splitting import split
from compressor.tokens import DEFAULT_ENCODING, count_each


@dataclass(frozen=True, slots=True)
class Source:
    """One text that may be cut: a retrieved chunk, a document block in a message, a tool's output."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A span `start:end` (characters) of source number `source`, kept or dropped whole.

    `tokens` counts the span with a space before it, as it stands in running text. `skeleton` holds the numbers of the
    segments it makes no sense without (a table's header, JSON's brackets): keeping it keeps them. `gap`: what stands
    before it when the segment before it was left out, where its kind's own gap would not do (code, JSON lines). `stub`:
    of a segment that is in skeletons and may still be kept for itself, what stands for all that is under it when nothing
    of that is kept (a signature's body).
    """

    source: int
    start: int
    end: int
    kind: str
    tokens: int
    skeleton: tuple[int, ...] = ()
    gap: str | None = None
    stub: str | None = None


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def segmented(sources: Sequence[Source], encoding: str = DEFAULT_ENCODING) -> tuple[Segment, ...]:
    """The segments of every source, in order. An empty source has none."""
    # half a surrogate pair is no character, and libraries refuse it; its place is kept, so that spans still fit
    texts = [_LONE_SURROGATE.sub("\ufffd", source.text) for source in sources]
    pieces = [(number, piece) for number, text in enumerate(texts) for piece in split(text)]
    first_of: dict[int, int] = {}
    for index, (number, _) in enumerate(pieces):
        first_of.setdefault(number, index)
    counts = count_each([" " + texts[number][p.start : p.end] for number, p in pieces], encoding)
    return tuple(
        Segment(number, p.start, p.end, p.kind, tokens, tuple(first_of[number] + s for s in p.skeleton), p.gap, p.stub)
        for (number, p), tokens in zip(pieces, counts, strict=True)
    )
