"""Health: what a breaker does, what is forgotten, and what the router makes of it. Time is scripted but on the wire."""

from __future__ import annotations

import asyncio
import doctest
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import routing.allowances
import routing.health
from routing.allowances import Allowance, read_allowance
from routing.attempts import OUTCOMES, Attempt
from routing.errors import ProvidersFailed
from routing.forwarding import Reply, Router
from routing.health import Health, HealthPolicy, Vitals, after, breaker, probing, rest_ms, standing
from routing.offers import Offer
from routing.standing import UNKNOWN
from tests import loopback
from tests.loopback import LoopbackProvider
from tests.routing.asking import BODY, STREAM, offer, router, told

POLICY = HealthPolicy()
A, B = offer("a"), offer("b")


def attempt(outcome: str = "ok", *, took: float = 10.0, **more: Any) -> Attempt:
    return Attempt("a", "m", "sync", 0.0, took, None, outcome, "", **more)  # type: ignore[arg-type]


def ends(vitals: Vitals, outcomes: Sequence[str], start_s: float = 0.0, step_s: float = 0.1) -> tuple[Vitals, float]:
    now_s = start_s
    for outcome in outcomes:
        now_s += step_s
        vitals = after(vitals, attempt(outcome), now_s)
    return vitals, now_s


DOWN, OPENED_S = ends(Vitals(), ["server_error"] * 5)


def test_examples_in_the_docstrings() -> None:
    for module in (routing.health, routing.allowances):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 0


# --- the breaker ---------------------------------------------------------------------------------------------------


def test_five_failures_in_a_row_open_it_and_thirty_seconds_later_one_probe_may_go() -> None:
    four, now_s = ends(Vitals(), ["server_error"] * 4)
    assert breaker(four, now_s) == "closed"
    assert breaker(DOWN, OPENED_S) == "open"
    assert breaker(DOWN, OPENED_S + 29.9) == "open"
    assert rest_ms(DOWN, OPENED_S + 29.9) == 0.0
    assert breaker(DOWN, OPENED_S + 30.0) == "half-open"
    assert rest_ms(DOWN, OPENED_S + 30.0) is None
    begun = probing(DOWN, OPENED_S + 30.0)
    assert rest_ms(begun, OPENED_S + 30.1) == 0.0
    assert breaker(after(begun, attempt("ok"), OPENED_S + 31.0), OPENED_S + 31.0) == "closed"
    failed = after(begun, attempt("timeout"), OPENED_S + 31.0)
    assert [breaker(failed, OPENED_S + late_s) for late_s in (31.0, 60.9, 61.0)] == ["open", "open", "half-open"]


def test_an_answer_in_between_starts_the_count_again() -> None:
    vitals, now_s = ends(Vitals(), (["server_error"] * 4 + ["ok"]) * 6)
    assert breaker(vitals, now_s) == "closed"
    assert standing(vitals, now_s).success < 0.5


@pytest.mark.parametrize("outcome", ["abandoned", "caller_error", "unsupported"])
def test_what_the_caller_did_counts_neither_way(outcome: str) -> None:
    vitals, now_s = ends(Vitals(), [outcome] * 50)
    assert vitals == Vitals()
    run, now_s = ends(Vitals(), ["server_error", outcome] * 5)
    assert breaker(run, now_s) == "open", "it does not end a run of failures either"


def test_a_429_that_says_when_is_obeyed_and_is_no_failure() -> None:
    vitals = Vitals()
    for _ in range(50):
        vitals = after(vitals, attempt("rate_limited", retry_after_ms=2_000.0), 10.0)
    assert breaker(vitals, 10.0) == "closed"
    assert standing(vitals, 11.0).success == 1.0
    assert not standing(vitals, 11.9).available
    assert rest_ms(vitals, 11.0) == pytest.approx(1_000.0)
    assert standing(vitals, 12.0).available


def test_a_shorter_retry_after_does_not_cut_a_longer_one_short() -> None:
    vitals = after(Vitals(), attempt("rate_limited", retry_after_ms=60_000.0), 0.0)
    vitals = after(vitals, attempt("rate_limited", retry_after_ms=1_000.0), 1.0)
    assert rest_ms(vitals, 30.0) == pytest.approx(30_000.0)


