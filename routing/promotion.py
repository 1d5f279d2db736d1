"""Promotion: what to do next for a request that may wait, so that its deadline holds at the least expected cost.

A batch while the deadline allows it, a slower class or a cheaper hour next, and at once last. Pure: what each way costs,
how long batches have taken, and the moment come in as arguments. Moments are seconds, on whatever clock.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

from routing.costs import ONE, ZERO, amount

RECALL_S: Final = 300.0
"""How long a provider may take to give a batch back that is called back, before what is in it is bought elsewhere."""
BILLED_IN_SPITE: Final = Decimal("0.25")
"""The chance that a line is billed in a batch that was called back for being late: what is finished by then is."""
RETRY_S: Final = 15.0
"""When to look again where nobody can be asked."""
PATIENCE_S: Final = 600.0
"""An outage that has lasted longer is waited out by nobody: what waited for it is bought elsewhere."""
MOST_WAIT_S: Final = 300.0
"""When to look again at the latest: prices and outages change."""

DEFAULT_TURNAROUND: Final = ((60.0, 0.0), (420.0, 0.5), (3_600.0, 0.9), (21_600.0, 0.99), (86_400.0, 1.0))
"""(seconds, the chance of an answer by then) of a provider's batch that nothing is known of: a median of 7 minutes and nine
in ten within the hour is what OpenRouter states of its batches; within a day is what all sellers promise."""
PRIOR_BATCHES: Final = 4.0
"""How many batches that were seen weigh as much as that default."""


@dataclass(frozen=True, slots=True)
class Turnaround:
    """How long a provider's batches have taken, in seconds, ascending: `seen_s` of those that were answered (`math.inf` for
    one that its provider let expire), `longer_s` how long those had been away that were called back before.

    A batch that was called back after five minutes says that it takes longer than that, and not that it takes for ever:
    counted as lost, a few of them would end all batches at that provider, and so all that could be learned. The estimate
    is that of Susarla and Van Ryzin (1976, "Nonparametric Bayesian Estimation of Survival Curves from Incomplete
    Observations", JASA 71), with DEFAULT_TURNAROUND as what is believed before.

    >>> Turnaround().chance(420.0), Turnaround((60.0,) * 12).chance(420.0)
    (0.5, 0.875)
    >>> round(Turnaround(longer_s=(60.0,) * 12).chance(420.0), 9)
    0.5
    """

    seen_s: tuple[float, ...] = ()
    longer_s: tuple[float, ...] = ()

    def chance(self, within_s: float) -> float:
        """That a batch is back within that time of its being handed over."""
        at_all = PRIOR_BATCHES + len(self.seen_s) + len(self.longer_s)
        called_back = bisect.bisect_right(self.longer_s, within_s)
        factor = _factors(self)[called_back - 1] if called_back else 1.0
        return 1.0 - factor * (self._at_risk(within_s) - called_back + len(self.longer_s)) / at_all

    def _at_risk(self, after_s: float) -> float:
        """How many batches, those believed in among them, took longer than that; without those that were called back."""
        seen = len(self.seen_s) - bisect.bisect_right(self.seen_s, after_s)
        return PRIOR_BATCHES * (1.0 - _by_default(after_s)) + seen

    def chance_still(self, within_s: float, passed_s: float) -> float:
        """The same of one that is not back after `passed_s`; 0 where none has ever taken longer."""
        before, by = self.chance(passed_s), self.chance(within_s)
        return 0.0 if before >= 1.0 else max(0.0, (by - before) / (1.0 - before))


@lru_cache(maxsize=256)
def _factors(turnaround: Turnaround) -> tuple[float, ...]:
    """By what the share of those that take longer grows with each that was called back: its weight goes to them."""
    factors: list[float] = []
    factor = 1.0
    for number, called_back_s in enumerate(turnaround.longer_s):
        at_risk = turnaround._at_risk(called_back_s) + len(turnaround.longer_s) - number
        factor *= at_risk / (at_risk - 1.0) if at_risk > 1.0 else 1.0
        factors.append(factor)
    return tuple(factors)


def _by_default(within_s: float) -> float:
    times = [time_s for time_s, _ in DEFAULT_TURNAROUND]
    at = bisect.bisect_right(times, within_s)
    if at == 0:
        return 0.0
    if at == len(times):
        return 1.0
    (from_s, low), (to_s, high) = DEFAULT_TURNAROUND[at - 1], DEFAULT_TURNAROUND[at]
    # straight on a logarithmic scale: times spread over three powers of ten
    return low + (high - low) * math.log(within_s / from_s) / math.log(to_s / from_s)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to get the answer. `cost_usd` is expected; `takes_s` is what it needs at the most, as its seller says or as
    was seen, and for a batch is told by its `turnaround` instead. It can be bought from `opens_at` on (an hour at which it
    is cheaper). `down_s` is how long it has been out of order; None where it is not."""

    provider: str
    model: str
    processing: str
    cost_usd: Decimal
    takes_s: float = 60.0
    turnaround: Turnaround | None = None
    opens_at: float = -math.inf
    down_s: float | None = None

    @property
    def is_batch(self) -> bool:
        return self.turnaround is not None

    def opens(self, now: float) -> float | None:
        """When it can be bought; None where that is not to be waited for. What has been out of order for a while is expected
        to be so for as long again."""
        if self.down_s is None:
            return max(now, self.opens_at)
        return None if self.down_s > PATIENCE_S else max(now + max(RETRY_S, self.down_s), self.opens_at)


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until then: what is best now is to come, or has yet to come back."""

    until: float


@dataclass(frozen=True, slots=True)
class Buy:
    """Buy now; a batch takes it along."""

    way: Way


@dataclass(frozen=True, slots=True)
class Recall:
    """Call the batch back that it is in, and buy elsewhere what is not answered by then."""


@dataclass(frozen=True, slots=True)
class Expire:
    """The deadline has passed: it has failed, and nothing more is spent on it."""


Step = Wait | Buy | Recall | Expire


def next_step(deadline_at: float, ways: Sequence[Way], now: float) -> Step:
    """What to do for a request that is in nobody's hands.

    The least expected cost of what can meet the deadline; of two that cost the same, the one that answers sooner. A batch
    costs the later purchase as well, as often as it is late. Where nothing can meet the deadline any more, what takes the
    least time is tried until it has passed.
    """
    if now >= deadline_at:
        return Expire()
    costs = [(cost, way) for way in ways for cost in [_cost(way, ways, deadline_at, now)] if cost is not None]
    if costs:
        cost, way = min(costs, key=lambda each: (each[0].usd, each[0].ends_at))
        return Buy(way) if cost.opens_at <= now else Wait(min(cost.opens_at, now + MOST_WAIT_S))
    at_once = [way for way in ways if not way.is_batch and way.down_s is None and way.opens_at <= now]
    if at_once:
        return Buy(min(at_once, key=lambda way: (way.takes_s, way.cost_usd)))
    return Wait(min(now + RETRY_S, deadline_at))


def step_in_batch(deadline_at: float, ways: Sequence[Way], shipped: Way, shipped_at: float, now: float) -> Step:
    """What to do for a request that has been in a batch (`shipped`, one of `ways` or like it) since `shipped_at`.

    It is called back when there is just time enough to buy it at once, or earlier, if what can still be bought then is
    expected to cost less than waiting on.
    """
    if now >= deadline_at:
        return Expire()
    last = last_resort(ways)
    if last is None:
        return Wait(min(deadline_at, now + MOST_WAIT_S))
    latest = deadline_at - last.takes_s - RECALL_S
    if now >= latest:
        return Recall()
    turnaround = shipped.turnaround or Turnaround()
    in_time = amount(turnaround.chance_still(latest - shipped_at, now - shipped_at))
    stay_usd = in_time * shipped.cost_usd + (ONE - in_time) * (last.cost_usd + BILLED_IN_SPITE * shipped.cost_usd)
    after = now + RECALL_S
    others = [way for way in ways if not way.is_batch and _in_time(way, deadline_at, after)]
    leave_usd = min((way.cost_usd for way in others), default=last.cost_usd) + BILLED_IN_SPITE * shipped.cost_usd
    if leave_usd < stay_usd:
        return Recall()
    looks = [deadline_at - way.takes_s - RECALL_S for way in others if way.opens_at <= now]
    return Wait(min([at for at in (latest, *looks) if at > now] + [now + MOST_WAIT_S]))


def last_resort(ways: Sequence[Way]) -> Way | None:
    """What is bought when nothing else will do in time: the soonest, then the cheapest. One that rests counts too: it may
    be back by then."""
    at_once = [way for way in ways if not way.is_batch and way.opens_at == -math.inf]
    return min(at_once, key=lambda way: (way.takes_s, way.cost_usd), default=None)


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a way is expected to cost in all, from when on it can be bought, and when it has answered at the latest."""

    usd: Decimal
    opens_at: float
    ends_at: float


def _in_time(way: Way, deadline_at: float, now: float) -> bool:
    opens_at = way.opens(now)
    return opens_at is not None and opens_at + way.takes_s <= deadline_at


def _cost(way: Way, ways: Sequence[Way], deadline_at: float, now: float) -> _Cost | None:
    """None where it cannot meet the deadline."""
    opens_at = way.opens(now)
    if opens_at is None:
        return None
    if way.turnaround is None:
        ends_at = opens_at + way.takes_s
        return None if ends_at > deadline_at else _Cost(way.cost_usd, opens_at, ends_at)
    last = last_resort(ways)
    # With nothing to fall back on it is bought on the chance: what is late then has failed.
    latest = deadline_at if last is None else deadline_at - last.takes_s - RECALL_S
    chance = way.turnaround.chance(latest - opens_at) if latest > opens_at else 0.0
    if chance <= 0.0:
        return None
    in_time = amount(chance)
    late_usd = ZERO if last is None else last.cost_usd + BILLED_IN_SPITE * way.cost_usd
    return _Cost(in_time * way.cost_usd + (ONE - in_time) * late_usd, opens_at, latest)
