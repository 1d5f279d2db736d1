"""Suite `plan`: what a day's requests cost under four ways of choosing, at one fixed day's prices.

24 requests as a company might send them; for each, the caller names models that would all do. Every way of choosing is
billed by the same exact prices. What a model is worth is not judged here: any named model will do.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.evidence import RATIOS, measure
from benchmarks.intervals import estimate
from benchmarks.peers import PEERS
from benchmarks.questions import Dataset
from benchmarks.sections import Plot, Progress, Section, Series, Table
from routing.catalog import PRICES_VERSION, Catalog
from routing.offers import Offer, Usage, price
from routing.planner import Needs, plan
from routing.standing import Called, Standing, called

DAY = datetime(2026, 11, 2, 14, 0, tzinfo=UTC)
SMALL = ("gpt-5-mini", "claude-haiku-5-5", "gemini-2.5-flash", "grok-4-fast")
LARGE = ("gpt-6.1-sol", "claude-sonnet-5-5", "gemini-3.1-pro-preview", "grok-4.7")
CURVE_QUESTIONS = 200
COVERAGES = (0.80, 0.90, 0.95)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what may not be cut, what may, the expected answer, and who may answer (the caller's default first).

    `warm` names a model whose prompt cache holds all that may not be cut (a conversation that went there before). A
    `deadline_s` lets the answer take that long.
    """

    what: str
    fixed_tokens: int
    context_tokens: int
    output_tokens: int
    models: tuple[str, ...]
    warm: str = ""
    deadline_s: float | None = None

    def usage(self, offer: Offer, context_tokens: int) -> Usage:
        """What the offer would bill for, with so much of the context."""
        read_tokens = self.fixed_tokens if offer.model == self.warm else 0
        return Usage(self.fixed_tokens + context_tokens, self.output_tokens, read_tokens)

    def standings(self, offers: Sequence[Offer]) -> dict[Called, Standing]:
        """What a plan knows of the offers: who is warm."""
        warm = Standing(warm_tokens=self.fixed_tokens, cache_minimum_tokens=1)
        return {called(offer): warm for offer in offers if offer.model == self.warm}


REQUESTS = (
    Asked("support answer, 8 passages", 400, 1_600, 250, SMALL),
    Asked("support answer, 20 passages", 400, 4_200, 250, SMALL),
    Asked("FAQ bot, long instructions, warm", 9_000, 900, 120, SMALL, warm="gpt-5-mini"),
    Asked("product manual question", 350, 6_000, 300, SMALL),
    Asked("ticket triage, turn 12, warm", 14_000, 4_500, 60, SMALL, warm="claude-haiku-5-5"),
    Asked("meeting transcript, tonight", 300, 14_000, 400, SMALL, deadline_s=6 * 3_600),
    Asked("log excerpt, one night", 500, 38_000, 500, SMALL),
    Asked("log excerpt, one week", 500, 99_000, 500, SMALL),
    Asked("log excerpt, one week and a bit", 500, 104_000, 500, SMALL),
    Asked("email thread summary, within the hour", 250, 7_500, 600, SMALL, deadline_s=3_600),
    Asked("JSON dump, one field", 300, 22_000, 80, SMALL),
    Asked("policy check over 40 sections", 1_200, 26_000, 200, SMALL),
    Asked("code search, 30 files", 900, 45_000, 900, SMALL),
    Asked("handbook, whole", 400, 120_000, 350, SMALL),
    Asked("contract comparison", 600, 62_000, 1_200, LARGE),
    Asked("contract with annexes", 600, 205_000, 1_200, LARGE),
    Asked("annual report, tonight", 500, 88_000, 700, LARGE, deadline_s=6 * 3_600),
    Asked("two annual reports", 500, 190_000, 900, LARGE),
    Asked("incident review, turn 9, warm", 26_000, 31_000, 1_500, LARGE, warm="gpt-6.1-sol"),
    Asked("patent search, 60 abstracts", 700, 18_000, 800, LARGE),
    Asked("due diligence folder", 900, 268_000, 2_000, LARGE),
    Asked("due diligence folder, larger", 900, 400_000, 2_000, LARGE),
    Asked("research digest, this week", 600, 54_000, 8_000, LARGE, deadline_s=4 * 86_400),
    Asked("regulation with commentary", 700, 215_000, 1_000, LARGE),
)


