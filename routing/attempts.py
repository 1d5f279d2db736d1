"""Attempts: what was tried so far, and what to try next.

Pure: no I/O, no clock, no randomness. Time comes in as milliseconds since the request began, chance as `jitter`, so a
test needs neither a network nor patience. Knows nothing of HTTP beyond what a status code means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from routing.offers import Offer
from routing.standing import Called, called

Outcome = Literal[
    "ok",  # answered in full
    "streaming",  # the first byte is out and the stream is under way; one of ok, cut_off, abandoned follows
    "connect_failed",  # no connection: refused, no such host, TLS not verified
    "connection_lost",  # connected, then cut before the first byte of content
    "timeout",  # too slow before the first byte of content, or HTTP 408
    "rate_limited",  # HTTP 429
    "server_error",  # HTTP 5xx, or an error object in an answer that called itself a success
    "bad_response",  # a success whose content is not what the wire promises
    "unsupported",  # nothing was sent: this offer cannot honour a parameter of the request
    "rejected",  # this offer cannot serve anybody's request: 401, 402, 403, 404, a redirect, no key set
    "caller_error",  # any other 4xx: the request itself is wrong, and would be elsewhere; passed through
    "cut_off",  # failed after the first byte of content; nothing can be retried
    "abandoned",  # the caller hung up
]

OUTCOMES: tuple[str, ...] = get_args(Outcome)
RETRYABLE: frozenset[Outcome] = frozenset(
    (
        *("connect_failed", "connection_lost", "timeout", "rate_limited", "server_error", "bad_response"),
        *("rejected", "unsupported"),
    )
)
"""Outcomes after which another attempt may be made. The last two are among them for the sake of the *other* offers."""

_ACCOUNT_STATUSES = (None, 401, 402, 429)
"""Rejections that concern the key or its account, so every offer of that provider. None: no key is set. 429: only
where it says that the account's money is used up, since any other is "rate_limited" and no rejection.

