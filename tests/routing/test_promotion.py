"""What is next for a request that may wait, on a clock that is a number."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.promotion import (
    BILLED_IN_SPITE,
    MOST_WAIT_S,
    PATIENCE_S,
    RECALL_S,
    RETRY_S,
    Buy,
    Expire,
    Recall,
    Turnaround,
    Wait,
    Way,
    next_step,
    step_in_batch,
)

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S
NOW = 1_000_000.0

SYNC = Way("openai", "m", "sync", Decimal("1.00"), takes_s=60.0)
FLEX = Way("openai", "m", "flex", Decimal("0.55"), takes_s=900.0)
BATCH = Way("openai", "m", "batch", Decimal("0.50"), turnaround=Turnaround())
OTHER = replace(BATCH, provider="anthropic", cost_usd=Decimal("0.51"))
WAYS = (SYNC, FLEX, BATCH)


class TestWhatIsBought:
    @pytest.mark.parametrize(
        ("left_s", "bought"),
        [
            (30.0, SYNC),
            (300.0, SYNC),
            (899.0, BATCH),
            (900.0, FLEX),
            (0.5 * HOUR_S, FLEX),
            (3 * HOUR_S, BATCH),
            (DAY_S, BATCH),
        ],
    )
    def test_each_way_at_its_time(self, left_s: float, bought: Way) -> None:
        assert next_step(NOW + left_s, WAYS, NOW) == Buy(bought)

    def test_without_flex_a_batch_is_worth_a_shorter_try(self) -> None:
        assert next_step(NOW + 0.5 * HOUR_S, (SYNC, BATCH), NOW) == Buy(BATCH)
        assert next_step(NOW + RECALL_S + 60.0 + 60.0, (SYNC, BATCH), NOW) == Buy(SYNC)

    def test_a_provider_whose_batches_take_a_day_is_not_tried_for_an_hour(self) -> None:
        slow = replace(BATCH, turnaround=Turnaround((0.9 * DAY_S,) * 50))
        assert next_step(NOW + HOUR_S, (SYNC, slow), NOW) == Buy(SYNC)
        assert next_step(NOW + DAY_S, (SYNC, slow), NOW) == Buy(slow)

    def test_a_cheaper_hour_is_waited_for(self) -> None:
        night = replace(SYNC, cost_usd=Decimal("0.50"), opens_at=NOW + HOUR_S)
        assert next_step(NOW + 2 * HOUR_S, (SYNC, night), NOW) == Wait(NOW + MOST_WAIT_S)
        assert next_step(NOW + 2 * HOUR_S, (SYNC, night), NOW + HOUR_S - 5) == Wait(NOW + HOUR_S)
        assert next_step(NOW + 2 * HOUR_S, (SYNC, night), NOW + HOUR_S) == Buy(night)
        assert next_step(NOW + HOUR_S, (SYNC, night), NOW) == Buy(SYNC)

    def test_what_is_too_late_for_everything_is_tried_until_its_deadline(self) -> None:
        assert next_step(NOW + 5.0, WAYS, NOW) == Buy(SYNC)
        assert next_step(NOW + 5.0, WAYS, NOW + 5.0) == Expire()

    def test_a_batch_alone_is_bought_on_the_chance(self) -> None:
        assert next_step(NOW + HOUR_S, (BATCH,), NOW) == Buy(BATCH)

    def test_nobody_can_be_asked(self) -> None:
        assert next_step(NOW + HOUR_S, (), NOW) == Wait(NOW + RETRY_S)
        assert next_step(NOW + 3.0, (), NOW) == Wait(NOW + 3.0)


class TestOutages:
    def test_another_provider_of_the_same_price_is_asked_at_once(self) -> None:
        down = replace(BATCH, down_s=0.0)
        other = replace(OTHER, cost_usd=BATCH.cost_usd)
        assert next_step(NOW + DAY_S, (SYNC, down, other), NOW) == Buy(other)

    def test_a_short_one_is_waited_out_where_the_others_are_dearer(self) -> None:
        down = replace(BATCH, down_s=1.0)
        assert next_step(NOW + DAY_S, (SYNC, down), NOW) == Wait(NOW + RETRY_S)

    def test_a_long_one_reroutes_what_waits(self) -> None:
        down = replace(BATCH, down_s=PATIENCE_S + 1)
        assert next_step(NOW + DAY_S, (SYNC, down, OTHER), NOW) == Buy(OTHER)
        assert next_step(NOW + DAY_S, (SYNC, FLEX, down), NOW) == Buy(FLEX)

    def test_one_that_would_cost_the_deadline_is_not_waited_out(self) -> None:
        down = replace(SYNC, down_s=400.0)
        dear = replace(SYNC, provider="dear", cost_usd=Decimal(9))
        assert next_step(NOW + 300.0, (down, dear), NOW) == Buy(dear)


class TestInABatch:
    def test_it_is_left_there_while_there_is_time(self) -> None:
        step = step_in_batch(NOW + DAY_S, (SYNC, BATCH), BATCH, NOW, NOW + 10)
        assert isinstance(step, Wait)
        assert step.until == NOW + 10 + MOST_WAIT_S

    def test_and_called_back_when_it_is_the_last_moment(self) -> None:
        deadline_at, latest = NOW + HOUR_S, NOW + HOUR_S - 60.0 - RECALL_S
        assert step_in_batch(deadline_at, (SYNC, BATCH), BATCH, NOW, latest - 10) == Wait(latest)
        assert step_in_batch(deadline_at, (SYNC, BATCH), BATCH, NOW, latest) == Recall()

    def test_or_earlier_while_flex_can_still_be_bought(self) -> None:
        """Where it has been away for longer than nearly all, the chance that it comes in the last minutes is small."""
        seen = Turnaround((60.0,) * 40)
        shipped = replace(BATCH, turnaround=seen)
        deadline_at = NOW + HOUR_S
        last_flex = deadline_at - FLEX.takes_s - RECALL_S
        assert step_in_batch(deadline_at, (SYNC, FLEX, shipped), shipped, NOW, last_flex - 1) == Recall()
        assert step_in_batch(deadline_at, (SYNC, FLEX, shipped), shipped, NOW, last_flex + 1) != Recall()

    def test_what_is_late_has_failed(self) -> None:
        assert step_in_batch(NOW + HOUR_S, WAYS, BATCH, NOW, NOW + HOUR_S) == Expire()

    def test_with_nothing_to_fall_back_on_it_stays(self) -> None:
        assert isinstance(step_in_batch(NOW + HOUR_S, (BATCH,), BATCH, NOW, NOW + HOUR_S - 1), Wait)

    def test_what_is_answered_in_a_batch_that_is_called_back_is_reckoned_with(self) -> None:
        """A batch that costs nearly as much as buying at once is not worth being billed twice for."""
        for usd in ("0.50", "0.70"):
            assert next_step(NOW + 0.5 * HOUR_S, (SYNC, replace(BATCH, cost_usd=Decimal(usd))), NOW) != Buy(SYNC)
        dear = replace(BATCH, cost_usd=Decimal("0.95"))
        assert next_step(NOW + 0.5 * HOUR_S, (SYNC, dear), NOW) == Buy(SYNC)
        assert BILLED_IN_SPITE > 0


times = st.floats(1.0, 2 * DAY_S)
costs = st.integers(1, 200).map(lambda cents: Decimal(cents) / 100)
ways = st.builds(
    Way,
    provider=st.sampled_from(["a", "b", "c"]),
    model=st.just("m"),
    processing=st.sampled_from(["sync", "flex"]),
    cost_usd=costs,
    takes_s=st.sampled_from([1.0, 60.0, 900.0]),
    opens_at=st.one_of(st.just(-math.inf), st.floats(NOW - DAY_S, NOW + DAY_S)),
    down_s=st.one_of(st.none(), st.floats(0.0, 2_000.0)),
)
batches = st.builds(
    Way,
    provider=st.sampled_from(["a", "b", "c"]),
    model=st.just("m"),
    processing=st.just("batch"),
    cost_usd=costs,
    turnaround=st.lists(times, max_size=20).map(lambda seen: Turnaround(tuple(sorted(seen)))),
    down_s=st.one_of(st.none(), st.floats(0.0, 2_000.0)),
)
markets = st.lists(st.one_of(ways, batches), max_size=6)


class TestProperties:
    @given(markets, st.floats(-HOUR_S, 2 * DAY_S))
    def test_only_what_is_on_offer_is_bought_and_no_wait_is_past_the_deadline(
        self, market: list[Way], left_s: float
    ) -> None:
        deadline_at = NOW + left_s
        step = next_step(deadline_at, market, NOW)
        if left_s <= 0 or deadline_at <= NOW:
            assert step == Expire()
        elif isinstance(step, Buy):
            assert step.way in market
            assert step.way.down_s is None
            assert step.way.opens_at <= NOW
        else:
            assert isinstance(step, Wait)
            assert NOW < step.until <= deadline_at

    @given(markets, st.floats(60.0, 2 * DAY_S))
    def test_it_never_costs_more_than_the_cheapest_that_can_be_had_at_once(
        self, market: list[Way], left_s: float
    ) -> None:
        at_hand = [
            way.cost_usd
            for way in market
            if not way.is_batch and way.down_s is None and way.opens_at <= NOW and NOW + way.takes_s <= NOW + left_s
        ]
        step = next_step(NOW + left_s, market, NOW)
        if at_hand and isinstance(step, Buy) and not step.way.is_batch:
            assert step.way.cost_usd <= min(at_hand)

    @given(st.lists(batches, max_size=3), st.floats(1.0, 2 * DAY_S), st.floats(0.0, 1.0), costs)
    def test_there_is_always_time_left_to_buy_at_once(
        self, market: list[Way], left_s: float, share: float, usd: Decimal
    ) -> None:
        """Played to its end against a batch that never comes back: called back with time enough, or never handed over."""
        sync = Way("s", "m", "sync", usd, takes_s=60.0)
        now, deadline_at = NOW, NOW + left_s
        step = next_step(deadline_at, [sync, *market], now)
        while isinstance(step, Wait):
            now = step.until
            step = next_step(deadline_at, [sync, *market], now)
        assert isinstance(step, Buy)
        if not step.way.is_batch:
            return
        shipped, shipped_at = step.way, now
        while not isinstance(step, Recall):
            step = step_in_batch(deadline_at, [sync, *market], shipped, shipped_at, now)
            if isinstance(step, Wait):
                assert step.until > now
                now = step.until
        assert now + RECALL_S + sync.takes_s <= deadline_at + 1e-6

    @given(st.lists(times, max_size=30), times, times)
    def test_chances_are_chances_and_never_fall_with_time(self, seen: list[float], one: float, two: float) -> None:
        turnaround = Turnaround(tuple(sorted(seen)))
        sooner, later = sorted((one, two))
        assert 0.0 <= turnaround.chance(sooner) <= turnaround.chance(later) <= 1.0
        assert 0.0 <= turnaround.chance_still(later, sooner) <= 1.0

    @given(st.integers(1, 60))
    def test_what_was_seen_counts_for_more_the_more_was_seen(self, count: int) -> None:
        few, many = Turnaround((100.0,) * count), Turnaround((100.0,) * (count + 1))
        assert few.chance(120.0) < many.chance(120.0)
        lost = Turnaround((math.inf,) * count)
        assert lost.chance(DAY_S) < 1.0
