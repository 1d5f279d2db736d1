"""The boundary sweep is a promise and not only a table: at every boundary of the price data, for a tokenizer that errs."""

from __future__ import annotations

from decimal import Decimal

import pytest

from benchmarks.boundaries import ALL_ALIKE, FEW_TOKENS, TOLERANCE, Sweep, _section, sweep, tiered_offers
from routing.offers import Offer, Rates

OFFERS = tuple(tiered_offers())
CLIFF = Offer(
    "p",
    "m",
    "sync",
    (
        Rates(-1, Decimal("1E-7"), Decimal("5E-7"), Decimal("1E-8"), Decimal("1E-7")),
        Rates(100_000, Decimal("5E-7"), Decimal("25E-7"), Decimal("5E-8"), Decimal("5E-7")),
    ),
    None,
    "v",
)


def test_the_known_boundaries_are_there() -> None:
    found = {(each.provider, each.model, tokens) for each in OFFERS for tokens in each.boundaries}
    assert found > {
        ("anthropic", "claude-haiku-5-5", 100_000),
        ("openai", "gpt-6.1-sol", 272_000),
        ("google", "gemini-2.5-pro", 200_000),
        ("x-ai", "grok-4.7", 199_999),
        ("alibaba", "qwen3-max", 32_000),
        ("alibaba", "qwen3-max", 128_000),
    }
    assert len(found) > 100


@pytest.mark.parametrize("error", [-2, 2])
def test_no_bill_jumps_and_none_lands_above_where_the_loss_is_tolerated(error: int) -> None:
    for offer in OFFERS:
        for boundary_tokens in offer.boundaries:
            swept = sweep(offer, boundary_tokens, error, FEW_TOKENS)
            assert all(step.loss <= TOLERANCE for step in swept.steps)
            assert swept.landed_above == ()
            assert swept.jump_usd == 0
            assert all(step.billed_usd <= step.uncut_usd for step in swept.steps)


def test_where_the_loss_is_not_tolerated_the_boundary_is_paid_for() -> None:
    swept = sweep(CLIFF, 100_000, 0, ALL_ALIKE)
    above = [step for step in swept.steps if step.billed_tokens > 100_000]
    assert above
    assert min(step.loss for step in above) > TOLERANCE
    assert all(step.billed_usd == step.uncut_usd for step in above)
    assert swept.landed_above == ()


def test_the_check_can_fail() -> None:
    """Without a margin, a tokenizer that counts 2 % more lands above; uncut, the bill jumps by four fifths of itself."""
    careless = sweep(CLIFF, 100_000, 2, FEW_TOKENS, margin=0.0)
    assert careless.landed_above
    assert careless.jump_usd > Decimal("0.03")
    assert sweep(CLIFF, 100_000, 0, FEW_TOKENS).uncut_jump_usd == pytest.approx(Decimal("0.042"), rel=Decimal("0.05"))


def test_the_section_names_its_numbers() -> None:
    swept: list[Sweep] = [sweep(CLIFF, 100_000, error, power) for power in (FEW_TOKENS, ALL_ALIKE) for error in (0, 2)]
    section = _section(swept)
    few, alike = section.tables[0].rows
    assert few[:5] == ("evidence in few tokens", "1", "82", "82", "0")
    assert alike[4] == "0"
    assert few[5] == "$0.0000"
    assert len(section.records) == 4
    assert section.tables[1].rows == (("p", "m", "sync", "100,000", "0", "$0.0000", few[6]),)