403 and 404 are left out: providers answer them for one model that the account may not use or that does not exist.
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one offer, as the receipt lists it.

    `started_ms` counts from the beginning of the request, `latency_ms` from there to the last byte read;
    `first_byte_ms` (also from `started_ms`) is the first content relayed, for streams. `status` is the provider's HTTP
    status, None if it gave none. `detail` is short and ours: never a key, never text of the prompt or of the answer.
    `retry_after_ms` is what the provider asked us to wait.
    """

    provider: str
    model: str
    processing: str
    started_ms: float
    latency_ms: float
    status: int | None
    outcome: Outcome
    detail: str
    retry_after_ms: float | None = None
    first_byte_ms: float | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to insist. The defaults are stated here and nowhere else.

    Waits are "full jitter" (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): uniform in
    [0, min(`cap_ms`, `base_ms` * 2 ** (tries of that offer - 1))). A Retry-After replaces the wait if what is left of
    it is at most `max_retry_after_ms`; an offer that asks for longer is left alone. No attempt starts at or after `deadline_ms`.

    Raises ValueError for a limit that is not positive.
    """

    max_attempts: int = 5
    base_ms: float = 100.0
    cap_ms: float = 5_000.0
    max_retry_after_ms: float = 10_000.0
    deadline_ms: float = 600_000.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Try:
    """Call `offer` after waiting `delay_ms`."""

    offer: Offer
    delay_ms: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop; `reason` is a clause for an error message. `wait_ms` is how long the offers asked us to wait, at least."""

    reason: str
    wait_ms: float | None = None


def outcome_of(status: int) -> Outcome:
    """What an HTTP status means for the next attempt; "ok" for 2xx, whose content may still be bad.

    >>> outcome_of(503), outcome_of(404), outcome_of(422)
    ('server_error', 'rejected', 'caller_error')
    """
    if 200 <= status < 300:
        return "ok"
    if status == 408:
        return "timeout"
    if status == 429:
        return "rate_limited"
    # A redirect is a wrong base_url: following it would send the prompt and the key to an address nobody configured.
    if status in (401, 402, 403, 404) or 300 <= status < 400:
        return "rejected"
    if 400 <= status < 500:
        return "caller_error"
    return "server_error"


def next_attempt(
    attempts: Sequence[Attempt],
    offers: Sequence[Offer],
    policy: RetryPolicy,
    jitter: float,
    elapsed_ms: float,
    resting: Mapping[Called, float] | None = None,
) -> Try | GiveUp:
    """The next call to make after `attempts`, oldest first, or the reason to stop.

    Offers not tried yet come first, in the order given (the plan's, cheapest first) and without a wait; then whichever
    is due soonest, each with its own backoff or Retry-After counted from the end of its latest attempt. An offer that
    rejected us is never asked again, nor is any other offer of a provider that refused the key itself.

    `resting` are the offers that other requests have found to be down or busy, each with the least wait in ms before it
    may be asked in spite of that. They come last: when no other is left, or when only as many attempts are left as it
    takes to ask each of them once, so that a request which any of its offers can serve is served.

    `jitter` is uniform in [0, 1); raises ValueError outside it.

    >>> policy, a, b = RetryPolicy(), Offer("x", "m", "sync", (), None, ""), Offer("y", "m", "sync", (), None, "")
    >>> failed = Attempt("x", "m", "sync", 0.0, 9.0, 503, "server_error", "HTTP 503")
    >>> next_attempt([failed], [a, b], policy, 0.5, 9.0) == Try(b, 0.0)
    True
    >>> next_attempt([failed], [a], policy, 0.5, 9.0) == Try(a, 50.0)
    True
    >>> next_attempt([], [a, b], policy, 0.5, 0.0, {called(a): 0.0}) == Try(b, 0.0)
    True
    """
    if not 0.0 <= jitter < 1.0:
        raise ValueError(f"jitter must be in [0, 1), not {jitter!r}")
    if not offers:
        return GiveUp("no offer was given")
    if not attempts and not resting and elapsed_ms < policy.deadline_ms:
        return Try(offers[0], 0.0)  # nearly every request, and weighing hundreds of offers takes a millisecond
    if attempts and attempts[-1].outcome not in RETRYABLE:
        return GiveUp(f"the last attempt ended with {attempts[-1].outcome}")
    # What was never sent has cost nobody anything, and another offer may take the request.
    attempts_left = policy.max_attempts - sum(attempt.outcome != "unsupported" for attempt in attempts)
    if attempts_left <= 0:
        return GiveUp(f"{policy.max_attempts} attempts were made, which is the limit")
    worth_trying = [offer for offer in offers if not any(_rules_out(attempt, offer) for attempt in attempts)]
    if not worth_trying:
        return GiveUp("every offer rejected the request")
    due = [_due(attempts, offer, policy, jitter, elapsed_ms, resting or {}) for offer in worth_trying]
    in_time = [row for row in due if row.asks_ms <= policy.max_retry_after_ms]
    if not in_time:
        return GiveUp("every offer left asks for a longer pause than we wait", min(row.asks_ms for row in due))
    step = min(_preferred(in_time, attempts_left), key=lambda row: (row.delay_ms, row.tries))
    if elapsed_ms + step.delay_ms >= policy.deadline_ms:
        return GiveUp(f"the deadline of {policy.deadline_ms:g} ms is reached")
    return Try(step.offer, step.delay_ms)


@dataclass(frozen=True, slots=True)
class _Due:
    """An offer that may be called in `delay_ms`, of which it asked for `asks_ms` itself."""

    offer: Offer
    tries: int
    resting: bool
    delay_ms: float
    asks_ms: float


def _preferred(due: Sequence[_Due], attempts_left: int) -> Sequence[_Due]:
    """Those among which the soonest is the next."""
    awake = [row for row in due if not row.resting]
    if any(row.tries == 0 for row in awake):
        return awake
    unasked = [row for row in due if row.resting and row.tries == 0]
    return (unasked if attempts_left <= len(unasked) else awake) or due


def _is_of(attempt: Attempt, offer: Offer) -> bool:
    return (attempt.provider, attempt.model, attempt.processing) == called(offer)


def _rules_out(attempt: Attempt, offer: Offer) -> bool:
    if attempt.outcome == "unsupported":
        return _is_of(attempt, offer)
    if attempt.outcome != "rejected":
        return False
    return _is_of(attempt, offer) or (attempt.provider == offer.provider and attempt.status in _ACCOUNT_STATUSES)


def _due(
    attempts: Sequence[Attempt],
    offer: Offer,
    policy: RetryPolicy,
    jitter: float,
    elapsed_ms: float,
    resting: Mapping[Called, float],
) -> _Due:
    own = [attempt for attempt in attempts if _is_of(attempt, offer)]
    rests_ms = resting.get(called(offer))
    asks_ms = backoff_ms = 0.0
    if own:
        last = own[-1]
        ended_ms = last.started_ms + last.latency_ms
        if last.retry_after_ms is None:
            backoff_ms = ended_ms + jitter * min(policy.cap_ms, policy.base_ms * 2.0 ** (len(own) - 1)) - elapsed_ms
        else:
            # What is left of it counts: an hour asked for 59 minutes and 55 seconds ago is short.
            asks_ms = max(0.0, ended_ms + last.retry_after_ms - elapsed_ms)
    asks_ms = max(asks_ms, rests_ms or 0.0)
    return _Due(offer, len(own), rests_ms is not None, max(0.0, asks_ms, backoff_ms), asks_ms)
