"""Usage, rates, offers, and the exact price of a call."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.offers import Offer, Rates, Usage, plain, price


def rates(above_tokens: int, scale: int = 1) -> Rates:
    return Rates(
        above_tokens,
        input_usd=Decimal("1E-6") * scale,
        output_usd=Decimal("5E-6") * scale,
        cache_read_usd=Decimal("1E-7") * scale,
        cache_write_usd=Decimal("1.25E-6") * scale,
    )


def offer(*tiers: Rates) -> Offer:
    return Offer("seller", "model", "sync", tiers, None, "test")


@pytest.mark.parametrize("bad", [True, 1.0, "1", None, Decimal(1)])
@pytest.mark.parametrize("field", ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"])
def test_usage_refuses_what_is_not_an_int(field: str, bad: object) -> None:
    counts: dict[str, object] = {"input_tokens": 10, "output_tokens": 1, field: bad}
    with pytest.raises(TypeError, match=field):
        Usage(**counts)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"])
def test_usage_refuses_negative_counts(field: str) -> None:
    counts = {"input_tokens": 10, "output_tokens": 1, field: -1}
    with pytest.raises(ValueError, match=f"{field} must not be negative"):
        Usage(**counts)


def test_cached_tokens_are_part_of_the_input() -> None:
    assert Usage(10, 0, cache_read_tokens=4, cache_write_tokens=6).input_tokens == 10
    with pytest.raises(ValueError, match="cache reads and writes"):
        Usage(10, 0, cache_read_tokens=5, cache_write_tokens=6)


@pytest.mark.parametrize("bad", [Decimal(-1), Decimal("NaN"), Decimal("Infinity")])
def test_rates_refuse_impossible_prices(bad: Decimal) -> None:
    with pytest.raises(ValueError, match="output_usd"):
        Rates(-1, Decimal(1), bad, Decimal(1), Decimal(1))
    with pytest.raises(ValueError, match="above_tokens"):
        Rates(-2, Decimal(1), Decimal(1), Decimal(1), Decimal(1))


def test_offers_refuse_tiers_out_of_order() -> None:
    with pytest.raises(ValueError, match="first tier"):
        offer(rates(0))
    with pytest.raises(ValueError, match="ascend"):
        offer(rates(-1), rates(200), rates(100))
    with pytest.raises(ValueError, match="ascend"):
        offer(rates(-1), rates(100), rates(100))
    assert offer(rates(-1), rates(100), rates(200)).boundaries == (100, 200)


def test_an_offer_without_prices_is_not_free() -> None:
    with pytest.raises(ValueError, match="no prices"):
        price(offer(), Usage(1, 1))


def test_the_whole_input_picks_the_row_and_the_bound_is_exclusive() -> None:
    tiered = offer(rates(-1), rates(100, 2), rates(200, 10))
    for input_tokens, scale in ((0, 1), (100, 1), (101, 2), (200, 2), (201, 10)):
        # Cached tokens count towards the boundary: 60 of the input is cached in each call that has it.
        cached_tokens = min(60, input_tokens)
        usage = Usage(input_tokens, 7, cache_read_tokens=cached_tokens)
        expected_micros = scale * (Fraction(input_tokens - cached_tokens) + Fraction(cached_tokens, 10) + 5 * 7)
        assert Fraction(price(tiered, usage)) == expected_micros / 1_000_000


def test_a_fee_for_the_call_is_charged_once() -> None:
    fee = offer(Rates(-1, Decimal(0), Decimal(0), Decimal(0), Decimal(0), request_usd=Decimal("0.012")))
    assert price(fee, Usage(0, 0)) == price(fee, Usage(10_000, 10_000)) == Decimal("0.012")


@given(
    st.tuples(*(st.decimals(0, 1000, places=6) for _ in range(5))),
    st.integers(0, 10_000_000),
    st.integers(0, 1_000_000),
    st.data(),
)
def test_price_is_exact(
    amounts: tuple[Decimal, ...], input_tokens: int, output_tokens: int, data: st.DataObject
) -> None:
    read_tokens = data.draw(st.integers(0, input_tokens))
    write_tokens = data.draw(st.integers(0, input_tokens - read_tokens))
    one = offer(Rates(-1, *(each.scaleb(-6) for each in amounts[:4]), request_usd=amounts[4]))
    counts = (input_tokens - read_tokens - write_tokens, output_tokens, read_tokens, write_tokens)
    exact = sum(Fraction(each) * count for each, count in zip(amounts[:4], counts, strict=True)) / 1_000_000
    usage = Usage(input_tokens, output_tokens, read_tokens, write_tokens)
    assert Fraction(price(one, usage)) == exact + Fraction(amounts[4])


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("1.0500E-2", "0.0105"),
        ("1E-9", "0.000000001"),
        ("1E+3", "1000"),
        ("100", "100"),
        ("0.000", "0"),
        ("-0.50", "-0.5"),
    ],
)
def test_plain_has_no_exponent(amount: str, text: str) -> None:
    assert plain(Decimal(amount)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**9), max_value=10**9))
def test_plain_reads_back_as_the_same_number(amount: Decimal) -> None:
    assert Decimal(plain(amount)) == amount
    assert "E" not in plain(amount)
