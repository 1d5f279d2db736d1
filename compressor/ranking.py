"""Ranking: one order over a payload's segments, and everything that can be asked of it.

Rank once, then cut to any budget. What costs nothing to lose goes first: below the full size, second copies and white
space that nobody needs are never kept. Pure: knows nothing of encoders, messages or prices.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.calibration import Bound
from compressor.lossless import Savings, no_savings, savings
from compressor.segments import Segment, Source
from compressor.selection import Selection
from compressor.tokens import DEFAULT_ENCODING, count_each, count_tokens
from compressor.writing import DEFAULT_MARKER, Kept, Writer

__all__ = ["DEFAULT_MARKER", "Kept", "Ranking", "Trimmed", "whole"]

UNCHECKED = "an estimate: this ranking was not calibrated"

TWIN_WAIT = 0.5  # standard deviations of the scores that a second copy falls behind


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A payload cut to a budget: one `Kept` for every source, in order. `dropped` counts sources of which nothing is left.

    Of `tokens_before - tokens_after`, the first `lossless_tokens` went with second copies and white space, at no loss.
    `coverage_basis` says what `coverage_estimate` rests on.
    """

    contexts: tuple[Kept, ...]
    tokens_before: int
    tokens_after: int
    coverage_estimate: float
    dropped: int
    lossless_tokens: int = 0
    coverage_basis: str = ""


