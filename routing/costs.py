"""Costs: what one offer is expected to cost at one context budget, in dollars, part by part.

Pure and exact. The parts are what a plan adds up: the bill, going elsewhere if the call fails, a wrong answer, and
carrying the prompt on into the requests that will begin with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from routing.offers import Offer, Rates
from routing.standing import Standing

ZERO = Decimal(0)
ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Carried:
    """What later requests will repeat of this one, word for word, within a prompt cache's life.

    `prefix_tokens` at its beginning, and the kept context behind them too if `with_context`; `times` is the expected
    number of such requests (it may be a fraction).
    """

    prefix_tokens: int = 0
    with_context: bool = False
    times: float = 0.0


NOTHING_CARRIED = Carried()


class Bill(NamedTuple):
    """One way to send a prompt: the bill for it, what carrying it on will cost, and what its cache reads and writes.

    Tokens to write mean that the prefix is to be marked for the provider's cache. A tuple, since a plan makes hundreds.
    """

    bill_usd: Decimal
    carry_usd: Decimal
    read_tokens: int = 0
    write_tokens: int = 0

    @property
    def both_usd(self) -> Decimal:
        return self.bill_usd + self.carry_usd


def amount(value: float) -> Decimal:
    """A chance or a count as a Decimal of nine digits at most, so that a product of several stays short."""
    return Decimal(str(round(value, 9)))


def rates_at(offer: Offer, input_tokens: int) -> Rates:
    """The row of prices that holds for every token of a request with that much input."""
    rates = offer.tiers[0]
    for row in offer.tiers[1:]:
        if input_tokens <= row.above_tokens:
            break
        rates = row
    return rates


def bill(
    offer: Offer, standing: Standing, input_tokens: int, output_tokens: int, context_tokens: int, carried: Carried
) -> Bill:
    """The cheaper of two ways to send `input_tokens` (of which `context_tokens` are kept context): as they are, or,
    where the provider caches only what is marked, with the prefix marked.

    A provider that caches by itself bills its warm tokens at the read price in either case. What is carried on costs the
    read price where the prefix is long enough for the cache, else the input price, for each time that it is repeated.
    """
    rates = rates_at(offer, input_tokens)
    rest_usd = rates.output_usd * output_tokens + rates.request_usd
    if not (standing.warm_tokens or carried.times):
        return Bill(rates.input_usd * input_tokens + rest_usd, ZERO)
    prefix_tokens = min(input_tokens, carried.prefix_tokens + (context_tokens if carried.with_context else 0))
    times = amount(carried.times)
    cacheable = 0 < standing.cache_minimum_tokens <= prefix_tokens
    if not standing.cache_marked:
        read_tokens = min(standing.warm_tokens, input_tokens)
        bill_usd = rates.input_usd * (input_tokens - read_tokens) + rates.cache_read_usd * read_tokens + rest_usd
        again_usd = rates.cache_read_usd if cacheable else rates.input_usd
        return Bill(bill_usd, times * again_usd * prefix_tokens, read_tokens)
    plain = Bill(rates.input_usd * input_tokens + rest_usd, times * rates.input_usd * prefix_tokens)
    if not cacheable:
        return plain
    read_tokens = min(standing.warm_tokens, prefix_tokens)
    write_tokens = prefix_tokens - read_tokens
    bill_usd = (
        rates.input_usd * (input_tokens - prefix_tokens)
        + rates.cache_read_usd * read_tokens
        + rates.cache_write_usd * write_tokens
        + rest_usd
    )
    marked = Bill(bill_usd, times * rates.cache_read_usd * prefix_tokens, read_tokens, write_tokens)
    return marked if marked.both_usd < plain.both_usd else plain


def failure_usd(own_usd: Decimal, elsewhere_usd: Decimal | None, failing: Decimal) -> Decimal:
    """What the chance of failing adds: the next best offer's cost in place of this one's. 0 where there is no other."""
    return ZERO if elsewhere_usd is None else failing * (elsewhere_usd - own_usd)


def wrong_answer_usd(price_usd: Decimal, quality: float | None, coverage: float) -> Decimal:
    """What the chance of a wrong answer adds: it is right if the evidence survives the cut and the model can use it."""
    right = amount(coverage) if quality is None else amount(quality) * amount(coverage)
    return price_usd * (ONE - right)
