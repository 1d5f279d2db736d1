"""Means with bootstrap intervals: how sure a figure is, given how few questions it comes from.

Percentile bootstrap over questions (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13), seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval over `count` questions."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}-{self.high:.2f}]"

    def overlaps(self, other: Estimate) -> bool:
        """Whether the two intervals share a value: then the data do not tell the two apart."""
        return self.low <= other.high and other.low <= self.high


def estimate(values: Sequence[float], seed: int) -> Estimate | None:
    """The mean of `values` with its interval; None of nothing. Same values and seed, same digits."""
    if not values:
        return None
    data = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(data), (RESAMPLES, len(data)))
    means = data[draws].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(data.mean()), float(low), float(high), len(data))


@dataclass(frozen=True, slots=True)
class Spread:
    """Times in milliseconds: median, minimum and maximum of `count` calls."""

    median: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{_ms(self.median)} ({_ms(self.low)}-{_ms(self.high)})"


def spread(times_ms: Sequence[float]) -> Spread:
    """Raises ValueError of nothing."""
    return Spread(float(np.median(times_ms)), float(min(times_ms)), float(max(times_ms)), len(times_ms))


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