def test_a_429_without_a_word_opens_it_and_a_503_with_one_does_too() -> None:
    assert breaker(*ends(Vitals(), ["rate_limited"] * 5)) == "open"
    vitals = Vitals()
    for _ in range(5):
        vitals = after(vitals, attempt("server_error", retry_after_ms=90_000.0), 1.0)
    assert breaker(vitals, 1.0) == "open"
    assert rest_ms(vitals, 61.0) == pytest.approx(30_000.0), "half-open, and told to wait"


def test_calls_of_an_outage_that_end_when_it_is_over_do_not_open_it_again() -> None:
    up = after(probing(DOWN, 31.0), attempt("ok", took=100.0), 31.1)
    for _ in range(20):  # they hung from the beginning
        up = after(up, attempt("timeout", took=60_000.0), 60.0)
    assert breaker(up, 60.0) == "closed"
    assert standing(up, 60.0).success == 1.0
    early = after(DOWN, attempt("ok", took=5_000.0), 2.0)
    assert breaker(early, 2.0) == "open", "an answer that began before the outage does not end it"


def test_the_failures_of_an_outage_are_the_breakers_business_alone() -> None:
    """Or the offer would be dear for minutes after it has come back, and nobody would try it."""
    vitals, now_s = ends(Vitals(), ["ok"] * 50 + ["connect_failed"] * 5)
    assert breaker(vitals, now_s) == "open"
    assert standing(vitals, now_s).success == pytest.approx(1.0, abs=1e-9)
    assert not standing(vitals, now_s).available


# --- rates ---------------------------------------------------------------------------------------------------------


def test_one_failure_of_one_call_is_not_zero_percent() -> None:
    assert standing(after(Vitals(), attempt("timeout"), 1.0), 1.0).success == pytest.approx(5 / 6)


def test_the_success_rate_is_the_share_of_calls_answered() -> None:
    vitals, now_s = ends(Vitals(), ["ok", "ok", "ok", "server_error"] * 100, step_s=0.01)
    assert standing(vitals, now_s).success == pytest.approx(0.75, abs=0.03)
    vitals, now_s = ends(vitals, ["ok"] * 400, now_s, step_s=0.01)
    assert standing(vitals, now_s).success > 0.99, "busy offers forget by the call"


def test_an_offer_that_nobody_calls_returns_to_the_prior() -> None:
    vitals, now_s = ends(Vitals(), ["ok", "timeout"] * 20)
    vitals = after(vitals, attempt("ok", first_byte_ms=5.0), now_s, output_tokens=10)
    before = standing(vitals, now_s)
    half = standing(vitals, now_s + POLICY.half_life_s)
    later = standing(vitals, now_s + 12 * 3600)
    assert before.success < half.success < 1.0
    assert later.success == pytest.approx(1.0)
    assert before.first_token_ms == pytest.approx(half.first_token_ms or 0.0)
    assert (later.first_token_ms, later.tokens_per_second) == (None, None)
    assert standing(Vitals(), 5.0) == UNKNOWN


def test_first_token_and_speed_of_streams() -> None:
    vitals = after(Vitals(), attempt(took=2_400.0, first_byte_ms=400.0), 10.0, output_tokens=100)
    seen = standing(vitals, 10.0)
    assert (seen.first_token_ms, seen.tokens_per_second) == (pytest.approx(400.0), pytest.approx(50.0))


def test_a_whole_answer_takes_as_long_as_the_standing_says() -> None:
    alone = standing(after(Vitals(), attempt(took=2_400.0), 10.0, output_tokens=120), 10.0)
    assert (alone.first_token_ms, alone.tokens_per_second) == (None, pytest.approx(50.0))
    streamed = after(Vitals(), attempt(took=2_400.0, first_byte_ms=400.0), 10.0, output_tokens=100)
    both = standing(after(streamed, attempt(took=4_400.0), 10.0, output_tokens=200), 10.0)
    assert both.tokens_per_second == pytest.approx(50.0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(OUTCOMES),
            st.none() | st.floats(0, 1e6),
            st.none() | st.floats(0, 1e5),
            st.integers(0, 10_000),
            st.floats(0, 100),
            st.floats(0, 1e5),
        ),
        max_size=60,
    )
)
def test_whatever_happens_the_numbers_make_sense(calls) -> None:
    """And a half-open breaker never lets two begin within `open_s` unless one of them has ended well."""
    vitals, now_s = Vitals(), 0.0
    last_probe_s = None
    for outcome, retry_after_ms, first_byte_ms, tokens, passed_s, took_ms in calls:
        now_s += passed_s
        if breaker(vitals, now_s) == "half-open":
            assert last_probe_s is None or now_s - last_probe_s >= POLICY.open_s
            vitals, last_probe_s = probing(vitals, now_s), now_s
            assert breaker(vitals, now_s) == "open"
        ended = attempt(outcome, took=took_ms, retry_after_ms=retry_after_ms, first_byte_ms=first_byte_ms)
        vitals = after(vitals, ended, now_s, output_tokens=tokens)
        if breaker(vitals, now_s) == "closed":
            last_probe_s = None
        seen = standing(vitals, now_s)
        assert 0.0 < seen.success <= 1.0
        assert seen.first_token_ms is None or seen.first_token_ms >= 0
        assert seen.tokens_per_second is None or seen.tokens_per_second > 0
        rest = rest_ms(vitals, now_s)
        assert seen.available == (rest is None)
        assert rest is None or rest >= 0


