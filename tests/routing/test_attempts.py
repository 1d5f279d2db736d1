"""What to try next: examples for each rule, properties for the bounds. No network and no clock anywhere."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routing.attempts
from routing.attempts import OUTCOMES, RETRYABLE, Attempt, GiveUp, RetryPolicy, Try, next_attempt, outcome_of
from routing.offers import Offer
from routing.standing import Called, called

POLICY = RetryPolicy()


def offer(provider: str, model: str = "m", processing: str = "sync") -> Offer:
    return Offer(provider, model, processing, (), None, "test")


def attempt(
    of: Offer, outcome: str, *, status: int | None = None, at: float = 0.0, took: float = 10.0, **more
) -> Attempt:
    return Attempt(of.provider, of.model, of.processing, at, took, status, outcome, "", **more)


A, B, C = offer("a"), offer("b"), offer("c")


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(routing.attempts).failed == 0
    assert doctest.testmod(routing.attempts).attempted > 0


def test_first_comes_the_first_offer_at_once() -> None:
    assert next_attempt((), (A, B), POLICY, 0.9, 0.0) == Try(A, 0.0)


@pytest.mark.parametrize("outcome", sorted(RETRYABLE))
def test_a_failure_goes_to_the_next_untried_offer_at_once(outcome: str) -> None:
    tried = [attempt(A, outcome, status=403)]
    assert next_attempt(tried, (A, B, C), POLICY, 0.9, 10.0) == Try(B, 0.0)


@pytest.mark.parametrize("outcome", sorted(set(OUTCOMES) - RETRYABLE))
def test_nothing_follows_an_outcome_that_is_final(outcome: str) -> None:
    assert isinstance(next_attempt([attempt(A, outcome)], (A, B), POLICY, 0.0, 10.0), GiveUp)


def test_the_second_round_waits_with_full_jitter_that_doubles_for_each_offer() -> None:
    policy = RetryPolicy(max_attempts=9, cap_ms=300.0)
    tried, waits, now = [], [], 0.0
    for _ in range(5):
        tried.append(attempt(A, "server_error", at=now))
        now += 10.0
        step = next_attempt(tried, (A,), policy, 0.5, now)
        assert isinstance(step, Try)
        waits.append(step.delay_ms)
        now += step.delay_ms
    assert waits == pytest.approx([50.0, 100.0, 150.0, 150.0, 150.0])


def test_time_spent_elsewhere_counts_as_waiting() -> None:
    tried = [attempt(A, "server_error"), attempt(B, "timeout", at=10.0, took=1_000.0)]
    assert next_attempt(tried, (A, B), POLICY, 0.99, 1_010.0) == Try(A, 0.0)


def test_a_short_retry_after_is_waited_for_and_a_long_one_sends_us_elsewhere() -> None:
    short = [attempt(A, "rate_limited", status=429, retry_after_ms=2_000.0)]
    assert next_attempt(short, (A,), POLICY, 0.0, 10.0) == Try(A, 2_000.0)
    long = [attempt(A, "rate_limited", status=429, retry_after_ms=60_000.0), attempt(B, "server_error", at=10.0)]
    assert next_attempt(long, (A, B), POLICY, 0.0, 20.0) == Try(B, 0.0)
    assert isinstance(next_attempt(long[:1], (A,), POLICY, 0.0, 10.0), GiveUp)


def test_an_earlier_retry_after_still_holds_when_its_offer_comes_round_again() -> None:
    tried = [
        attempt(A, "rate_limited", status=429, retry_after_ms=5_000.0),
        attempt(B, "rejected", status=404, at=10.0),
    ]
    assert next_attempt(tried, (A, B), POLICY, 0.0, 1_020.0) == Try(A, pytest.approx(3_990.0))


@pytest.mark.parametrize("status", [403, 404])
def test_an_offer_that_rejected_us_is_left_out_and_its_sister_is_not(status: int) -> None:
    sister = offer("a", "other")
    tried = [attempt(A, "rejected", status=status)]
    assert next_attempt(tried, (A, sister), POLICY, 0.0, 10.0) == Try(sister, 0.0)
    assert isinstance(next_attempt(tried, (A,), POLICY, 0.0, 10.0), GiveUp)


@pytest.mark.parametrize("status", [None, 401, 402, 429])
def test_a_refused_key_rules_out_every_offer_of_that_provider(status: int | None) -> None:
    tried = [attempt(A, "rejected", status=status)]
    assert next_attempt(tried, (A, offer("a", "other"), B), POLICY, 0.0, 10.0) == Try(B, 0.0)


def test_one_service_class_failing_leaves_the_other() -> None:
    flex = offer("a", processing="flex")
    assert next_attempt([attempt(flex, "rate_limited")], (flex, A), POLICY, 0.0, 10.0) == Try(A, 0.0)


def test_limits() -> None:
    five = [attempt(A, "server_error")] * 5
    assert next_attempt(five, (A, B), POLICY, 0.0, 10.0) == GiveUp("5 attempts were made, which is the limit")
    assert isinstance(next_attempt((), (A,), RetryPolicy(deadline_ms=50.0), 0.0, 50.0), GiveUp)
    assert isinstance(next_attempt((), (), POLICY, 0.0, 0.0), GiveUp)


@pytest.mark.parametrize("jitter", [-0.1, 1.0, float("nan")])
def test_jitter_outside_its_range_is_refused(jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        next_attempt((), (A,), POLICY, jitter, 0.0)


@pytest.mark.parametrize("field", ["max_attempts", "base_ms", "cap_ms", "max_retry_after_ms", "deadline_ms"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        RetryPolicy(**{field: value})


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (201, "ok"),
        (301, "rejected"),
        (307, "rejected"),
        (400, "caller_error"),
        (401, "rejected"),
        (402, "rejected"),
        (403, "rejected"),
        (404, "rejected"),
        (408, "timeout"),
        (409, "caller_error"),
        (413, "caller_error"),
        (422, "caller_error"),
        (429, "rate_limited"),
        (500, "server_error"),
        (503, "server_error"),
        (529, "server_error"),
    ],
)
def test_what_a_status_means(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


OFFERS = st.lists(
    st.builds(offer, st.sampled_from("abc"), st.sampled_from("mn"), st.sampled_from(("sync", "flex"))),
    min_size=1,
    max_size=6,
    unique=True,
)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 12),
    base_ms=st.floats(1.0, 1_000.0),
    cap_ms=st.floats(1.0, 10_000.0),
    max_retry_after_ms=st.floats(1.0, 30_000.0),
    deadline_ms=st.floats(1.0, 100_000.0),
)
FAILURES = st.tuples(
    st.sampled_from(sorted(RETRYABLE)),
    st.sampled_from((None, 401, 402, 403, 404, 429, 500)),
    st.none() | st.floats(0.0, 60_000.0),
    st.floats(0.0, 5_000.0),
)


@settings(deadline=None)
@given(
    OFFERS,
    POLICIES,
    # 12 attempts that were sent at most, and one for each of 6 offers that was not.
    st.lists(FAILURES, min_size=18, max_size=18),
    st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=19, max_size=19),
)
def test_any_run_of_failures_is_bounded_and_keeps_every_promise(offers, policy, failures, jitters) -> None:
    """Play a request whose every attempt fails, and check each step against the whole history."""
    attempts: list[Attempt] = []
    now_ms = 0.0
    while isinstance(step := next_attempt(attempts, offers, policy, jitters[len(attempts)], now_ms), Try):
        assert step.offer in offers
        assert step.delay_ms >= 0.0
        starts_ms = now_ms + step.delay_ms
        assert starts_ms < policy.deadline_ms
        own = [one for one in attempts if (one.provider, one.model, one.processing) == _name(step.offer)]
        assert not any(one.outcome in ("rejected", "unsupported") for one in own)
        account = (None, 401, 402, 429)
        assert not any(
            one.provider == step.offer.provider and one.outcome == "rejected" and one.status in account
            for one in attempts
        )
        if own:
            ended_ms = own[-1].started_ms + own[-1].latency_ms
            asked_ms = own[-1].retry_after_ms
            if asked_ms is not None:
                assert starts_ms >= ended_ms + asked_ms - 1e-6
                assert step.delay_ms <= policy.max_retry_after_ms
            else:
                assert step.delay_ms <= min(policy.cap_ms, policy.base_ms * 2 ** (len(own) - 1)) + 1e-6
        outcome, status, retry_after_ms, took_ms = failures[len(attempts)]
        attempts.append(
            attempt(step.offer, outcome, status=status, at=starts_ms, took=took_ms, retry_after_ms=retry_after_ms)
        )
        now_ms = starts_ms + took_ms
        assert sum(one.outcome != "unsupported" for one in attempts) <= policy.max_attempts


@settings(deadline=None)
@given(OFFERS, st.data())
def test_every_offer_that_may_serve_is_tried_once_before_any_is_tried_again(offers, data) -> None:
    policy = RetryPolicy(max_attempts=len(offers))
    attempts: list[Attempt] = []
    now_ms = 0.0
    while isinstance(step := next_attempt(attempts, offers, policy, 0.0, now_ms), Try):
        outcome = data.draw(st.sampled_from(("connect_failed", "server_error", "timeout")))
        attempts.append(attempt(step.offer, outcome, at=now_ms))
        now_ms += 10.0
    assert [(one.provider, one.model, one.processing) for one in attempts] == [_name(one) for one in offers]


def _name(of: Offer) -> tuple[str, str, str]:
    return of.provider, of.model, of.processing


# --- offers that rest ----------------------------------------------------------------------------------------------


def resting(*offers: Offer, for_ms: float = 0.0) -> dict[Called, float]:
    return {called(one): for_ms for one in offers}


def test_an_offer_that_rests_comes_last() -> None:
    assert next_attempt((), (A, B, C), POLICY, 0.0, 0.0, resting(A)) == Try(B, 0.0)
    tried = [attempt(B, "server_error")]
    assert next_attempt(tried, (A, B, C), POLICY, 0.0, 10.0, resting(A)) == Try(C, 0.0)


def test_an_offer_that_rests_waits_while_another_can_be_asked_again() -> None:
    tried = [attempt(B, "server_error")] * 3
    assert next_attempt(tried, (A, B), POLICY, 0.5, 10.0, resting(A)) == Try(B, 200.0)


def test_the_last_attempts_are_kept_for_the_offers_that_rest() -> None:
    tried = [attempt(B, "server_error")] * 4
    assert next_attempt(tried, (A, B), POLICY, 0.5, 10.0, resting(A)) == Try(A, 0.0)
    tried = [attempt(C, "timeout"), *[attempt(C, "timeout")] * 2]
    assert next_attempt(tried, (A, B, C), POLICY, 0.5, 10.0, resting(A, B)) == Try(A, 0.0)


def test_when_all_rest_the_plans_order_holds_and_each_is_asked() -> None:
    assert next_attempt((), (A, B), POLICY, 0.0, 0.0, resting(A, B)) == Try(A, 0.0)
    tried = [attempt(A, "server_error")]
    assert next_attempt(tried, (A, B), POLICY, 0.0, 10.0, resting(A, B)) == Try(B, 0.0)
    gone = [attempt(B, "rejected", status=404)]
    assert next_attempt(gone, (A, B), POLICY, 0.0, 10.0, resting(A)) == Try(A, 0.0)


def test_what_it_asked_others_to_wait_is_waited_for_or_too_long() -> None:
    assert next_attempt((), (A,), POLICY, 0.0, 0.0, resting(A, for_ms=2_000.0)) == Try(A, 2_000.0)
    too_long = {called(A): 60_000.0, called(B): 50_000.0}
    step = next_attempt((), (A, B), POLICY, 0.0, 0.0, too_long)
    assert step == GiveUp("every offer left asks for a longer pause than we wait", 50_000.0)
    assert next_attempt((), (A, B), POLICY, 0.0, 0.0, {**too_long, called(B): 0.0}) == Try(B, 0.0)


@settings(deadline=None)
@given(OFFERS, st.data())
def test_a_request_that_any_of_its_offers_can_serve_is_served(offers, data) -> None:
    """Whatever rests rightly or wrongly, and whichever one offer is up: five attempts find it among five."""
    offers = offers[: POLICY.max_attempts]
    rests = {called(one): 0.0 for one in data.draw(st.lists(st.sampled_from(offers), unique=True))}
    up = data.draw(st.sampled_from(offers))
    attempts: list[Attempt] = []
    now_ms = 0.0
    while isinstance(step := next_attempt(attempts, offers, POLICY, 0.0, now_ms, rests), Try):
        if step.offer == up:
            return
        if called(step.offer) in rests:
            awake = [one for one in offers if called(one) not in rests]
            assert all(any(one.provider == seen.provider for seen in attempts) for one in awake), "others were first"
        now_ms += step.delay_ms
        attempts.append(attempt(step.offer, "connect_failed", at=now_ms))
        now_ms += 10.0
    raise AssertionError(f"{up} was never asked")
