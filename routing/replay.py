"""Replay: what requests that were really made would have cost at other prices, or under a contract.

Pure. A call is what a receipt says was bought and billed; the model, the provider and the tokens stay as they were, so
that only the prices differ. Who would have been chosen at those prices is not asked: a receipt holds no text to plan on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from routing.catalog import Catalog
from routing.commitments import Commitment, Drawdown
from routing.errors import UnknownModel
from routing.offers import Offer, Usage, price


@dataclass(frozen=True, slots=True)
class Call:
    """One billed request. `billed_usd` is None where its receipt has no bill in dollars."""

    at: datetime
    provider: str
    model: str
    processing: str
    usage: Usage
    billed_usd: Decimal | None

    @staticmethod
    def of(receipt: Mapping[str, Any]) -> Call:
        """The call of a receipt as `Receipt.to_dict` writes it. Raises ValueError that names the field."""
        counts: list[int] = []
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
            count = receipt.get(f"{name}_billed")
            if count is None and name.startswith("cache"):
                count = 0
            if type(count) is not int or count < 0:
                raise ValueError(f"{name}_billed must be a whole number of 0 or more")
            counts.append(count)
        provider, model, processing = (receipt.get(name) for name in ("provider", "model", "processing"))
        if not all(isinstance(name, str) and name for name in (provider, model, processing)):
            raise ValueError("provider, model and processing must each be a text")
        at, billed_usd = _moment(receipt.get("at")), _dollars(receipt)
        return Call(at, str(provider), str(model), str(processing), Usage(*counts), billed_usd)


@dataclass(frozen=True, slots=True)
class Use:
    """What a commitment was used for: `drawn` of `bought` (tokens or dollars) in `periods` that cost `paid_usd`."""

    name: str
    periods: int
    paid_usd: Decimal
    drawn: Decimal
    bought: Decimal

    @property
    def share(self) -> float:
        return float(self.drawn / self.bought) if self.bought else 0.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """One way of paying for the calls: what is paid when, in order of time (calls, and each period's price at its
    beginning, or at the first call of the first period), and the commitments' use."""

    name: str
    paid: tuple[tuple[datetime, Decimal], ...]
    uses: tuple[Use, ...] = ()

    @property
    def total_usd(self) -> Decimal:
        return sum((usd for _, usd in self.paid), Decimal(0))


def billed(calls: Sequence[Call]) -> Replayed | None:
    """What was really billed; None where a receipt does not say."""
    paid = [(call.at, call.billed_usd) for call in sorted(calls, key=_when) if call.billed_usd is not None]
    return Replayed("as billed", tuple(paid)) if calls and len(paid) == len(calls) else None


def offer_of(call: Call, catalog: Catalog) -> Offer:
    """What the call's provider asks for its model at its moment. Raises UnknownModel where nobody knows."""
    offers = catalog.offers([f"{call.provider}/{call.model}"], call.at, [call.processing])
    for offer in offers:
        if (offer.provider, offer.model) == (call.provider, call.model):
            return offer
    raise UnknownModel(call.model, f"{call.provider}/{call.model} was not sold as {call.processing!r} at {call.at}")


def replayed(name: str, calls: Sequence[Call], catalog: Catalog, commitments: Iterable[Commitment] = ()) -> Replayed:
    """The calls at the prices of `catalog` at each one's moment, drawing on `commitments` where they cover it.

    Every period of a commitment between the first and the last call is paid for whole. Raises UnknownModel.
    """
    in_order = sorted(calls, key=_when)
    commitments = tuple(commitments)
    drawdown = Drawdown(commitments)
    drawn = {commitment.name: Decimal(0) for commitment in commitments}
    paid: list[tuple[datetime, Decimal]] = []
    uses: list[Use] = []
    for call in in_order:
        # The answer's length is known here, so that a call is covered if its tokens are, not if an estimate is.
        (offer,) = drawdown.quoted((offer_of(call, catalog),), call.usage.output_tokens, call.at)
        paid.append((call.at, price(offer, call.usage)))
        if offer.commitment:
            drawn[offer.commitment] += drawdown.bill(offer, call.usage, call.at)
    for commitment in commitments if in_order else ():
        begins = list(commitment.periods(in_order[0].at, in_order[-1].at))
        paid += [(max(begin, in_order[0].at), commitment.price_usd) for begin in begins]
        paid_usd, bought = commitment.price_usd * len(begins), commitment.amount * len(begins)
        uses.append(Use(commitment.name, len(begins), paid_usd, drawn[commitment.name], bought))
    return Replayed(name, tuple(sorted(paid, key=lambda each: each[0])), tuple(uses))


def _when(call: Call) -> datetime:
    return call.at


def _moment(value: object) -> datetime:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError('at must be a time with its zone, such as "2026-11-24T12:00:00+00:00"')
    return at


def _dollars(receipt: Mapping[str, Any]) -> Decimal | None:
    value = receipt.get("billed_cost_usd")
    if value is None:
        return None
    try:
        usd = Decimal(value) if isinstance(value, str) else Decimal("NaN")
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or usd < 0:
        raise ValueError('billed_cost_usd must be dollars as a text, such as "0.0105"')
    return usd