@dataclass(frozen=True, slots=True)
class MeasuredCurve:
    """A coverage curve for a context of `full_tokens`: what trimtab kept on the questions, at each ratio measured.

    Taken to hold at any size, which it does not quite: long contexts have been kinder to it than short ones.
    """

    full_tokens: int
    ratios: tuple[float, ...]
    coverages: tuple[float, ...]

    def coverage(self, budget_tokens: int) -> float:
        ratio = min(1.0, budget_tokens / self.full_tokens)
        at = bisect.bisect_right(self.ratios, ratio)
        if at == len(self.ratios):
            return self.coverages[-1]
        r0, c0, r1, c1 = self.ratios[at - 1], self.coverages[at - 1], self.ratios[at], self.coverages[at]
        return c0 + (c1 - c0) * (ratio - r0) / (r1 - r0)

    def budget_for(self, coverage: float) -> int:
        low, high = 0, self.full_tokens
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.coverage(middle) >= coverage else (middle + 1, high)
        return low

    def steps(self) -> range:
        """A line rises everywhere; a thousandth of the context is near enough to choose by."""
        return range(0, self.full_tokens + 1, max(1, self.full_tokens // 1000))


def run(dataset: Dataset, seed: int, folder: Path, progress: Progress) -> Section:
    """Measure the curve on some of `dataset`, then price the day under each way of choosing."""
    curve_of = _measured_curve(dataset.sample(CURVE_QUESTIONS, seed), seed, folder, progress)
    ways: dict[str, list[_Bought]] = {
        "caller's default, nothing cut": [_bought(each, _default(_offers(each))) for each in REQUESTS],
        "cheapest input token, nothing cut": [_bought(each, _cheapest_input(_offers(each))) for each in REQUESTS],
        "LiteLLM's lowest cost (input + output rate), nothing cut": [
            _bought(each, _lowest_rates(_offers(each))) for each in REQUESTS
        ],
        "trimtab's plan, nothing cut": [_planned(each, _uncut(each.context_tokens), 1.0) for each in REQUESTS],
    }
    for coverage in COVERAGES:
        name = f"trimtab's plan, coverage {coverage:.2f} or more"
        ways[name] = [_planned(each, curve_of(each.context_tokens), coverage) for each in REQUESTS]
    return _section(ways)


@dataclass(frozen=True, slots=True)
class _Bought:
    offer: Offer
    input_tokens: int
    cost_usd: Decimal
    coverage: float


def _offers(asked: Asked) -> tuple[Offer, ...]:
    """Who may answer, in the classes that the deadline admits; the caller's default is sold at once."""
    return Catalog().offers(asked.models, DAY, ("sync",) if asked.deadline_s is None else ("sync", "flex"))


def _bought(asked: Asked, offer: Offer) -> _Bought:
    usage = asked.usage(offer, asked.context_tokens)
    return _Bought(offer, usage.input_tokens, price(offer, usage), 1.0)


def _uncut(full_tokens: int) -> MeasuredCurve:
    """A curve on which only the whole context keeps everything, whatever the questions of this run were kind to."""
    return MeasuredCurve(full_tokens, (0.0, 1.0), (0.0, 1.0))


def _default(offers: Sequence[Offer]) -> Offer:
    return offers[0]


def _cheapest_input(offers: Sequence[Offer]) -> Offer:
    at_once = [offer for offer in offers if offer.processing == "sync"]
    return min(at_once, key=lambda offer: offer.tiers[0].input_usd)


def _lowest_rates(offers: Sequence[Offer]) -> Offer:
    """litellm/router_strategy/lowest_cost.py: the sum of the two base rates, whatever the request's size."""
    at_once = [offer for offer in offers if offer.processing == "sync"]
    return min(at_once, key=lambda offer: offer.tiers[0].input_usd + offer.tiers[0].output_usd)


def _planned(asked: Asked, curve: MeasuredCurve, coverage: float) -> _Bought:
    needs = Needs(asked.fixed_tokens, asked.output_tokens, min_coverage=coverage, deadline_s=asked.deadline_s)
    offers = _offers(asked)
    chosen = plan(curve, needs, offers, asked.standings(offers)).chosen
    cost_usd = price(chosen.offer, asked.usage(chosen.offer, chosen.budget_tokens))
    return _Bought(chosen.offer, chosen.input_tokens, cost_usd, chosen.coverage_estimate)


def _measured_curve(dataset: Dataset, seed: int, folder: Path, progress: Progress) -> Callable[[int], MeasuredCurve]:
    ours = tuple(peer for peer in PEERS if peer.name == "trimtab")
    results = measure((dataset,), seed, folder, peers=ours, ratios=RATIOS, progress=progress)
    coverages = [0.0]
    for ratio in RATIOS:
        of = [o.judgement for o in results.outcomes if o.peer == "trimtab" and o.ratio == ratio]
        found = estimate([j.coverage for j in of if j.coverage is not None], seed)
        coverages.append(max(coverages[-1], found.mean if found else 0.0))
    return lambda full_tokens: MeasuredCurve(full_tokens, (0.0, *RATIOS, 1.0), (*coverages, 1.0))


def _section(ways: Mapping[str, Sequence[_Bought]]) -> Section:
    totals = {name: sum((each.cost_usd for each in bought), Decimal(0)) for name, bought in ways.items()}
    least = {name: min(each.coverage for each in bought) for name, bought in ways.items()}
    mean = {name: sum(each.coverage for each in bought) / len(bought) for name, bought in ways.items()}
    base = next(iter(totals.values()))
    summary = tuple(
        (name, f"${totals[name]:.4f}", _share(1 - totals[name] / base), f"{mean[name]:.2f}", f"{least[name]:.2f}")
        for name in ways
    )
    headers = ("way of choosing", "24 requests", "saved", "mean coverage", "least coverage")
    names = list(ways)
    rows = tuple(
        (asked.what, f"{asked.context_tokens:,}", *(_cell(ways[name][number]) for name in names))
        for number, asked in enumerate(REQUESTS)
    )
    points = tuple(Series(name, (mean[name],), (float(totals[name]),), points_only=True) for name in names)
    records = tuple(
        _record(name, asked, got) for name in names for asked, got in zip(REQUESTS, ways[name], strict=True)
    )
    return Section(
        "plan",
        "Dollars",
        notes=(
            f"List prices of {PRICES_VERSION} at {DAY:%Y-%m-%d %H:%M} UTC. The caller names models that would all do, so "
            "what a model is worth plays no part. Coverage is what trimtab kept on this run's questions at each ratio, "
            "taken to hold at every size. Six of the requests lie above a price boundary of one of their models, three go on "
            "from a warm prompt cache, four may take longer (flex). Everybody is billed for warm tokens and boundaries alike; "
            "the other ways of choosing do not know of them. Output that grows with a shorter prompt is left out.",
        ),
        tables=(
            Table("A day's requests, by way of choosing", headers, summary, readme=True),
            Table("Each request: model and dollars", ("request", "context", *names), rows, wide=True),
        ),
        plots=(Plot("Dollars against evidence kept", "mean coverage", "dollars for 24 requests", points),),
        records=records,
    )


def _share(saved: Decimal) -> str:
    return f"{round(saved * 100):d}%"  # through a whole number: "-0%" is no saving


def _cell(bought: _Bought) -> str:
    later = "" if bought.offer.processing == "sync" else f" {bought.offer.processing}"
    return f"{bought.offer.model}{later} ${bought.cost_usd:.4f}"


def _record(way: str, asked: Asked, bought: _Bought) -> dict[str, Any]:
    return {
        "record": "purchase",
        "way": way,
        "request": asked.what,
        "model": bought.offer.model,
        "input_tokens": bought.input_tokens,
        "output_tokens": asked.output_tokens,
        "cost_usd": str(bought.cost_usd),
        "coverage": bought.coverage,
    }
