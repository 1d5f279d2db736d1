"""The whole sum: failure, wrong answers, caches and what is carried on, against an exhaustive search in fractions."""

from __future__ import annotations

import timeit
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.costs import Carried, bill
from routing.errors import NoOffer
from routing.offers import Offer, Rates, Usage, price
from routing.planner import Needs, plan
from routing.standing import Standing, called

NOISE = Fraction(1, 10**7)


class Steps:
    """A curve as a ranking has it: segments best first, whole or not at all."""

    def __init__(self, lengths: Sequence[int], gains: Sequence[int]) -> None:
        total = sum(gains) or 1
        self.ends = [sum(lengths[: at + 1]) for at in range(len(lengths))]
        self.kept = [sum(gains[: at + 1]) / total for at in range(len(lengths))]
        self.full_tokens = self.ends[-1] if self.ends else 0

    def __repr__(self) -> str:
        return f"Steps(ends={self.ends}, kept={self.kept})"

    def coverage(self, budget_tokens: int) -> float:
        taken = sum(end <= budget_tokens for end in self.ends)
        if taken == len(self.ends):
            return 1.0
        return self.kept[taken - 1] if taken else 0.0

    def budget_for(self, coverage: float) -> int:
        return next((b for b in range(self.full_tokens + 1) if self.coverage(b) >= coverage), self.full_tokens)

    def steps(self) -> Sequence[int]:
        return self.ends


curves = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 10)), max_size=6).map(
    lambda rows: Steps([length for length, _ in rows], [gain for _, gain in rows])
)
tenths = st.sampled_from([0.0, 0.5, 0.9, 0.95, 1.0])
cents = st.integers(0, 9).map(lambda n: Decimal(n) / 100)


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[Offer], dict[tuple[str, str, str], Standing]]:
    offers, standings = [], {}
    for at in range(draw(st.integers(1, 4))):
        bounds = sorted(draw(st.sets(st.integers(0, 200), max_size=2)))
        input_usd, output_usd = draw(cents), draw(cents)
        read, write = draw(st.sampled_from(["0.1", "0.5", "1"])), draw(st.sampled_from(["1", "1.25", "2"]))
        tiers = []
        for bound in (-1, *bounds):
            usd = (input_usd, output_usd, input_usd * Decimal(read), input_usd * Decimal(write))
            tiers.append(Rates(bound, *usd))
            # No seller gets cheaper with size, and a plan does not look for that.
            input_usd, output_usd = input_usd * draw(st.integers(1, 5)), output_usd + draw(cents)
        processing = draw(st.sampled_from(["sync", "sync", "sync", "flex", "batch"]))
        offer = Offer(f"p{at}", "m", processing, tuple(tiers), draw(st.none() | st.integers(50, 400)), "test prices")
        offers.append(offer)
        if draw(st.booleans()):
            minimum_tokens = draw(st.sampled_from([0, 10, 60]))
            standings[called(offer)] = Standing(
                success=draw(tenths),
                available=draw(st.sampled_from([True, True, False])),
                first_token_ms=draw(st.none() | st.integers(1, 2_000).map(float)),
                tokens_per_second=draw(st.none() | st.integers(1, 100).map(float)),
                output_tokens=draw(st.none() | st.integers(0, 40)),
                margin=draw(st.none() | st.sampled_from([0.0, 0.01, 0.05])),
                quality=draw(st.none() | tenths),
                warm_tokens=draw(st.integers(0, 30)) if minimum_tokens else 0,
                cache_minimum_tokens=minimum_tokens,
                cache_marked=draw(st.booleans()),
            )
    return offers, standings


@st.composite
def some_needs(draw: st.DrawFn) -> Needs:
    return Needs(
        fixed_tokens=draw(st.integers(30, 80)),
        output_tokens=draw(st.integers(0, 40)),
        budget_tokens=draw(st.none() | st.integers(0, 150)),
        min_coverage=draw(st.none() | tenths),
        max_cost_usd=draw(st.none() | st.integers(0, 20).map(Decimal)),
        tolerance=draw(st.sampled_from([0.0, 0.1, 1.0])),
        max_output_tokens=draw(st.none() | st.integers(0, 30)),
        wrong_answer_usd=draw(st.none() | st.integers(0, 50).map(Decimal)),
        min_quality=draw(st.none() | tenths),
        max_latency_ms=draw(st.none() | st.integers(1, 3_000).map(float)),
        deadline_s=draw(st.sampled_from([None, 10.0, 3_600.0, 100_000.0])),
        carried=Carried(
            draw(st.integers(0, 30)), draw(st.booleans()), draw(st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0]))
        ),
    )


