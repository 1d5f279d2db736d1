"""Price vectors: what the shipped data says, pinned on 2026-11-24 with genai-prices 0.2.3.

Each stands for a boundary that the planner must know. When an update of the data changes one, look the price up at the
provider before the figure here is changed: a changed figure is a changed bill.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from routing.catalog import Catalog
from routing.errors import UnknownModel
from routing.offers import Offer, Usage, price

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def offer(model: str, processing: str = "sync", now: datetime = NOW) -> Offer:
    (only,) = Catalog().offers([model], now, [processing])
    return only


def cost(model: str, input_tokens: int, output_tokens: int, processing: str = "sync", **cached: int) -> Decimal:
    return price(offer(model, processing), Usage(input_tokens, output_tokens, **cached))


@pytest.mark.parametrize(("input_tokens", "dollars"), [(100_000, "0.0105"), (100_001, "0.0525005")])
def test_claude_haiku_5_5_costs_five_times_as_much_above_100k(input_tokens: int, dollars: str) -> None:
    """Data and issue agree (2026-11-24, genai-prices 0.2.3); the issue rounds $0.0525005 to $0.0525."""
    assert offer("claude-haiku-5-5").provider == "anthropic"
    assert cost("claude-haiku-5-5", input_tokens, 1_000) == Decimal(dollars)


def test_claude_haiku_5_5_counts_cached_tokens_towards_its_boundary() -> None:
    """99,000 cached tokens and 1,001 fresh ones are above 100,000, so that even the cached ones cost five times as much."""
    below = cost("claude-haiku-5-5", 100_000, 0, cache_read_tokens=99_000)
    above = cost("claude-haiku-5-5", 100_001, 0, cache_read_tokens=99_000)
    assert below == Decimal("0.00109")
    assert above == Decimal("0.0054505")


def test_claude_haiku_5_5_batch_costs_half_on_both_sides() -> None:
    for input_tokens in (100_000, 100_001):
        assert cost("claude-haiku-5-5", input_tokens, 1_000, "batch") * 2 == cost(
            "claude-haiku-5-5", input_tokens, 1_000
        )


@pytest.mark.parametrize(("input_tokens", "dollars"), [(272_000, "0.544"), (272_001, "1.088004")])
def test_gpt_6_1_sol_doubles_its_input_price_above_272k(input_tokens: int, dollars: str) -> None:
    """Data and issue agree (2026-11-24, genai-prices 0.2.3): $2 becomes $4 a million."""
    assert offer("gpt-6.1-sol").provider == "openai"
    assert cost("gpt-6.1-sol", input_tokens, 0) == Decimal(dollars)


def test_gpt_6_1_sol_raises_its_output_price_by_half_above_272k() -> None:
    """The issue speaks of the input alone; the data also takes output from $10 to $15 a million (2026-11-24, 0.2.3)."""
    assert cost("gpt-6.1-sol", 272_000, 1_000) - cost("gpt-6.1-sol", 272_000, 0) == Decimal("0.010")
    assert cost("gpt-6.1-sol", 272_001, 1_000) - cost("gpt-6.1-sol", 272_001, 0) == Decimal("0.015")


def test_gpt_6_1_sol_by_service_class() -> None:
    """Flex and batch cost half, priority and fast twice, on both sides of the boundary (2026-11-24, 0.2.3)."""
    for input_tokens in (272_000, 272_001):
        sync = cost("gpt-6.1-sol", input_tokens, 1_000)
        assert cost("gpt-6.1-sol", input_tokens, 1_000, "flex") * 2 == sync
        assert cost("gpt-6.1-sol", input_tokens, 1_000, "batch") * 2 == sync
        assert cost("gpt-6.1-sol", input_tokens, 1_000, "priority") == sync * 2
        assert cost("gpt-6.1-sol", input_tokens, 1_000, "fast") == sync * 2


@pytest.mark.parametrize(("input_tokens", "dollars"), [(200_000, "0.412"), (200_001, "0.818004")])
def test_gemini_3_1_pro_doubles_its_input_price_above_200k(input_tokens: int, dollars: str) -> None:
    """Data and issue agree on the boundary and disagree on the name (2026-11-24, genai-prices 0.2.3).

    The data knows the model as `gemini-3.1-pro-preview` only; above 200,000 tokens $2 in and $12 out a million become
    $4 and $18. See the next test for the issue's name.
    """
    assert offer("gemini-3.1-pro-preview").provider == "google"
    assert cost("gemini-3.1-pro-preview", input_tokens, 1_000) == Decimal(dollars)


def test_gemini_3_1_pro_by_the_name_in_the_issue_is_unknown() -> None:
    """The issue's `gemini-3.1-pro` has no price in the data (2026-11-24, genai-prices 0.2.3); it is never guessed."""
    with pytest.raises(UnknownModel, match=r"near: [^)]*gemini-3\.1-pro-preview"):
        offer("gemini-3.1-pro")


