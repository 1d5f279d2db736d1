"""Standing: what is known of an offer at this moment, beside its prices.

A plan reads it; health, history, caches and the difficulty router write it. Plain numbers: no clock, no network.
"""

from __future__ import annotations

from dataclasses import dataclass

from routing.offers import Offer

Called = tuple[str, str, str]
"""What tells one thing to call from another: provider, model, processing. Prices are left out: a fresh quote for the
same model is still the same thing to call."""


def called(offer: Offer) -> Called:
    """The key under which an offer's standing is kept."""
    return offer.provider, offer.model, offer.processing


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one offer. The defaults are those of an offer that nobody has called yet.

    `success` is the chance, 0 to 1, that a call is answered; `available` is False while its circuit breaker is open.
    `first_token_ms` and `tokens_per_second` are what it has been seen to take; `output_tokens` how long its answers to
    requests like this one are, `margin` by what share its billed input may exceed our count. `quality` is the chance,
    0 to 1, that it answers this question well; None where nobody can say.

    `warm_tokens` are the leading tokens of this request that its prompt cache is expected to hold,
    `cache_minimum_tokens` the shortest prefix that it caches (0: it has no cache). `cache_marked` says that it caches
    only what is marked (Anthropic's `cache_control`), and bills the writing. `promised_s` is within what time it answers,
    where that is another than what its class promises.
    """

    success: float = 1.0
    available: bool = True
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    output_tokens: int | None = None
    margin: float | None = None
    quality: float | None = None
    warm_tokens: int = 0
    cache_minimum_tokens: int = 0
    cache_marked: bool = False
    promised_s: float | None = None


UNKNOWN = Standing()
