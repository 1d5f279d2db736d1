"""Health: how each offer has been doing, and when to leave it alone.

What is known of one offer is a frozen `Vitals`; `after` makes the next one of an attempt's end, and `standing` says what
a plan may expect. Both are pure, and time comes in as seconds of any clock that never goes back. `Health` keeps them for
a process, behind a lock; what one process saw, others hear as a `Sighting`. Knows nothing of requests, prices or the network.

The circuit breaker (Nygard, "Release It!", 2007) is closed until some failures in a row open it; after a while it is
half-open and lets one call through at a time, whose end closes it or opens it again. What happens in an outage is the
breaker's business alone: the failures that opened it are taken out of the success rate. Left in, they would keep the
planner away from a cheap offer long after it has recovered, and no probe would ever go there to find out.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from routing.allowances import Allowance, read_allowance
from routing.attempts import Attempt
from routing.offers import Offer
from routing.standing import UNKNOWN, Called, Standing, called

Breaker = Literal["closed", "open", "half-open"]

_SAYS_NOTHING: Final = ("streaming", "caller_error", "unsupported", "abandoned")
"""Outcomes that are the caller's doing, or no end yet: they count neither for an offer nor against it."""

_FORGOTTEN: Final = 0.05
"""Of a call: an average in which less than this is left has no say any more."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When to leave an offer alone, and how fast to forget. The defaults are stated here and nowhere else.

    `failures` in a row open the breaker for `open_s`; half-open, it lets one call through in each `open_s`. What was
    seen counts half after `half_life_s`, and fades by 1 / `memory_calls` with each call besides, so that a busy offer
    shows a change within some hundred calls. `prior_calls` are answered calls taken for granted: one failure of one
    call makes 83 %, not 0 %.

    Raises ValueError for a limit that is not positive.
    """

    failures: int = 5
    open_s: float = 30.0
    half_life_s: float = 300.0
    memory_calls: float = 100.0
    prior_calls: float = 5.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is known of one offer. The default is an offer that nobody has called yet.

    `answered` to `generating_ms` are sums over its calls, faded to `at_s`; means are quotients of them.
    `failures` is the run of failures up to now. The breaker is closed while `open_until_s` is None; it last opened or
    closed at `turned_s`. `not_before_s` is what a Retry-After asked for.
    """

    at_s: float = 0.0
    answered: float = 0.0
    failed: float = 0.0
    streams: float = 0.0
    first_token_ms: float = 0.0
    tokens: float = 0.0
    generating_ms: float = 0.0
    failures: int = 0
    open_until_s: float | None = None
    turned_s: float = -math.inf
    not_before_s: float = -math.inf
    requests_allowed: Allowance | None = None
    tokens_allowed: Allowance | None = None


DEFAULT: Final = HealthPolicy()
_NEVER_CALLED: Final = Vitals()


def after(
    vitals: Vitals, attempt: Attempt, now_s: float, policy: HealthPolicy = DEFAULT, output_tokens: int | None = None
) -> Vitals:
    """What is known once `attempt` has ended, at `now_s`, with `output_tokens` where the provider said how many.

    A 429 that says when to come back is obeyed and is no failure. Without a word it is one: the breaker supplies the
    pause that the provider did not name. An attempt from before the breaker last turned is left out: a hundred calls
    that hang when an outage begins must not open it once more when they time out, long after it is over.

    >>> down = Attempt("x", "m", "sync", 0.0, 9.0, 503, "server_error", "HTTP 503")
    >>> standing(after(Vitals(), down, 1.0), 1.0).success
    0.8333333333333334
    """
    asked_to_wait = attempt.retry_after_ms is not None
    if attempt.retry_after_ms is not None:
        until_s = now_s + attempt.retry_after_ms / 1000.0
        vitals = replace(vitals, not_before_s=max(vitals.not_before_s, until_s))
    if attempt.outcome in _SAYS_NOTHING or (attempt.outcome == "rate_limited" and asked_to_wait):
        return vitals
    if now_s - attempt.latency_ms / 1000.0 < vitals.turned_s:
        return vitals
    faded = _faded(vitals, now_s, policy)
    return _answered(faded, attempt, output_tokens) if attempt.outcome == "ok" else _failed(faded, policy)


def _faded(vitals: Vitals, now_s: float, policy: HealthPolicy) -> Vitals:
    """The sums as they count beside another call at `now_s`."""
    left = _left(vitals, now_s, policy) * (1.0 - 1.0 / policy.memory_calls)
    return replace(
        vitals,
        at_s=max(vitals.at_s, now_s),  # what another process saw is told late
        answered=vitals.answered * left,
        failed=vitals.failed * left,
        streams=vitals.streams * left,
        first_token_ms=vitals.first_token_ms * left,
        tokens=vitals.tokens * left,
        generating_ms=vitals.generating_ms * left,
    )


def _left(vitals: Vitals, now_s: float, policy: HealthPolicy) -> float:
    passed_s = max(0.0, now_s - vitals.at_s)
    return float(0.5 ** (passed_s / policy.half_life_s))


def _answered(vitals: Vitals, attempt: Attempt, output_tokens: int | None) -> Vitals:
    first_ms = attempt.first_byte_ms
    generating_ms = 0.0
    if output_tokens:
        # A whole answer does not say when its first token came: what streams take is taken off where it is known. Either
        # way first_token_ms + output_tokens / tokens_per_second is how long an answer has taken.
        before_ms = (_mean(vitals.first_token_ms, vitals.streams) or 0.0) if first_ms is None else first_ms
        generating_ms = attempt.latency_ms - before_ms if before_ms < attempt.latency_ms else attempt.latency_ms
    return replace(
        vitals,
        answered=vitals.answered + 1.0,
        streams=vitals.streams + (first_ms is not None),
        first_token_ms=vitals.first_token_ms + (first_ms or 0.0),
        tokens=vitals.tokens + (output_tokens or 0),
        generating_ms=vitals.generating_ms + generating_ms,
        failures=0,
        open_until_s=None,
        turned_s=vitals.turned_s if vitals.open_until_s is None else vitals.at_s,
    )


def _failed(vitals: Vitals, policy: HealthPolicy) -> Vitals:
    now_s = vitals.at_s
    if vitals.open_until_s is not None:
        return replace(vitals, open_until_s=now_s + policy.open_s)
    failures = vitals.failures + 1
    if failures < policy.failures:
        return replace(vitals, failures=failures, failed=vitals.failed + 1.0)
    failed = max(0.0, vitals.failed - vitals.failures)
    return replace(vitals, failures=0, failed=failed, open_until_s=now_s + policy.open_s, turned_s=now_s)


def probing(vitals: Vitals, now_s: float, policy: HealthPolicy = DEFAULT) -> Vitals:
    """What is known when a call of a half-open offer begins: until it ends, or `open_s` has passed, no other may.

    The time, rather than a count of probes under way: a probe that is given up, or never ends, locks nobody out.
    """
    return replace(vitals, open_until_s=now_s + policy.open_s)


def agreed(vitals: Vitals, turned_s: float, open_until_s: float | None) -> Vitals:
    """What is known once another process has said when its breaker last turned, and how it stands since. The later turn
    holds, and of two that are open the longer pause: whoever says it first, all come to the same."""
    if open_until_s is not None and vitals.open_until_s is not None:
        longer_s = max(open_until_s, vitals.open_until_s)
        return replace(vitals, open_until_s=longer_s, turned_s=max(turned_s, vitals.turned_s))
    if turned_s <= vitals.turned_s:
        return vitals
    return replace(vitals, failures=0, open_until_s=open_until_s, turned_s=turned_s)


def breaker(vitals: Vitals, now_s: float) -> Breaker:
    """Where the circuit breaker stands. "open" while a probe is under way."""
    if vitals.open_until_s is None:
        return "closed"
    return "open" if now_s < vitals.open_until_s else "half-open"


def rest_ms(vitals: Vitals, now_s: float, input_tokens: int = 1) -> float | None:
    """None for an offer that may be called; for one that should rest, the least wait before it is called in spite.

    That is what is left of a Retry-After. It is 0 where the breaker is open or the allowance seems used up: both are a
    guess of ours, and where there is nothing else a call may be worth it.
    """
    if now_s < vitals.not_before_s:
        return (vitals.not_before_s - now_s) * 1000.0
    if breaker(vitals, now_s) == "open":
        return 0.0
    for allowance, needed in ((vitals.requests_allowed, 1), (vitals.tokens_allowed, input_tokens)):
        if allowance is not None and allowance.left(now_s) < needed:
            return 0.0
    return None


def standing(vitals: Vitals, now_s: float, policy: HealthPolicy = DEFAULT, input_tokens: int = 1) -> Standing:
    """What a plan may expect of the offer at `now_s`, for a request of that size. Long uncalled, it is as new."""
    left, prior = _left(vitals, now_s, policy), policy.prior_calls
    answered, failed = vitals.answered * left, vitals.failed * left
    tokens_per_ms = _mean(vitals.tokens, vitals.generating_ms) if answered > _FORGOTTEN else None
    return Standing(
        success=(prior + answered) / (prior + answered + failed),
        available=rest_ms(vitals, now_s, input_tokens) is None,
        first_token_ms=_mean(vitals.first_token_ms, vitals.streams) if vitals.streams * left > _FORGOTTEN else None,
        tokens_per_second=None if tokens_per_ms is None else tokens_per_ms * 1000.0,
    )


def _mean(total: float, weight: float) -> float | None:
    return total / weight if weight > 0 else None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one process saw of an offer just now, for the others; seconds are relative to then, since clocks differ.

    `attempt` has ended, or is None: then a probe has begun (`allowed` None), or an answer's headers said what is `allowed`
    of requests and of tokens (limit, remaining, seconds until all is back). The breaker turned `turned_ago_s` ago (None:
    never) and stays open for `open_left_s` more (None: it is closed).
    """

    offer: Called
    attempt: Attempt | None = None
    output_tokens: int | None = None
    allowed: tuple[_Allowed | None, _Allowed | None] | None = None
    turned_ago_s: float | None = None
    open_left_s: float | None = None


