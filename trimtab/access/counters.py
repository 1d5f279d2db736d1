"""Counters: what keys and teams have spent and reserved, and how fast they ask, atomically for all workers and hosts.

Budgets are meters in pico-dollars: what is spent, and what requests under way may yet cost. A request is let in only if
what it may cost at worst fits beside both; when it is over, what it did cost is spent and the rest is given back.

Rates are token buckets that hold a minute's worth and fill evenly (as OpenAI's and Anthropic's do), kept as the one moment at
which they are full again (GCRA, ITU-T I.371). So in any minute at most twice the limit comes through, and over time the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

MINUTE_S: Final = 60.0
KEPT_S: Final = 40 * 86_400.0
"""How long a budget's meter is kept when its period is over."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A meter of dollars. `kind` is "key" or "team", `name` its name; the period lasts from `begins_at` to `ends_at`."""

    kind: str
    name: str
    period: str
    begins_at: float
    ends_at: float
    cap_pico: int

    @property
    def meter(self) -> str:
        return f"{self.kind}/{self.name}/usd/{self.period}/{int(self.begins_at)}"


@dataclass(frozen=True, slots=True)
class Rate:
    """A meter of requests or tokens, of which the request takes `cost`."""

    kind: str
    name: str
    what: str
    per_minute: int
    cost: int

    @property
    def meter(self) -> str:
        return f"{self.kind}/{self.name}/{self.what}"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that wants in: what it may cost at worst. `until` is its lease's end; where nobody knows what became of it
    then, `if_lost_pico` counts as spent. `forced`: it is in already and is only to be counted."""

    id: str
    amount_pico: int
    if_lost_pico: int
    budgets: tuple[Budget, ...]
    rates: tuple[Rate, ...]
    until: float
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """A bucket after an answer: what is left of it, and in how many seconds it is full."""

    rate: Rate
    left: int
    full_in_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Reserved, unless a meter `refused` it or is among the `unknown`, which are to be seeded first. `left_pico` is what the
    refusing budget has left, `wait_s` when the refusing rate has room (inf: never, it asks for more than a minute's)."""

    refused: Budget | Rate | None = None
    wait_s: float = 0.0
    left_pico: int = 0
    unknown: tuple[Budget, ...] = ()
    rates: tuple[Standing, ...] = ()

    @property
    def reserved(self) -> bool:
        return self.refused is None and not self.unknown


@dataclass(frozen=True, slots=True)
class End:
    """A request that is over: what it cost, and the tokens that it took (None: as reserved)."""

    id: str
    amount_pico: int
    tokens: int | None = None


class Counters(Protocol):
    """Blocking, safe to share between threads. Every call raises Unreachable where the counters are away."""

    def reserve(self, asks: Sequence[Ask], now: float) -> list[Answer]:
        """One answer for each, in order. What is refused leaves no trace."""
        ...

    def settle(self, ends: Sequence[End], now: float) -> set[str]:
        """Give back what was reserved and count what was spent. The ids of those that had something reserved: a second end
        of the same is none."""
        ...

    def seed(self, spent: Mapping[Budget, int]) -> None:
        """Begin meters that are not there yet with what was spent already."""
        ...

    def renew(self, ids: Sequence[str], until: float) -> None:
        """A longer lease for those that still have something reserved."""
        ...

    def lost(self, now: float, limit: int = 100) -> list[tuple[str, int]]:
        """Reservations whose lease is over: id, and what counts where nobody knows better."""
        ...

    def read(self, budgets: Sequence[Budget]) -> list[tuple[int, int] | None]:
        """Spent and reserved, in pico-dollars; None for a meter that has not begun."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Meter:
    """A meter's state while it is decided on."""

    spent_pico: int = 0
    reserved_pico: int = 0
    full_at: float = 0.0


def decide(ask: Ask, meters: dict[str, Meter], now: float) -> Answer:
    """Whether `ask` fits, and if so takes it off `meters`. Pure but for that."""
    unknown = tuple(each for each in ask.budgets if each.meter not in meters)
    if unknown:
        return Answer(unknown=unknown)
    if not ask.forced:
        for budget in ask.budgets:
            meter = meters[budget.meter]
            left = budget.cap_pico - meter.spent_pico - meter.reserved_pico
            if left < ask.amount_pico or left <= 0:
                return Answer(budget, left_pico=left)
        for rate in ask.rates:
            full_at = max(now, meters.setdefault(rate.meter, Meter()).full_at)
            late_s = full_at + rate.cost * MINUTE_S / rate.per_minute - now - MINUTE_S
            if late_s > 1e-9:
                standings = tuple(
                    standing(each, meters.setdefault(each.meter, Meter()).full_at, now) for each in ask.rates
                )
                return Answer(rate, math.inf if rate.cost > rate.per_minute else late_s, rates=standings)
    for budget in ask.budgets:
        meters[budget.meter].reserved_pico += ask.amount_pico
    for rate in ask.rates:
        meter = meters.setdefault(rate.meter, Meter())
        meter.full_at = max(now, meter.full_at) + rate.cost * MINUTE_S / rate.per_minute
    return Answer(rates=tuple(standing(each, meters[each.meter].full_at, now) for each in ask.rates))


def standing(rate: Rate, full_at: float, now: float) -> Standing:
    full_in_s = max(0.0, full_at - now)
    left = math.floor((MINUTE_S - full_in_s) * rate.per_minute / MINUTE_S + 1e-6)
    return Standing(rate, max(0, left), full_in_s)
