"""What the deferred lane is held against: everything at once, everything in batches, and an oracle."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from benchmarks.deferred_world import DAY_S, Fate, Outcome, Request, World
from routing.offers import Offer, price

FAILED_S: Final = 2.0
"""How long it takes to see that nobody answers, or to be turned away."""


def call(world: World, request: Request, offers: Sequence[Offer], at: float) -> Fate:
    """A call that falls through the offers, in their order, to the first that answers."""
    for offer in offers:
        takes_s = None if world.is_down(offer.provider, at) else world.call_s(request, offer)
        if takes_s is None:
            at += FAILED_S
            continue
        return Fate(at + takes_s, price(offer, request.usage), offer.processing)
    return Fate(None, Decimal(0))


def at_once(world: World, request: Request, at: float) -> tuple[Offer, ...]:
    """What answers at once, cheapest first."""
    sold = [offer for offer in world.offers(request.models, at) if offer.processing == "sync"]
    return tuple(sorted(sold, key=lambda offer: price(offer, request.usage)))


def all_at_once(world: World, requests: Sequence[Request]) -> Outcome:
    fates = {each.number: call(world, each, at_once(world, each, each.at), each.at) for each in requests}
    return Outcome("everything synchronous", fates)


def all_in_batches(world: World, requests: Sequence[Request]) -> Outcome:
    """Each in the cheapest batch that is sold, and never looked at again. What expires is not billed."""
    fates: dict[int, Fate] = {}
    for request in requests:
        sold = [offer for offer in world.offers(request.models, request.at) if offer.processing == "batch"]
        ready = [offer for offer in sold if not world.is_down(offer.provider, request.at)] or sold
        offer = min(ready, key=lambda each: price(each, request.usage))
        ends_at = world.batch_ends_at(offer.provider, request.at)
        is_answered = ends_at - request.at <= DAY_S
        fates[request.number] = (
            Fate(ends_at, price(offer, request.usage), "batch") if is_answered else Fate(None, Decimal(0))
        )
    return Outcome("everything batch", fates)


def oracle(world: World, requests: Sequence[Request]) -> Outcome:
    """The cheapest that would have made it, bought by one who knows every delay, outage and price of the day."""
    return Outcome("an oracle that knows the delays", {each.number: _best(world, each) for each in requests})


def _best(world: World, request: Request) -> Fate:
    best: Fate | None = None
    for at in world.moments(request):
        for offer in world.offers(request.models, at):
            cost_usd = price(offer, request.usage)
            if (best is not None and cost_usd >= best.billed_usd) or world.is_down(offer.provider, at):
                continue
            if offer.processing == "batch":
                ends_at = world.batch_ends_at(offer.provider, at)
            else:
                takes_s = world.call_s(request, offer)
                ends_at = float("inf") if takes_s is None else at + takes_s
            if ends_at <= request.deadline_at:
                best = Fate(ends_at, cost_usd, offer.processing)
    return best or call(world, request, at_once(world, request, request.at), request.at)
