"""How long a provider's batches take, from those that came back and those that were called back before."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.promotion import DEFAULT_TURNAROUND, PRIOR_BATCHES, Turnaround

TIMES = st.lists(st.floats(1.0, 86_399.0), max_size=20).map(lambda times: tuple(sorted(times)))


@given(TIMES, TIMES, st.floats(0.0, 100_000.0), st.floats(0.0, 100_000.0))
def test_a_chance_is_one_and_grows(seen: tuple[float, ...], longer: tuple[float, ...], one: float, two: float) -> None:
    turnaround = Turnaround(seen, longer)
    before, after = sorted((one, two))
    assert turnaround.chance(before) + 1e-12 >= 0.0
    assert turnaround.chance(before) <= turnaround.chance(after) + 1e-12
    assert turnaround.chance(after) <= 1.0 + 1e-12
    assert 0.0 <= turnaround.chance_still(after, before) <= 1.0 + 1e-12


@given(TIMES, st.floats(1.0, 86_399.0))
def test_without_any_called_back_it_is_a_share(seen: tuple[float, ...], within_s: float) -> None:
    believed = Turnaround().chance(within_s)
    share = (PRIOR_BATCHES * believed + sum(each <= within_s for each in seen)) / (PRIOR_BATCHES + len(seen))
    assert Turnaround(seen).chance(within_s) == pytest.approx(share)


@given(TIMES, TIMES, st.floats(1.0, 86_399.0))
def test_as_mass_that_is_handed_on(seen: tuple[float, ...], longer: tuple[float, ...], within_s: float) -> None:
    """The oracle: every batch and every bit of belief is a mass of its own at its time; one that was called back hands
    its mass on, evenly, to all that lies later (Efron's redistribution to the right, which gives the same estimate)."""
    cells = 400
    edges = [math.exp(math.log(60.0) + (math.log(86_400.0) - math.log(60.0)) * at / cells) for at in range(cells + 1)]
    edges = sorted({*edges, within_s, *seen, *longer, *(time_s for time_s, _ in DEFAULT_TURNAROUND)})
    masses: list[list[float | bool]] = []
    for low, high in pairwise(edges):
        mass = PRIOR_BATCHES * (Turnaround().chance(high) - Turnaround().chance(low))
        masses.append([high, mass, False])
    masses += [[each, 1.0, False] for each in seen]
    masses += [[each, 1.0, True] for each in longer]
    masses.sort(key=lambda each: (each[0], each[2]))
    for at, (_, mass, called_back) in enumerate(masses):
        later = sum(float(each[1]) for each in masses[at + 1 :])
        if called_back and later > 0.0:
            for each in masses[at + 1 :]:
                each[1] = float(each[1]) * (1.0 + float(mass) / later)
            masses[at][1] = 0.0
    total = PRIOR_BATCHES + len(seen) + len(longer)
    back = sum(float(mass) for time_s, mass, called_back in masses if time_s <= within_s and not called_back)
    assert Turnaround(seen, longer).chance(within_s) == pytest.approx(back / total, abs=1e-6)


def test_calling_back_early_says_little() -> None:
    """Fifty batches called back after five minutes do not end what is believed of those that are given hours."""
    impatient = Turnaround(longer_s=(300.0,) * 50)
    assert impatient.chance(300.0) == pytest.approx(Turnaround().chance(300.0) * PRIOR_BATCHES / 54.0)
    assert impatient.chance_still(21_600.0, 300.0) == pytest.approx(Turnaround().chance_still(21_600.0, 300.0))
    lost = Turnaround((math.inf,) * 50)
    assert lost.chance(21_600.0) < 0.1
