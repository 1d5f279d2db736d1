"""Limits: what a caller needs, held against a curve, and why a candidate may not be bought.

Pure. A refusal is a clause that a reader can act on: the limit, and by how much it is missed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from routing.costs import rates_at
from routing.errors import NoOffer
from routing.offers import Rates, plain
from routing.reasons import dollars, share

if TYPE_CHECKING:
    from routing.planner import Candidate, Curve, Needs
    from routing.standing import Standing

FLOAT_NOISE = 1e-9
"""Coverages are sums of floats: a curve that was asked for 0.95 and keeps 0.9499999999 has kept it."""

PROMISED_S: Mapping[str, float] = {"flex": 900.0, "batch": 86_400.0}
"""Within what time a service class answers, in seconds, by its sellers' own words; every other one answers at once."""


@dataclass(frozen=True, slots=True)
class Growth:
    """1 + margin, as a ratio of integers: a float product can land on the wrong side of a boundary."""

    numerator: int
    denominator: int

    @staticmethod
    @functools.lru_cache(maxsize=4096)
    def of(margin: float) -> Growth:
        # By way of str: Fraction(0.02) is not 2/100.
        return Growth(*(1 + Fraction(str(margin))).as_integer_ratio())

    def largest(self, boundary_tokens: int) -> int:
        """The most input tokens, by our count, that stay at or under the boundary if the count is a margin too low."""
        return boundary_tokens * self.denominator // self.numerator

    def grown(self, input_tokens: int) -> int:
        """The most that `input_tokens`, by our count, may turn out to be; rounded up."""
        return -(-input_tokens * self.numerator // self.denominator)


@dataclass(frozen=True, slots=True)
class Limits:
    """The budget aimed at, the least and the most that may be sent, and the least share of the evidence to keep."""

    target_tokens: int
    least_tokens: int
    cap_tokens: int
    floor: float
    growth: Growth


@dataclass(frozen=True, slots=True)
class MaxPrice:
    """The highest rates that may be paid, in dollars per token of input and of output and per request; None for any."""

    input_usd: Decimal | None = None
    output_usd: Decimal | None = None
    request_usd: Decimal | None = None

    def refusal(self, rates: Rates) -> str | None:
        """The first of `rates` that is too high, as a clause; None if none is."""
        for most_usd, asked_usd, unit, digits in (
            (self.input_usd, rates.input_usd, "a million tokens of input", 6),
            (self.output_usd, rates.output_usd, "a million tokens of output", 6),
            (self.request_usd, rates.request_usd, "a request", 0),
        ):
            if most_usd is not None and asked_usd > most_usd:
                asked, most = plain(asked_usd.scaleb(digits)), plain(most_usd.scaleb(digits))
                return f"asks ${asked} {unit} where max_price is ${most}"
        return None


def limits_of(curve: Curve, needs: Needs) -> Limits:
    """The limits of `needs` on this curve. Raises NoOffer where `budget_tokens` cannot keep `min_coverage`."""
    full_tokens = curve.full_tokens
    growth = Growth.of(needs.margin)
    cap_tokens = full_tokens if needs.budget_tokens is None else min(needs.budget_tokens, full_tokens)
    if needs.min_coverage is None and needs.wrong_answer_usd is not None:
        return Limits(cap_tokens, 0, cap_tokens, 0.0, growth)
    if needs.min_coverage is None:
        floor = max(0.0, curve.coverage(cap_tokens) - needs.tolerance)
        return Limits(cap_tokens, 0, cap_tokens, floor, growth)
    needed_tokens = min(curve.budget_for(needs.min_coverage), full_tokens)
    kept = curve.coverage(cap_tokens)
    if kept < needs.min_coverage - FLOAT_NOISE:
        raise NoOffer(
            f"budget_tokens {needs.budget_tokens:,} is expected to keep {share(kept, needs.min_coverage)} of the "
            f"evidence where min_coverage asks for {share(needs.min_coverage, kept)}. Raise budget_tokens to "
            f"{needed_tokens:,}, or lower min_coverage to {math.floor(kept * 100) / 100:.2f}.",
            (),
        )
    target_tokens = min(needed_tokens, cap_tokens)
    return Limits(target_tokens, target_tokens, cap_tokens, needs.min_coverage, growth)


def refusal(candidate: Candidate, standing: Standing, needs: Needs, limits: Limits) -> str | None:
    """The first limit that the candidate breaks, as a clause; None if it is allowed."""
    if candidate.budget_tokens > limits.cap_tokens:
        return f"sends {candidate.budget_tokens:,} context tokens where budget_tokens is {limits.cap_tokens:,}"
    coverage = candidate.coverage_estimate
    # `not >=`, so that a curve that answers NaN is refused.
    if not coverage >= limits.floor - FLOAT_NOISE:
        return (
            f"keeps {share(coverage, limits.floor)} of the evidence where {share(limits.floor, coverage)} is required"
        )
    window_tokens = candidate.offer.context_window_tokens
    growth = limits.growth if standing.margin is None else Growth.of(standing.margin)
    if window_tokens is not None:
        needed_tokens = growth.grown(candidate.input_tokens) + candidate.output_tokens
        if needed_tokens > window_tokens:
            return f"needs {needed_tokens:,} tokens of context window, has {window_tokens:,}"
    if needs.max_price is not None:
        dear = needs.max_price.refusal(rates_at(candidate.offer, growth.grown(candidate.input_tokens)))
        if dear is not None:
            return dear
    if needs.max_cost_usd is not None and candidate.expected_cost_usd > needs.max_cost_usd:
        return f"costs {dollars(candidate.expected_cost_usd)} where max_cost_usd is {dollars(needs.max_cost_usd)}"
    return unfit(candidate.offer.processing, standing, needs, candidate.output_tokens)


def unfit(processing: str, standing: Standing, needs: Needs, output_tokens: int) -> str | None:
    """What rules an offer out at any budget: too late, usually too slow, or not good enough; None if nothing does."""
    promised_s = PROMISED_S.get(processing, 0.0) if standing.promised_s is None else standing.promised_s
    if promised_s > (needs.deadline_s or 0.0):
        wanted = (
            "an answer is wanted at once" if needs.deadline_s is None else f"the deadline is {needs.deadline_s:g} s"
        )
        return f"answers within {promised_s:,.0f} s where {wanted}"
    usual_ms = usual_latency_ms(standing, output_tokens)
    if needs.max_latency_ms is not None and usual_ms is not None and usual_ms > needs.max_latency_ms:
        return f"usually takes {usual_ms:,.0f} ms where max_latency_ms is {needs.max_latency_ms:,.0f}"
    if needs.min_quality is not None and not (standing.quality or 0.0) >= needs.min_quality - FLOAT_NOISE:
        chance = (
            "nobody knows how well it answers" if standing.quality is None else f"answers well {standing.quality:.2f}"
        )
        return f"{chance} where min_quality is {needs.min_quality:.2f}"
    return None


def usual_latency_ms(standing: Standing, output_tokens: int) -> float | None:
    """What an answer of that length usually takes; None where it was never seen."""
    if standing.first_token_ms is None:
        return None
    if not standing.tokens_per_second:
        return standing.first_token_ms
    return standing.first_token_ms + 1000.0 * output_tokens / standing.tokens_per_second
