"""Citations: from a place in a document as it was sent back to the same place in the original."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.writing import Kept


@dataclass(frozen=True, slots=True)
class Shown:
    """A document that was cut. `pieces` are its kept slices: (start in what was sent, start in the original, length)."""

    original: str
    pieces: tuple[tuple[int, int, int], ...]

    @staticmethod
    def of(original: str, kept: Kept, before: int = 0) -> Shown:
        """`before` is how many characters of white space stand before what is kept.

        >>> Shown.of("One. Two. Three.", Kept("a", "One. … Three.", ((0, 4), (10, 16)))).pieces
        ((0, 0, 4), (7, 10, 6))
        """
        pieces: list[tuple[int, int, int]] = []
        position = 0
        for start, end in kept.spans:
            # Between two slices stands a gap, whose width is not told; each slice is verbatim, so it can be found.
            position = kept.text.index(original[start:end], position)
            pieces.append((before + position, start, end - start))
            position += end - start
        return Shown(original, tuple(pieces))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where characters `start:end` of what was sent stand in the original; what lies in a gap counts as cut off."""
        first = next((piece for piece in self.pieces if piece[0] + piece[2] > start), None)
        last = next((piece for piece in reversed(self.pieces) if piece[0] < end), None)
        if first is None or last is None or first[0] > last[0]:
            nearest = first[1] if first is not None else len(self.original)
            return nearest, nearest
        return first[1] + max(0, start - first[0]), last[1] + min(last[2], end - last[0])
