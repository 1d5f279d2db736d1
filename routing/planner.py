"""The plan: how much context, bought where, for the least expected dollars.

`plan` is pure: a coverage curve, the caller's needs and the offers of a moment go in; what to buy, and why everything
else lost, comes out. Knows nothing of text: a curve is token budgets and coverages. No clock, no network, no state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

from routing.errors import NoOffer
from routing.offers import Offer, Usage, plain, price

_FLOAT_NOISE = 1e-9
"""Coverages are sums of floats: a curve that was asked for 0.95 and keeps 0.9499999999 has kept it."""


class Curve(Protocol):
    """What a ranking promises for each context budget. `coverage` never falls as the budget grows, and full is 1.0."""

    @property
    def full_tokens(self) -> int:
        """The context before any cut, in tokens."""
        ...

    def coverage(self, budget_tokens: int) -> float:
        """The share of the evidence, 0 to 1, that is expected to survive a cut to `budget_tokens`."""
        ...

    def budget_for(self, coverage: float) -> int:
        """The smallest budget in tokens that keeps `coverage`."""
        ...


@dataclass(frozen=True, slots=True)
class Needs:
    """What the caller needs; every limit is hard.

    `fixed_tokens` is all that may not be trimmed (system, tools, question), `output_tokens` the expected answer.
    `budget_tokens` caps the context. `min_coverage` is the least share of the evidence to keep. `tolerance` is the
    expected coverage that may be given up below the target's to get under a price boundary, where no `min_coverage` is
    given. `margin` is the tokenizer's possible error: just under a boundary, and against a context window, a prompt
    counts as (fixed + budget) * (1 + margin).

    Raises TypeError or ValueError that names the field, what it may be, and what it was.
    """

    fixed_tokens: int
    output_tokens: int
    budget_tokens: int | None = None
    min_coverage: float | None = None
    max_cost_usd: Decimal | None = None
    tolerance: float = 0.05
    margin: float = 0.02

    def __post_init__(self) -> None:
        for name, count in (
            ("fixed_tokens", self.fixed_tokens),
            ("output_tokens", self.output_tokens),
            ("budget_tokens", 0 if self.budget_tokens is None else self.budget_tokens),
        ):
            if type(count) is not int:
                raise TypeError(f"{name} must be an int, not {type(count).__name__}")
            if count < 0:
                raise ValueError(f"{name} must be 0 or more, not {count}")
        for name, share in (
            ("min_coverage", 0.0 if self.min_coverage is None else self.min_coverage),
            ("tolerance", self.tolerance),
            ("margin", self.margin),
        ):
            if isinstance(share, bool) or not isinstance(share, (int, float)):
                raise TypeError(f"{name} must be a number, not {type(share).__name__}")
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {share}")
        if self.max_cost_usd is not None:
            if not isinstance(self.max_cost_usd, Decimal):
                raise TypeError(f"max_cost_usd must be a Decimal, not {type(self.max_cost_usd).__name__}")
            if not self.max_cost_usd.is_finite() or self.max_cost_usd < 0:
                raise ValueError(f"max_cost_usd must be a finite amount of 0 or more, not {self.max_cost_usd}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One offer at one context budget. `input_tokens` is the whole prompt: what is fixed plus the budget.

    `why` says in one sentence why a runner-up was not chosen; it is empty for the chosen one.
    """

    offer: Offer
    budget_tokens: int
    input_tokens: int
    output_tokens: int
    expected_cost_usd: Decimal
    coverage_estimate: float
    why: str = ""

    def to_dict(self) -> dict[str, object]:
        """Plain data for a JSON answer: dollars as a decimal string without an exponent, `why` where there is one."""
        plain_data: dict[str, object] = {
            "provider": self.offer.provider,
            "model": self.offer.model,
            "processing": self.offer.processing,
            "budget_tokens": self.budget_tokens,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "expected_cost_usd": plain(self.expected_cost_usd),
            "coverage_estimate": self.coverage_estimate,
        }
        if self.why:
            plain_data["why"] = self.why
        return plain_data


