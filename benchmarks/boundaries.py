"""Suite `boundaries`: payloads from 0.9 to 1.3 of every price boundary of every tiered model. Does the bill jump?

Each payload is planned against one offer, and then billed as a provider would: by its own tokenizer, which counts up to
2 % more or less than ours. The curves are synthetic: on one, the evidence stands in few tokens, so that getting under
the boundary loses less than the caller tolerates; on the other, every token is worth the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from genai_prices.data_snapshot import get_snapshot

from benchmarks.sections import Plot, Progress, Section, Series, Table
from routing.catalog import PRICES_VERSION, Catalog
from routing.errors import UnknownModel
from routing.offers import Offer, Usage, price
from routing.overlay import shipped_overlay
from routing.planner import Needs, plan

DAY = datetime(2026, 11, 2, 14, 0, tzinfo=UTC)
SERVICES = ("sync", "flex", "priority", "batch")
SIZES = tuple(range(90, 131))
"""Payloads in hundredths of the boundary, by our own count."""
ERRORS = (-2, 0, 2)
"""What the provider's tokenizer counts more than ours, in hundredths."""
FIXED_TOKENS = 500
OUTPUT_TOKENS = 1_000
TOLERANCE = 0.05
SHOWN_MODEL = "claude-haiku-5-5"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A curve: `power` 1 is evidence in every token alike; above it, the best tokens come first."""

    full_tokens: int
    power: int

    def coverage(self, budget_tokens: int) -> float:
        left = 1 - min(1.0, budget_tokens / self.full_tokens)
        return float(1 - left**self.power)

    def budget_for(self, coverage: float) -> int:
        low, high = 0, self.full_tokens
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.coverage(middle) >= coverage else (middle + 1, high)
        return low

    def steps(self) -> Sequence[int]:
        return range(1, self.full_tokens + 1)


FEW_TOKENS, ALL_ALIKE = 3, 1
CURVES = {FEW_TOKENS: "evidence in few tokens", ALL_ALIKE: "evidence in all tokens alike"}


@dataclass(frozen=True, slots=True)
class Step:
    """One payload of a sweep: what was sent, what the provider counted and billed, what it would have billed uncut."""

    size_tokens: int
    loss: float
    billed_tokens: int
    billed_usd: Decimal
    uncut_usd: Decimal


@dataclass(frozen=True, slots=True)
class Sweep:
    """The payloads around one boundary of one offer, smallest first."""

    offer: Offer
    boundary_tokens: int
    error: int
    power: int
    steps: tuple[Step, ...]

    @property
    def landed_above(self) -> tuple[Step, ...]:
        """Of the payloads that could be cut to under the boundary within the tolerance, those billed above it."""
        return tuple(
            step for step in self.steps if step.loss <= TOLERANCE and step.billed_tokens > self.boundary_tokens
        )

    @property
    def jump_usd(self) -> Decimal:
        """The most that one more hundredth of payload cost beyond its own tokens, where the tolerance let it be cut."""
        return _jump(self, [step.billed_usd for step in self.steps if step.loss <= TOLERANCE])

    @property
    def uncut_jump_usd(self) -> Decimal:
        return _jump(self, [step.uncut_usd for step in self.steps])

    @property
    def saved_usd(self) -> Decimal:
        return sum((step.uncut_usd - step.billed_usd for step in self.steps), Decimal(0))


def run(progress: Progress) -> Section:
    """Sweep over every boundary in the price data and the shipped overlay."""
    offers = tuple(tiered_offers())
    done = progress("boundaries", len(offers))
    sweeps: list[Sweep] = []
    for offer in offers:
        for boundary_tokens in offer.boundaries:
            for power in CURVES:
                sweeps += [sweep(offer, boundary_tokens, error, power) for error in ERRORS]
        done()
    return _section(sweeps)


def tiered_offers() -> Iterator[Offer]:
    """Every model with a price boundary, at every seller, in every service class that it is sold in."""
    catalog = Catalog()
    names = [f"{each.id}/{row.id}" for each in get_snapshot().providers for row in each.models]
    names += [f"{entry.scope.provider}/{model}" for entry in shipped_overlay().entries for model in entry.scope.models]
    for name in dict.fromkeys(names):
        try:
            offers = catalog.offers([name], DAY, SERVICES)
        except UnknownModel:
            continue  # priced in other units than tokens, or a row that no name finds
        yield from (offer for offer in offers if offer.boundaries and f"{offer.provider}/{offer.model}" == name)


def sweep(offer: Offer, boundary_tokens: int, error: int, power: int, margin: float = 0.02) -> Sweep:
    """Plan each size around the boundary with that margin for the tokenizer's error, and bill it with that error."""
    needs = Needs(fixed_tokens=FIXED_TOKENS, output_tokens=OUTPUT_TOKENS, tolerance=TOLERANCE, margin=margin)
    sizes = [size * boundary_tokens // 100 for size in SIZES]
    steps = tuple(_step(offer, boundary_tokens, Evidence(size - FIXED_TOKENS, power), error, needs) for size in sizes)
    return Sweep(offer, boundary_tokens, error, power, steps)


def _step(offer: Offer, boundary_tokens: int, curve: Evidence, error: int, needs: Needs) -> Step:
    size_tokens = FIXED_TOKENS + curve.full_tokens
    # Without a limit of its window or its time: whether it would do for a caller is not what is asked here.
    endless = Offer(offer.provider, offer.model, "sync", offer.tiers, None, offer.prices_version)
    chosen = plan(curve=curve, needs=needs, offers=[endless]).chosen
    under_tokens = boundary_tokens * 100 // 102 - FIXED_TOKENS
    sent, uncut = _billed_tokens(chosen.input_tokens, error), _billed_tokens(size_tokens, error)
    return Step(
        size_tokens=size_tokens,
        loss=max(0.0, 1 - curve.coverage(under_tokens)),
        billed_tokens=sent,
        billed_usd=price(offer, Usage(sent, OUTPUT_TOKENS)),
        uncut_usd=price(offer, Usage(uncut, OUTPUT_TOKENS)),
    )


def _billed_tokens(counted_tokens: int, error: int) -> int:
    return -(-counted_tokens * (100 + error) // 100)


def _jump(swept: Sweep, bills: Sequence[Decimal]) -> Decimal:
    under = [row for row in swept.offer.tiers if row.above_tokens < swept.boundary_tokens][-1]
    step_usd = under.input_usd * (swept.boundary_tokens * (100 + swept.error) // 10_000 + 2)
    most = max((after - before for before, after in pairwise(bills)), default=Decimal(0))
    return max(Decimal(0), most - step_usd)


def _section(sweeps: Sequence[Sweep]) -> Section:
    rows = tuple(_summary(name, [each for each in sweeps if each.power == power]) for power, name in CURVES.items())
    headers = (
        "curve",
        "boundaries",
        "payloads",
        "within tolerance",
        "billed above the boundary",
        "largest jump",
        "largest jump, uncut",
        "saved",
    )
    return Section(
        "boundaries",
        "Price boundaries",
        notes=(
            f"Every model with a price boundary in {PRICES_VERSION} and the shipped overlay, in every service class, at "
            f"{DAY:%Y-%m-%d %H:%M} UTC: payloads from 0.90 to 1.30 of the boundary, {OUTPUT_TOKENS:,} output tokens, a "
            "provider whose tokenizer counts 2 % less, the same, and 2 % more. A payload is within tolerance where "
            f"getting under the boundary is expected to lose {TOLERANCE:.2f} of the evidence or less; only those are "
            "held to it. A jump is what a hundredth more payload costs beyond its own tokens.",
        ),
        tables=(
            Table("Around every price boundary", headers, rows, readme=True),
            Table(
                "Each model (evidence in few tokens, tokenizer 2 % short)",
                ("provider", "model", "class", "boundary", "billed above", "largest jump", "largest jump, uncut"),
                tuple(_detail(each) for each in sweeps if (each.power, each.error) == (FEW_TOKENS, 2)),
                wide=True,
            ),
        ),
        plots=tuple(_plots(sweeps)),
        records=tuple(_record(each) for each in sweeps),
    )


def _summary(name: str, sweeps: Sequence[Sweep]) -> tuple[str, ...]:
    steps = [step for each in sweeps for step in each.steps]
    return (
        name,
        f"{len({(each.offer, each.boundary_tokens) for each in sweeps}):,}",
        f"{len(steps):,}",
        f"{sum(step.loss <= TOLERANCE for step in steps):,}",
        f"{sum(len(each.landed_above) for each in sweeps):,}",
        f"${max(each.jump_usd for each in sweeps):.4f}",
        f"${max(each.uncut_jump_usd for each in sweeps):.4f}",
        f"{sum(each.saved_usd for each in sweeps) / sum(step.uncut_usd for step in steps):.0%}",
    )


def _detail(each: Sweep) -> tuple[str, ...]:
    return (
        each.offer.provider,
        each.offer.model,
        each.offer.processing,
        f"{each.boundary_tokens:,}",
        f"{len(each.landed_above)}",
        f"${each.jump_usd:.4f}",
        f"${each.uncut_jump_usd:.4f}",
    )


def _plots(sweeps: Sequence[Sweep]) -> Iterator[Plot]:
    shown = [
        each
        for each in sweeps
        if each.offer.model == SHOWN_MODEL and (each.offer.processing, each.error) == ("sync", 2)
    ]
    makers = {each.offer.provider for each in shown} & {"anthropic"}
    series = [_series(CURVES[each.power], each) for each in shown if each.offer.provider in makers]
    if series:
        first = next(each for each in shown if each.offer.provider in makers)
        sizes = tuple(float(step.size_tokens) for step in first.steps)
        uncut = Series("uncut", sizes, tuple(float(step.uncut_usd) for step in first.steps))
        title = f"{SHOWN_MODEL} around its boundary, tokenizer 2 % short"
        yield Plot(title, "payload in tokens, by our count", "dollars billed", (*series, uncut))


def _series(name: str, each: Sweep) -> Series:
    sizes = tuple(float(step.size_tokens) for step in each.steps)
    return Series(name, sizes, tuple(float(step.billed_usd) for step in each.steps))


def _record(each: Sweep) -> dict[str, Any]:
    return {
        "record": "boundary",
        "provider": each.offer.provider,
        "model": each.offer.model,
        "processing": each.offer.processing,
        "boundary_tokens": each.boundary_tokens,
        "tokenizer_error": each.error / 100,
        "curve": CURVES[each.power],
        "within_tolerance": sum(step.loss <= TOLERANCE for step in each.steps),
        "landed_above": len(each.landed_above),
        "jump_usd": str(each.jump_usd),
        "uncut_jump_usd": str(each.uncut_jump_usd),
        "saved_usd": str(each.saved_usd),
    }
