"""Bids: what a job can be bought for, and how that is noted on it. Pure but for the catalog's prices, which are looked up.

A bid is an offer with what the job is expected to cost at it; `routing.promotion` chooses among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from pydantic import TypeAdapter

from compressor.citations import Shown
from routing.catalog import Catalog
from routing.errors import RoutingError
from routing.limits import PROMISED_S
from routing.offers import Offer, Rates, Usage, price
from routing.promotion import Turnaround, Way
from routing.receipt import Cut, Receipt
from routing.standing import Called, called
from trimtab.prepared import Prepared

BATCH: Final = "batch"
AT_ONCE_S: Final = 60.0
"""How long an answer that is bought at once may take, if its deadline is to be relied on."""
FLEX_ANSWERED: Final = Decimal("0.9")
"""The chance that a call of the flex class is answered and not turned away for want of room: a guess, and a cautious one,
for what OpenAI calls "occasional resource unavailability"."""
_HOUR_S: Final = 3_600.0
_HOURS: Final = 24


@dataclass(frozen=True, slots=True)
class Bid:
    """An offer, what the job is expected to cost at it, and from when on, where that is an hour to come."""

    offer: Offer
    cost_usd: Decimal
    opens_at: float | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """What is noted on a job: the bids, and on one that is in a batch also what settles its receipt.

    `at_once` is what would have been bought had it not been able to wait. `shown` as of Prepared.
    """

    bids: tuple[Bid, ...]
    receipt: Receipt | None = None
    baseline: Offer | None = None
    at_once: Offer | None = None
    shown: Mapping[int, Shown] | None = None


class Hours:
    """The prices of the hours to come, where they change by the hour. Remembers what it has looked up."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[tuple[Called, int], Offer | None] = {}

    def cheaper(self, offer: Offer, usage: Usage, now: float, until: float) -> Bid | None:
        """The cheapest hour to come before `until` (a day ahead at most) to buy `offer` in; of several the first."""
        best = Bid(offer, price(offer, usage))
        cost_now_usd = best.cost_usd
        first = math.floor(now / _HOUR_S) + 1
        for hour in range(first, min(first + _HOURS, math.ceil(until / _HOUR_S))):
            then = self._offer(offer, hour)
            if then is not None and price(then, usage) < best.cost_usd:
                best = Bid(then, price(then, usage), hour * _HOUR_S)
        return best if best.cost_usd < cost_now_usd else None

    def _offer(self, offer: Offer, hour: int) -> Offer | None:
        key = (called(offer), hour)
        if key not in self._known:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            at = datetime.fromtimestamp(hour * _HOUR_S, UTC)
            try:
                sold = self._catalog.offers([offer.model], at, (offer.processing,))
            except RoutingError:
                sold = ()
            self._known[key] = next((each for each in sold if called(each) == called(offer)), None)
        return self._known[key]


_MOST_KNOWN: Final = 10_000


def bids_of(prepared: Prepared, hours: Hours, now: float, deadline_at: float) -> tuple[Bid, ...]:
    """What a prepared request can be bought for: the offers that its plan allows, at the cut that it makes, and those of them
    that are to be cheaper at another hour.

    A caller's own order of providers or models goes before cost: then what was chosen is bought, in whatever class. A
    request whose model may ask for what was cut is answered in rounds, which no batch has.
    """
    chosen = prepared.plan.chosen
    usage = Usage(chosen.input_tokens, chosen.output_tokens)
    costs = {called(each.offer): each.expected_cost_usd for each, _ in prepared.plan.behind if _same_cut(each, chosen)}
    costs[called(chosen.offer)] = chosen.expected_cost_usd
    bids: list[Bid] = []
    admitted = prepared.request.admitted
    ordered = len(admitted.groups) > 1 or bool(admitted.policy.order) or admitted.groups[0].sort != "price"
    for offer in (chosen.offer, *prepared.plan.fallbacks):
        if ordered and (offer.provider, offer.model) != (chosen.offer.provider, chosen.offer.model):
            continue
        if offer.processing == BATCH and prepared.expander is not None:
            continue
        bids.append(Bid(offer, costs[called(offer)] if called(offer) in costs else price(offer, usage)))
        if offer.processing != BATCH and (later := hours.cheaper(offer, usage, now, deadline_at)) is not None:
            bids.append(later)
    return tuple(bids)


def _same_cut(candidate: Any, chosen: Any) -> bool:
    return bool(candidate.budget_tokens == chosen.budget_tokens)


def ways_of(
    bids: Sequence[Bid],
    turnarounds: Mapping[str, Turnaround],
    down_s: Callable[[Offer], float | None],
) -> tuple[Way, ...]:
    """The bids as promotion knows them, in their order."""
    at_once = [bid.cost_usd for bid in bids if bid.offer.processing not in PROMISED_S and bid.opens_at is None]
    return tuple(_way(bid, min(at_once, default=None), turnarounds, down_s(bid.offer)) for bid in bids)


