"""What stands between two good segments is hardly worse than the lesser of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compressor.relevance import BETWEEN_LOSS, between
from compressor.segments import Segment


def segments(sources: list[int]) -> list[Segment]:
    return [Segment(source, at * 10, at * 10 + 9, "prose", 3) for at, source in enumerate(sources)]


def test_the_middle_of_a_passage_comes_along() -> None:
    raised = between(np.array([3.0, -2.0, 2.0, -2.0]), segments([0, 0, 0, 0]))
    assert raised.tolist() == [3.0, 2.0 - BETWEEN_LOSS, 2.0, -2.0]


def test_two_weak_ones_in_a_row_are_bridged_and_three_are_not() -> None:
    assert between(np.array([3.0, -2.0, -2.0, 3.0]), segments([0] * 4)).tolist() == [3.0, 2.5, 2.5, 3.0]
    assert between(np.array([3.0, -2.0, -2.0, -2.0, 3.0]), segments([0] * 5)).tolist() == [3.0, -2.0, 2.5, -2.0, 3.0]


def test_other_sources_lend_nothing() -> None:
    scores = np.array([3.0, -2.0, 3.0])
    assert between(scores, segments([0, 1, 2])).tolist() == scores.tolist()


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 2)), min_size=1, max_size=12))
def test_no_score_falls_and_none_passes_the_best(rows: list[tuple[float, int]]) -> None:
    scores = np.array([score for score, _ in rows])
    raised = between(scores, segments(sorted(source for _, source in rows)))
    assert (raised >= scores).all()
    assert raised.max() == scores.max()
