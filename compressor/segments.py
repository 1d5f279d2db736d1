"""Segments: what a payload is made of once it is split and counted."""

from __future__ import annotations

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
    segments it makes no sense without (a table's header, JSON's brackets): keeping it keeps them.
    """

    source: int
    start: int
    end: int
    kind: str
    tokens: int
    skeleton: tuple[int, ...] = ()


def segmented(sources: Sequence[Source], encoding: str = DEFAULT_ENCODING) -> tuple[Segment, ...]:
    """The segments of every source, in order. An empty source has none."""
    pieces = [(number, piece) for number, source in enumerate(sources) for piece in split(source.text)]
    first_of: dict[int, int] = {}
    for index, (number, _) in enumerate(pieces):
        first_of.setdefault(number, index)
    counts = count_each([" " + sources[number].text[p.start : p.end] for number, p in pieces], encoding)
    return tuple(
        Segment(number, p.start, p.end, p.kind, tokens, tuple(first_of[number] + s for s in p.skeleton))
        for (number, p), tokens in zip(pieces, counts, strict=True)
    )
