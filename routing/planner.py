"""The planner: how much context to send, and to which offer, decided together as one expected cost.

Pure: a ranking's curve, what the caller needs, the offers and what is known of them in; a plan out. It knows nothing of
text: a curve is token budgets and coverages. No clock, no network, no state.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from routing import reasons
from routing.costs import NOTHING_CARRIED, ONE, ZERO, Bill, Carried, amount, bill, failure_usd, wrong_answer_usd
from routing.limits import Growth, MaxPrice, limits_of, refusal, unfit
from routing.offers import Offer, plain
from routing.standing import UNKNOWN, Called, Standing, called


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

    def steps(self) -> Sequence[int]:
        """Every budget at which coverage rises, ascending: between two of them, more tokens buy nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Needs:
    """What the caller needs; every limit is hard.

    `fixed_tokens` is all that may not be trimmed (system, tools, question), `output_tokens` the expected answer and
    `max_output_tokens` what bounds a longer one. `budget_tokens` caps the context, `min_coverage` is the least share of
    the evidence to keep. `tolerance` is the expected coverage that may be given up below the target's to get under a
    price boundary, where no `min_coverage` is given. `margin` is the tokenizer's possible error where an offer's standing
    knows none: just under a boundary, and against a context window, a prompt counts as (fixed + budget) * (1 + margin).

    `wrong_answer_usd` is what a wrong answer costs the caller: with it, coverage and quality are weighed in dollars, and
    any budget may be the best one. `min_quality` is the least chance that the model answers well. `max_latency_ms` holds
    for an offer's usual time, `max_price` for its rates; `deadline_s`, None for at once, admits classes that answer later.
    `carried` is what later requests repeat of this one.

    Raises TypeError or ValueError that names the field, what it may be, and what it was.
    """

    fixed_tokens: int
    output_tokens: int
    budget_tokens: int | None = None
    min_coverage: float | None = None
    max_cost_usd: Decimal | None = None
    tolerance: float = 0.05
    margin: float = 0.02
    max_output_tokens: int | None = None
    wrong_answer_usd: Decimal | None = None
    min_quality: float | None = None
    max_latency_ms: float | None = None
    deadline_s: float | None = None
    max_price: MaxPrice | None = None
    carried: Carried = NOTHING_CARRIED

    def __post_init__(self) -> None:
        for name in ("fixed_tokens", "output_tokens", "budget_tokens", "max_output_tokens"):
            _check_count(name, getattr(self, name))
        for name in ("min_coverage", "tolerance", "margin", "min_quality"):
            _check_number(name, getattr(self, name), most=1)
        for name in ("max_latency_ms", "deadline_s"):
            _check_number(name, getattr(self, name), most=math.inf)
        for name in ("max_cost_usd", "wrong_answer_usd"):
            _check_dollars(name, getattr(self, name))


def _check_count(name: str, count: object) -> None:
    if count is None:
        return
    # `type(...) is int`, because isinstance(True, int) holds and True tokens are somebody's mistake.
    if type(count) is not int:
        raise TypeError(f"{name} must be an int, not {type(count).__name__}")
    if count < 0:
        raise ValueError(f"{name} must be 0 or more, not {count}")


def _check_number(name: str, number: object, most: float) -> None:
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(number).__name__}")
    if not 0 <= number <= most:
        raise ValueError(f"{name} must be {'from 0 to 1' if most == 1 else '0 or more'}, not {number}")


def _check_dollars(name: str, dollars: object) -> None:
    if dollars is None:
        return
    if not isinstance(dollars, Decimal):
        raise TypeError(f"{name} must be a Decimal, not {type(dollars).__name__}")
    if not dollars.is_finite() or dollars < 0:
        raise ValueError(f"{name} must be a finite amount of 0 or more, not {dollars}")


