"""Reasons: why a candidate lost, in words that can be checked against its figures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from routing.errors import NoOffer
from routing.offers import Offer

if TYPE_CHECKING:
    from routing.planner import Candidate

_PARTS = (
    ("failure_usd", "the chance that it fails"),
    ("wrong_answer_usd", "the chance of a wrong answer"),
    ("carry_usd", "repeating the prompt in later requests"),
)


def with_why(candidate: Candidate, why: str) -> Candidate:
    return candidate._replace(why=why)


def behind(candidate: Candidate, chosen: Candidate) -> str:
    """Why an allowed candidate lost to `chosen`."""
    more_usd = candidate.total_usd - chosen.total_usd
    if more_usd == 0:
        return _level(candidate, chosen)
    bill_usd = candidate.expected_cost_usd - chosen.expected_cost_usd
    parts = [(getattr(candidate, name) - getattr(chosen, name), words) for name, words in _PARTS]
    heaviest_usd, words = max(parts, key=lambda part: part[0])
    if heaviest_usd > max(bill_usd, Decimal(0)):
        bill = f"{dollars(abs(bill_usd))} {'less' if bill_usd < 0 else 'more'} now"
        return f"costs {dollars(more_usd)} more in all: {bill}, and {dollars(heaviest_usd)} more for {words}"
    return f"costs {dollars(more_usd)} more{_of_size(candidate, chosen)}"


def _level(candidate: Candidate, chosen: Candidate) -> str:
    kept, better = candidate.coverage_estimate, chosen.coverage_estimate
    if kept < better:
        return f"costs the same and keeps {share(kept, better)} of the evidence, not {share(better, kept)}"
    if candidate.offer is chosen.offer:
        extra_tokens = candidate.budget_tokens - chosen.budget_tokens
        return f"costs the same and keeps as much, and sends {extra_tokens:,} more context tokens"
    return "costs the same and keeps as much, and the chosen offer stands before it"


def _of_size(candidate: Candidate, chosen: Candidate) -> str:
    crossed_tokens = [each for each in candidate.offer.boundaries if candidate.input_tokens > each]
    if crossed_tokens:
        return f": {candidate.input_tokens:,} input tokens are above the {crossed_tokens[-1]:,}-token boundary"
    if candidate.offer is chosen.offer:
        return f": sends {candidate.budget_tokens - chosen.budget_tokens:,} more context tokens"
    return f" for {candidate.input_tokens:,} input and {candidate.output_tokens:,} output tokens"


def no_offer(candidates: Sequence[Candidate], refusals: Sequence[str | None]) -> NoOffer:
    """The error for a plan without an allowed candidate: a line for each offer, saying what each of its budgets breaks."""
    if not candidates:
        return NoOffer("there is nothing to choose from: no offer for these models in this service class", ())
    lines: dict[Offer, list[str]] = {}
    for candidate, refusal in zip(candidates, refusals, strict=True):
        lines.setdefault(candidate.offer, []).append(f"with {candidate.budget_tokens:,} context tokens it {refusal}")
    return nobody([(offer, "; ".join(each)) for offer, each in lines.items()])


def nobody(refused: Sequence[tuple[Offer, str]], told: Sequence[str] = ()) -> NoOffer:
    """The error that says of each offer why it is refused; `told` are lines that do so already."""
    lists = (*told, *(f"{offer.provider}/{offer.model} ({offer.processing}): {why}" for offer, why in refused))
    more = f" (and {len(lists) - 3} more)" if len(lists) > 3 else ""
    return NoOffer(f"no offer meets the request. {' | '.join(lists[:3])}{more}", lists)


def refused(offer: Offer, why: str) -> dict[str, str]:
    """An offer that no plan was made with, as a plan's JSON tells it."""
    return {"provider": offer.provider, "model": offer.model, "processing": offer.processing, "why": why}


@functools.lru_cache(maxsize=4096)
def share(value: float, beside: float) -> str:
    """`value` with two decimals, or as many as it takes to tell it from the number that it is read beside."""
    for digits in range(2, 9):
        if f"{value:.{digits}f}" != f"{beside:.{digits}f}":
            return f"{value:.{digits}f}"
    return f"{value:.2f}"


def dollars(amount_usd: Decimal) -> str:
    """Four decimals, as prices are read; small amounts with two significant digits, so that no cost reads as zero."""
    if amount_usd == 0:
        return "$0"
    digits = max(4, 1 - amount_usd.adjusted())
    return f"${amount_usd:,.{digits}f}"
