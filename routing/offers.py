"""Offers: one way to buy an answer, and what it costs to the last token.

Knows nothing of text, requests or the network: token counts in, dollars out.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input_tokens` counts everything read, cache reads and cache writes included.

    Raises TypeError for a count that is not an int (a bool is not one), ValueError for a negative count and for
    cache reads and writes that add up to more than the input.
    """

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __post_init__(self) -> None:
        for name, count in (
            ("input_tokens", self.input_tokens),
            ("output_tokens", self.output_tokens),
            ("cache_read_tokens", self.cache_read_tokens),
            ("cache_write_tokens", self.cache_write_tokens),
        ):
            # `type(...) is int`, because isinstance(True, int) holds and True tokens are somebody's mistake.
            if type(count) is not int:
                raise TypeError(f"{name} must be an int, not {type(count).__name__}")
            if count < 0:
                raise ValueError(f"{name} must not be negative, not {count}")
        cached_tokens = self.cache_read_tokens + self.cache_write_tokens
        if cached_tokens > self.input_tokens:
            raise ValueError(
                f"cache reads and writes ({cached_tokens:,} tokens) are part of the input, "
                f"and input_tokens is only {self.input_tokens:,}"
            )


AMOUNTS = ("input_usd", "output_usd", "cache_read_usd", "cache_write_usd", "request_usd")
"""The prices in a row of `Rates`, by the names of its fields."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars a token while a request's input is above `above_tokens` (exclusive), up to the next row's.

    `request_usd` is the fee for each call whatever its size (Perplexity's search models have one).
    Raises ValueError for a negative or non-finite price and for a bound below -1.
    """

    above_tokens: int
    input_usd: Decimal
    output_usd: Decimal
    cache_read_usd: Decimal
    cache_write_usd: Decimal
    request_usd: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        if self.above_tokens < -1:
            raise ValueError(f"above_tokens must be -1 or more, not {self.above_tokens}")
        for name in AMOUNTS:
            amount: Decimal = getattr(self, name)
            if not amount.is_finite() or amount < 0:
                raise ValueError(f"{name} must be a finite amount of 0 or more, not {amount}")


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to buy: a model at a provider, in a service class, at the prices of a moment.

    `tiers` ascend by `above_tokens` and the first is 0-based (-1: always applies); the last row whose bound the input
    exceeds prices *every* token of the request (the all-or-nothing boundaries that providers use). Raises ValueError
    where `tiers` breaks that order; an offer without any row can be called and not priced.

    `commitment` names the prepaid capacity that makes it free up to the first boundary, and `list_tiers` are then the
    prices without it.
    """

    provider: str
    model: str
    processing: str
    tiers: tuple[Rates, ...]
    context_window_tokens: int | None
    prices_version: str
    commitment: str = ""
    list_tiers: tuple[Rates, ...] = ()

    def __post_init__(self) -> None:
        bounds = [rates.above_tokens for rates in self.tiers]
        if bounds and bounds[0] != -1:
            raise ValueError(
                f"the first tier of {self.provider}/{self.model} must be above -1 tokens, not {bounds[:1]}"
            )
        if any(upper <= lower for lower, upper in pairwise(bounds)):
            raise ValueError(f"the tiers of {self.provider}/{self.model} must ascend, not {bounds}")

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The input sizes in tokens that may not be exceeded without every token getting dearer."""
        return tuple(rates.above_tokens for rates in self.tiers[1:])


def price(offer: Offer, usage: Usage) -> Decimal:
    """What `usage` costs at `offer`, in dollars, exactly: nothing is rounded.

    The whole input (cache reads and writes included) picks the row, and that row prices every token. No lookup
    happens here, because the planner calls this for every offer at every budget.

    A price of $0.10 a million tokens in and $0.50 out, above 100,000 tokens of input $0.50 and $2.50, costs for
    1,000 tokens of output: $0.0105 at 100,000 tokens of input, $0.0525005 at 100,001.

    Raises ValueError for an offer without prices.
    """
    if not offer.tiers:
        raise ValueError(f"the offer {offer.provider}/{offer.model} has no prices")
    rates = offer.tiers[0]
    for row in offer.tiers[1:]:
        if usage.input_tokens <= row.above_tokens:
            break
        rates = row
    if usage.cache_read_tokens or usage.cache_write_tokens:
        uncached_tokens = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
        input_usd = (
            rates.input_usd * uncached_tokens
            + rates.cache_read_usd * usage.cache_read_tokens
            + rates.cache_write_usd * usage.cache_write_tokens
        )
    else:
        input_usd = rates.input_usd * usage.input_tokens
    return input_usd + rates.output_usd * usage.output_tokens + rates.request_usd


def plain(amount_usd: Decimal) -> str:
    """The amount as a decimal string that any JSON reader can take: no exponent, no zeros at the end.

    >>> plain(Decimal("1.0500E-2"))
    '0.0105'
    """
    digits = format(amount_usd, "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return "0" if digits == "-0" else digits
