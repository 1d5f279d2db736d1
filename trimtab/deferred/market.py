"""The market: what is known of those who sell to the deferred lane, beside their prices."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from routing.offers import Offer
from routing.promotion import PATIENCE_S, RETRY_S, Turnaround
from routing.standing import Called, called
from trimtab.deferred.bids import BATCH, Hours
from trimtab.pipeline import Trimtab

_FOR_GOOD_S: Final = 1.5 * PATIENCE_S
"""Longer than anybody waits for."""


class Market:
    """What is known of those who sell: whose batches can be bought, how long they take, and who is out of order.

    `clock` gives seconds since 1970.
    """

    def __init__(self, trimtab: Trimtab, clock: Callable[[], float]) -> None:
        self._trimtab = trimtab
        self._clock = clock
        self.hours = Hours(trimtab.catalog)
        self.turnarounds: Mapping[str, Turnaround] = {}
        self._down: dict[Called, _Down] = {}

    @property
    def sellers(self) -> Collection[str]:
        """The providers whose batches can be bought."""
        return [each.name for each in self._trimtab.catalog.providers if each.serves_batches]

    def batch_failed(self, offer: Offer, *, for_good: bool) -> None:
        """It could not be handed a batch just now; `for_good`: it would not take it later either."""
        now = self._clock()
        before = self._down.get(called(offer))
        since = now - (_FOR_GOOD_S if for_good else 0.0) if before is None else before.since
        self._down[called(offer)] = _Down(since, now + max(RETRY_S, now - since))

    def batch_answered(self, offer: Offer) -> None:
        self._down.pop(called(offer), None)

    def down_s(self, offer: Offer) -> float | None:
        """How long the offer has been out of order; None where it is not, or is to be tried again."""
        key, now = called(offer), self._clock()
        if offer.processing == BATCH:
            down = self._down.get(key)
            return None if down is None or now >= down.again_at else now - down.since
        if not self._trimtab.experience.health.resting([offer]):
            self._down.pop(key, None)
            return None
        return now - self._down.setdefault(key, _Down(now, now)).since


@dataclass(frozen=True, slots=True)
class _Down:
    since: float
    again_at: float