def own_cost(offer: Offer, known: Standing, needs: Needs, budget: int, coverage: float) -> tuple[Fraction, Fraction]:
    """(bill, bill + carrying + wrong answers) in fractions: written from the documentation and not from the code."""
    tokens = needs.fixed_tokens + budget
    rates = [row for row in offer.tiers if tokens > row.above_tokens][-1]
    read, write, full = (Fraction(rates.cache_read_usd), Fraction(rates.cache_write_usd), Fraction(rates.input_usd))
    output = known.output_tokens if known.output_tokens is not None else needs.output_tokens
    if needs.max_output_tokens is not None:
        output = min(output, needs.max_output_tokens)
    answer = Fraction(rates.output_usd) * output
    prefix = min(tokens, needs.carried.prefix_tokens + (budget if needs.carried.with_context else 0))
    times = Fraction(str(needs.carried.times))
    cacheable = 0 < known.cache_minimum_tokens <= prefix
    warm = min(known.warm_tokens, tokens)
    if known.cache_marked:
        ways = [(full * tokens + answer, times * full * prefix)]
        if cacheable and (warm or times):
            warm = min(warm, prefix)
            marked = full * (tokens - prefix) + read * warm + write * (prefix - warm)
            ways.append((marked + answer, times * read * prefix))
        bill_usd, carry_usd = min(ways, key=sum)
    else:
        bill_usd = full * (tokens - warm) + read * warm + answer
        carry_usd = times * (read if cacheable else full) * prefix
    quality = 1.0 if known.quality is None else known.quality
    wrong_usd = Fraction(needs.wrong_answer_usd or 0) * (1 - Fraction(str(quality)) * Fraction(coverage))
    return bill_usd, bill_usd + carry_usd + wrong_usd