@pytest.mark.parametrize("field", ["failures", "open_s", "half_life_s", "memory_calls", "prior_calls"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        HealthPolicy(**{field: value})


# --- allowances ----------------------------------------------------------------------------------------------------


def limits(limit: str, remaining: str, reset: str, what: str = "requests") -> dict[str, str]:
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{what}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("1h2m3s", 3_723.0),
        ("120ms", 0.12),
        ("7.66s", 7.66),
        ("20", 20.0),
        ("1970-01-01T00:01:40Z", 50.0),
        ("1970-01-01T00:00:10Z", 0.0),
    ],
)
def test_when_it_is_full_again_is_read_in_every_providers_way(reset: str, seconds: float) -> None:
    found = read_allowance(limits("60", "59", reset), "requests", 1_000.0, 50.0)
    assert found == Allowance(60, 59, 1_000.0, pytest.approx(1_000.0 + seconds))


def test_anthropics_own_names_are_read_too() -> None:
    values = {"limit": "50", "remaining": "7", "reset": "1970-01-01T00:01:00Z"}
    headers = {f"anthropic-ratelimit-tokens-{name}": value for name, value in values.items()}
    assert read_allowance(headers, "tokens", 10.0, 30.0) == Allowance(50, 7, 10.0, 40.0)
    assert read_allowance(headers, "requests", 10.0, 30.0) is None


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [("", "1", "1s"), ("0", "0", "1s"), ("60", "-1", "1s"), ("60", "1", "soon"), ("60", "1", ""), ("x", "1", "1s")],
)
def test_what_makes_no_sense_is_no_allowance(limit: str, remaining: str, reset: str) -> None:
    assert read_allowance(limits(limit, remaining, reset), "requests", 0.0, 0.0) is None


def test_a_used_up_allowance_rests_until_it_has_come_back() -> None:
    now = [100.0]
    health = Health(clock=lambda: now[0])
    health.told(A, {**limits("60", "0", "60s"), **limits("90000", "30000", "60s", "tokens")})
    assert not health.standing(A).available
    assert health.resting([A, B]) == {("a", "m", "sync"): 0.0}
    now[0] = 101.1
    assert health.standing(A).available
    assert not health.standing(A, input_tokens=50_000).available, "a long prompt waits for its tokens"
    now[0] = 125.0
    assert health.standing(A, input_tokens=50_000).available


# --- the holder ----------------------------------------------------------------------------------------------------


