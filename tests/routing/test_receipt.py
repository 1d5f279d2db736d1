"""Receipts: opened from a plan, settled with a bill, and honest when trimming cost more than it saved."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from routing.attempts import Attempt
from routing.catalog import Catalog
from routing.offers import Offer, Rates, Usage, price
from routing.planner import Needs, Plan, plan
from routing.receipt import Receipt, opened, settled

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
(HAIKU,) = Catalog().offers(["claude-haiku-5-5"], NOW)
(SOL,) = Catalog().offers(["gpt-6.1-sol"], NOW)


@dataclass(frozen=True)
class Line:
    full_tokens: int

    def coverage(self, budget_tokens: int) -> float:
        return budget_tokens / self.full_tokens

    def budget_for(self, coverage: float) -> int:
        return round(coverage * self.full_tokens)


def trimmed_plan() -> Plan:
    """100,600 tokens with a soft budget: 98,039 are sent."""
    return plan(Line(100_000), Needs(600, 1_000), [HAIKU])


def open_receipt(baseline: Offer = HAIKU) -> Receipt:
    return opened(
        trimmed_plan(),
        receipt_id="r1",
        model_asked="claude-haiku-5-5",
        baseline=baseline,
        tokens_before=100_000,
        tokens_after=97_400,
    )


def test_an_open_receipt_holds_estimates_only() -> None:
    receipt = open_receipt()
    assert (receipt.provider, receipt.model, receipt.processing) == ("anthropic", "claude-haiku-5-5", "sync")
    assert (receipt.input_tokens_estimated, receipt.output_tokens_estimated) == (98_039, 1_000)
    assert (receipt.input_tokens_billed, receipt.output_tokens_billed, receipt.billed_cost_usd) == (None, None, None)
    assert receipt.expected_cost_usd == Decimal("0.0103039")
    assert receipt.baseline_cost_usd == Decimal("0.0528")
    assert receipt.saved_usd == Decimal("0.0424961")


def test_a_settled_receipt_is_reckoned_on_the_bill() -> None:
    receipt = settled(open_receipt(), answered=HAIKU, baseline=HAIKU, usage=Usage(97_500, 300))
    assert (receipt.input_tokens_billed, receipt.output_tokens_billed) == (97_500, 300)
    assert receipt.billed_cost_usd == Decimal("0.0099")
    # Untouched it would have been 97,500 + 2,600 cut = 100,100 tokens, with the 300 of the real answer.
    assert receipt.baseline_cost_usd == Decimal("0.0508")
    assert receipt.saved_usd == Decimal("0.0409")
    assert receipt.expected_cost_usd == Decimal("0.0103039")


def test_a_short_answer_is_not_a_saving() -> None:
    """1,000 output tokens were expected and 1 was billed; only the cut counts."""
    flat = Offer(
        "p", "m", "sync", (Rates(-1, Decimal("1E-6"), Decimal("1E-3"), Decimal("1E-6"), Decimal("1E-6")),), None, ""
    )
    receipt = settled(open_receipt(flat), answered=flat, baseline=flat, usage=Usage(97_500, 1))
    assert receipt.saved_usd == Decimal("0.0026")


def test_cached_tokens_are_billed_as_such_on_both_sides() -> None:
    receipt = settled(
        open_receipt(),
        answered=SOL,
        baseline=SOL,
        usage=Usage(97_500, 0, cache_read_tokens=90_000, cache_write_tokens=5_000),
    )
    assert (receipt.cache_read_tokens_billed, receipt.cache_write_tokens_billed) == (90_000, 5_000)
    assert receipt.billed_cost_usd == Decimal("0.0265")  # 2,500 at $2, 90,000 at $0.10, 5,000 at $2.50 a million
    assert receipt.saved_usd == Decimal("0.0052")  # 2,600 at $2


def test_a_dearer_answer_is_a_negative_saving() -> None:
    """Failover went from haiku to a model at twenty times its price."""
    receipt = settled(open_receipt(), answered=SOL, baseline=HAIKU, usage=Usage(90_000, 300))
    assert (receipt.provider, receipt.model) == ("openai", "gpt-6.1-sol")
    assert receipt.billed_cost_usd == Decimal("0.183")
    assert receipt.saved_usd == Decimal("-0.17359")
    assert receipt.to_dict()["saved_usd"] == "-0.17359"


@given(st.integers(0, 300_000), st.integers(0, 5_000), st.data())
def test_a_settled_bill_is_the_price_of_what_was_reported(
    input_tokens: int, output_tokens: int, data: st.DataObject
) -> None:
    read_tokens = data.draw(st.integers(0, input_tokens))
    receipt = settled(
        open_receipt(),
        answered=SOL,
        baseline=SOL,
        usage=Usage(input_tokens, output_tokens, cache_read_tokens=read_tokens),
    )
    billed = price(SOL, Usage(input_tokens, output_tokens, read_tokens))
    assert receipt.billed_cost_usd == billed
    assert receipt.baseline_cost_usd == price(SOL, Usage(input_tokens + 2_600, output_tokens, read_tokens))
    assert receipt.saved_usd == receipt.baseline_cost_usd - billed


def test_a_context_that_grew_is_not_priced_below_its_cached_part() -> None:
    grown = Receipt("r", "m", tokens_before=0, tokens_after=50)
    receipt = settled(grown, answered=SOL, baseline=SOL, usage=Usage(100, 0, cache_read_tokens=90))
    assert receipt.baseline_cost_usd == price(SOL, Usage(90, 0, 90))
    assert receipt.saved_usd is not None
    assert receipt.saved_usd < 0


def test_no_usage_leaves_the_bill_unknown() -> None:
    receipt = settled(open_receipt(), answered=HAIKU, baseline=HAIKU, usage=None)
    assert receipt.billed_cost_usd is None
    assert receipt.input_tokens_billed is None
    assert receipt.saved_usd == Decimal("0.0424961")
    assert receipt.notes == ()


def test_a_receipt_without_a_plan_says_what_it_knows() -> None:
    """Ranking broke: the original payload was forwarded, so that nothing was cut and nothing is claimed."""
    broken = Receipt("r2", "claude-haiku-5-5", notes=("ranking failed; the original payload was forwarded",))
    assert broken.saved_usd is None
    receipt = settled(broken, answered=HAIKU, baseline=HAIKU, usage=Usage(1_000, 10), notes=("billed late",))
    assert receipt.notes == ("ranking failed; the original payload was forwarded", "billed late")
    assert receipt.saved_usd == 0
    assert receipt.expected_cost_usd is None
    assert receipt.to_dict()["saved_usd"] == "0"


def test_plain_data_is_json_and_complete() -> None:
    failed = Attempt("azure", "m", "sync", 0.0, 12.5, 503, "server_error", "HTTP 503")
    done = Attempt("anthropic", "claude-haiku-5-5", "sync", 12.5, 800.0, 200, "ok", "")
    receipt = settled(
        open_receipt(),
        answered=HAIKU,
        baseline=HAIKU,
        usage=Usage(97_500, 300),
        attempts=(failed, done),
        stage_ms=(("rank", 8.25), ("forward", 812.5)),
    )
    data = json.loads(json.dumps(receipt.to_dict()))
    assert data["billed_cost_usd"] == "0.0099"
    assert data["saved_usd"] == "0.0409"
    assert [each["outcome"] for each in data["attempts"]] == ["server_error", "ok"]
    assert data["attempts"][0]["status"] == 503
    assert data["ms"] == {"rank": 8.25, "forward": 812.5}
    assert data["prices_version"] == HAIKU.prices_version
    assert set(data) - {"ms", "saved_usd"} == set(Receipt.__slots__) - {"stage_ms"}


def test_a_cache_that_a_cut_made_useless_is_a_loss() -> None:
    """Untrimmed, 90,000 tokens would have been read at $0.10 a million; nothing was."""
    warm = replace(open_receipt(SOL), baseline_cache_read_tokens=90_000)
    receipt = settled(warm, answered=SOL, baseline=SOL, usage=Usage(97_500, 0))
    assert receipt.billed_cost_usd == Decimal("0.195")
    assert receipt.baseline_cost_usd == Decimal("0.0292")  # 10,100 at $2 and 90,000 at $0.10 a million
    assert receipt.cache_loss_usd == Decimal("0.171")
    assert receipt.saved_usd == Decimal("-0.1658")


def test_what_would_be_read_need_not_be_written() -> None:
    """The caller's own marks: this time the prefix was written, and the own model's cache would have had most of it."""
    warm = replace(open_receipt(SOL), baseline_cache_read_tokens=90_000)
    receipt = settled(warm, answered=SOL, baseline=SOL, usage=Usage(97_500, 0, 0, 95_000))
    assert receipt.baseline_cost_usd == price(SOL, Usage(100_100, 0, 90_000, 5_000))


def test_a_prefix_that_we_marked_is_read_and_written_on_our_side_only() -> None:
    usage = Usage(97_500, 0, cache_read_tokens=90_000, cache_write_tokens=5_000)
    receipt = settled(open_receipt(SOL), answered=SOL, baseline=SOL, usage=usage, marked=True)
    assert receipt.baseline_cost_usd == price(SOL, Usage(100_100, 0))
    assert receipt.cache_loss_usd == 0
    wrote = settled(open_receipt(SOL), answered=SOL, baseline=SOL, usage=Usage(97_500, 0, 0, 97_000), marked=True)
    assert wrote.saved_usd is not None
    assert wrote.saved_usd < 0  # writing costs a quarter more, and is shown when it is paid


def test_longer_answers_count_against_what_was_saved_and_shorter_ones_for_nothing() -> None:
    usage = Usage(90_000, 1_000)
    longer = settled(open_receipt(), answered=SOL, baseline=HAIKU, usage=usage, usual_share=0.5)
    assert longer.baseline_cost_usd == price(HAIKU, Usage(92_600, 500))
    shorter = settled(open_receipt(), answered=SOL, baseline=HAIKU, usage=usage, usual_share=3.0)
    assert shorter.baseline_cost_usd == price(HAIKU, Usage(92_600, 1_000))


def test_what_was_cut_from_earlier_turns_belongs_to_the_baseline() -> None:
    earlier = replace(open_receipt(), earlier_cut_tokens=10_000)
    receipt = settled(earlier, answered=HAIKU, baseline=HAIKU, usage=Usage(80_000, 0))
    assert receipt.baseline_cost_usd == price(HAIKU, Usage(92_600, 0))


def test_what_nobody_answered_has_saved_nothing() -> None:
    failed = Attempt("p", "m", "sync", 0.0, 5.0, 503, "server_error", "503")
    assert replace(open_receipt(), attempts=(failed,)).saved_usd is None
    answered = replace(failed, outcome="ok", status=200)
    assert replace(open_receipt(), attempts=(failed, answered)).saved_usd == Decimal("0.0424961")


@given(st.data())
def test_the_loss_is_what_a_colder_baseline_would_have_cost_more(data: st.DataObject) -> None:
    input_tokens = data.draw(st.integers(0, 300_000))
    read_tokens = data.draw(st.integers(0, input_tokens))
    write_tokens = data.draw(st.integers(0, input_tokens - read_tokens))
    warm_tokens = data.draw(st.integers(0, 400_000))
    usage = Usage(input_tokens, 10, read_tokens, write_tokens)
    cold = settled(open_receipt(SOL), answered=SOL, baseline=SOL, usage=usage)
    warm = replace(open_receipt(SOL), baseline_cache_read_tokens=warm_tokens)
    receipt = settled(warm, answered=SOL, baseline=SOL, usage=usage)
    assert cold.cache_loss_usd == 0
    assert receipt.cache_loss_usd is not None
    assert receipt.cache_loss_usd >= 0
    assert cold.baseline_cost_usd is not None
    assert receipt.baseline_cost_usd is not None
    assert cold.baseline_cost_usd - receipt.baseline_cost_usd == receipt.cache_loss_usd