class Candidate(NamedTuple):
    """One offer at one context budget. `input_tokens` is the whole prompt: what is fixed plus the budget.

    `expected_cost_usd` is the bill for this request. What else speaks for or against it, in dollars: `failure_usd` (the
    chance that it fails and another is paid), `wrong_answer_usd`, `carry_usd` (repeating the prompt in later requests).
    A plan minimises the sum, `total_usd`. `why` says in one sentence why a runner-up was not chosen; it is empty for the
    chosen one. A tuple, since a plan makes hundreds.
    """

    offer: Offer
    budget_tokens: int
    input_tokens: int
    output_tokens: int
    expected_cost_usd: Decimal
    coverage_estimate: float
    why: str = ""
    failure_usd: Decimal = ZERO
    wrong_answer_usd: Decimal = ZERO
    carry_usd: Decimal = ZERO
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    quality: float | None = None

    @property
    def total_usd(self) -> Decimal:
        return self.expected_cost_usd + self.failure_usd + self.wrong_answer_usd + self.carry_usd

    @property
    def marks_cache(self) -> bool:
        """Whether the prefix is to be marked for the provider's cache."""
        return self.cache_write_tokens > 0

    def to_dict(self) -> dict[str, object]:
        """Plain data for a JSON answer: dollars as decimal strings without an exponent; what is zero or unknown is
        left out, and so is an empty `why`."""
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
        for name in ("failure_usd", "wrong_answer_usd", "carry_usd"):
            if getattr(self, name):
                plain_data[name] = plain(getattr(self, name))
        for name in ("cache_read_tokens", "cache_write_tokens", "quality", "why"):
            if getattr(self, name):
                plain_data[name] = getattr(self, name)
        return plain_data


@dataclass(frozen=True, eq=False)  # no slots: the runners-up are written on first use and kept
class Plan:
    """The chosen candidate, and every other one, cheapest first. `prices_version` is the chosen offer's.

    `fallbacks` are the other offers that meet every limit with the chosen budget, cheapest first: who may answer, without
    another cut, where the chosen one fails. `refused` are the offers that no plan was made with, each with the reason.
    """

    chosen: Candidate
    prices_version: str
    fallbacks: tuple[Offer, ...] = ()
    refused: tuple[tuple[Offer, str], ...] = ()
    behind: Sequence[tuple[Candidate, str | None]] = field(default=(), repr=False)
    """The other candidates, cheapest first, with the limit that each breaks, if one."""

    @functools.cached_property
    def runners_up(self) -> tuple[Candidate, ...]:
        """Every other candidate, cheapest first, with the reason. Written when asked for: most requests never ask."""
        return self._after(None)

    def _after(self, most: int | None) -> tuple[Candidate, ...]:
        return tuple(
            reasons.with_why(each, refusal or reasons.behind(each, self.chosen)) for each, refusal in self.behind[:most]
        )

    def to_dict(self, most: int | None = None) -> dict[str, object]:
        """The body of a /v1/plan answer: {"chosen": OFFER, "runners_up": [OFFER + {"why"}, ...]}, and where there are any
        {"refused": [{"provider", "model", "processing", "why"}, ...]}. `most`: of the runners-up, only so many."""
        plan: dict[str, object] = {"chosen": self.chosen.to_dict()}
        plan["runners_up"] = [each.to_dict() for each in self._after(most)]
        if self.refused:
            plan["refused"] = [reasons.refused(offer, why) for offer, why in self.refused]
        return plan


