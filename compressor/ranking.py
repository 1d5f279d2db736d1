"""Ranking: one order over a payload's segments, and everything that can be asked of it.

Rank once, then cut to any budget. Pure: knows nothing of encoders, messages or prices.
"""

from __future__ import annotations

import bisect
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.segments import Segment, Source
from compressor.tokens import DEFAULT_ENCODING, count_each, count_tokens

Span = tuple[int, int]

DEFAULT_MARKER = " … "  # one token: the space after it is part of the next word's token

# kinds that go on in the same line after a gap, and after which kinds they do
_RUNNING_TEXT = {"prose": ("prose",), "html": ("html",), "chat-part": ("chat", "chat-part")}
_CODE_GAP = "\n    # …\n    "  # what it is counted as: each piece of code brings its own, with its indentation


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of one source: `text` is the slices `spans` of the original, in order, joined by gap markers."""

    id: str
    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A payload cut to a budget: one `Kept` for every source, in order. `dropped` counts sources of which nothing is left."""

    contexts: tuple[Kept, ...]
    tokens_before: int
    tokens_after: int
    coverage_estimate: float
    dropped: int


@dataclass(frozen=True, eq=False)  # no slots: the curve is computed on first use and kept
class Ranking:
    """Segments with their scores. `probabilities[i]` is the share of the evidence expected in segment i; they sum to 1.

    Immutable, and safe to share between threads. A budget is in tokens of `encoding` and covers all that is kept, gap
    markers included.
    """

    sources: tuple[Source, ...]
    segments: tuple[Segment, ...]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    marker: str = DEFAULT_MARKER
    encoding: str = DEFAULT_ENCODING

    @functools.cached_property
    def full_tokens(self) -> int:
        """Tokens of all the sources' texts, each counted by itself."""
        return sum(count_each([source.text for source in self.sources], self.encoding))

    def cut(self, budget_tokens: int) -> Trimmed:
        """The best of the payload that fits: `tokens_after <= budget_tokens`, always. The whole payload if that fits."""
        if budget_tokens >= self.full_tokens:
            return self._trimmed(whole(self.sources), self.full_tokens, 1.0)
        selection = _Selection(self)
        for index in self._order:
            selection.add_if_fits(index, budget_tokens)
        kept = [self._render(number, selection.kept) for number in range(len(self.sources))]
        tokens = count_each([k.text for k in kept], self.encoding)
        # parts were counted apart, and a whole can come out longer: then the weakest go, as many as will do by that measure
        weakest_first = reversed(self._order)
        while (excess := sum(tokens) - max(budget_tokens, 0)) > 0:
            for number in selection.drop(weakest_first, excess * selection.tokens / sum(tokens)):
                kept[number] = self._render(number, selection.kept)
                tokens[number] = count_tokens(kept[number].text, self.encoding)
        coverage = float(self.probabilities[sorted(selection.kept)].sum()) if selection.kept else 0.0
        return self._trimmed(kept, sum(tokens), min(coverage, 1.0))

    def coverage(self, budget_tokens: int) -> float:
        """The expected share of the evidence that a cut to `budget_tokens` keeps, 0 to 1; never falls as budgets grow."""
        if budget_tokens >= self.full_tokens:
            return 1.0
        budgets, coverages = self._curve
        position = bisect.bisect_right(budgets, budget_tokens)
        return coverages[position - 1] if position else 0.0

    def budget_for(self, coverage: float) -> int:
        """The smallest budget whose expected coverage is at least `coverage`; the full payload when only that will do."""
        if coverage <= 0:
            return 0
        budgets, coverages = self._curve
        position = bisect.bisect_left(coverages, coverage)
        return min(budgets[position], self.full_tokens) if position < len(budgets) else self.full_tokens

    @functools.cached_property
    def _order(self) -> tuple[int, ...]:
        """Segments that stand for themselves, best first. Skeletons come along with what needs them."""
        order = np.argsort(-self.scores, kind="stable")
        return tuple(int(i) for i in order if int(i) not in self._skeletons)

    @functools.cached_property
    def _skeletons(self) -> frozenset[int]:
        return frozenset(s for segment in self.segments for s in segment.skeleton)

    @functools.cached_property
    def _curve(self) -> tuple[list[int], list[float]]:
        """Budgets in tokens, ascending, and the coverage that each buys: one point for every segment in `_order`."""
        selection = _Selection(self)
        budgets: list[int] = []
        coverages: list[float] = []
        coverage = 0.0
        for index in self._order:
            coverage += float(self.probabilities[selection.add(index)].sum())
            # a segment that joins two runs gives back a gap, which can cost more than the segment
            budgets.append(max(selection.tokens, budgets[-1] if budgets else 0))
            coverages.append(min(coverage, 1.0))
        return budgets, coverages

    @functools.cached_property
    def gap_tokens(self) -> dict[str, int]:
        """What a gap costs, by kind of segment."""
        return {kind: count_tokens(self._gap_before(kind), self.encoding) for kind in {s.kind for s in self.segments}}

    @functools.cached_property
    def _gaps(self) -> dict[str, str]:
        in_line = dict.fromkeys(_RUNNING_TEXT, self.marker)
        return {**in_line, "json": ", ", "json-open": "", "json-close": "", "code": _CODE_GAP}

    def _gap_before(self, kind: str) -> str:
        """What stands where something was left out before a segment of `kind`: a line of its own, in what is made of lines."""
        return self._gaps.get(kind, f"\n{self.marker.strip()}\n" if self.marker.strip() else "\n")

    @functools.cached_property
    def _first_segments(self) -> list[int]:
        """For each source the number of its first segment, and one past the last at the end."""
        starts = np.searchsorted([s.source for s in self.segments], np.arange(len(self.sources) + 1))
        return [int(start) for start in starts]

    def _render(self, number: int, kept: set[int]) -> Kept:
        source = self.sources[number]
        first, last = self._first_segments[number], self._first_segments[number + 1]
        spans: list[Span] = []
        text = ""
        previous: int | None = None
        for index in range(first, last):
            if index not in kept:
                continue
            segment = self.segments[index]
            if previous == index - 1 and spans:
                text += source.text[spans[-1][1] : segment.end]
                spans[-1] = (spans[-1][0], segment.end)
            else:
                gap = self._gap(previous, index) if previous is not None else ""
                text += gap + source.text[segment.start : segment.end]
                spans.append((segment.start, segment.end))
            previous = index
        return Kept(source.id, text, tuple(spans))

    def _gap(self, before: int, after: int) -> str:
        kinds = (self.segments[before].kind, self.segments[after].kind)
        if kinds[0] == "json-open" or kinds[1] == "json-close":
            return ""
        own = self.segments[after].gap
        if own is not None:
            return own
        if kinds[1] in _RUNNING_TEXT and kinds[0] not in _RUNNING_TEXT[kinds[1]]:
            return self._gap_before("line")  # a sentence after a table's row begins on a line of its own
        return self._gap_before("json" if kinds[1].startswith("json") else kinds[1])

    def _trimmed(self, kept: list[Kept], tokens: int, coverage: float) -> Trimmed:
        return Trimmed(tuple(kept), self.full_tokens, tokens, coverage, sum(not k.text for k in kept))


