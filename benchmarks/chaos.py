"""Suite `chaos`: five providers that fail, stall, refuse and change their prices by a script, and requests that must be
answered all the same, at the price of an oracle that knew the script.

Real clocks and real HTTP on loopback, sped up: a minute of the script lasts a second. The breaker rests half a second
instead of half a minute, and everything else of it is as shipped. Requests arrive at fixed times, whether earlier ones are
answered or not; the plan takes the offers' health at that moment, as the gateway does.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from benchmarks.faulty import INPUT_TOKENS, OUTPUT_TOKENS, RETRY_AFTER_MS, SERVES, Fault, FaultyProvider
from benchmarks.sections import Progress, Section, Table
from routing.catalog import Provider
from routing.errors import ProvidersFailed
from routing.forwarding import Router, Timeouts
from routing.health import Health, HealthPolicy
from routing.offers import Offer, Rates, Usage, price
from routing.planner import Needs, plan
from routing.standing import called

REQUESTS = 2_000
QUICK_REQUESTS = 400
ARRIVAL_S = 0.02
MINUTE_S = 1.0
POLICY = HealthPolicy(open_s=MINUTE_S / 2)
TIMEOUTS = Timeouts(connect_ms=500, first_byte_ms=400, idle_ms=400, answer_ms=400, total_ms=5_000)

NAMES = ("a", "b", "c", "d", "e")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What `provider` does from one minute of the script to another, instead of answering."""

    provider: str
    begins_min: float
    ends_min: float
    fault: Fault


SCRIPT = (
    Trouble("a", 1.0, 3.0, "errors"),  # the cheapest is down, then the next refuses too
    Trouble("b", 2.0, 3.5, "429, says when"),
    Trouble("a", 5.0, 6.0, "slow"),
    Trouble("a", 7.0, 8.0, "hangs"),
    Trouble("c", 9.0, 15.0, "resets"),  # while dear: hardly anybody notices
    Trouble("a", 11.0, 14.0, "resets"),
    Trouble("b", 13.0, 14.0, "hangs"),
    Trouble("a", 16.0, 17.5, "429, silent"),
    *(Trouble(name, 19.0, 20.0, "errors") for name in "abcd"),  # one is left,
    Trouble("e", 20.0, 21.0, "resets"),  # and goes when the others come back
    *(Trouble(name, 23.0, 23.6, "errors") for name in NAMES),  # nobody can serve
    Trouble("b", 27.0, 29.0, "errors"),
    Trouble("c", 31.0, 32.0, "429, says when"),  # the cheapest by now
    Trouble("c", 34.0, 37.0, "errors"),
    Trouble("a", 35.0, 36.0, "slow"),
)
"""Times in minutes. A quick run ends after eight of them."""

# Dollars a million tokens, in and out, from a minute on. The last row that has begun holds.
PRICES: dict[str, tuple[tuple[float, str, str], ...]] = {
    "a": ((0.0, "0.20", "0.80"), (30.0, "0.40", "1.60")),
    "b": ((0.0, "0.22", "0.90"),),
    "c": ((0.0, "0.30", "1.20"), (25.0, "0.15", "0.60")),
    "d": ((0.0, "0.32", "1.25"),),
    "e": ((0.0, "0.40", "1.50"),),
}


