"""Commitments: what is free and what is not, to the token; periods by the calendar; and counting from many threads."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.catalog import Catalog
from routing.commitments import Commitment, Drawdown, commitments_of, committed, load_commitments
from routing.offers import Offer, Rates, Usage, price
from routing.planner import Needs, plan

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
ZERO = Decimal(0)


def flat(input_usd: str, output_usd: str = "0", *, above_tokens: int = -1, request_usd: str = "0") -> Rates:
    prices = (Decimal(input_usd), Decimal(output_usd), Decimal(input_usd), Decimal(input_usd), Decimal(request_usd))
    return Rates(above_tokens, *prices)


def offer(*tiers: Rates, model: str = "m", processing: str = "sync") -> Offer:
    return Offer("p", model, processing, tiers or (flat("1E-6", "2E-6"),), None, "v")


def commitment(**fields: object) -> Commitment:
    known: dict[str, object] = {
        "name": "ptu",
        "provider": "p",
        "models": ["m"],
        "per": "day",
        "tokens": 100_000,
        "price_usd": 5,
    }
    if "usd" in fields:
        del known["tokens"]
    (only,) = commitments_of([known | fields], "t.toml")
    return only


CLIFF = offer(flat("1E-6"), flat("5E-6", above_tokens=50_000))


def test_what_is_left_is_one_more_boundary() -> None:
    """40,000 tokens left and 1,000 expected: free up to 39,000, and list prices from 39,001 on."""
    made = committed(offer(), commitment(), Decimal(60_000), NOW, output_tokens=1_000)
    assert made.boundaries == (39_000,)
    assert price(made, Usage(39_000, 1_000)) == 0
    assert price(made, Usage(39_001, 1_000)) == price(offer(), Usage(39_001, 1_000))
    assert (made.commitment, made.list_tiers) == ("ptu", offer().tiers)
    assert made.prices_version == "v + commitment ptu"


def test_the_boundaries_of_the_list_stand_above_what_is_left() -> None:
    for used, bounds in ((90_000, (10_000, 50_000)), (50_000, (50_000,)), (10_000, (90_000,))):
        made = committed(CLIFF, commitment(), Decimal(used), NOW)
        assert made.boundaries == bounds
        for input_tokens in (bounds[0] + 1, 200_000):
            assert price(made, Usage(input_tokens, 0)) == price(CLIFF, Usage(input_tokens, 0))


def test_an_output_token_may_weigh_more() -> None:
    made = committed(offer(), commitment(output_weight=4), Decimal(60_000), NOW, output_tokens=1_000)
    assert made.boundaries == (36_000,)


def test_a_free_call_loses_its_fee_too() -> None:
    made = committed(offer(flat("1E-6", request_usd="0.01")), commitment(), ZERO, NOW)
    assert price(made, Usage(0, 0)) == 0


@pytest.mark.parametrize("used", [99_500, 100_000, 250_000])
def test_a_remainder_that_no_request_fits_changes_nothing(used: int) -> None:
    assert committed(offer(), commitment(), Decimal(used), NOW, output_tokens=501) == offer()


@pytest.mark.parametrize(
    ("other", "at"),
    [
        (offer(model="n"), NOW),
        (offer(processing="batch"), NOW),
        (offer(), datetime(2026, 12, 1, tzinfo=UTC)),
        (offer(), datetime(2026, 10, 31, 23, 59, tzinfo=UTC)),
    ],
)
def test_another_model_class_or_date_is_not_covered(other: Offer, at: datetime) -> None:
    dated = commitment(**{"from": datetime(2026, 11, 1, tzinfo=UTC), "until": datetime(2026, 12, 1, tzinfo=UTC)})
    assert committed(other, dated, ZERO, at) == other
    assert committed(offer(), dated, ZERO, NOW) != offer()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="has no prices"):
        committed(Offer("p", "m", "sync", (), None, "v"), commitment(), ZERO, NOW)
    with pytest.raises(ValueError, match="used must be 0 or more"):
        committed(offer(), commitment(), Decimal(-1), NOW)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=3),
    st.lists(st.integers(0, 40), min_size=2, max_size=2, unique=True),
    st.integers(1, 300),
    st.integers(0, 20),
)
def test_dollars_cover_exactly_the_inputs_that_they_pay_for(
    prices: list[tuple[int, int, int]], bounds: list[int], left: int, output_tokens: int
) -> None:
    """Against every input size tried by itself: free up to the first that costs more than is left, list prices above."""
    starts = [-1, *sorted(bounds)][: len(prices)]
    tiers = [
        flat(f"{i}", f"{o}", above_tokens=start, request_usd=f"{fee}")
        for (i, o, fee), start in zip(prices, starts, strict=True)
    ]
    listed = offer(*tiers)
    made = committed(listed, commitment(usd=left), ZERO, NOW, output_tokens)
    covered = True
    for input_tokens in range(320):
        usage = Usage(input_tokens, output_tokens)
        covered = covered and price(listed, usage) <= left
        assert price(made, usage) == (0 if covered else price(listed, usage))


@given(st.integers(0, 5_000), st.integers(0, 100), st.integers(1, 9))
def test_tokens_cover_exactly_the_inputs_that_fit(used: int, output_tokens: int, weight: int) -> None:
    made = committed(offer(), commitment(tokens=1_000, output_weight=weight), Decimal(used), NOW, output_tokens)
    for input_tokens in range(0, 1_100, 7):
        fits = input_tokens + weight * output_tokens + used <= 1_000
        usage = Usage(input_tokens, output_tokens)
        assert price(made, usage) == (0 if fits else price(offer(), usage))


def test_cached_tokens_are_reckoned_as_uncached_and_drawn_as_billed() -> None:
    write = Rates(-1, Decimal(1), ZERO, Decimal("0.1"), Decimal("1.25"))
    drawdown = Drawdown([commitment(usd=100)])
    (made,) = drawdown.quoted([offer(write)], 0, NOW)
    assert made.boundaries == (100,)
    assert drawdown.bill(made, Usage(80, 0, 80), NOW) == 8
    assert drawdown.bill(made, Usage(80, 0, 0, 80), NOW) == 100
    assert drawdown.quoted([offer(write)], 0, NOW) == (offer(write),)


def test_a_third_of_a_dollar_does_not_round_up() -> None:
    third = Decimal("0.3333333333333333333333333334")
    made = committed(offer(flat(str(third))), commitment(usd=1), ZERO, NOW)
    assert made.boundaries == (2,)
    assert Fraction(third) * 3 > 1


@pytest.mark.parametrize(
    ("per", "zone", "at", "begin"),
    [
        ("hour", "UTC", "2026-11-24T12:59:59+00:00", "2026-11-24T12:00:00+00:00"),
        ("day", "UTC", "2026-11-24T00:00:00+00:00", "2026-11-24T00:00:00+00:00"),
        ("day", "Europe/Vienna", "2026-11-24T22:59:00+00:00", "2026-11-23T23:00:00+00:00"),
        ("day", "Europe/Vienna", "2026-11-24T23:00:00+00:00", "2026-11-24T23:00:00+00:00"),
        ("month", "UTC", "2026-11-30T23:59:00+00:00", "2026-11-01T00:00:00+00:00"),
        ("month", "Asia/Shanghai", "2026-11-30T16:00:00+00:00", "2026-11-30T16:00:00+00:00"),
        ("hour", "Asia/Kolkata", "2026-11-24T12:29:00+00:00", "2026-11-24T11:30:00+00:00"),
    ],
)
def test_a_period_begins_by_the_calendar_of_its_zone(per: str, zone: str, at: str, begin: str) -> None:
    assert commitment(per=per, zone=zone).period(datetime.fromisoformat(at)) == datetime.fromisoformat(begin)


def test_an_hour_that_comes_twice_is_two_periods_and_a_day_of_23_hours_is_one() -> None:
    vienna = ZoneInfo("Europe/Vienna")
    hours = commitment(per="hour", zone="Europe/Vienna")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=vienna)
    assert hours.period(first) != hours.period(first.replace(fold=1))
    day = datetime(2026, 10, 25, tzinfo=vienna)
    assert len(list(hours.periods(day, day + timedelta(hours=23, minutes=59)))) == 25
    days = commitment(per="day", zone="Europe/Vienna")
    assert len(list(days.periods(datetime(2026, 3, 28, tzinfo=vienna), datetime(2026, 3, 30, tzinfo=vienna)))) == 3
    months = commitment(per="month")
    assert len(list(months.periods(datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)))) == 12


def test_periods_outside_the_contract_are_not_paid_for() -> None:
    dated = commitment(**{"from": datetime(2026, 11, 10, 12, tzinfo=UTC), "until": datetime(2026, 11, 13, tzinfo=UTC)})
    begins = list(dated.periods(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC)))
    assert [each.day for each in begins] == [10, 11, 12]


def test_use_it_or_lose_it() -> None:
    drawdown = Drawdown([commitment()])
    (quoted,) = drawdown.quoted([offer()], 1_000, NOW)
    assert quoted.boundaries == (99_000,)
    assert drawdown.bill(quoted, Usage(60_000, 2_000), NOW) == 62_000
    assert drawdown.used("ptu", NOW) == 62_000
    (quoted,) = drawdown.quoted([offer()], 1_000, NOW)
    assert quoted.boundaries == (37_000,)
    tomorrow = NOW + timedelta(days=1)
    assert drawdown.used("ptu", tomorrow) == 0
    (fresh,) = drawdown.quoted([offer()], 1_000, tomorrow)
    assert fresh.boundaries == (99_000,)
    drawdown.bill(fresh, Usage(10, 0), tomorrow)
    assert drawdown.bill(quoted, Usage(10, 0), NOW) == 10  # billed late, for a day that is over
    assert drawdown.used("ptu", tomorrow) == 10


def test_what_was_not_covered_draws_nothing_and_a_long_answer_overdraws() -> None:
    drawdown = Drawdown([commitment()])
    (quoted,) = drawdown.quoted([offer()], 1_000, NOW)
    assert drawdown.bill(quoted, Usage(99_001, 0), NOW) == 0
    assert drawdown.bill(offer(), Usage(10, 0), NOW) == 0
    assert drawdown.bill(quoted, Usage(99_000, 3_000), NOW) == 102_000
    assert drawdown.quoted([offer()], 0, NOW) == (offer(),)


def test_dollars_are_drawn_at_list_prices() -> None:
    drawdown = Drawdown([commitment(usd="0.1")])
    (quoted,) = drawdown.quoted([CLIFF], 0, NOW)
    assert quoted.boundaries == (50_000,)
    assert drawdown.bill(quoted, Usage(50_000, 0), NOW) == Decimal("0.05")
    assert drawdown.quoted([CLIFF], 0, NOW)[0].boundaries == (50_000,)
    drawdown.bill(quoted, Usage(30_000, 0), NOW)
    assert drawdown.quoted([CLIFF], 0, NOW)[0].boundaries == (20_000, 50_000)


def test_of_two_commitments_the_one_that_covers_more_is_drawn_on() -> None:
    drawdown = Drawdown([commitment(name="small", tokens=10_000), commitment(name="large"), commitment(name="equal")])
    (quoted,) = drawdown.quoted([offer()], 0, NOW)
    assert quoted.commitment == "large"
    drawdown.bill(quoted, Usage(95_000, 0), NOW)
    assert drawdown.quoted([offer()], 0, NOW)[0].commitment == "equal"


def test_many_threads_lose_nothing() -> None:
    drawdown = Drawdown([commitment(tokens=10**9)])
    (quoted,) = drawdown.quoted([offer()], 0, NOW)

    def work() -> None:
        for _ in range(500):
            drawdown.bill(quoted, Usage(3, 1), NOW)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawdown.used("ptu", NOW) == 8 * 500 * 4


class Line:
    full_tokens = 120_000

    def coverage(self, budget_tokens: int) -> float:
        return min(1.0, budget_tokens / self.full_tokens)

    def budget_for(self, coverage: float) -> int:
        return round(coverage * self.full_tokens)

    def steps(self) -> range:
        return range(1, self.full_tokens + 1)


def test_a_plan_prefers_what_is_paid_for_and_cuts_to_what_is_left() -> None:
    """Sol costs 20 times as much as haiku, and nothing while the day's commitment covers it."""
    offers = Catalog().offers(["claude-haiku-5-5", "gpt-6.1-sol"], NOW)
    ptu = commitment(provider="openai", models=["gpt-6.1-*"], tokens=115_000)
    drawdown = Drawdown([ptu])
    needs = Needs(fixed_tokens=500, output_tokens=500, tolerance=0.10)
    quoted = drawdown.quoted(offers, needs.output_tokens, NOW)
    chosen = plan(curve=Line(), needs=needs, offers=quoted).chosen
    assert chosen.offer.model == "gpt-6.1-sol"
    assert chosen.expected_cost_usd == 0
    assert chosen.input_tokens * Decimal("1.02") <= 114_500
    drawdown.bill(chosen.offer, Usage(chosen.input_tokens, 500), NOW)
    assert plan(curve=Line(), needs=needs, offers=drawdown.quoted(offers, 500, NOW)).chosen.offer.model != "gpt-6.1-sol"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"per": "week"}, r"t\.toml: commitments\[0\] 'ptu': per must be one of hour, day, month, not 'week'"),
        ({"tokens": 0}, "tokens must be a number above 0, not 0"),
        ({"tokens": True}, "tokens must be a number above 0"),
        ({"price_usd": -1}, "price_usd must be a number of 0 or more"),
        ({"usd": 5, "tokens": 5}, "must have exactly one of tokens, usd, and has tokens and usd"),
        ({"usd": 5, "output_weight": 4}, "output_weight must be left out where the commitment is in dollars"),
        ({"models": []}, "models must be a list of one or more texts"),
        ({"zone": 3}, "zone must be the name of a time zone"),
        ({"amount": 3}, "'amount' is no field here"),
    ],
)
def test_a_bad_commitment_names_its_field(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        commitment(**fields)


def test_a_file_of_commitments(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    table = '[[commitments]]\nname = "a"\nprovider = "p"\nmodels = ["*"]\nper = "month"\nusd = 100\nprice_usd = 90\n'
    file.write_text(table)
    (found,) = load_commitments(file)
    assert (found.name, found.in_dollars, found.amount, found.price_usd) == ("a", True, 100, 90)
    for text, message in (
        (table * 2, "two commitments are called 'a'"),
        ("", "commitments is missing"),
        ("commitments = 3", r"each written \[\[commitments\]\]"),
        (table.replace('per = "month"\n', ""), "'a': per is missing"),
        ("[", "is not TOML"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_commitments(file)
    with pytest.raises(ValueError, match="cannot be read"):
        load_commitments(tmp_path / "none")