@dataclass(frozen=True, slots=True)
class Plan:
    """The chosen candidate, and every other one, cheapest first. `prices_version` is the chosen offer's.

    `fallbacks` are the other offers that meet every limit with the chosen budget, cheapest first: who may answer, without
    another cut, where the chosen one fails.
    """

    chosen: Candidate
    runners_up: tuple[Candidate, ...]
    prices_version: str
    fallbacks: tuple[Offer, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The body of a /v1/plan answer: {"chosen": OFFER, "runners_up": [OFFER + {"why"}, ...]}."""
        return {"chosen": self.chosen.to_dict(), "runners_up": [each.to_dict() for each in self.runners_up]}


@dataclass(frozen=True, slots=True)
class _Limits:
    """The needs, held against a curve: the budget aimed at, the most that may be sent, the least that must be kept.

    `growth` is 1 + margin as a ratio of integers: a float product can land on the wrong side of a boundary.
    """

    target_tokens: int
    cap_tokens: int
    floor: float
    growth: tuple[int, int]

    def largest_input(self, boundary_tokens: int) -> int:
        """The most input tokens, by our count, that stay at or under the boundary if the count is a margin too low."""
        numerator, denominator = self.growth
        return boundary_tokens * denominator // numerator

    def grown(self, input_tokens: int) -> int:
        """The most that `input_tokens`, by our count, may turn out to be; rounded up."""
        numerator, denominator = self.growth
        return -(-input_tokens * numerator // denominator)


def plan(curve: Curve, needs: Needs, offers: Sequence[Offer]) -> Plan:
    """The cheapest way to meet `needs`: least expected cost, then more coverage, then the earlier offer.

    Every offer is priced at the full context, at the target budget and just under each of its price boundaries that
    lies below the target. The target is the smallest budget for `min_coverage` (capped by `budget_tokens`), else
    `budget_tokens`, else the full context. A window that the price data does not know is taken to be large enough.

    100,600 tokens on a model that costs five times as much above 100,000: the target costs $0.0528, and 98,039 tokens
    $0.0103; the latter is chosen if the curve expects it to keep 0.95 or more of the evidence.

    Raises NoOffer, with a line for each offer, where no candidate meets every limit.
    """
    limits = _limits(curve, needs)
    candidates = _candidates(curve, needs, limits, offers)
    refusals = [_refusal(candidate, needs, limits) for candidate in candidates]
    # The candidates stand in the order of the offers, so that their position settles what cost and coverage do not.
    cheapest_first = sorted(
        range(len(candidates)), key=lambda at: (candidates[at].expected_cost_usd, -candidates[at].coverage_estimate, at)
    )
    best = next((at for at in cheapest_first if refusals[at] is None), None)
    if best is None:
        raise _no_offer(candidates, refusals)
    chosen = candidates[best]
    runners_up = tuple(
        _with_why(candidates[at], refusals[at] or _behind(candidates[at], chosen))
        for at in cheapest_first
        if at != best
    )
    return Plan(chosen, runners_up, chosen.offer.prices_version, _fallbacks(chosen, needs, limits, offers))


def _limits(curve: Curve, needs: Needs) -> _Limits:
    full_tokens = curve.full_tokens
    # By way of str: Fraction(0.02) is not 2/100.
    growth = (1 + Fraction(str(needs.margin))).as_integer_ratio()
    cap_tokens = full_tokens if needs.budget_tokens is None else min(needs.budget_tokens, full_tokens)
    if needs.min_coverage is None:
        return _Limits(cap_tokens, cap_tokens, max(0.0, curve.coverage(cap_tokens) - needs.tolerance), growth)
    needed_tokens = min(curve.budget_for(needs.min_coverage), full_tokens)
    kept = curve.coverage(cap_tokens)
    if kept < needs.min_coverage - _FLOAT_NOISE:
        raise NoOffer(
            f"budget_tokens {needs.budget_tokens:,} is expected to keep {_share(kept, needs.min_coverage)} of the "
            f"evidence where min_coverage asks for {_share(needs.min_coverage, kept)}. Raise budget_tokens to "
            f"{needed_tokens:,}, or lower min_coverage to {math.floor(kept * 100) / 100:.2f}.",
            (),
        )
    return _Limits(min(needed_tokens, cap_tokens), cap_tokens, needs.min_coverage, growth)


def _candidates(curve: Curve, needs: Needs, limits: _Limits, offers: Iterable[Offer]) -> list[Candidate]:
    """All of them, in the order of the offers and by ascending budget within each."""
    # Offers share budgets: each is looked up on the curve once.
    shared: dict[int, tuple[Usage, float]] = {}
    candidates: list[Candidate] = []
    for offer in offers:
        budgets = {curve.full_tokens, limits.target_tokens}
        for boundary_tokens in offer.boundaries:
            under_tokens = limits.largest_input(boundary_tokens) - needs.fixed_tokens
            if 0 <= under_tokens < limits.target_tokens:
                budgets.add(under_tokens)
        for budget_tokens in sorted(budgets):
            if budget_tokens not in shared:
                usage = Usage(needs.fixed_tokens + budget_tokens, needs.output_tokens)
                shared[budget_tokens] = (usage, curve.coverage(budget_tokens))
            usage, coverage = shared[budget_tokens]
            cost_usd = price(offer, usage)
            candidates.append(
                Candidate(offer, budget_tokens, usage.input_tokens, usage.output_tokens, cost_usd, coverage)
            )
    return candidates


def _fallbacks(chosen: Candidate, needs: Needs, limits: _Limits, offers: Iterable[Offer]) -> tuple[Offer, ...]:
    usage = Usage(chosen.input_tokens, chosen.output_tokens)
    others = [
        Candidate(
            offer,
            chosen.budget_tokens,
            chosen.input_tokens,
            chosen.output_tokens,
            price(offer, usage),
            chosen.coverage_estimate,
        )
        for offer in offers
        if offer is not chosen.offer
    ]
    allowed = [other for other in others if _refusal(other, needs, limits) is None]
    return tuple(other.offer for other in sorted(allowed, key=lambda other: other.expected_cost_usd))


def _with_why(candidate: Candidate, why: str) -> Candidate:
    # By hand: with dataclasses.replace() a quarter of a plan's time went into copying.
    return Candidate(
        candidate.offer,
        candidate.budget_tokens,
        candidate.input_tokens,
        candidate.output_tokens,
        candidate.expected_cost_usd,
        candidate.coverage_estimate,
        why,
    )


def _refusal(candidate: Candidate, needs: Needs, limits: _Limits) -> str | None:
    """The first limit that the candidate breaks, as a sentence; None if it is allowed."""
    if candidate.budget_tokens > limits.cap_tokens:
        return f"sends {candidate.budget_tokens:,} context tokens where budget_tokens is {limits.cap_tokens:,}"
    coverage = candidate.coverage_estimate
    # `not >=`, so that a curve that answers NaN is refused.
    if not coverage >= limits.floor - _FLOAT_NOISE:
        return (
            f"keeps {_share(coverage, limits.floor)} of the evidence where {_share(limits.floor, coverage)} is required"
        )
    window_tokens = candidate.offer.context_window_tokens
    if window_tokens is not None:
        needed_tokens = limits.grown(candidate.input_tokens) + candidate.output_tokens
        if needed_tokens > window_tokens:
            return f"needs {needed_tokens:,} tokens of context window, has {window_tokens:,}"
    if needs.max_cost_usd is not None and candidate.expected_cost_usd > needs.max_cost_usd:
        return f"costs {_dollars(candidate.expected_cost_usd)} where max_cost_usd is {_dollars(needs.max_cost_usd)}"
    return None


def _behind(candidate: Candidate, chosen: Candidate) -> str:
    """Why an allowed candidate lost to `chosen`."""
    more_usd = candidate.expected_cost_usd - chosen.expected_cost_usd
    extra_tokens = candidate.budget_tokens - chosen.budget_tokens
    same_offer = candidate.offer is chosen.offer
    if more_usd == 0:
        kept, better = candidate.coverage_estimate, chosen.coverage_estimate
        if kept < better:
            return f"costs the same and keeps {_share(kept, better)} of the evidence, not {_share(better, kept)}"
        if same_offer:
            return f"costs the same and keeps as much, and sends {extra_tokens:,} more context tokens"
        return "costs the same and keeps as much, and the chosen offer stands before it"
    crossed_tokens = [each for each in candidate.offer.boundaries if candidate.input_tokens > each]
    if crossed_tokens:
        reason = f": {candidate.input_tokens:,} input tokens are above the {crossed_tokens[-1]:,}-token boundary"
    elif same_offer:
        reason = f": sends {extra_tokens:,} more context tokens"
    else:
        reason = f" for {candidate.input_tokens:,} input and {candidate.output_tokens:,} output tokens"
    return f"costs {_dollars(more_usd)} more{reason}"


def _no_offer(candidates: Sequence[Candidate], refusals: Sequence[str | None]) -> NoOffer:
    if not candidates:
        return NoOffer("there is nothing to choose from: no offer for these models in this service class", ())
    lines: dict[Offer, list[str]] = {}
    for candidate, refusal in zip(candidates, refusals, strict=True):
        lines.setdefault(candidate.offer, []).append(f"with {candidate.budget_tokens:,} context tokens it {refusal}")
    reasons = tuple(
        f"{offer.provider}/{offer.model} ({offer.processing}): {'; '.join(each)}" for offer, each in lines.items()
    )
    more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
    return NoOffer(f"no offer meets the request. {' | '.join(reasons[:3])}{more}", reasons)


def _share(value: float, beside: float) -> str:
    """`value` with two decimals, or as many as it takes to tell it from the number that it is read beside."""
    for digits in range(2, 9):
        if f"{value:.{digits}f}" != f"{beside:.{digits}f}":
            return f"{value:.{digits}f}"
    return f"{value:.2f}"


def _dollars(amount_usd: Decimal) -> str:
    """Four decimals, as prices are read; small amounts with two significant digits, so that no cost reads as zero."""
    if amount_usd == 0:
        return "$0"
    digits = max(4, 1 - amount_usd.adjusted())
    return f"${amount_usd:,.{digits}f}"