def may_be_bought(offer: Offer, known: Standing, needs: Needs, budget: int, bill_usd: Fraction) -> bool:
    output = known.output_tokens if known.output_tokens is not None else needs.output_tokens
    output = output if needs.max_output_tokens is None else min(output, needs.max_output_tokens)
    margin = needs.margin if known.margin is None else known.margin
    window = offer.context_window_tokens
    most = -(-(needs.fixed_tokens + budget) * (1 + Fraction(str(margin))) // 1)
    if window is not None and most + output > window:
        return False
    if needs.max_cost_usd is not None and bill_usd > Fraction(needs.max_cost_usd):
        return False
    if {"sync": 0.0, "flex": 900.0, "batch": 86_400.0}[offer.processing] > (needs.deadline_s or 0.0):
        return False
    if needs.max_latency_ms is not None and known.first_token_ms is not None:
        took = known.first_token_ms + (1000 * output / known.tokens_per_second if known.tokens_per_second else 0)
        if took > needs.max_latency_ms:
            return False
    return needs.min_quality is None or (known.quality or 0.0) >= needs.min_quality


def search(
    curve: Steps, needs: Needs, offers: list[Offer], standings: dict[tuple[str, str, str], Standing]
) -> tuple[bool, Fraction] | None:
    """(rests, total) of the best by trying every offer at every budget that the rules allow; None if none is."""
    full = curve.full_tokens
    cap = full if needs.budget_tokens is None else min(full, needs.budget_tokens)
    floor = (
        needs.min_coverage
        if needs.min_coverage is not None
        else 0.0
        if needs.wrong_answer_usd is not None
        else curve.coverage(cap) - needs.tolerance
    )
    if curve.coverage(cap) < floor - 1e-9:
        return None
    enough = next(b for b in range(full + 1) if curve.coverage(b) >= floor - 1e-9)
    target = enough if needs.min_coverage is not None else cap
    free = replace(needs, max_cost_usd=None)
    found = []
    for budget in range(cap + 1):
        coverage = curve.coverage(budget)
        rows = []
        for offer in offers:
            known = standings.get(called(offer), Standing())
            bill_usd, own_usd = own_cost(offer, known, needs, budget, coverage)
            stands_in = known.available and may_be_bought(
                replace(offer, context_window_tokens=None), known, free, budget, bill_usd
            )
            rows.append((offer, known, own_usd, may_be_bought(offer, known, needs, budget, bill_usd), stands_in))
        for at, (offer, known, own_usd, bought, _) in enumerate(rows):
            if not bought or coverage < floor - 1e-9:
                continue
            margin = Fraction(str(needs.margin if known.margin is None else known.margin))
            tokens = needs.fixed_tokens + budget
            under = [row.above_tokens for row in offer.tiers[1:]]
            just_under = any(tokens * (1 + margin) <= bound < (tokens + 1) * (1 + margin) for bound in under)
            # below the target only a price boundary is a reason to go
            if needs.wrong_answer_usd is None and budget < target and not just_under:
                continue
            others = [usd for n, (_, _, usd, _, stands_in) in enumerate(rows) if n != at and stands_in]
            total = own_usd
            if others:
                success = Fraction(str(known.success))
                total = success * own_usd + (1 - success) * min(others)
            found.append((not known.available, total))
    return min(found) if found else None


@settings(max_examples=600, deadline=None)
@given(curves, some_needs(), markets())
def test_no_plan_costs_more_than_an_exhaustive_search_finds(
    curve: Steps, needs: Needs, market: tuple[list[Offer], dict[tuple[str, str, str], Standing]]
) -> None:
    offers, standings = market
    best = search(curve, needs, offers, standings)
    if best is None:
        with pytest.raises(NoOffer):
            plan(curve, needs, offers, standings)
        return
    made = plan(curve, needs, offers, standings)
    chosen = made.chosen
    assert abs(Fraction(chosen.total_usd) - best[1]) <= NOISE, (chosen, float(best[1]))
    assert standings.get(called(chosen.offer), Standing()).available is not best[0]
    assert all(each.why for each in made.runners_up)


@settings(max_examples=200, deadline=None)
@given(markets(), some_needs(), st.integers(0, 200))
def test_a_bill_is_the_price_of_its_own_usage(
    market: tuple[list[Offer], dict[tuple[str, str, str], Standing]], needs: Needs, budget: int
) -> None:
    offers, standings = market
    for offer in offers:
        known = standings.get(called(offer), Standing())
        input_tokens = needs.fixed_tokens + budget
        sent = bill(offer, known, input_tokens, needs.output_tokens, budget, needs.carried)
        usage = Usage(input_tokens, needs.output_tokens, sent.read_tokens, sent.write_tokens)
        assert sent.bill_usd == price(offer, usage)


def offer(name: str, input_usd: str, output_usd: str = "0", *, read: str = "", write: str = "") -> Offer:
    usd = Decimal(input_usd)
    rates = Rates(-1, usd, Decimal(output_usd), Decimal(read or input_usd), Decimal(write or input_usd))
    return Offer(name, "m", "sync", (rates,), None, "test prices")


FLAT = Steps([100] * 10, [1] * 10)
CHEAP, DEAR = offer("cheap", "1E-6"), offer("dear", "2E-6")


def test_a_cheap_offer_that_mostly_fails_costs_what_the_next_one_costs_and_still_wins() -> None:
    made = plan(FLAT, Needs(0, 0), [CHEAP, DEAR], {called(CHEAP): Standing(success=0.25)})
    assert made.chosen.offer is CHEAP  # one failed call costs nothing: the bill is sent by whoever answers
    assert made.chosen.expected_cost_usd == Decimal("0.001")
    assert made.chosen.failure_usd == Decimal("0.00075")


def test_an_open_breaker_sends_a_request_elsewhere_and_is_the_last_resort() -> None:
    rests = {called(CHEAP): Standing(available=False)}
    made = plan(FLAT, Needs(0, 0), [CHEAP, DEAR], rests)
    assert made.chosen.offer is DEAR
    assert "circuit breaker" in made.runners_up[0].why
    assert made.fallbacks == (CHEAP,)
    assert plan(FLAT, Needs(0, 0), [CHEAP], rests).chosen.offer is CHEAP


def test_a_warm_cache_beats_a_lower_list_price() -> None:
    warm = offer("warm", "3E-6", read="3E-7")
    standings = {called(warm): Standing(warm_tokens=9_000, cache_minimum_tokens=1_024)}
    made = plan(Steps([1_000], [1]), Needs(9_000, 0), [CHEAP, warm], standings)
    assert made.chosen.offer is warm
    assert made.chosen.expected_cost_usd == Decimal("0.0057")  # 9,000 at 0.3 and 1,000 at 3 a million
    assert made.chosen.cache_read_tokens == 9_000


def test_a_prefix_is_marked_only_where_it_will_be_read_again_often_enough() -> None:
    marked = offer("marked", "1E-6", read="1E-7", write="1.25E-6")
    standings = {called(marked): Standing(cache_minimum_tokens=1_024, cache_marked=True)}
    for times, marks in ((0.0, False), (0.2, False), (0.3, True), (5.0, True)):
        needs = Needs(4_000, 0, carried=Carried(4_000, times=times))
        assert plan(Steps([], []), needs, [marked], standings).chosen.marks_cache is marks, times


def test_a_context_is_not_cut_below_what_the_cache_takes_when_it_will_be_repeated() -> None:
    caching = offer("caching", "1E-6", read="1E-7")
    standings = {called(caching): Standing(cache_minimum_tokens=1_024)}
    needs = Needs(200, 0, min_coverage=0.2, carried=Carried(200, with_context=True, times=10))
    made = plan(Steps([100] * 20, [1] * 20), needs, [caching], standings)
    assert made.chosen.budget_tokens == 1_024 - 200
    assert made.chosen.coverage_estimate >= 0.2
    cold = replace(needs, carried=Carried())
    assert plan(Steps([100] * 20, [1] * 20), cold, [caching], standings).chosen.budget_tokens == 400


def test_a_price_for_a_wrong_answer_decides_how_much_to_keep_and_who_answers() -> None:
    curve = Steps([100] * 4, [70, 20, 9, 1])
    weak, strong = offer("weak", "1E-6"), offer("strong", "1E-5")
    standings = {called(weak): Standing(quality=0.6), called(strong): Standing(quality=0.9)}
    budgets = []
    for dollars in ("0", "0.001", "0.1", "1"):
        made = plan(curve, Needs(0, 0, wrong_answer_usd=Decimal(dollars)), [weak, strong], standings)
        budgets.append((made.chosen.offer.provider, made.chosen.budget_tokens))
    assert budgets == [("weak", 0), ("weak", 200), ("strong", 300), ("strong", 400)]


def test_output_comes_from_history_and_is_bounded_by_the_request() -> None:
    talkative = offer("talkative", "0", "1E-6")
    standings = {called(talkative): Standing(output_tokens=900)}
    assert plan(FLAT, Needs(0, 100), [talkative], standings).chosen.output_tokens == 900
    bounded = Needs(0, 100, max_output_tokens=400)
    assert plan(FLAT, bounded, [talkative], standings).chosen.output_tokens == 400


@pytest.mark.parametrize(
    ("needs", "standing", "reason"),
    [
        (Needs(0, 100, max_latency_ms=500.0), Standing(first_token_ms=200.0, tokens_per_second=100.0), "1,200 ms"),
        (Needs(0, 0, min_quality=0.8), Standing(quality=0.7), "answers well 0.70 where min_quality is 0.80"),
        (Needs(0, 0, min_quality=0.8), Standing(), "nobody knows how well it answers"),
    ],
)
def test_what_rules_an_offer_out_is_said(needs: Needs, standing: Standing, reason: str) -> None:
    with pytest.raises(NoOffer, match=reason):
        plan(FLAT, needs, [CHEAP], {called(CHEAP): standing})


def test_a_service_class_that_answers_later_needs_a_deadline() -> None:
    flex = replace(CHEAP, processing="flex")
    assert plan(FLAT, Needs(0, 0), [flex, DEAR]).chosen.offer is DEAR
    assert plan(FLAT, Needs(0, 0, deadline_s=1_200.0), [flex, DEAR]).chosen.offer is flex


def test_three_hundred_offers_with_all_that_is_known_of_them_are_planned_quickly() -> None:
    """Not a benchmark (one measures it): a guard against a sum that grows with the square of the offers."""
    offers = [offer(f"p{at}", f"{at + 1}E-7", "1E-6", read="1E-8") for at in range(300)]
    standings = {called(each): Standing(success=0.98, output_tokens=300, quality=0.8) for each in offers}
    needs = Needs(400, 300, min_coverage=0.9)
    few = min(timeit.repeat(lambda: plan(FLAT, needs, offers[:30], standings), number=5, repeat=5))
    many = min(timeit.repeat(lambda: plan(FLAT, needs, offers, standings), number=5, repeat=5))
    assert many < 40 * few
