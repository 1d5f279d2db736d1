"""Market: how the providers are doing, and what they ask today for what was bought. Pure views for the overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from routing.catalog import Catalog
from routing.errors import UnknownModel
from routing.health import Breaker
from routing.offers import Offer, Rates
from routing.standing import Called, Standing
from trimtab.ledger.figures import Boundary, PriceList, Seller, Sums

Known = Mapping[Called, tuple[Breaker, Standing]]

_STATES: Mapping[Breaker, tuple[str, str]] = {
    "closed": ("answers", "good"),
    "open": ("circuit breaker open", "bad"),
    "half-open": ("circuit breaker half-open", "warn"),
}
_FAILING = 0.9


@dataclass(frozen=True, slots=True)
class Health:
    """One thing to call. `state` is in words, `tone` ("good", "warn", "bad", "") their colour; `success` is the chance that a
    call is answered, None for a provider that was not called yet (its `model` is "")."""

    provider: str
    model: str
    processing: str
    state: str
    tone: str
    success: float | None = None
    first_token_ms: float | None = None
    tokens_per_second: float | None = None


def healths(providers: Sequence[str], known: Known) -> tuple[Health, ...]:
    """What was called since this process began, by provider in configured order, and the providers that were not."""
    order = {name: at for at, name in enumerate(providers)}
    rows = [_health(key, *state) for key, state in known.items()]
    rows += [Health(name, "", "", "not called yet", "") for name in providers if name not in {key[0] for key in known}]
    return tuple(sorted(rows, key=lambda row: (order.get(row.provider, len(order)), row.model, row.processing)))


def _health(key: Called, breaker: Breaker, standing: Standing) -> Health:
    state, tone = _STATES[breaker]
    if breaker == "closed" and not standing.available:
        state, tone = "rests: it asked us to wait", "warn"
    elif breaker == "closed" and standing.success < _FAILING:
        state, tone = "often fails", "warn"
    return Health(*key, state, tone, standing.success, standing.first_token_ms, standing.tokens_per_second)


def offers_now(catalog: Catalog, sellers: Sequence[Seller], now: datetime) -> dict[Seller, Offer]:
    """What each seller asks now, list prices without commitments; those that nobody knows a price of are left out."""
    found: dict[Seller, Offer] = {}
    for seller in sellers:
        try:
            offers = catalog.offers([f"{seller.provider}/{seller.model}"], now, [seller.processing])
        except UnknownModel:
            continue
        for offer in offers:
            if (offer.provider, offer.model) == (seller.provider, seller.model) and offer.tiers:
                found[seller] = offer
    return found


@dataclass(frozen=True, slots=True)
class Repriced:
    """What was billed by a seller, and what the same tokens cost at its prices of now; None where it asks none."""

    seller: Seller
    calls: int
    billed_usd: Decimal
    now_usd: Decimal | None

    @property
    def change_usd(self) -> Decimal | None:
        return None if self.now_usd is None else self.now_usd - self.billed_usd


def repriced(bought: Mapping[tuple[Seller, int], Sums], offers: Mapping[Seller, Offer]) -> tuple[Repriced, ...]:
    """The dearest first. `bought` was added up by the boundaries of `offers`, so that each sum has one row of prices."""
    rows: list[Repriced] = []
    for seller in dict.fromkeys(each for each, _ in bought):
        mine = {row: sums for (each, row), sums in bought.items() if each == seller}
        offer = offers.get(seller)
        now_usd = None if offer is None else sum((s.at(offer.tiers[row]) for row, s in mine.items()), Decimal(0))
        billed_usd = sum((sums.billed_usd for sums in mine.values()), Decimal(0))
        rows.append(Repriced(seller, sum(sums.calls for sums in mine.values()), billed_usd, now_usd))
    return tuple(sorted(rows, key=lambda row: row.billed_usd, reverse=True))


@dataclass(frozen=True, slots=True)
class PriceStep:
    """A boundary, and what it cost, at today's prices, that some requests were just above it; None where it is no boundary
    today."""

    boundary: Boundary
    cost_usd: Decimal | None


def price_steps(boundaries: Sequence[Boundary], offers: Mapping[Seller, Offer]) -> tuple[PriceStep, ...]:
    return tuple(PriceStep(each, _step_cost(each, offers.get(each.seller))) for each in boundaries)


def _step_cost(boundary: Boundary, offer: Offer | None) -> Decimal | None:
    """The bills of those just above, less what they were with the input cut to the boundary."""
    if offer is None or boundary.tokens not in offer.boundaries:
        return None
    row = offer.boundaries.index(boundary.tokens)
    below: Rates = offer.tiers[row]
    cut_usd = below.input_usd * boundary.over_tokens
    return boundary.over_sums.at(offer.tiers[row + 1]) - (boundary.over_sums.at(below) - cut_usd)


@dataclass(frozen=True, slots=True)
class NewPrices:
    """A price list that the ledger saw for the first time within the window, after another one of the same seller."""

    seen: PriceList
    before: str


def new_prices(lists: Sequence[PriceList]) -> tuple[NewPrices, ...]:
    """The latest first; `lists` come so."""
    found: list[NewPrices] = []
    for at, each in enumerate(lists):
        earlier = next((other for other in lists[at + 1 :] if other.seller == each.seller), None)
        if earlier is not None and earlier.version != each.version:
            found.append(NewPrices(each, earlier.version))
    return tuple(found)
