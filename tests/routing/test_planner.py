"""The planner against an exhaustive search that is written another way, and each constraint by itself."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.catalog import Catalog
from routing.errors import NoOffer
from routing.offers import Offer, Rates, Usage, price
from routing.planner import Candidate, Needs, Plan, plan

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOISE = Fraction(1, 10**9)


@dataclass(frozen=True)
class Steps:
    """A curve as a ranking has it: segments best first, whole or not at all. `ends` are token totals, `kept` shares."""

    ends: tuple[int, ...]
    kept: tuple[float, ...]

    @property
    def full_tokens(self) -> int:
        return self.ends[-1] if self.ends else 0

    def coverage(self, budget_tokens: int) -> float:
        taken = bisect_right(self.ends, budget_tokens)
        if taken == len(self.ends):
            return 1.0
        return self.kept[taken - 1] if taken else 0.0

    def budget_for(self, coverage: float) -> int:
        if coverage <= 0 or not self.ends:
            return 0
        return self.ends[min(bisect_left(self.kept, coverage), len(self.ends) - 1)]

    def steps(self) -> tuple[int, ...]:
        return self.ends


@dataclass(frozen=True)
class Line:
    """Every token is worth the same."""

    full_tokens: int

    def coverage(self, budget_tokens: int) -> float:
        return min(1.0, budget_tokens / self.full_tokens)

    def budget_for(self, coverage: float) -> int:
        tries = range(int(coverage * self.full_tokens), self.full_tokens + 1)
        return next(each for each in tries if self.coverage(each) >= coverage)

    def steps(self) -> range:
        return range(self.full_tokens + 1)


def flat(input_usd: str, output_usd: str = "0", *, above_tokens: int = -1) -> Rates:
    return Rates(above_tokens, Decimal(input_usd), Decimal(output_usd), Decimal(input_usd), Decimal(input_usd))


def offer(name: str, *tiers: Rates, window_tokens: int | None = None) -> Offer:
    return Offer(name, "model", "sync", tiers, window_tokens, "test prices")


CHEAP = offer("cheap", flat("1E-6", "2E-6"))
DEAR = offer("dear", flat("2E-6", "4E-6"))
CLIFF = offer("cliff", flat("1E-7"), flat("5E-7", above_tokens=100_000))


@st.composite
def curves(draw: st.DrawFn) -> Steps:
    lengths = draw(st.lists(st.integers(1, 40), max_size=8))
    gains = draw(st.lists(st.integers(0, 10), min_size=len(lengths), max_size=len(lengths)))
    total = sum(gains) or 1
    ends = tuple(sum(lengths[: at + 1]) for at in range(len(lengths)))
    return Steps(ends, tuple(sum(gains[: at + 1]) / total for at in range(len(lengths))))


@st.composite
def some_offers(draw: st.DrawFn) -> list[Offer]:
    cents = st.integers(0, 6)
    offers = []
    for at in range(draw(st.integers(0, 5))):
        bounds = sorted(draw(st.sets(st.integers(0, 300), max_size=3)))
        # Rising or not: a price list that falls with size must not confuse the search.
        tiers = [flat(f"{draw(cents)}E-2", f"{draw(cents)}E-2", above_tokens=bound) for bound in (-1, *bounds)]
        offers.append(offer(f"p{at}", *tiers, window_tokens=draw(st.none() | st.integers(1, 500))))
    return offers


@st.composite
def some_needs(draw: st.DrawFn) -> Needs:
    return Needs(
        fixed_tokens=draw(st.integers(0, 60)),
        output_tokens=draw(st.integers(0, 60)),
        budget_tokens=draw(st.none() | st.integers(0, 300)),
        min_coverage=draw(st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.8, 0.9, 0.95, 1.0])),
        max_cost_usd=draw(st.none() | st.integers(0, 800).map(lambda cents: Decimal(cents) / 100)),
        tolerance=draw(st.sampled_from([0.0, 0.05, 0.3, 1.0])),
        margin=draw(st.sampled_from([0.0, 0.02, 0.1])),
    )


def search(curve: Steps, needs: Needs, offers: list[Offer]) -> tuple[int, int] | None:
    """(offer, budget) by trying *every* budget, and keeping those that the rules name; None if nothing is allowed."""
    full = curve.full_tokens
    cap = min(full, full if needs.budget_tokens is None else needs.budget_tokens)
    if needs.min_coverage is None:
        target, floor = cap, Fraction(curve.coverage(cap)) - Fraction(needs.tolerance)
    else:
        enough = [each for each in range(cap + 1) if curve.coverage(each) >= needs.min_coverage]
        if not enough:
            return None
        target, floor = enough[0], Fraction(needs.min_coverage)
    growth = 1 + Fraction(str(needs.margin))
    allowed = []
    for at, each in enumerate(offers):
        for budget in range(full + 1):
            tokens = needs.fixed_tokens + budget
            just_under = budget < target and any(
                tokens * growth <= row.above_tokens < (tokens + 1) * growth for row in each.tiers[1:]
            )
            if not (budget in (full, target) or just_under):
                continue
            row = [row for row in each.tiers if tokens > row.above_tokens][-1]
            cost = Fraction(row.input_usd) * tokens + Fraction(row.output_usd) * needs.output_tokens
            window = each.context_window_tokens
            if (
                budget <= cap
                and Fraction(curve.coverage(budget)) >= floor - NOISE
                and (window is None or tokens * growth + needs.output_tokens <= window)
                and (needs.max_cost_usd is None or cost <= Fraction(needs.max_cost_usd))
            ):
                allowed.append((cost, -curve.coverage(budget), at, budget))
    return min(allowed)[2:] if allowed else None


@settings(max_examples=400)
@given(curves(), some_needs(), some_offers())
def test_the_plan_is_what_an_exhaustive_search_finds(curve: Steps, needs: Needs, offers: list[Offer]) -> None:
    best = search(curve, needs, offers)
    if best is None:
        with pytest.raises(NoOffer):
            plan(curve, needs, offers)
        return
    chosen = plan(curve, needs, offers).chosen
    assert (chosen.offer, chosen.budget_tokens) == (offers[best[0]], best[1])


@given(curves(), some_needs(), some_offers())
def test_a_plan_holds_together(curve: Steps, needs: Needs, offers: list[Offer]) -> None:
    try:
        made = plan(curve, needs, offers)
    except NoOffer:
        return
    everything = (made.chosen, *made.runners_up)
    assert len({(id(each.offer), each.budget_tokens) for each in everything}) == len(everything)
    assert {id(each.offer) for each in everything} == {id(each) for each in offers}
    for each in everything:
        assert each.input_tokens == needs.fixed_tokens + each.budget_tokens
        assert each.output_tokens == needs.output_tokens
        assert each.expected_cost_usd == price(each.offer, Usage(each.input_tokens, each.output_tokens))
        assert each.coverage_estimate == curve.coverage(each.budget_tokens)
    assert made.chosen.why == ""
    assert all(each.why for each in made.runners_up)
    costs = [each.expected_cost_usd for each in made.runners_up]
    assert costs == sorted(costs)
    assert made.prices_version == made.chosen.offer.prices_version


def cost(curve: Steps, needs: Needs, offers: list[Offer]) -> Decimal:
    """What the plan costs; more than anything where there is none."""
    try:
        return plan(curve, needs, offers).chosen.expected_cost_usd
    except NoOffer:
        return Decimal("Infinity")


@given(curves(), some_needs(), some_offers(), st.data())
def test_more_freedom_never_costs_more(curve: Steps, needs: Needs, offers: list[Offer], data: st.DataObject) -> None:
    tight = cost(curve, needs, offers)
    assert cost(curve, replace(needs, max_cost_usd=None), offers) <= tight
    assert cost(curve, replace(needs, tolerance=1.0), offers) <= tight
    assert cost(curve, needs, [*offers, CHEAP]) <= tight
    roomy = [replace(each, context_window_tokens=None) for each in offers]
    assert cost(curve, needs, roomy) <= tight


@given(curves(), some_needs(), some_offers())
def test_no_limit_is_ever_broken(curve: Steps, needs: Needs, offers: list[Offer]) -> None:
    try:
        chosen = plan(curve, needs, offers).chosen
    except NoOffer:
        return
    if needs.budget_tokens is not None:
        assert chosen.budget_tokens <= needs.budget_tokens
    if needs.min_coverage is not None:
        assert chosen.coverage_estimate >= needs.min_coverage - 1e-9
    if needs.max_cost_usd is not None:
        assert chosen.expected_cost_usd <= needs.max_cost_usd
    if chosen.offer.context_window_tokens is not None:
        assert chosen.input_tokens + chosen.output_tokens <= chosen.offer.context_window_tokens


def test_a_100_600_token_payload_lands_under_the_boundary_of_claude_haiku_5_5() -> None:
    """Issue 2: a soft budget, the real prices; the margin holds against a tokenizer that counted 2 % too little."""
    offers = Catalog().offers(["claude-haiku-5-5"], NOW)
    made = plan(Line(100_000), Needs(fixed_tokens=600, output_tokens=1_000), offers)
    assert made.chosen.input_tokens == 98_039
    assert made.chosen.input_tokens * 1.02 <= 100_000 < (made.chosen.input_tokens + 1) * 1.02
    assert made.chosen.expected_cost_usd == Decimal("0.0103039")
    assert made.chosen.coverage_estimate == pytest.approx(0.97439)
    (full,) = made.runners_up
    assert full.budget_tokens == 100_000
    assert full.expected_cost_usd == Decimal("0.0528")
    assert full.why == "costs $0.0425 more: 100,600 input tokens are above the 100,000-token boundary"


def test_a_hard_coverage_is_paid_for() -> None:
    made = plan(Line(100_000), Needs(600, 1_000, min_coverage=0.99), [CLIFF])
    assert made.chosen.budget_tokens == 99_000
    # 99,600 tokens are under the boundary by our count, and above it if the count is 2 % too low.
    assert [each.why for each in made.runners_up] == [
        "keeps 0.97 of the evidence where 0.99 is required",
        "costs $0.0403 more: 100,600 input tokens are above the 100,000-token boundary",
    ]


def test_nothing_is_given_up_where_the_tolerance_is_zero() -> None:
    made = plan(Line(100_000), Needs(600, 1_000, tolerance=0.0), [CLIFF])
    assert made.chosen.budget_tokens == 100_000
    assert made.runners_up[0].why == "keeps 0.97 of the evidence where 1.00 is required"


def test_a_boundary_is_not_worth_it_where_the_curve_falls_steeply() -> None:
    steep = Steps((50_000, 100_000), (0.6, 1.0))
    assert plan(steep, Needs(600, 1_000), [CLIFF]).chosen.budget_tokens == 100_000


def test_without_a_budget_the_full_context_is_sent_where_no_boundary_is_near() -> None:
    made = plan(Line(10_000), Needs(600, 1_000), [DEAR, CHEAP])
    assert (made.chosen.offer, made.chosen.budget_tokens) == (CHEAP, 10_000)
    assert [each.why for each in made.runners_up] == ["costs $0.0126 more for 10,600 input and 1,000 output tokens"]


def test_a_dear_model_with_less_context_loses_to_a_cheap_one_with_all_of_it() -> None:
    """Issue 2's budgets are the caller's: the cut is made where it is asked for, and the price decides between offers."""
    made = plan(Line(10_000), Needs(0, 0, budget_tokens=2_500), [DEAR, CHEAP])
    assert (made.chosen.offer, made.chosen.budget_tokens) == (CHEAP, 2_500)
    assert [(each.offer.provider, each.budget_tokens, each.why) for each in made.runners_up] == [
        ("dear", 2_500, "costs $0.0025 more for 2,500 input and 0 output tokens"),
        ("cheap", 10_000, "sends 10,000 context tokens where budget_tokens is 2,500"),
        ("dear", 10_000, "sends 10,000 context tokens where budget_tokens is 2,500"),
    ]


def test_min_coverage_takes_the_smallest_budget() -> None:
    made = plan(Line(10_000), Needs(0, 0, min_coverage=0.5), [CHEAP])
    assert made.chosen.budget_tokens == 5_000
    assert made.runners_up[0].why == "costs $0.0050 more: sends 5,000 more context tokens"
    capped = plan(Line(10_000), Needs(0, 0, min_coverage=0.5, budget_tokens=9_000), [CHEAP])
    assert capped.chosen.budget_tokens == 5_000


def test_a_free_model_sends_everything() -> None:
    free = offer("free", flat("0"))
    made = plan(Line(10_000), Needs(0, 0, min_coverage=0.5), [free])
    assert made.chosen.budget_tokens == 10_000
    assert made.runners_up[0].why == "costs the same and keeps 0.50 of the evidence, not 1.00"


def test_ties_go_to_coverage_then_order_then_the_smaller_budget() -> None:
    twin = replace(CHEAP, provider="twin")
    made = plan(Line(100), Needs(0, 0), [CHEAP, twin])
    assert made.chosen.offer == CHEAP
    assert made.runners_up[0].why == "costs the same and keeps as much, and the chosen offer stands before it"
    saturated = Steps((10, 100), (1.0, 1.0))
    free = plan(saturated, Needs(0, 0, min_coverage=0.9), [offer("free", flat("0"))])
    assert free.chosen.budget_tokens == 10
    assert free.runners_up[0].why == "costs the same and keeps as much, and sends 90 more context tokens"


def test_an_empty_context_can_be_planned() -> None:
    made = plan(Steps((), ()), Needs(50, 10), [CHEAP, CLIFF])
    assert (made.chosen.budget_tokens, made.chosen.input_tokens, made.chosen.coverage_estimate) == (0, 50, 1.0)
    assert len(made.runners_up) == 1


def test_a_budget_above_the_context_is_the_context() -> None:
    assert plan(Line(100), Needs(0, 0, budget_tokens=10**9), [CHEAP]).chosen.budget_tokens == 100


def test_the_window_holds_the_prompt_with_its_margin_and_the_answer() -> None:
    # 10,000 * 1.02 + 1,000
    assert plan(Line(10_000), Needs(0, 1_000), [replace(CHEAP, context_window_tokens=11_200)]).chosen
    small = replace(CHEAP, context_window_tokens=11_199)
    made = plan(Line(10_000), Needs(0, 1_000), [small, DEAR])
    assert made.chosen.offer == DEAR
    assert made.runners_up[0].why == "needs 11,200 tokens of context window, has 11,199"


@given(curves(), some_needs(), some_offers())
def test_fallbacks_are_the_other_offers_that_may_answer_the_same_prompt(
    curve: Steps, needs: Needs, offers: list[Offer]
) -> None:
    try:
        made = plan(curve, needs, offers)
    except NoOffer:
        return
    sent = Usage(made.chosen.input_tokens, made.chosen.output_tokens)
    growth = 1 + Fraction(str(needs.margin))
    may_answer = [
        each
        for each in offers
        if each is not made.chosen.offer
        and (needs.max_cost_usd is None or price(each, sent) <= needs.max_cost_usd)
        and (
            each.context_window_tokens is None
            or sent.input_tokens * growth + sent.output_tokens <= each.context_window_tokens
        )
    ]
    assert sorted(each.provider for each in made.fallbacks) == sorted(each.provider for each in may_answer)
    costs = [price(each, sent) for each in made.fallbacks]
    assert costs == sorted(costs)


def test_a_fallback_is_priced_at_the_budget_that_was_chosen() -> None:
    """MID is cheaper than DEAR for the cut prompt and dearer for the whole one."""
    mid = offer("mid", flat("1.5E-6"), flat("9E-6", above_tokens=5_000))
    made = plan(Line(10_000), Needs(0, 0, budget_tokens=2_500), [DEAR, mid, CHEAP])
    assert (made.chosen.offer, made.fallbacks) == (CHEAP, (mid, DEAR))


def test_limits_hold_to_the_token_and_to_the_cent() -> None:
    # Free, so that the full context would win if one token above the cap were let through.
    assert plan(Line(100), Needs(0, 0, budget_tokens=99), [offer("free", flat("0"))]).chosen.budget_tokens == 99
    # Exactly what is allowed may be spent.
    assert plan(Line(10_000), Needs(0, 0, max_cost_usd=Decimal("0.01")), [CHEAP]).chosen.budget_tokens == 10_000
    # 10,001 * 1.02 is 10,201.02: a part of a token needs a whole one.
    made = plan(Line(10_001), Needs(0, 0), [replace(CHEAP, context_window_tokens=10_201), DEAR])
    assert made.runners_up[0].why == "needs 10,202 tokens of context window, has 10,201"


def test_all_of_the_context_may_go_to_stay_under_a_boundary() -> None:
    made = plan(Line(10_000), Needs(98_039, 0, tolerance=1.0), [CLIFF])
    assert (made.chosen.budget_tokens, made.chosen.input_tokens) == (0, 98_039)
    beyond = plan(Line(10_000), Needs(98_040, 0, tolerance=1.0), [CLIFF])
    assert (beyond.chosen.budget_tokens, beyond.runners_up) == (10_000, ())


def test_boundaries_above_the_target_are_no_candidates() -> None:
    stepped = offer("stepped", flat("1E-6"), flat("2E-6", above_tokens=7_000))
    made = plan(Line(10_000), Needs(0, 0, min_coverage=0.5), [stepped])
    assert [each.budget_tokens for each in (made.chosen, *made.runners_up)] == [5_000, 10_000]


def test_offers_that_cost_too_much_are_refused() -> None:
    with pytest.raises(NoOffer) as caught:
        plan(Line(10_000), Needs(0, 0, max_cost_usd=Decimal("0.005")), [CHEAP, DEAR])
    assert caught.value.reasons == (
        "cheap/model (sync): with 10,000 context tokens it costs $0.0100 where max_cost_usd is $0.0050",
        "dear/model (sync): with 10,000 context tokens it costs $0.0200 where max_cost_usd is $0.0050",
    )
    assert str(caught.value) == f"no offer meets the request. {' | '.join(caught.value.reasons)}"


def test_a_refused_offer_gives_a_reason_for_each_of_its_budgets() -> None:
    with pytest.raises(NoOffer) as caught:
        plan(Line(200_000), Needs(0, 0, max_cost_usd=Decimal("0.05")), [CLIFF])
    assert caught.value.reasons == (
        "cliff/model (sync): with 98,039 context tokens it keeps 0.49 of the evidence where 0.95 is required; "
        "with 200,000 context tokens it costs $0.1000 where max_cost_usd is $0.0500",
    )


def test_many_refusals_make_a_short_message() -> None:
    many = [replace(CHEAP, provider=f"p{at}") for at in range(50)]
    with pytest.raises(NoOffer, match=r"and 47 more") as caught:
        plan(Line(10_000), Needs(0, 0, max_cost_usd=Decimal(0)), many)
    assert len(caught.value.reasons) == 50
    assert len(str(caught.value)) < 500


def test_a_budget_too_small_for_the_coverage_says_what_would_do() -> None:
    with pytest.raises(NoOffer) as caught:
        plan(Line(10_000), Needs(0, 0, min_coverage=0.95, budget_tokens=9_125), [CHEAP])
    assert str(caught.value) == (
        "budget_tokens 9,125 is expected to keep 0.91 of the evidence where min_coverage asks for 0.95. "
        "Raise budget_tokens to 9,500, or lower min_coverage to 0.91."
    )
    assert plan(Line(10_000), Needs(0, 0, min_coverage=0.95, budget_tokens=9_500), [CHEAP])
    assert plan(Line(10_000), Needs(0, 0, min_coverage=0.91, budget_tokens=9_125), [CHEAP])


def test_no_offers_at_all() -> None:
    with pytest.raises(NoOffer, match="nothing to choose from"):
        plan(Line(100), Needs(0, 0), [])


def test_a_curve_that_answers_nan_is_never_trusted() -> None:
    class Broken(Line):
        def coverage(self, budget_tokens: int) -> float:
            return float("nan")

        def budget_for(self, coverage: float) -> int:
            return 50

    with pytest.raises(NoOffer):
        plan(Broken(100), Needs(0, 0, min_coverage=0.5), [CHEAP])


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"fixed_tokens": -1}, ValueError, "fixed_tokens must be 0 or more, not -1"),
        ({"fixed_tokens": True}, TypeError, "fixed_tokens must be an int, not bool"),
        ({"output_tokens": 1.5}, TypeError, "output_tokens must be an int, not float"),
        ({"budget_tokens": -5}, ValueError, "budget_tokens must be 0 or more, not -5"),
        ({"budget_tokens": "9"}, TypeError, "budget_tokens must be an int, not str"),
        ({"min_coverage": 1.01}, ValueError, "min_coverage must be from 0 to 1, not 1.01"),
        ({"min_coverage": float("nan")}, ValueError, "min_coverage must be from 0 to 1, not nan"),
        ({"min_coverage": "0.9"}, TypeError, "min_coverage must be a number, not str"),
        ({"tolerance": -0.1}, ValueError, "tolerance must be from 0 to 1, not -0.1"),
        ({"margin": 2}, ValueError, "margin must be from 0 to 1, not 2"),
        ({"margin": False}, TypeError, "margin must be a number, not bool"),
        ({"max_cost_usd": 0.5}, TypeError, "max_cost_usd must be a Decimal, not float"),
        ({"max_cost_usd": Decimal(-1)}, ValueError, "max_cost_usd must be a finite amount of 0 or more, not -1"),
        ({"max_cost_usd": Decimal("NaN")}, ValueError, "max_cost_usd must be a finite amount of 0 or more, not NaN"),
    ],
)
def test_needs_name_their_bad_field(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    needs: dict[str, Any] = {"fixed_tokens": 1, "output_tokens": 1}
    with pytest.raises(error) as caught:
        Needs(**needs | fields)
    assert str(caught.value) == message


def test_small_amounts_are_not_shown_as_zero() -> None:
    pennies = offer("pennies", flat("1E-9"))
    made = plan(Line(100), Needs(0, 0), [offer("free", flat("0")), pennies])
    assert made.runners_up[0].why == "costs $0.00000010 more for 100 input and 0 output tokens"


def test_coverages_that_differ_are_shown_to_differ() -> None:
    curve = Steps((98_039, 100_000), (0.9496, 1.0))
    made = plan(curve, Needs(0, 0), [CLIFF])
    assert made.chosen.budget_tokens == 100_000
    curve = Steps((98_000, 100_600), (0.9496, 1.0))
    made = plan(curve, Needs(0, 0), [CLIFF])
    assert made.runners_up[0].why == "keeps 0.9496 of the evidence where 0.9500 is required"


def test_plain_data_is_the_answer_of_the_plan_endpoint() -> None:
    made = plan(Line(100_000), Needs(600, 1_000), Catalog().offers(["claude-haiku-5-5"], NOW))
    answer = json.loads(json.dumps(made.to_dict()))
    assert answer["chosen"] == {
        "provider": "anthropic",
        "model": "claude-haiku-5-5",
        "processing": "sync",
        "budget_tokens": 97_439,
        "input_tokens": 98_039,
        "output_tokens": 1_000,
        "expected_cost_usd": "0.0103039",
        "coverage_estimate": 0.97439,
    }
    assert [set(each) - set(answer["chosen"]) for each in answer["runners_up"]] == [{"why"}]


def test_plain_dollars_have_no_exponent() -> None:
    tiny = Candidate(CHEAP, 0, 0, 0, Decimal("1E-7"), 1.0)
    assert Plan(tiny, (), "test").to_dict()["chosen"] == tiny.to_dict()
    assert tiny.to_dict()["expected_cost_usd"] == "0.0000001"
