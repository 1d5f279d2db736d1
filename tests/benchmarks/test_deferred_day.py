"""The simulated day: every deadline that can be kept is kept, and the cost lies between the oracle's and everybody's at once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from benchmarks.deferred import run
from benchmarks.deferred_day import Day
from benchmarks.deferred_rivals import all_at_once, all_in_batches, oracle
from benchmarks.deferred_world import DAY, EXPIRING, HOUR_S, OUTAGE, World, is_met
from benchmarks.sections import silent
from routing.offers import price

COUNT = 600


@pytest.fixture(scope="module", params=[1, 7])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_every_deadline_that_can_be_kept_is_kept_for_less(world: World) -> None:
    requests = world.requests(COUNT)
    at_once = all_at_once(world, requests)
    feasible = [each for each in requests if is_met(at_once.fates[each.number], each)]
    day = Day(world, requests)
    ours = day.outcome()
    best = oracle(world, requests)
    in_batches = all_in_batches(world, requests)
    assert len(feasible) > 0.98 * COUNT
    assert ours.met(feasible) == len(feasible)
    assert best.met(feasible) == len(feasible)
    assert in_batches.met(feasible) < 0.8 * len(feasible)
    saved = at_once.billed_usd - ours.billed_usd
    assert saved > Decimal("0.6") * (at_once.billed_usd - best.billed_usd) > 0
    patient = [each.number for each in requests if each.deadline_at - each.at >= 6 * HOUR_S]
    costs = [sum(each.fates[number].billed_usd for number in patient) for each in (at_once, ours, best)]
    assert costs[0] - costs[1] > Decimal("0.85") * (costs[0] - costs[2])


def test_the_same_seed_gives_the_same_day() -> None:
    first, second = (run(150, 3, silent) for _ in range(2))
    assert first.records == second.records
    assert first.records != run(150, 4, silent).records


def test_the_world_is_as_scripted() -> None:
    world = World(1)
    name, starts, ends = OUTAGE
    assert world.is_down(name, starts)
    assert not world.is_down(name, ends)
    assert not world.is_down("openai", starts)
    before = starts - 1.0
    assert world.batch_ends_at(name, before) - before > ends - starts
    assert world.batch_ends_at(EXPIRING[0], EXPIRING[1]) == float("inf")
    request = next(each for each in world.requests(COUNT) if "deepseek-v4-pro" in each.models)
    dear, cheap = (
        next(each for each in world.offers(request.models, DAY + hour * HOUR_S) if each.provider == "deepseek")
        for hour in (2, 12)
    )
    assert price(dear, request.usage) == 2 * price(cheap, request.usage)


def test_every_bill_is_of_something_that_was_sold(world: World) -> None:
    """Nobody is answered for nothing, and a day that buys twice pays twice."""
    requests = world.requests(200)
    fates = Day(world, requests).outcome().fates
    for each in requests:
        least = min(
            price(offer, each.usage) for hour in range(48) for offer in world.offers(each.models, DAY + hour * HOUR_S)
        )
        assert fates[each.number].billed_usd >= least
