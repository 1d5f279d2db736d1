"""The figures of a router between models: what it recovers of a gap, at what share of calls or of cost, and how honest its
chances are. Arrays in, numbers out; the same arrays and seed, the same digits.

PGR, APGR and CPT are RouteLLM's (Ong et al., arXiv 2406.18665): PGR at a share of strong calls is
(score - weak) / (strong - weak); APGR averages it over all shares (random: 0.5); CPT(50 %) is the least share of strong
calls with a PGR of a half (random: 50 %).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.intervals import Estimate

Numbers = NDArray[np.float64]

RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Recovered:
    """Of one router on one pair: `apgr` and `cpt50` with their 95 % intervals over prompts; `pgr` at 0, 5, ... 100 %."""

    apgr: Estimate
    cpt50: Estimate
    pgr: tuple[float, ...]


def recovered(runs: Sequence[Numbers], weak: Numbers, strong: Numbers, seed: int) -> Recovered:
    """Prompts go to the strong model in the order of what it is expected to add, ties in an order of chance.

    Each of `runs` is one router's expectations, shape (prompts,), NaN for a prompt that is not part of the run; the figures
    are means over the runs. What two trainings expect is not ranked together: the half whose twin had the larger gap by
    chance has the smaller one, so that their offsets alone would rank worse than chance.
    """
    rng = np.random.default_rng(seed)
    orders = [_order(gains, rng) for gains in runs]
    added = strong - weak

    def figures(weights: Numbers) -> Numbers:
        return np.asarray(np.mean([_figures(added[order], weights[order]) for order in orders], axis=0))

    whole = np.ones(len(added))
    apgr, cpt50 = figures(whole)
    draws = [figures(weights) for weights in _resamples(len(added), rng)]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    curves = [
        np.interp(SHARES, shares, pgr) for pgr, shares in (_curve(added[order], whole[order]) for order in orders)
    ]
    return Recovered(
        Estimate(float(apgr), float(low[0]), float(high[0]), len(added)),
        Estimate(float(cpt50), float(low[1]), float(high[1]), len(added)),
        tuple(float(value) for value in np.mean(curves, axis=0)),
    )


def _order(gains: Numbers, rng: np.random.Generator) -> NDArray[np.intp]:
    measured = np.flatnonzero(np.isfinite(gains))
    return measured[np.lexsort((rng.random(len(measured)), -gains[measured]))]


SHARES = tuple(round(0.05 * step, 2) for step in range(21))


def _resamples(count: int, rng: np.random.Generator) -> Iterator[Numbers]:
    """How often a bootstrap sample holds each prompt: the order stays, so that nothing is sorted again."""
    for _ in range(RESAMPLES):
        yield rng.multinomial(count, np.full(count, 1 / count)).astype(np.float64)


def _curve(added: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    total = (weights * added).sum()
    pgr = np.concatenate([[0.0], np.cumsum(weights * added)]) / (total if total else np.nan)
    return pgr, np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()


def _figures(added: Numbers, weights: Numbers) -> tuple[float, float]:
    pgr, shares = _curve(added, weights)
    return float(np.trapezoid(pgr, shares)), float(shares[np.argmax(pgr >= 0.5)])


def mean_with_interval(values: Numbers, seed: int) -> Estimate:
    """The mean of `values` with its 95 % bootstrap interval, one sample at a time: there may be many thousands."""
    rng = np.random.default_rng(seed)
    means = [float(weights @ values) / len(values) for weights in _resamples(len(values), rng)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions between two tenths: how many there are, their mean, and the mean of what came true."""

    count: int
    predicted: float
    observed: float


def calibration(chances: Numbers, scores: Numbers) -> tuple[tuple[Bin, ...], float]:
    """The ten bins (empty ones left out), and the expected calibration error: the mean distance, weighed by count."""
    tenth = np.minimum((chances * 10).astype(int), 9)
    bins = tuple(
        Bin(int(inside.sum()), float(chances[inside].mean()), float(scores[inside].mean()))
        for inside in (tenth == number for number in range(10))
        if inside.any()
    )
    total = sum(each.count for each in bins)
    return bins, sum(each.count * abs(each.predicted - each.observed) for each in bins) / total


def chosen(chances: Numbers, costs: Numbers, usd_per_answer: float) -> NDArray[np.intp]:
    """Of each prompt the model that is worth most where a right answer is worth `usd_per_answer`: arrays (prompts, models)."""
    return np.asarray(np.argmax(chances * usd_per_answer - costs, axis=1))


def worth_within(chances: Numbers, costs: Numbers, most_usd: float) -> float:
    """What an answer may be worth so that `chosen` spends at most `most_usd` a prompt: the spending rises with the worth."""
    low, high = 0.0, float(costs.max()) * 1e4
    rows = np.arange(len(costs))
    for _ in range(60):
        middle = (low + high) / 2
        spent = costs[rows, chosen(chances, costs, middle)].mean()
        low, high = (middle, high) if spent <= most_usd else (low, middle)
    return low
