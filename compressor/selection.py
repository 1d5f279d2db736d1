"""Selection: segments chosen so far, and what they cost together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from compressor.segments import Segment

STUB_TOKENS = 3  # "\n    ...": what stands for all that is under a signature


class Selection:
    """Chosen segments and their skeletons: `tokens` is theirs, and a gap's between runs that do not touch.

    `own_tokens[i]`: what segment i costs by itself; `gap_tokens`: what a gap before each kind of segment costs.
    """

    def __init__(self, segments: Sequence[Segment], own_tokens: Sequence[int], gap_tokens: Mapping[str, int]) -> None:
        self._segments = segments
        self._own_tokens = own_tokens
        self._gap_tokens = gap_tokens
        self._runs: Counter[int] = Counter()
        self._chosen: set[int] = set()  # for their own sake
        self.kept: set[int] = set()
        self.tokens = 0

    def add(self, index: int) -> list[int]:
        """Choose segment `index` with its skeleton; what was new."""
        new = self._new(index)
        self.tokens += self._cost(new)
        self._chosen.add(index)
        for i in new:
            self._runs[self._segments[i].source] += self._run_change(i)
            self.kept.add(i)
        return new

    def add_if_fits(self, index: int, budget_tokens: int) -> None:
        if index in self.kept:
            self._chosen.add(index)
        elif self.tokens + self._cost(self._new(index)) <= budget_tokens:
            self.add(index)

    def drop(self, order: Iterator[int], tokens: float) -> set[int]:
        """Drop segments, taken from `order`, that hold `tokens` together, and skeletons that then hold nothing.

        At least one, if there is one. The sources that lost something. Gaps are not counted again: the caller does that.
        """
        changed: set[int] = set()
        target = self.tokens - tokens
        while (self.tokens > target or not changed) and (index := next(order, None)) is not None:
            if index in self._chosen:
                self._chosen.discard(index)
                changed.add(self._segments[index].source)
                self.tokens -= self._own_tokens[index]
        self.kept = self._chosen.union(*(self._segments[i].skeleton for i in self._chosen))
        return changed

    def _new(self, index: int) -> list[int]:
        return [i for i in (*self._segments[index].skeleton, index) if i not in self.kept]

    def _cost(self, new: list[int]) -> int:
        """Each new run but a source's first may need a gap. Runs that the new segment joins give their gap back."""
        if not new:
            return 0
        cost = STUB_TOKENS if self._segments[new[-1]].stub else 0
        started = self._runs[self._segments[new[0]].source] > 0
        for i in new:
            segment = self._segments[i]
            cost += self._own_tokens[i] + started * self._run_change(i) * self._gap_tokens[segment.kind]
            started = True
        return cost

    def _run_change(self, index: int) -> int:
        source = self._segments[index].source
        touching = sum(
            i in self.kept and self._segments[i].source == source
            for i in (index - 1, index + 1)
            if 0 <= i < len(self._segments)
        )
        return 1 - touching
