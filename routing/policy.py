"""Policy: which offers may be bought at all, and in which order of preference. Each one that may not has a reason.

Pure. It goes before cost: the planner weighs only what is admitted here, and keeps to the ranks that are made here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from routing.catalog import Provider
from routing.errors import NoOffer
from routing.limits import MaxPrice
from routing.offers import Offer
from routing.planner import Curve, Needs, Plan, plan
from routing.reasons import no_offer, nobody
from routing.standing import UNKNOWN, Called, Standing, called

Sort = Literal["price", "throughput", "latency"]
Refused = tuple[Offer, str]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a caller asks of whoever answers. The default admits everybody.

    `allow`, `deny` and `order` are names of providers; `allow` None allows all. `order` goes before price, and `fallbacks`
    False admits nobody who is not in it; without an order, it means that nobody is asked after the first. `regions` are
    alternatives, `require` are words of which a provider must promise every one (`Provider.promises`). What a provider does
    not state, it does not promise.
    """

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    fallbacks: bool = True
    regions: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    max_price: MaxPrice | None = None

    def refusal(self, name: str, provider: Provider | None) -> str | None:
        """Why the provider of that name may not be asked, as a clause; None if it may.

        `provider` is None where nobody is configured by that name, of whom nothing is known.

        >>> Policy(regions=("eu",)).refusal("openai", None)
        'states no region where eu is required'
        """
        if self.allow is not None and name not in self.allow:
            return f"is not among the providers that are allowed ({_listed(self.allow)})"
        if name in self.deny:
            return "is denied"
        if self.order and not self.fallbacks and name not in self.order:
            return f"is not in the order ({_listed(self.order)}), and no fallbacks are allowed"
        region = None if provider is None else provider.region
        if self.regions and region not in self.regions:
            found = "states no region" if region is None else f"is in region {region}"
            return f"{found} where {' or '.join(self.regions)} is required"
        promises = () if provider is None else provider.promises
        missing = [word for word in self.require if word not in promises]
        return f"does not promise {' and '.join(missing)}" if missing else None

    def place(self, offer: Offer) -> int:
        """Where the offer's provider stands in the order; behind it, if it does not."""
        return self.order.index(offer.provider) if offer.provider in self.order else len(self.order)


@dataclass(frozen=True, slots=True)
class Group:
    """Offers that compete with each other, by `sort`: expected cost, tokens per second or time to the first token."""

    offers: tuple[Offer, ...]
    sort: Sort = "price"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who may be asked. An offer of a later group is asked only where none of an earlier one will do.

    `baseline` is what the caller asked for, admitted or not: savings are reckoned against it.
    """

    baseline: Offer
    groups: tuple[Group, ...]
    policy: Policy = Policy()
    refused: tuple[Refused, ...] = ()

    @property
    def offers(self) -> tuple[Offer, ...]:
        """The offers that may be bought, in the order that holds before anything is weighed."""
        return tuple(offer for group in self.groups for offer in group.offers)

    def plan(self, curve: Curve, needs: Needs, standings: Mapping[Called, Standing] | None = None) -> Plan:
        """The plan (`routing.planner.plan`) among those that may be asked. Raises NoOffer, which gives every reason."""
        if self.policy.max_price is not None:
            needs = replace(needs, max_price=self.policy.max_price)
        try:
            made = plan(curve, needs, self.offers, standings, self._ranks(standings or {}))
        except NoOffer as error:
            if not (error.reasons and self.refused):
                raise
            raise nobody(self.refused, error.reasons) from None
        _, *fallbacks = self.in_turn((made.chosen.offer, *made.fallbacks))
        return replace(made, fallbacks=tuple(fallbacks), refused=self.refused)

    def in_turn(self, offers: Sequence[Offer]) -> tuple[Offer, ...]:
        """Those of `offers` that may be asked one after the other: without fallbacks, the first of each group."""
        if self.policy.fallbacks or self.policy.order:
            return tuple(offers)
        number = {called(offer): number for number, group in enumerate(self.groups) for offer in group.offers}
        first: dict[int, Offer] = {}
        for offer in offers:
            first.setdefault(number[called(offer)], offer)
        return tuple(first.values())

    def _ranks(self, standings: Mapping[Called, Standing]) -> dict[Called, int]:
        """The order that goes before cost; empty where nothing does."""
        if len(self.groups) == 1 and not self.policy.order and self.groups[0].sort == "price":
            return {}  # nearly every request
        keys = {
            called(offer): (
                number,
                self.policy.place(offer),
                _slowness(group.sort, standings.get(called(offer), UNKNOWN)),
            )
            for number, group in enumerate(self.groups)
            for offer in group.offers
        }
        ranks = {key: rank for rank, key in enumerate(sorted(set(keys.values())))}
        return {offer: ranks[key] for offer, key in keys.items()}


def alone(offers: Sequence[Offer]) -> Admitted:
    """`offers` on equal terms, with nothing asked of them."""
    return Admitted(offers[0], (Group(tuple(offers)),))


def admitted(
    groups: Sequence[Group],
    policy: Policy,
    provider: Callable[[str], Provider | None],
    unable: Callable[[Offer], str | None] = lambda _: None,
) -> Admitted:
    """The offers of `groups` that `policy` admits; an offer counts where it stands first.

    `provider` finds a configured one by name. `unable` says what of the request an offer cannot honour; where that holds
    for all of them they are kept, since whoever sends the request says it best. Raises NoOffer where nobody is admitted.
    """
    refused: dict[Called, Refused] = {}
    seen: set[Called] = set()
    kept: list[Group] = []
    for group in groups:
        own = {called(offer): offer for offer in group.offers if called(offer) not in seen}
        seen |= set(own)
        for key, offer in own.items():
            why = policy.refusal(offer.provider, provider(offer.provider))
            if why is not None:
                refused[key] = (offer, why)
        left = sorted((offer for key, offer in own.items() if key not in refused), key=policy.place)
        kept.append(replace(group, offers=tuple(left)))
    able, lacking = _able(kept, unable)
    refusals = (*refused.values(), *lacking)
    asked = tuple(group for group in able if group.offers)
    if not asked:
        raise nobody(refusals) if refusals else no_offer((), ())
    return Admitted(groups[0].offers[0], asked, policy, refusals)


def _able(groups: Sequence[Group], unable: Callable[[Offer], str | None]) -> tuple[Sequence[Group], Sequence[Refused]]:
    offers = [offer for group in groups for offer in group.offers]
    whys = [(offer, unable(offer)) for offer in offers] if len(offers) > 1 else []
    lacking = [(offer, why) for offer, why in whys if why is not None]
    if len(lacking) == len(whys):
        return groups, ()
    out = {called(offer) for offer, _ in lacking}
    return [replace(each, offers=tuple(o for o in each.offers if called(o) not in out)) for each in groups], lacking


def _slowness(sort: Sort, standing: Standing) -> float:
    """What a sort puts last, as a number: the slow, and behind them those of whom nothing is known."""
    if sort == "price":
        return 0.0
    if sort == "latency":
        return math.inf if standing.first_token_ms is None else standing.first_token_ms
    return math.inf if standing.tokens_per_second is None else -standing.tokens_per_second


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