@dataclass(frozen=True, eq=False)  # no slots: the curve is computed on first use and kept
class Ranking:
    """Segments with their scores. `probabilities[i]` is the share of the evidence expected in segment i; they sum to 1.

    What is promised of a cut (`coverage`, and every `coverage_estimate`) is what `bound` makes of the sum of the kept
    segments' shares; without one it is that sum, which nobody has checked. Immutable, and safe to share between threads.
    A budget is in tokens of `encoding` and covers all that is kept, gap markers included.
    """

    sources: tuple[Source, ...]
    segments: tuple[Segment, ...]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    marker: str = DEFAULT_MARKER
    encoding: str = DEFAULT_ENCODING
    bound: Bound | None = None

    @functools.cached_property
    def full_tokens(self) -> int:
        """Tokens of all the sources' texts, each counted by itself."""
        return sum(count_each([source.text for source in self.sources], self.encoding))

    @functools.cached_property
    def lean_tokens(self) -> int:
        """Tokens of the payload without what costs nothing to lose: from here on, nothing is lost."""
        return self._lean[1]

    def cut(self, budget_tokens: int) -> Trimmed:
        """The best of the payload that fits: `tokens_after <= budget_tokens`, always.

        The payload as it came, byte for byte, if that fits; else without its second copies and needless white space, if
        that does; else the best of that.
        """
        if budget_tokens >= self.full_tokens:
            return self._trimmed(whole(self.sources), self.full_tokens, 1.0, 0)
        lossless_tokens = self.full_tokens - self.lean_tokens
        if budget_tokens >= self.lean_tokens:
            return self._trimmed(self._write(self._everything), self.lean_tokens, 1.0, lossless_tokens)
        selection = self._selection()
        for index in self._order:
            selection.add_if_fits(index, budget_tokens)
        kept = self._write(selection.kept)
        tokens = count_each([k.text for k in kept], self.encoding)
        # parts were counted apart, and a whole can come out longer: then the weakest go, as many as will do by that measure
        weakest_first = reversed(self._order)
        while (excess := sum(tokens) - max(budget_tokens, 0)) > 0:
            for number in selection.drop(weakest_first, excess * selection.tokens / sum(tokens)):
                kept[number] = self._writer.written(number, selection.kept)
                tokens[number] = count_tokens(kept[number].text, self.encoding)
        said = sorted({self._stands_for.get(i, i) for i in selection.kept})
        level = float(self._worth[said].sum()) if said else 0.0
        return self._trimmed(kept, sum(tokens), float(self._promised(np.array([level]))[0]), lossless_tokens)

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
        return budgets[position] if position < len(budgets) else self.full_tokens

    def steps(self) -> Sequence[int]:
        """The budgets in tokens at which coverage rises, ascending: between two of them, more tokens keep nothing more."""
        return self._curve[0]

    @functools.cached_property
    def _order(self) -> tuple[int, ...]:
        """Segments that may be chosen, best first. Skeletons come along with what needs them; of second copies, those of
        whole texts not at all, and others late: by then they only spare what is kept around them a gap."""
        skeletons = {s for segment in self.segments for s in segment.skeleton}
        passed_over = {i for i in skeletons if self.segments[i].stub is None}
        passed_over |= {i for _, *others in self._savings.copies for i in others}
        scores = self._scores_with_outlines(skeletons)
        for group in self._savings.twins:
            _, *others = self._led(group)
            scores[others] -= TWIN_WAIT * scores.std()
        order = np.argsort(-scores, kind="stable")
        return tuple(int(i) for i in order if int(i) not in passed_over)

    def _scores_with_outlines(self, skeletons: set[int]) -> NDArray[np.float64]:
        """The scores, a signature's at least halfway to the best of what stands beside it under the same one.

        So a class of which something is kept shows what else it can do, before text that is no better.
        """
        signatures = [i for i in skeletons if self.segments[i].stub and self.segments[i].skeleton]
        scores = np.array(self.scores, np.float64)
        best: dict[int, float] = {}
        for segment, score in zip(self.segments, self.scores, strict=True):
            for s in segment.skeleton:
                best[s] = max(best.get(s, score), score)
        for i in signatures:
            above = [s for s in self.segments[i].skeleton if s < i and self.segments[s].stub]
            if above:
                scores[i] = max(scores[i], (scores[i] + best[max(above)]) / 2)
        return scores

    @functools.cached_property
    def _worth(self) -> NDArray[np.float64]:
        """`probabilities`, those of second copies given to the copy that stands for them."""
        worth = np.array(self.probabilities, np.float64)
        for other, first in self._stands_for.items():
            worth[first] += worth[other]
            worth[other] = 0.0
        return worth

    @functools.cached_property
    def _stands_for(self) -> dict[int, int]:
        """For each second copy the segment that says the same and counts for both."""
        led = (*self._savings.copies, *(self._led(group) for group in self._savings.twins))
        return {other: first for first, *others in led for other in others}

    def _led(self, group: Sequence[int]) -> list[int]:
        """Twins, the best first."""
        return sorted(group, key=lambda i: (-self.scores[i], i))

    def _second_copies(self, saved: Savings) -> set[int]:
        led = (*saved.copies, *(self._led(group) for group in saved.twins))
        return {i for _, *others in led for i in others}

    @functools.cached_property
    def _lean(self) -> tuple[Savings, int]:
        """What costs nothing to lose, and the tokens of what is left then. Nothing, where that would not save any."""
        found = savings(self.sources, self.segments, self.encoding)
        if found:
            kept = self._all_but(self._second_copies(found))
            writer = Writer(self.sources, self.segments, found.blanks, self.marker)
            texts = [writer.written(number, kept).text for number in range(len(self.sources))]
            tokens = sum(count_each(texts, self.encoding))
            if tokens < self.full_tokens:
                return found, tokens
        return no_savings(self.sources, self.segments), self.full_tokens

    @property
    def _savings(self) -> Savings:
        return self._lean[0]

    def _all_but(self, left_out: set[int]) -> set[int]:
        """Every segment but those, and the skeletons that nothing needs then."""
        skeletons = {s for segment in self.segments for s in segment.skeleton}
        kept = {i for i in range(len(self.segments)) if i not in left_out and i not in skeletons}
        kept |= {s for i in kept for s in self.segments[i].skeleton}
        return kept | {i for i in skeletons if self.segments[i].stub is not None and i not in left_out}

    @functools.cached_property
    def _everything(self) -> set[int]:
        return self._all_but(self._second_copies(self._savings))

    @functools.cached_property
    def _writer(self) -> Writer:
        return Writer(self.sources, self.segments, self._savings.blanks, self.marker)

    def _write(self, kept: set[int]) -> list[Kept]:
        return [self._writer.written(number, kept) for number in range(len(self.sources))]

    def _selection(self) -> Selection:
        return Selection(self.segments, self._savings.tokens, self.gap_tokens)

    @functools.cached_property
    def _curve(self) -> tuple[list[int], list[float]]:
        """Budgets in tokens, ascending, and the coverage that each buys: one point for every segment in `_order` that adds
        any, as far as those are smaller than all that is worth keeping, which is the last."""
        selection = self._selection()
        budgets: list[int] = []
        levels: list[float] = []
        level = 0.0
        for index in self._order:
            gained = float(self._worth[selection.add(index)].sum())
            if selection.tokens >= self.lean_tokens:
                break
            if not gained:
                continue
            level += gained
            # a segment that joins two runs gives back a gap, which can cost more than the segment
            budgets.append(max(selection.tokens, budgets[-1] if budgets else 0))
            levels.append(level)
        return [*budgets, self.lean_tokens], [*self._promised(np.array(levels)).tolist(), 1.0]

    def _promised(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of shares as coverages. Below the lean size something is lost, whatever the shares say: never 1."""
        levels = np.minimum(levels, 1.0)
        return levels if self.bound is None else self.bound.coverages_at(np.minimum(levels, 1.0 - 1e-6))

    @functools.cached_property
    def gap_tokens(self) -> dict[str, int]:
        """What a gap costs, by kind of segment."""
        before = self._writer.gap_before
        return {kind: count_tokens(before(kind), self.encoding) for kind in {s.kind for s in self.segments}}

    def _trimmed(self, kept: list[Kept], tokens: int, coverage: float, lossless_tokens: int) -> Trimmed:
        dropped = sum(not k.text for k in kept)
        basis = "nothing is lost" if coverage >= 1 else UNCHECKED if self.bound is None else self.bound.says
        return Trimmed(tuple(kept), self.full_tokens, tokens, coverage, dropped, lossless_tokens, basis)


def whole(sources: Sequence[Source]) -> list[Kept]:
    """Every source with all of its text."""
    return [Kept(s.id, s.text, ((0, len(s.text)),) if s.text else ()) for s in sources]
