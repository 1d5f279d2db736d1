"""Queueing: what many processes would do with a load that this machine cannot offer, by simulation.

An M/G/k queue: requests come at random (Poisson), take what was measured, and the first free of k processes takes the one
that came first. What it does not know: a network, providers that are slow, and cores that share a cache.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

ARRIVALS = 60_000
MOST_WAIT = 0.5
"""Of the mean service time: the most that the 99th percentile of the waits may be."""


def wait_p99_s(per_s: float, service_s: Sequence[float], processes: int, seed: int) -> float:
    """The 99th percentile of how long requests wait. Infinite where more comes than can be done."""
    mean_s = sum(service_s) / len(service_s)
    if per_s * mean_s >= processes:
        return float("inf")
    draw = random.Random(seed)
    free_at = [0.0] * processes
    now, waits = 0.0, []
    for _ in range(ARRIVALS):
        now += draw.expovariate(per_s)
        began = max(now, free_at[0])
        waits.append(began - now)
        heapq.heapreplace(free_at, began + draw.choice(service_s))
    return sorted(waits[ARRIVALS // 10 :])[int(0.99 * 0.9 * ARRIVALS)]


def processes_for(per_s: float, service_s: Sequence[float], seed: int) -> int:
    """The fewest processes with which 99 of 100 requests wait no longer than MOST_WAIT of a request's time."""
    mean_s = sum(service_s) / len(service_s)
    least = int(per_s * mean_s) + 1
    low, high = least, 2 * least + 8
    while low < high:
        middle = (low + high) // 2
        if wait_p99_s(per_s, service_s, middle, seed) <= MOST_WAIT * mean_s:
            high = middle
        else:
            low = middle + 1
    return low