def test_of_many_threads_one_gets_the_probe() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    for _ in range(5):
        health.ended(attempt("connect_failed"))
    assert not health.begin(A)
    now[0] = 30.0
    ready, allowed = threading.Barrier(16), []

    def begin() -> None:
        ready.wait()
        allowed.append(health.begin(A))

    threads = [threading.Thread(target=begin) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(allowed) == [False] * 15 + [True]
    assert health.begin(B)
    assert health.breaker(A) == "open"
    health.ended(attempt("ok"))
    assert health.breaker(A) == "closed"
    assert health.begin(A)
    assert health.begin(A)


# --- the router ----------------------------------------------------------------------------------------------------

SHORT = HealthPolicy(open_s=0.3)


async def whole(calls: Router, body: dict[str, Any], offers: tuple[Offer, ...]) -> Reply:
    async with await calls.forward(body, offers, bool(body.get("stream"))) as reply:
        if reply.chunks is not None:
            async for _ in reply.chunks:
                pass
        return reply


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_provider_that_is_down_is_left_alone_then_probed_once(body: dict[str, Any]) -> None:
    async def go() -> None:
        health = Health(SHORT)
        async with router(down, up, health=health) as calls:
            for _ in range(8):
                assert (await whole(calls, body, (A, B))).status == 200
            assert len(down.requests) == 5, "five failures open the breaker, and then nobody goes there"
            await asyncio.sleep(0.35)
            replies = await asyncio.gather(*(whole(calls, body, (A, B)) for _ in range(12)))
            assert {reply.status for reply in replies} == {200}
            assert len(down.requests) == 6, "one probe for twelve requests at once"
            await asyncio.sleep(0.35)
            down.then(loopback.ok())
            assert told((await whole(calls, body, (A, B))).attempts) == [("a", "ok", 200)]
            assert health.breaker(A) == "closed"

    with LoopbackProvider([loopback.status(503)] * 6) as down, LoopbackProvider() as up:
        asyncio.run(go())


def test_streams_that_break_off_open_it_and_clients_that_hang_up_do_not() -> None:
    async def go() -> None:
        health = Health()
        async with router(bad, good, health=health) as calls:
            for _ in range(5):
                await whole(calls, STREAM, (A,))
                async with await calls.forward(STREAM, (B,), True) as reply:
                    assert reply.chunks is not None
                    await anext(reply.chunks)
            assert (health.breaker(A), health.breaker(B)) == ("open", "closed")
            assert health.standing(B) == UNKNOWN

    with LoopbackProvider([loopback.cut(2)] * 5) as bad, LoopbackProvider([loopback.stall(2)] * 5) as good:
        asyncio.run(go())


def test_an_open_breaker_does_not_cost_an_answer() -> None:
    async def go() -> None:
        health = Health()
        async with router(a, b, health=health) as calls:
            for _ in range(5):
                health.ended(attempt("server_error"))
            reply = await whole(calls, BODY, (A, B))
            assert told(reply.attempts) == [("b", "ok", 200)]
            reply = await whole(calls, BODY, (A, B))
            assert told(reply.attempts) == [("b", "server_error", 500)] * 4 + [("a", "ok", 200)]
            assert health.breaker(A) == "closed", "and it is known to be back"
            reply = await whole(calls, BODY, (A,))
            assert told(reply.attempts) == [("a", "ok", 200)]

    with LoopbackProvider() as a, LoopbackProvider([loopback.ok()] + [loopback.status(500)] * 9) as b:
        asyncio.run(go())


def test_a_retry_after_holds_for_the_next_request_too() -> None:
    async def go() -> ProvidersFailed:
        async with router(a, b) as calls:
            reply = await whole(calls, BODY, (A, B))
            assert told(reply.attempts) == [("a", "rate_limited", 429), ("b", "ok", 200)]
            reply = await whole(calls, BODY, (A, B))
            assert told(reply.attempts) == [("b", "ok", 200)]
            with pytest.raises(ProvidersFailed) as failed:
                await whole(calls, BODY, (A,))
            return failed.value

    with LoopbackProvider([loopback.rate_limited("30")]) as a, LoopbackProvider() as b:
        failed = asyncio.run(go())
        assert len(a.requests) == 1, "it said when"
    assert (failed.status, failed.body, failed.attempts) == (429, None, ())
    assert failed.wait_ms == pytest.approx(30_000, rel=0.05)


def test_a_short_retry_after_of_another_request_is_waited_for() -> None:
    async def go() -> Reply:
        async with router(a) as calls:
            calls.health.ended(attempt("rate_limited", retry_after_ms=200.0))
            return await whole(calls, BODY, (A,))

    with LoopbackProvider() as a:
        reply = asyncio.run(go())
    assert told(reply.attempts) == [("a", "ok", 200)]
    assert reply.attempts[0].started_ms >= 190.0


def test_what_the_router_learns_of_speed_and_limits() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}

    async def go() -> Health:
        async with router(a, b) as calls:
            await whole(calls, {**STREAM, "stream_options": {"include_usage": True}}, (A,))
            await whole(calls, BODY, (B,))
            return calls.health

    headers = limits("60", "0", "60s")
    with (
        LoopbackProvider([loopback.ok(usage=usage, delay_s=0.05, gap_s=0.02)]) as a,
        LoopbackProvider([loopback.ok(headers=headers)]) as b,
    ):
        health = asyncio.run(go())
    seen = health.standing(A)
    assert seen.first_token_ms is not None
    assert 45 <= seen.first_token_ms < 120
    assert seen.tokens_per_second is not None
    assert 100 < seen.tokens_per_second < 1_000
    assert not health.standing(B).available
