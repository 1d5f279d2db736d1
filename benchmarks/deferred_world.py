"""The world of the simulated day: its requests, and how providers behave in it. Everything follows from a seed.

Prices are the catalog's. Delays are drawn: a provider's batch that is handed over within the same five minutes always
takes the same time, so that whoever is compared meets the same luck.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from routing.catalog import Catalog, Provider
from routing.offers import Offer, Usage

DAY: Final = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
"""A Tuesday: DeepSeek asks twice as much from 01 to 04 and from 06 to 10 UTC, Monday to Friday."""
HOUR_S: Final = 3_600.0
DAY_S: Final = 86_400.0
SERVICES: Final = ("sync", "flex", "batch")
_BUCKET_S: Final = 300.0

PROVIDERS: Final = (
    Provider("openai", "openai", "https://api.openai.com/v1", None, ("gpt-6.1-terra", "gpt-6.1-sol")),
    Provider("anthropic", "anthropic", "https://api.anthropic.com", None, ("claude-haiku-5-5", "claude-sonnet-5-5")),
    Provider(
        "google",
        "gemini",
        "https://generativelanguage.googleapis.com",
        None,
        ("gemini-3.8-flash", "gemini-3.1-pro-preview"),
    ),
    Provider("deepseek", "openai", "https://api.deepseek.com", None, ("deepseek-v4-flash", "deepseek-v4-pro")),
)
ASKED: Final[tuple[tuple[float, tuple[str, ...]], ...]] = (
    (0.35, ("gpt-6.1-terra", "gemini-3.8-flash")),
    (0.25, ("claude-sonnet-5-5", "gemini-3.1-pro-preview", "gpt-6.1-sol")),
    (0.25, ("deepseek-v4-pro", "gpt-6.1-terra")),
    (0.15, ("claude-haiku-5-5", "deepseek-v4-flash")),
)
"""The models that a request may be answered by, any of them, and how many ask so. Each time there are two sellers, since
no policy can keep a deadline whose only seller goes down without a word."""
DEADLINES_S: Final = ((0.05, 10.0, 60.0), (0.25, 120.0, 1_200.0), (0.40, 1_200.0, 21_600.0), (0.30, 21_600.0, DAY_S))
"""(share, from, to) of the seconds that requests leave, evenly on a logarithmic scale."""
BATCHES_S: Final = {"openai": (1_500.0, 1.0), "anthropic": (600.0, 1.0), "google": (2_400.0, 1.3)}
"""The median of a provider's batches in seconds, and the spread (sigma of the logarithm)."""
OUTAGE: Final = ("anthropic", DAY + 9 * HOUR_S, DAY + 12 * HOUR_S)
"""Nothing at all is answered, and what is under way takes as much longer."""
EXPIRING: Final = ("google", DAY + 14 * HOUR_S, DAY + 19 * HOUR_S)
"""Batches handed over then are accepted and run into their window of a day."""
TURNED_AWAY: Final = 0.05
"""Of the calls of the flex class, for want of room."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the day. It may be answered by any of `models`."""

    number: int
    at: float
    deadline_at: float
    usage: Usage
    models: tuple[str, ...]


class World:
    """What happens, whoever asks. Prices are looked up once an hour, since they change by the hour."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.catalog = Catalog(PROVIDERS)
        self._offers: dict[tuple[tuple[str, ...], int], tuple[Offer, ...]] = {}

    def requests(self, count: int) -> tuple[Request, ...]:
        """In the order of their arrival, which is even over the day."""
        rng = random.Random(f"{self.seed}/requests")
        moments = sorted(rng.random() for _ in range(count))
        return tuple(self._request(number, DAY + DAY_S * moment, rng) for number, moment in enumerate(moments))

    def _request(self, number: int, at: float, rng: random.Random) -> Request:
        shares = [share for share, *_ in DEADLINES_S]
        _, low, high = rng.choices(DEADLINES_S, shares)[0]
        left_s = math.exp(rng.uniform(math.log(low), math.log(high)))
        usage = Usage(round(rng.lognormvariate(math.log(3_000), 0.8)), round(rng.lognormvariate(math.log(400), 0.7)))
        _, models = rng.choices(ASKED, [share for share, _ in ASKED])[0]
        return Request(number, at, at + left_s, usage, models)

    def offers(self, models: tuple[str, ...], at: float) -> tuple[Offer, ...]:
        """All that is sold of `models` at that hour."""
        key = (models, math.floor(at / HOUR_S))
        if key not in self._offers:
            self._offers[key] = self.catalog.offers(models, datetime.fromtimestamp(key[1] * HOUR_S, UTC), SERVICES)
        return self._offers[key]

    def is_down(self, provider: str, at: float) -> bool:
        return provider == OUTAGE[0] and OUTAGE[1] <= at < OUTAGE[2]

    def call_s(self, request: Request, offer: Offer) -> float | None:
        """How long a call takes; None for one of the flex class that is turned away."""
        rng = random.Random(f"{self.seed}/{request.number}/{offer.provider}/{offer.processing}")
        if offer.processing == "flex":
            return None if rng.random() < TURNED_AWAY else min(900.0, rng.lognormvariate(math.log(90.0), 0.9))
        return min(45.0, rng.lognormvariate(math.log(5.0), 0.6))

    def batch_ends_at(self, provider: str, at: float) -> float:
        """When a batch that is handed over then has been answered; infinity for one that never is."""
        if provider == EXPIRING[0] and EXPIRING[1] <= at < EXPIRING[2]:
            return math.inf
        median_s, sigma = BATCHES_S[provider]
        rng = random.Random(f"{self.seed}/{provider}/{math.floor(at / _BUCKET_S)}")
        ends_at = at + min(DAY_S - 1.0, rng.lognormvariate(math.log(median_s), sigma))
        name, starts, ends = OUTAGE
        return ends_at + ends - starts if provider == name and at < starts < ends_at else ends_at

    def chance(self, *key: object) -> float:
        """The same number from 0 to 1 for the same key."""
        return random.Random(f"{self.seed}/{key}").random()

    def moments(self, request: Request) -> Iterator[float]:
        """When the request could be handed over: at its arrival, and every five minutes."""
        at = request.at
        while at < request.deadline_at:
            yield at
            at = (math.floor(at / _BUCKET_S) + 1) * _BUCKET_S


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a request: when it was answered (None: never), and all that was billed for it. `how` is the service
    class of what answered."""

    answered_at: float | None
    billed_usd: Decimal
    how: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A day under one policy."""

    name: str
    fates: Mapping[int, Fate]

    def met(self, requests: Sequence[Request]) -> int:
        return sum(is_met(self.fates[each.number], each) for each in requests)

    @property
    def billed_usd(self) -> Decimal:
        return sum((fate.billed_usd for fate in self.fates.values()), Decimal(0))


def is_met(fate: Fate, request: Request) -> bool:
    return fate.answered_at is not None and fate.answered_at <= request.deadline_at