def _way(bid: Bid, at_once_usd: Decimal | None, turnarounds: Mapping[str, Turnaround], down_s: float | None) -> Way:
    offer = bid.offer
    cost_usd = bid.cost_usd
    if offer.processing == "flex" and at_once_usd is not None:
        cost_usd = FLEX_ANSWERED * cost_usd + (1 - FLEX_ANSWERED) * at_once_usd
    return Way(
        provider=offer.provider,
        model=offer.model,
        processing=offer.processing,
        cost_usd=cost_usd,
        takes_s=PROMISED_S.get(offer.processing, AT_ONCE_S),
        turnaround=turnarounds.get(offer.provider, Turnaround()) if offer.processing == BATCH else None,
        opens_at=-math.inf if bid.opens_at is None else bid.opens_at,
        down_s=down_s,
    )


def bought_at(prepared: Prepared, bid: Bid) -> Prepared:
    """The request, to be sent to the offer of `bid` first and, where that fails, to the others that answer at once."""
    offer = bid.offer
    others = tuple(each for each in prepared.offers if called(each) != called(offer))
    first = () if offer.processing == BATCH else (offer,)
    receipt = replace(
        prepared.receipt,
        provider=offer.provider,
        model=offer.model,
        processing=offer.processing,
        expected_cost_usd=bid.cost_usd,
        prices_version=offer.prices_version,
    )
    return replace(prepared, offers=(*first, *others), receipt=receipt)


def at_once_of(bids: Sequence[Bid]) -> Offer | None:
    """What would be bought now if nothing could wait."""
    now = [bid for bid in bids if bid.opens_at is None and bid.offer.processing not in PROMISED_S]
    return min(now, key=lambda bid: bid.cost_usd).offer if now else None


# --- as JSON ---------------------------------------------------------------------------------------------------------

_OFFER: Final = TypeAdapter(Offer)


def packed(note: Note) -> str:
    """A note as JSON, exact to the last digit."""
    data: dict[str, Any] = {
        "bids": [
            {"offer": _OFFER.dump_python(bid.offer, mode="json"), "usd": str(bid.cost_usd), "opens_at": bid.opens_at}
            for bid in note.bids
        ]
    }
    if note.receipt is not None:
        data["receipt"] = {name: value for name, value in note.receipt.to_dict().items() if value is not None}
    for name, offer in (("baseline", note.baseline), ("at_once", note.at_once)):
        if offer is not None:
            data[name] = _OFFER.dump_python(offer, mode="json")
    if note.shown:
        data["shown"] = [[number, each.original, each.pieces] for number, each in note.shown.items()]
    return orjson.dumps(data).decode()


def unpacked(text: str) -> Note:
    """What was `packed`."""
    data = orjson.loads(text)
    bids = tuple(Bid(offer_of(each["offer"]), Decimal(each["usd"]), each["opens_at"]) for each in data["bids"])
    shown = {
        number: Shown(original, tuple((a, b, c) for a, b, c in pieces))
        for number, original, pieces in data.get("shown", ())
    }
    receipt, baseline, at_once = data.get("receipt"), data.get("baseline"), data.get("at_once")
    return Note(
        bids,
        None if receipt is None else _receipt(receipt),
        None if baseline is None else offer_of(baseline),
        None if at_once is None else offer_of(at_once),
        shown or None,
    )


def packed_offer(offer: Offer) -> str:
    return _OFFER.dump_json(offer).decode()


def unpacked_offer(text: str) -> Offer:
    return offer_of(orjson.loads(text))


def offer_of(data: Mapping[str, Any]) -> Offer:
    tiers, list_tiers = (tuple(_rates(row) for row in data[name]) for name in ("tiers", "list_tiers"))
    return Offer(**{**data, "tiers": tiers, "list_tiers": list_tiers})


def _rates(row: Mapping[str, Any]) -> Rates:
    amounts = {name: Decimal(amount) for name, amount in row.items() if name != "above_tokens"}
    return Rates(row["above_tokens"], **amounts)


_DERIVED: Final = ("saved_usd", "ms", "attempts", "expansions")


def _receipt(data: Mapping[str, Any]) -> Receipt:
    """A receipt that was opened and is not settled: without attempts, that is."""
    fields = {name: value for name, value in data.items() if name in Receipt.__slots__ and name not in _DERIVED}
    fields |= {name: Decimal(amount) for name, amount in fields.items() if name.endswith("_usd")}
    if "at" in fields:
        fields["at"] = datetime.fromisoformat(fields["at"])
    fields["cut"] = tuple(Cut(**each) for each in data.get("cut", ()))
    fields["notes"] = tuple(data.get("notes", ()))
    return Receipt(**fields, stage_ms=tuple(data.get("ms", {}).items()))
