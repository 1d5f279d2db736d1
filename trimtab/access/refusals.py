"""Refusals: what a caller is told who may not come in or has no more to spend, in the words that clients know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from trimtab.access.counters import Answer, Budget, Rate, Standing
from trimtab.errors import BadRequest

_NO_RETRY = {"x-should-retry": "false"}
"""Known to OpenAI's and Anthropic's clients, which try a 429 again otherwise."""


def not_admitted(reason: str) -> BadRequest:
    return BadRequest(
        None, reason, "invalid_api_key", status=401, headers={"www-authenticate": 'Bearer realm="trimtab"'}
    )


def refused(answer: Answer, now: float) -> BadRequest:
    """Why a request is not let in, and when it would be."""
    met = answer.refused
    if isinstance(met, Budget):
        return _spent(met, answer.left_pico, now)
    assert isinstance(met, Rate)
    return _too_fast(met, answer, now)


def _spent(budget: Budget, left_pico: int, now: float) -> BadRequest:
    cap, left = (Decimal(pico).scaleb(-12) for pico in (budget.cap_pico, max(0, left_pico)))
    renews = ""
    headers = dict(_NO_RETRY)
    if budget.period != "total":
        moment = datetime.fromtimestamp(budget.ends_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
        renews = f"; it renews at {moment}"
        headers["retry-after"] = str(max(1, math.ceil(budget.ends_at - now)))
    per = "in total" if budget.period == "total" else f"a {budget.period}"
    reason = (
        f"the {budget.kind} {budget.name!r} has a budget of ${cap:f} {per}, and ${left:.6f} of it is neither spent nor "
        f"reserved, which is less than this request may cost{renews}. A smaller max_tokens may fit"
    )
    return BadRequest(None, reason, "insufficient_quota", status=429, kind="insufficient_quota", headers=headers)


def _too_fast(rate: Rate, answer: Answer, now: float) -> BadRequest:
    limit = f"the {rate.kind} {rate.name!r} has a limit of {rate.per_minute:,} {rate.what} a minute"
    headers = openai_headers(answer.rates) | anthropic_headers(answer.rates, now)
    if math.isinf(answer.wait_s):
        reason = f"{limit}, and this request alone takes about {rate.cost:,}; send less"
        headers |= _NO_RETRY
    else:
        headers["retry-after"] = str(max(1, math.ceil(answer.wait_s)))
        reason = f"{limit}; try again in {answer.wait_s:.1f} s"
    return BadRequest(None, reason, "rate_limit_exceeded", status=429, kind=rate.what, headers=headers)


def away() -> BadRequest:
    reason = "keys and limits cannot be checked at present, so nothing was sent; try again soon"
    return BadRequest(None, reason, "limits_unavailable", status=503, kind="server_error", headers={"retry-after": "2"})


def openai_headers(rates: Sequence[Standing]) -> dict[str, str]:
    """As OpenAI tells limits: "x-ratelimit-remaining-requests: 59", "x-ratelimit-reset-requests: 1.5s"."""
    told: dict[str, str] = {}
    for what, each in _tightest(rates).items():
        told[f"x-ratelimit-limit-{what}"] = str(each.rate.per_minute)
        told[f"x-ratelimit-remaining-{what}"] = str(each.left)
        told[f"x-ratelimit-reset-{what}"] = _span(each.full_in_s)
    return told


def anthropic_headers(rates: Sequence[Standing], now: float) -> dict[str, str]:
    """As Anthropic tells limits, with moments instead of spans."""
    told: dict[str, str] = {}
    for what, each in _tightest(rates).items():
        moment = datetime.fromtimestamp(now, UTC) + timedelta(seconds=math.ceil(each.full_in_s))
        told[f"anthropic-ratelimit-{what}-limit"] = str(each.rate.per_minute)
        told[f"anthropic-ratelimit-{what}-remaining"] = str(each.left)
        told[f"anthropic-ratelimit-{what}-reset"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return told


def _tightest(rates: Sequence[Standing]) -> dict[str, Standing]:
    """Of a key's limit and its team's, the one with less left."""
    found: dict[str, Standing] = {}
    for each in rates:
        what = each.rate.what
        if what not in found or each.left < found[what].left:
            found[what] = each
    return found


def _span(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60.0)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.3g}s"