def plan(
    curve: Curve,
    needs: Needs,
    offers: Sequence[Offer],
    standings: Mapping[Called, Standing] | None = None,
    ranks: Mapping[Called, int] | None = None,
) -> Plan:
    """The cheapest way to meet `needs`: least expected total, then more coverage, then the earlier offer.

    Every offer is priced at the full context, at the target budget, just under each of its price boundaries that lies
    below the target, and at the least budget that its cache takes; with `wrong_answer_usd`, at the best of all budgets.
    The target is the smallest budget for `min_coverage` (capped by `budget_tokens`), else `budget_tokens`, else the full
    context. A window that the price data does not know is taken to be large enough. An offer whose circuit breaker is
    open is taken only where no other will do. `standings` holds what is known of an offer; without one, nothing is.
    `ranks` go before cost: an offer is taken only where none of a lower rank (0 where there is none) will do.

    100,600 tokens on a model that costs five times as much above 100,000: the target costs $0.0528, and 98,039 tokens
    $0.0103; the latter is chosen if the curve expects it to keep 0.95 or more of the evidence.

    Raises NoOffer, with a line for each offer, where no candidate meets every limit.
    """
    ranks = ranks or {}
    table = _Table(curve, needs, offers, standings or {})
    rows = table.rows()
    # The rows stand in the order of the offers, and a sort keeps what it does not settle.
    cheapest_first = sorted(rows, key=lambda row: (row.total_usd, -row.candidate.coverage_estimate))
    allowed = [row for row in cheapest_first if row.refusal is None]
    if not allowed:
        raise reasons.no_offer([row.candidate for row in rows], [row.refusal for row in rows])
    if ranks:
        allowed.sort(key=lambda row: row.rank(ranks))
    best = next((row for row in allowed if not row.rests), allowed[0])
    behind = tuple((row.candidate, row.lost_to_a_limit(best, ranks)) for row in cheapest_first if row is not best)
    chosen = best.candidate
    return Plan(chosen, chosen.offer.prices_version, table.fallbacks(best, ranks), behind=behind)


class _Row(NamedTuple):
    """A candidate, the number of its offer, its total, the limit that it breaks, and whether its breaker is open."""

    at: int
    candidate: Candidate
    total_usd: Decimal
    refusal: str | None
    rests: bool

    def rank(self, ranks: Mapping[Called, int]) -> int:
        return ranks.get(called(self.candidate.offer), 0) if ranks else 0

    def lost_to_a_limit(self, best: _Row, ranks: Mapping[Called, int]) -> str | None:
        if self.refusal or self.rests:
            return self.refusal or "rests: its circuit breaker is open"
        return "comes later in the order that was asked for" if self.rank(ranks) > best.rank(ranks) else None


def _failing(row: _Row, added_usd: Decimal) -> _Row:
    candidate = row.candidate
    at = Candidate._fields.index("failure_usd")
    failing = Candidate._make((*candidate[:at], added_usd, *candidate[at + 1 :]))  # _replace takes three times as long
    return _Row(row.at, failing, row.total_usd + added_usd, row.refusal, row.rests)