class _Selection:
    """Segments chosen so far and what they cost together: their tokens, and a gap between runs that do not touch."""

    def __init__(self, ranking: Ranking) -> None:
        self._segments = ranking.segments
        self._skeletons = ranking._skeletons
        self._gap_tokens = ranking.gap_tokens
        self._runs: Counter[int] = Counter()
        self.kept: set[int] = set()
        self.tokens = 0

    def add(self, index: int) -> list[int]:
        """Choose segment `index` with its skeleton; what was new."""
        new = self._new(index)
        self.tokens += self._cost(new)
        for i in new:
            self._runs[self._segments[i].source] += self._run_change(i)
            self.kept.add(i)
        return new

    def add_if_fits(self, index: int, budget_tokens: int) -> None:
        if index not in self.kept and self.tokens + self._cost(self._new(index)) <= budget_tokens:
            self.add(index)

    def drop(self, order: Iterator[int], tokens: float) -> set[int]:
        """Drop segments, taken from `order`, that hold `tokens` together, and skeletons that then hold nothing.

        At least one, if there is one. The sources that lost something. Gaps are not counted again: the caller does that.
        """
        changed: set[int] = set()
        target = self.tokens - tokens
        while (self.tokens > target or not changed) and (index := next(order, None)) is not None:
            if index in self.kept:
                self.kept.discard(index)
                changed.add(self._segments[index].source)
                self.tokens -= self._segments[index].tokens
        needed = {s for i in self.kept if i not in self._skeletons for s in self._segments[i].skeleton}
        self.kept -= self._skeletons - needed
        return changed

    def _new(self, index: int) -> list[int]:
        return [i for i in (*self._segments[index].skeleton, index) if i not in self.kept]

    def _cost(self, new: list[int]) -> int:
        """Each new run but a source's first may need a gap. Runs that the new segment joins give their gap back."""
        cost = 0
        started = self._runs[self._segments[new[0]].source] > 0 if new else False
        for i in new:
            segment = self._segments[i]
            cost += segment.tokens + started * self._run_change(i) * self._gap_tokens[segment.kind]
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


def whole(sources: Sequence[Source]) -> list[Kept]:
    """Every source with all of its text."""
    return [Kept(s.id, s.text, ((0, len(s.text)),) if s.text else ()) for s in sources]
