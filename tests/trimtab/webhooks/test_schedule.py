"""What becomes of a delivery after an attempt: every kind of answer, and the whole schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.webhooks.schedule import JITTER, MAX_RETRY_AFTER_S, SCHEDULE_S, Attempt, after

CHANCES = st.floats(0, 1, exclude_max=True)


def test_the_schedule_is_about_a_day() -> None:
    assert SCHEDULE_S[:4] == (0, 5, 300, 1_800)
    assert list(SCHEDULE_S) == sorted(SCHEDULE_S)
    assert 24 * 3600 < sum(SCHEDULE_S) < 36 * 3600


@given(st.integers(200, 299), st.integers(1, 8), CHANCES)
def test_any_2xx_is_success(status: int, attempts: int, chance: float) -> None:
    assert after(Attempt(status), attempts, chance).state == "delivered"


@given(st.none() | st.integers(100, 599).filter(lambda s: not 200 <= s < 300 and s != 410), CHANCES)
def test_everything_else_is_tried_as_often_as_the_schedule_says(status: int | None, chance: float) -> None:
    for attempts in range(1, len(SCHEDULE_S)):
        verdict = after(Attempt(status), attempts, chance)
        assert verdict.state == "pending"
        assert SCHEDULE_S[attempts] * (1 - JITTER) <= verdict.wait_s <= SCHEDULE_S[attempts] * (1 + JITTER)
    assert after(Attempt(status), len(SCHEDULE_S), chance).state == "failed"


def test_jitter_spreads_the_attempts() -> None:
    waits = [after(Attempt(500), 3, chance / 10).wait_s for chance in range(10)]
    assert waits == sorted(set(waits))
    assert waits[-1] > 1.3 * waits[0]


@given(st.floats(0, 10 * MAX_RETRY_AFTER_S), st.integers(1, 7), CHANCES)
def test_a_receiver_may_ask_for_more_time_and_not_for_less(asked_s: float, attempts: int, chance: float) -> None:
    usual_s = after(Attempt(503), attempts, chance).wait_s
    assert after(Attempt(503, retry_after_s=asked_s), attempts, chance).wait_s == pytest.approx(
        max(usual_s, min(asked_s, MAX_RETRY_AFTER_S))
    )


def test_gone_and_refused_are_final() -> None:
    gone, refused = after(Attempt(410), 1, 0.5), after(Attempt(None, "the address ...", refused=True), 1, 0.5)
    assert (gone.state, gone.gone) == ("disabled", True)
    assert (refused.state, refused.gone) == ("refused", False)