@pytest.mark.parametrize(("input_tokens", "dollars"), [(200_000, "0.26"), (200_001, "0.5150025")])
def test_gemini_2_5_pro_doubles_its_input_price_above_200k(input_tokens: int, dollars: str) -> None:
    assert cost("gemini-2.5-pro", input_tokens, 1_000) == Decimal(dollars)


@pytest.mark.parametrize(
    ("input_tokens", "dollars"), [(199_999, "0.405998"), (200_000, "0.812"), (200_001, "0.812004")]
)
def test_grok_4_7_is_dear_at_exactly_200k(input_tokens: int, dollars: str) -> None:
    """Data and issue agree (2026-11-24, genai-prices 0.2.3): inclusive, which the data writes as "above 199,999".

    With 1,000 output tokens; $2 in and $6 out a million become $4 and $12.
    """
    assert offer("grok-4.7").provider == "x-ai"
    assert offer("grok-4.7").boundaries == (199_999,)
    assert cost("grok-4.7", input_tokens, 1_000) == Decimal(dollars)


@pytest.mark.parametrize(
    ("model", "boundary_tokens"),
    [("openrouter/x-ai/grok-4.7", 200_000), ("github-copilot/grok-4.7", 200_000), ("cursor/grok-4.7", 256_000)],
)
def test_resellers_of_grok_4_7_have_boundaries_of_their_own(model: str, boundary_tokens: int) -> None:
    """The data has them exclusive, unlike xAI's own (2026-11-24, genai-prices 0.2.3); the issue does not speak of them."""
    assert offer(model).boundaries == (boundary_tokens,)


@pytest.mark.parametrize(
    ("day", "hour", "times"),
    [
        ("Tuesday", 2, 2),
        ("Tuesday", 12, 1),
        ("Sunday", 8, 1),
        ("Saturday", 2, 1),
        ("Monday", 0, 1),
        ("Monday", 1, 2),
        ("Friday", 9, 2),
        ("Friday", 10, 1),
    ],
)
def test_deepseek_is_dear_on_weekdays_in_its_peak_hours_only(day: str, hour: int, times: int) -> None:
    """DeepSeek's page: peak is 01:00-04:00 and 06:00-10:00 UTC, Monday to Friday, at twice the price (2026-11-24).

    genai-prices 0.2.3 bills the weekend's peak hours too; the shipped overlay corrects it.
    """
    dates = {"Saturday": 21, "Sunday": 22, "Monday": 23, "Tuesday": 24, "Friday": 27}
    now = datetime(2026, 11, dates[day], hour, tzinfo=UTC)
    assert f"{now:%A}" == day
    (flash,) = Catalog().offers(["deepseek-flash"], now)
    assert price(flash, Usage(1_000_000, 0)) == Decimal("0.15") * times
    assert price(flash, Usage(0, 1_000_000)) == Decimal("0.6") * times
    assert price(flash, Usage(1_000_000, 0, 1_000_000)) == Decimal("0.003") * times
    corrected = "genai-prices 0.2.3 + overlay 2026-11-24"
    assert (flash.prices_version == corrected) == (day in ("Saturday", "Sunday"))


@pytest.mark.parametrize("model", ["deepseek-flash", "deepseek-v4-flash", "deepseek-v4-pro"])
def test_deepseek_has_35_peak_hours_a_week(model: str) -> None:
    hours = [offer(model, now=datetime(2026, 11, 16 + day, hour, tzinfo=UTC)) for day in range(7) for hour in range(24)]
    cheap = min(each.tiers[0].input_usd for each in hours)
    assert sum(each.tiers[0].input_usd == 2 * cheap for each in hours) == 35
    assert sum(each.tiers[0].input_usd == cheap for each in hours) == 133


def test_before_that_date_the_weekend_had_peak_hours() -> None:
    saturday = datetime(2026, 8, 22, 2, tzinfo=UTC)
    after, before = offer("deepseek-v4-pro", now=saturday.replace(day=29)), offer("deepseek-v4-pro", now=saturday)
    assert before.tiers[0].input_usd == 2 * after.tiers[0].input_usd


@pytest.mark.parametrize(
    ("input_tokens", "dollars"),
    [(32_000, "0.0444"), (32_001, "0.0888024"), (128_000, "0.3192"), (128_001, "0.399003")],
)
def test_qwen3_max_is_in_the_overlay_with_both_of_its_boundaries(input_tokens: int, dollars: str) -> None:
    """Alibaba's international list (2026-05); genai-prices 0.2.3 does not have the maker. With 1,000 output tokens."""
    assert offer("qwen3-max").provider == "alibaba"
    assert offer("qwen3-max").prices_version == "overlay 2026-11-24"
    assert cost("qwen3-max", input_tokens, 1_000) == Decimal(dollars)