@dataclass(frozen=True, slots=True)
class Uncut:
    """The curve of a request without a context: there is nothing to cut."""

    full_tokens: int = 0

    def steps(self) -> Sequence[int]:
        return (0,)

    def coverage(self, budget_tokens: int) -> float:
        return 1.0

    def budget_for(self, coverage: float) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Ended:
    """One request. `provider` is None where nobody answered."""

    arrived_min: float
    ended_min: float
    provider: str | None
    cost_usd: Decimal
    oracle_usd: Decimal
    calls: int

    @property
    def servable(self) -> bool:
        """Whether some provider was up all the while. One that came up in the middle may have been asked before."""
        return any(
            not any(
                each.provider == name and each.begins_min < self.ended_min and each.ends_min > self.arrived_min
                for each in _DOWN
            )
            for name in NAMES
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """A whole run. `received` are the minutes of the script at which each provider was called."""

    ended: tuple[Ended, ...]
    received: dict[str, tuple[float, ...]]

    def most_in_flight(self, begins_min: float, ends_min: float) -> int:
        """Of requests, at any moment in between."""
        near = [each for each in self.ended if each.arrived_min < ends_min and each.ended_min > begins_min]
        moments = (max(each.arrived_min, begins_min) for each in near)
        return max((sum(each.arrived_min <= at < each.ended_min for each in near) for at in moments), default=0)


_DOWN = tuple(each for each in SCRIPT if each.fault not in SERVES)


def fault_at(provider: str, minute: float) -> Fault:
    """What the script has `provider` do at that minute."""
    found = (each.fault for each in SCRIPT if each.provider == provider and each.begins_min <= minute < each.ends_min)
    return next(found, "up")


def offers_at(minute: float) -> tuple[Offer, ...]:
    """The five offers at the prices of that minute."""
    return tuple(Offer(name, "m", "sync", (_rates(name, minute),), None, "script") for name in NAMES)


def _rates(name: str, minute: float) -> Rates:
    _, input_usd, output_usd = [row for row in PRICES[name] if row[0] <= minute][-1]
    per_token = Decimal("1e-6")
    input_rate = Decimal(input_usd) * per_token
    return Rates(-1, input_rate, Decimal(output_usd) * per_token, input_rate, input_rate)


def measure(requests: int, progress: Progress) -> Outcome:
    """Play the script for that many requests."""
    return asyncio.run(_play(requests, progress))


class _Run:
    """One play of the script: its clock, the router, and what is under way."""

    def __init__(self) -> None:
        self.began_s = asyncio.get_running_loop().time()
        self.health = Health(POLICY)

    @property
    def minute(self) -> float:
        return (asyncio.get_running_loop().time() - self.began_s) / MINUTE_S

    def faults(self, name: str) -> Callable[[], Fault]:
        return lambda: fault_at(name, self.minute)

    async def ask(self, router: Router, number: int) -> Ended:
        """One request of the script: every third is a stream."""
        arrived = self.minute
        offers = offers_at(arrived)
        standings = {called(offer): self.health.standing(offer, INPUT_TOKENS) for offer in offers}
        planned = plan(Uncut(), Needs(INPUT_TOKENS, OUTPUT_TOKENS), offers, standings)
        oracle = [_cost(offer) for offer in offers if fault_at(offer.provider, arrived) in SERVES]
        answered, calls = await _answer(router, (planned.chosen.offer, *planned.fallbacks), number % 3 == 0)
        cost_usd = Decimal(0) if answered is None else _cost(answered)
        name = None if answered is None else answered.provider
        return Ended(arrived, self.minute, name, cost_usd, min(oracle, default=Decimal(0)), calls)


async def _answer(router: Router, offers: Sequence[Offer], stream: bool) -> tuple[Offer | None, int]:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Is all well?"}], "stream": stream}
    try:
        async with await router.forward(body, offers, stream) as reply:
            if reply.chunks is not None:
                async for _ in reply.chunks:
                    pass
            fine = reply.status == 200 and reply.attempts[-1].outcome == "ok"
            return (reply.offer if fine else None), len(reply.attempts)
    except ProvidersFailed as failed:
        return None, len(failed.attempts)


async def _play(requests: int, progress: Progress) -> Outcome:
    step = progress("chaos", requests)
    run = _Run()
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(FaultyProvider(run.faults(name))) for name in NAMES}
        providers = {name: Provider(name, "openai", server.base_url, None, ("m",)) for name, server in servers.items()}
        router = await stack.enter_async_context(Router(providers, timeouts=TIMEOUTS, health=run.health))
        run.began_s = asyncio.get_running_loop().time()
        asked = []
        for number in range(requests):
            await asyncio.sleep(run.began_s + number * ARRIVAL_S - asyncio.get_running_loop().time())
            asked.append(asyncio.create_task(run.ask(router, number)))
            step()
        ended = await asyncio.gather(*asked)
    received = {
        name: tuple((at_s - run.began_s) / MINUTE_S for at_s in server.received) for name, server in servers.items()
    }
    return Outcome(tuple(ended), received)


def _cost(offer: Offer) -> Decimal:
    return price(offer, Usage(INPUT_TOKENS, OUTPUT_TOKENS))


@dataclass(frozen=True, slots=True)
class Totals:
    """What must hold of a run: all that is servable is answered, at hardly more than the oracle's price."""

    servable: int
    answered: int
    cost_usd: Decimal
    oracle_usd: Decimal

    @property
    def over_oracle(self) -> float:
        return float(self.cost_usd / self.oracle_usd) - 1.0


