"""What one process learns and another hears is known to both alike."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from routing.attempts import Attempt
from routing.commitments import Drawdown, commitments_of
from routing.health import Health, HealthPolicy, Sighting
from routing.offers import Offer
from trimtab.sharing.learning import _sighting

OFFER = Offer("p", "m", "sync", (), None, "")
Step = tuple[int, str]


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def attempt(outcome: str) -> Attempt:
    return Attempt("p", "m", "sync", 0.0, 5.0, 200 if outcome == "ok" else 503, outcome, "")  # type: ignore[arg-type]


steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["ok", "server_error", "server_error", "begin", "wait"])), max_size=60
)


@given(steps=steps, delay_steps=st.integers(0, 3))
def test_two_that_tell_each_other_come_to_the_same_breaker(steps: list[Step], delay_steps: int) -> None:
    """Whatever happens where, in whatever order it is heard, with clocks that began at different times."""
    clocks = (Clock(1_000.0), Clock(77_000.0))
    policy = HealthPolicy(failures=3, open_s=30.0)
    two = tuple(Health(policy, clock) for clock in clocks)
    under_way: list[tuple[int, float, Sighting]] = []
    for n, health in enumerate(two):
        health.tell = lambda sighting, n=n: under_way.append((1 - n, clocks[0].now_s, sighting))  # type: ignore[misc]

    def deliver(keep: int) -> None:
        while len(under_way) > keep:
            to, told_s, sighting = under_way.pop(0)
            plain = json.loads(json.dumps(asdict(sighting)))
            two[to].heard(_sighting(plain), clocks[0].now_s - told_s)

    for who, what in steps:
        for clock in clocks:
            clock.now_s += 31.0 if what == "wait" else 0.5
        if what == "begin":
            two[who].begin(OFFER)
        elif what != "wait":
            two[who].ended(attempt(what))
        deliver(delay_steps)
    deliver(0)
    for clock in clocks:
        clock.now_s += 1.0
    assert two[0].breaker(OFFER) == two[1].breaker(OFFER)


def test_what_headers_allow_is_heard() -> None:
    one, other = Health(), Health()
    told: list[Sighting] = []
    one.tell = told.append
    headers = {
        f"x-ratelimit-{what}-requests": value for what, value in (("limit", "60"), ("remaining", "0"), ("reset", "60s"))
    }
    one.told(OFFER, headers)
    other.heard(_sighting(json.loads(json.dumps(asdict(told[0])))), 0.1)
    assert one.resting([OFFER]).keys() == other.resting([OFFER]).keys() != set()


def test_what_another_drew_is_used_up_here_in_its_own_period() -> None:
    row: dict[str, Any] = {
        "name": "c",
        "provider": "p",
        "models": ["m"],
        "per": "day",
        "tokens": 1000,
        "price_usd": "1",
    }
    drawdown = Drawdown(commitments_of([row]))
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    drawdown.draw("c", Decimal(300), now)
    drawdown.draw("another's", Decimal(1), now)
    drawdown.draw("c", Decimal(5), now.replace(day=23))  # of a period that is over
    assert drawdown.used("c", now) == 300