_Allowed = tuple[int, int, float]


class Health:
    """The vitals of every offer that was called. One for a process: safe to share between threads and routers.

    `clock` counts seconds and never goes back. `tell` is told of whatever is learned here, and `heard` of what other
    processes told; it must not block.
    """

    def __init__(self, policy: HealthPolicy | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy or DEFAULT
        self._clock = clock
        self._lock = threading.Lock()
        self._of: dict[Called, Vitals] = {}
        self.tell: Callable[[Sighting], None] | None = None

    def standing(self, offer: Offer, input_tokens: int = 1) -> Standing:
        """What a plan may expect of `offer` now."""
        vitals = self._of.get(called(offer))
        return UNKNOWN if vitals is None else standing(vitals, self._clock(), self._policy, input_tokens)

    def breaker(self, offer: Offer) -> Breaker:
        return breaker(self._of.get(called(offer), _NEVER_CALLED), self._clock())

    def breakers(self) -> dict[Called, Breaker]:
        """Where the breaker of every offer that was called stands now."""
        now_s = self._clock()
        return {key: breaker(vitals, now_s) for key, vitals in tuple(self._of.items())}

    def known(self) -> dict[Called, tuple[Breaker, Standing]]:
        """Everything that was called, as it stands now: its circuit breaker, and what a plan may expect of it."""
        with self._lock:
            vitals, now_s = dict(self._of), self._clock()
        return {key: (breaker(each, now_s), standing(each, now_s, self._policy)) for key, each in vitals.items()}

    def resting(self, offers: Iterable[Offer]) -> dict[Called, float]:
        """Those of `offers` that should not be called now, each with its `rest_ms`."""
        now_s = self._clock()
        rests: dict[Called, float] = {}
        for offer in offers:
            key = called(offer)
            vitals = self._of.get(key)
            left_ms = None if vitals is None else rest_ms(vitals, now_s)
            if left_ms is not None:
                rests[key] = left_ms
        return rests

    def begin(self, offer: Offer) -> bool:
        """Whether a call of `offer` may begin now. If it is half-open, the caller has the probe, and nobody else does."""
        key = called(offer)
        with self._lock:
            vitals, now_s = self._of.get(key, _NEVER_CALLED), self._clock()
            if rest_ms(vitals, now_s) is not None:
                return False
            if vitals.open_until_s is not None:
                self._of[key] = vitals = probing(vitals, now_s, self._policy)
        if vitals.open_until_s is not None:
            self._told(Sighting(key), vitals, now_s)
        return True

    def forget(self) -> None:
        """Begin anew, as after a restart."""
        with self._lock:
            self._of.clear()

    def ended(self, attempt: Attempt, output_tokens: int | None = None) -> None:
        """An attempt has come to its end just now."""
        key = (attempt.provider, attempt.model, attempt.processing)
        with self._lock:
            vitals, now_s = self._of.get(key, _NEVER_CALLED), self._clock()
            self._of[key] = vitals = after(vitals, attempt, now_s, self._policy, output_tokens)
        self._told(Sighting(key, attempt, output_tokens), vitals, now_s)

    def told(self, offer: Offer, headers: Mapping[str, str]) -> None:
        """Note the rate limits in the headers (in lower case) of an answer that has just come."""
        if not any("ratelimit" in name for name in headers):
            return
        key, now_s, since_1970_s = called(offer), self._clock(), time.time()
        requests = read_allowance(headers, "requests", now_s, since_1970_s)
        tokens = read_allowance(headers, "tokens", now_s, since_1970_s)
        with self._lock:
            vitals = self._of.get(key, _NEVER_CALLED)
            self._of[key] = vitals = replace(vitals, requests_allowed=requests, tokens_allowed=tokens)
        self._told(Sighting(key, allowed=(_relative(requests), _relative(tokens))), vitals, now_s)

    def heard(self, sighting: Sighting, age_s: float) -> None:
        """What another process saw `age_s` ago."""
        with self._lock:
            vitals, now_s = self._of.get(sighting.offer, _NEVER_CALLED), self._clock()
            then_s, turned_s = now_s - age_s, vitals.turned_s
            if sighting.attempt is not None:
                vitals = after(vitals, sighting.attempt, then_s, self._policy, sighting.output_tokens)
            turned = vitals.turned_s != turned_s
            if sighting.allowed is not None:
                requests, tokens = (_absolute(each, then_s) for each in sighting.allowed)
                vitals = replace(vitals, requests_allowed=requests, tokens_allowed=tokens)
            if sighting.turned_ago_s is not None:
                until_s = None if sighting.open_left_s is None else then_s + sighting.open_left_s
                vitals = agreed(vitals, then_s - sighting.turned_ago_s, until_s)
            self._of[sighting.offer] = vitals
        if turned:  # by the run of failures in the order in which they were heard here, which is nobody else's
            self._told(Sighting(sighting.offer), vitals, now_s)

    def _told(self, sighting: Sighting, vitals: Vitals, now_s: float) -> None:
        if self.tell is not None:
            ago_s = None if math.isinf(vitals.turned_s) else now_s - vitals.turned_s
            left_s = None if vitals.open_until_s is None else vitals.open_until_s - now_s
            self.tell(replace(sighting, turned_ago_s=ago_s, open_left_s=left_s))


def _relative(allowance: Allowance | None) -> _Allowed | None:
    return None if allowance is None else (allowance.limit, allowance.remaining, allowance.full_s - allowance.at_s)


def _absolute(allowed: _Allowed | None, at_s: float) -> Allowance | None:
    return None if allowed is None else Allowance(allowed[0], allowed[1], at_s, at_s + allowed[2])