def totals(outcome: Outcome) -> Totals:
    """Dollars over the requests that were answered when somebody was up, by the script, at their arrival."""
    servable = [each for each in outcome.ended if each.servable]
    priced = [each for each in servable if each.provider is not None and each.oracle_usd]
    return Totals(
        len(servable),
        sum(each.provider is not None for each in servable),
        sum((each.cost_usd for each in priced), Decimal(0)),
        sum((each.oracle_usd for each in priced), Decimal(0)),
    )


@dataclass(frozen=True, slots=True)
class Calls:
    """How often a provider was called in a time of trouble, and the most that its breaker may let through.

    That is the failures that open it, those already under way by then, and a probe for every rest; where it says when to
    come back, the same for each time that it says so.
    """

    trouble: Trouble
    received: int
    allowed: int


def calls_while_down(outcome: Outcome) -> tuple[Calls, ...]:
    """For every time of trouble that the run reached, but for those in which nobody could serve: then all are tried."""
    last_min = outcome.ended[-1].arrived_min
    return tuple(
        Calls(each, _count(outcome, each), _allowed(outcome, each))
        for each in _DOWN
        if each.begins_min < last_min and not _nobody_is_up(each)
    )


def _count(outcome: Outcome, trouble: Trouble) -> int:
    return sum(trouble.begins_min <= at < trouble.ends_min for at in outcome.received[trouble.provider])


def _allowed(outcome: Outcome, trouble: Trouble) -> int:
    lasts_s = (trouble.ends_min - trouble.begins_min) * MINUTE_S
    in_flight = outcome.most_in_flight(trouble.begins_min, trouble.ends_min)
    if trouble.fault == "429, says when":
        return in_flight * (int(lasts_s * 1000 / RETRY_AFTER_MS) + 1)
    return POLICY.failures + in_flight + int(lasts_s / POLICY.open_s) + 1


def _nobody_is_up(trouble: Trouble) -> bool:
    middle = (trouble.begins_min + trouble.ends_min) / 2
    return all(fault_at(name, middle) not in SERVES for name in NAMES)


def run(requests: int, progress: Progress) -> Section:
    """Play the script for that many requests, and say what came of it."""
    outcome = measure(requests, progress)
    seen, calls = totals(outcome), calls_while_down(outcome)
    times_ms = sorted((each.ended_min - each.arrived_min) * MINUTE_S * 1000 for each in outcome.ended)
    within = sum(each.received <= each.allowed for each in calls)
    rows = (
        ("requests", f"{len(outcome.ended):,}", ""),
        ("that some provider could serve", f"{seen.servable:,}", ""),
        ("of these answered", f"{seen.answered / seen.servable:.2%}", "100 %"),
        ("cost", f"${seen.cost_usd:.4f}", ""),
        ("cost of an oracle that knew the script", f"${seen.oracle_usd:.4f}", ""),
        ("more than the oracle", f"{seen.over_oracle:.2%}", "at most 5 %"),
        ("times of trouble in which the breaker held", f"{within} of {len(calls)}", "all"),
        ("calls made", f"{sum(each.calls for each in outcome.ended):,}", ""),
        ("most requests in flight", str(outcome.most_in_flight(0.0, outcome.ended[-1].ended_min)), ""),
        (
            "median, 99th percentile",
            f"{statistics.median(times_ms):.0f}, {times_ms[len(times_ms) * 99 // 100]:.0f} ms",
            "",
        ),
    )
    down = tuple(
        (
            each.trouble.provider,
            f"{each.trouble.begins_min:g} to {each.trouble.ends_min:g}",
            each.trouble.fault,
            str(each.received),
            str(each.allowed),
        )
        for each in calls
    )
    record = {
        "record": "chaos",
        "requests": len(outcome.ended),
        "servable": seen.servable,
        "answered": seen.answered,
        "cost_usd": str(seen.cost_usd),
        "oracle_usd": str(seen.oracle_usd),
        "troubles": len(calls),
        "troubles_within_breaker": within,
        "median_ms": statistics.median(times_ms),
    }
    return Section(
        "chaos",
        "Chaos",
        notes=("Real clocks on loopback; a minute of the script lasts a second.",),
        tables=(
            Table("Five providers that fail by a script", ("", "measured", "required"), rows, readme=True),
            Table(
                "Calls that a provider got while it was down",
                ("provider", "minutes", "it", "calls", "allowed"),
                down,
                note="Allowed: the failures that open the breaker, what is under way by then, one probe for each rest.",
            ),
        ),
        records=(record,),
    )