class _Table:
    """The needs held against a curve and the offers: every cost and every limit, each worked out once."""

    def __init__(
        self, curve: Curve, needs: Needs, offers: Sequence[Offer], standings: Mapping[Called, Standing]
    ) -> None:
        self._curve, self._needs, self._offers = curve, needs, offers
        self._standings = [standings.get(called(offer), UNKNOWN) for offer in offers]
        self._failing = [ONE - amount(standing.success) for standing in self._standings]
        self._may_stand_in = [
            standing.available and unfit(offer.processing, standing, needs, self._output_tokens(at)) is None
            for at, (offer, standing) in enumerate(zip(offers, self._standings, strict=True))
        ]
        self._limits = limits_of(curve, needs)
        self._coverages: dict[int, float] = {}
        self._rows: dict[tuple[int, int], _Row] = {}
        self._cheapest: dict[int, list[tuple[Decimal, int]]] = {}

    def rows(self) -> list[_Row]:
        """Every candidate, in the order of the offers and by ascending budget within each."""
        weighed = self._weighed_budgets()
        rows: list[_Row] = []
        for at, failing in enumerate(self._failing):
            for budget_tokens in sorted(self._budgets(at) | weighed[at]):
                row = self._row(at, budget_tokens)
                if failing and len(self._offers) > 1:
                    row = _failing(row, failure_usd(row.total_usd, self._elsewhere(budget_tokens, at), failing))
                rows.append(row)
        return rows

    def fallbacks(self, chosen: _Row, ranks: Mapping[Called, int]) -> tuple[Offer, ...]:
        """The other offers that may answer the chosen cut, by rank and cheapest first, those that rest at the end."""
        rows = [self._row(at, chosen.candidate.budget_tokens) for at in range(len(self._offers)) if at != chosen.at]
        allowed = [row for row in rows if row.refusal is None]
        allowed.sort(key=lambda row: (row.rests, row.rank(ranks), row.total_usd))
        return tuple(row.candidate.offer for row in allowed)

    def _budgets(self, at: int) -> set[int]:
        needs, limits, offer = self._needs, self._limits, self._offers[at]
        budgets = {self._curve.full_tokens, limits.target_tokens}
        for boundary_tokens in offer.boundaries:
            under_tokens = self._growth(at).largest(boundary_tokens) - needs.fixed_tokens
            if 0 <= under_tokens < limits.target_tokens:
                budgets.add(under_tokens)
        minimum_tokens = self._standings[at].cache_minimum_tokens
        if minimum_tokens and needs.carried.times and needs.carried.with_context:
            cached_tokens = minimum_tokens - needs.carried.prefix_tokens
            if limits.target_tokens < cached_tokens <= limits.cap_tokens:
                budgets.add(cached_tokens)
        return budgets

    def _growth(self, at: int) -> Growth:
        margin = self._standings[at].margin
        return self._limits.growth if margin is None else Growth.of(margin)

    def _coverage(self, budget_tokens: int) -> float:
        if budget_tokens not in self._coverages:
            self._coverages[budget_tokens] = self._curve.coverage(budget_tokens)
        return self._coverages[budget_tokens]

    def _row(self, at: int, budget_tokens: int) -> _Row:
        """The candidate with its own costs; what its failure would add is not in it yet."""
        found = self._rows.get((at, budget_tokens))
        if found is None:
            candidate = self._priced(at, budget_tokens)
            standing = self._standings[at]
            refused = refusal(candidate, standing, self._needs, self._limits)
            found = _Row(at, candidate, candidate.total_usd, refused, not standing.available)
            self._rows[at, budget_tokens] = found
        return found

    def _priced(self, at: int, budget_tokens: int) -> Candidate:
        needs, offer, standing = self._needs, self._offers[at], self._standings[at]
        coverage = self._coverage(budget_tokens)
        sent = self._bill(at, budget_tokens)
        price_usd = needs.wrong_answer_usd
        return Candidate(
            offer,
            budget_tokens,
            needs.fixed_tokens + budget_tokens,
            self._output_tokens(at),
            sent.bill_usd,
            coverage,
            "",
            ZERO,
            ZERO if price_usd is None else wrong_answer_usd(price_usd, standing.quality, coverage),
            sent.carry_usd,
            sent.read_tokens,
            sent.write_tokens,
            standing.quality,
        )

    def _own_usd(self, at: int, budget_tokens: int) -> Decimal:
        """The candidate's total without what its failure would add. Not by way of its row, which takes three times as long."""
        price_usd, own_usd = self._needs.wrong_answer_usd, self._bill(at, budget_tokens).both_usd
        if price_usd is None:
            return own_usd
        return own_usd + wrong_answer_usd(price_usd, self._standings[at].quality, self._coverage(budget_tokens))

    def _bill(self, at: int, budget_tokens: int) -> Bill:
        needs = self._needs
        input_tokens, output_tokens = needs.fixed_tokens + budget_tokens, self._output_tokens(at)
        return bill(self._offers[at], self._standings[at], input_tokens, output_tokens, budget_tokens, needs.carried)

    def _output_tokens(self, at: int) -> int:
        usual_tokens, needs = self._standings[at].output_tokens, self._needs
        output_tokens = needs.output_tokens if usual_tokens is None else usual_tokens
        return output_tokens if needs.max_output_tokens is None else min(output_tokens, needs.max_output_tokens)

    def _elsewhere(self, budget_tokens: int, at: int) -> Decimal | None:
        """The least that another offer would cost with the same cut; None where no other stands in.

        A window or `max_cost_usd` that it breaks is not looked at: were its cost to vanish there, failing would be cheap.
        """
        if budget_tokens not in self._cheapest:
            able = (number for number, able in enumerate(self._may_stand_in) if able)
            totals = ((self._own_usd(number, budget_tokens), number) for number in able)
            self._cheapest[budget_tokens] = heapq.nsmallest(2, totals)
        return next((usd for usd, number in self._cheapest[budget_tokens] if number != at), None)

    def _weighed_budgets(self) -> list[set[int]]:
        """For each offer the budget that costs least in all, where a wrong answer has a price: found among the curve's
        steps in floating point, and priced exactly like every other afterwards."""
        limits = self._limits
        if self._needs.wrong_answer_usd is None or not self._offers:
            return [set() for _ in self._offers]
        steps = {0, *self._curve.steps(), limits.target_tokens, limits.cap_tokens, *self._cache_minima()}
        points = sorted(step for step in steps if limits.least_tokens <= step <= limits.cap_tokens)
        budgets = np.array(points)
        coverages = np.array([self._coverage(point) for point in points])
        quality = np.array([1.0 if each.quality is None else each.quality for each in self._standings])
        wrong = float(self._needs.wrong_answer_usd) * (1 - quality[:, None] * coverages)
        sums, forbidden = zip(*(self._sums(at, budgets) for at in range(len(self._offers))), strict=True)
        own = wrong + np.array(sums)
        if any(self._failing) and len(self._offers) > 1:
            own += self._failures(own)
        own[np.array(forbidden)] = np.inf
        return [{points[int(best)]} for best in own.argmin(axis=1)]

    def _failures(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the chance of failing adds to `own`, shape (offers, budgets): the cheapest other's cost for this one's."""
        able = np.where(np.array(self._may_stand_in)[:, None], own, np.inf)
        first, second = np.partition(able, 1, axis=0)[:2]
        elsewhere = np.where(able == first, second, first)
        elsewhere = np.where(np.isfinite(elsewhere), elsewhere, own)
        return np.array([[float(chance)] for chance in self._failing]) * (elsewhere - own)

    def _cache_minima(self) -> set[int]:
        prefix_tokens = self._needs.carried.prefix_tokens
        return {each.cache_minimum_tokens - prefix_tokens for each in self._standings if each.cache_minimum_tokens}

    def _sums(self, at: int, budgets: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Bill and carrying, in dollars, at each of `budgets`, and where the offer's window or the cost limit forbids it.

        Exact at the ends of every straight piece, and a line between: a bill is linear between price boundaries.
        """
        offer, standing, needs = self._offers[at], self._standings[at], self._needs
        last = int(budgets[-1])
        breaks = {bound - needs.fixed_tokens for bound in offer.boundaries}
        breaks.add(standing.cache_minimum_tokens - needs.carried.prefix_tokens - 1)
        ends = sorted({0, last, *(e for b in breaks for e in (b, b + 1) if 0 <= e <= last)})
        if standing.cache_marked and standing.warm_tokens:
            ends = [int(budget) for budget in budgets]  # marking or not may change anywhere
        sent = [self._bill(at, end) for end in ends]
        forbidden = np.zeros(len(budgets), bool)
        if offer.context_window_tokens is not None:
            room_tokens = offer.context_window_tokens - self._output_tokens(at)
            forbidden |= budgets > self._growth(at).largest(room_tokens) - needs.fixed_tokens
        if needs.max_price is not None:
            tops = [self._growth(at).largest(bound) - needs.fixed_tokens for bound in offer.boundaries]
            dear = np.array([needs.max_price.refusal(rates) is not None for rates in offer.tiers])
            forbidden |= dear[np.searchsorted(tops, budgets)]
        if needs.max_cost_usd is not None:
            bills = np.interp(budgets, ends, [float(each.bill_usd) for each in sent])
            forbidden |= bills > float(needs.max_cost_usd)
        return np.interp(budgets, ends, [float(each.both_usd) for each in sent]), forbidden
