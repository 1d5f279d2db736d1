"""Counters: the same promises of every implementation, against real servers."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.access.counters import Ask, Budget, Counters, End, Meter, Rate, decide
from trimtab.access.redis_counters import RedisCounters
from trimtab.access.sql_counters import DatabaseCounters
from trimtab.database import Database

NOW = 1_800_000_000.0


def made(kind: str, where: str) -> Counters:
    return RedisCounters(where) if kind == "redis" else DatabaseCounters(Database(where, durable=False))


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    if request.param == "sqlite":
        return "sqlite", f"sqlite:///{tmp_path / 'counters.sqlite'}"
    return request.param, request.getfixturevalue("postgres_url" if request.param == "postgresql" else "valkey_url")


@pytest.fixture
def counters(place: tuple[str, str]) -> Iterator[Counters]:
    found = made(*place)
    yield found
    found.close()


def budget(cap: int, name: str = "") -> Budget:
    return Budget("key", name or uuid.uuid4().hex, "month", NOW - 100.0, NOW + 1_000.0, cap)


def ask(amount: int, *budgets: Budget, rates: tuple[Rate, ...] = (), until: float = NOW + 60, **more: object) -> Ask:
    return Ask(uuid.uuid4().hex, amount, amount // 2, budgets, rates, until, **more)  # type: ignore[arg-type]


def test_a_meter_that_is_not_there_is_seeded_once(counters: Counters) -> None:
    one = budget(100)
    (answer,) = counters.reserve([ask(10, one)], NOW)
    assert answer.unknown == (one,)
    assert not answer.reserved
    counters.seed({one: 70})
    counters.seed({one: 1})  # another host's, later
    assert counters.read([one]) == [(70, 0)]


def test_what_is_reserved_is_gone_until_it_is_settled(counters: Counters) -> None:
    one = budget(100)
    counters.seed({one: 0})
    first, second, third = ask(60, one), ask(60, one), ask(40, one)
    answers = counters.reserve([first, second, third], NOW)
    assert [each.reserved for each in answers] == [True, False, True]
    assert answers[1].refused == one
    assert answers[1].left_pico == 40
    assert counters.read([one]) == [(0, 100)]
    assert counters.settle([End(first.id, 25)], NOW) == {first.id}
    assert counters.settle([End(first.id, 25)], NOW) == set()
    assert counters.settle([End("nobody", 25)], NOW) == set()
    assert counters.read([one]) == [(25, 40)]
    assert counters.settle([End(third.id, 41)], NOW) == {third.id}  # more than was thought: counted in full
    assert counters.read([one]) == [(66, 0)]


def test_of_key_and_team_both_hold_and_a_refusal_leaves_no_trace(counters: Counters) -> None:
    own, team = budget(1_000), budget(50)
    rate = Rate("key", uuid.uuid4().hex, "requests", 60, 1)
    counters.seed({own: 0, team: 0})
    (answer,) = counters.reserve([ask(60, own, team, rates=(rate,))], NOW)
    assert answer.refused == team
    assert counters.read([own, team]) == [(0, 0), (0, 0)]
    (answer,) = counters.reserve([ask(10, own, team, rates=(rate,))], NOW)
    assert answer.reserved
    assert answer.rates[0].left == 59


def test_large_amounts_are_exact(counters: Counters) -> None:
    one = budget(10**18)  # a million dollars
    counters.seed({one: 10**17 + 1})
    large = ask(10**17 + 3, one)
    assert counters.reserve([large], NOW)[0].reserved
    assert counters.read([one]) == [(10**17 + 1, 10**17 + 3)]
    counters.settle([End(large.id, 7)], NOW)
    assert counters.read([one]) == [(10**17 + 8, 0)]


def test_a_rate_is_a_bucket_that_fills_evenly(counters: Counters) -> None:
    rate = Rate("key", uuid.uuid4().hex, "requests", 60, 1)
    answers = counters.reserve([ask(0, rates=(rate,)) for _ in range(61)], NOW)
    assert sum(each.reserved for each in answers) == 60
    assert answers[0].rates[0].left == 59
    assert answers[-1].refused == rate
    assert answers[-1].wait_s == pytest.approx(1.0, abs=1e-3)
    assert counters.reserve([ask(0, rates=(rate,))], NOW + 0.9)[0].refused == rate
    assert counters.reserve([ask(0, rates=(rate,))], NOW + 1.01)[0].reserved


def test_tokens_are_set_right_when_they_are_known(counters: Counters) -> None:
    rate = Rate("key", uuid.uuid4().hex, "tokens", 1_000, 900)
    first = ask(0, rates=(rate,))
    assert counters.reserve([first], NOW)[0].reserved
    assert counters.reserve([ask(0, rates=(rate,))], NOW)[0].refused == rate
    counters.settle([End(first.id, 0, tokens=50)], NOW)
    assert counters.reserve([ask(0, rates=(rate,))], NOW)[0].rates[0].left == 50
    too_much = Rate(rate.kind, rate.name, "tokens", 1_000, 1_001)
    assert counters.reserve([ask(0, rates=(too_much,))], NOW + 600)[0].wait_s == float("inf")


def test_a_lease_that_is_over_is_told_until_somebody_settles_it(counters: Counters) -> None:
    one = budget(100)
    counters.seed({one: 0})
    dead, kept = ask(40, one, until=NOW + 10), ask(10, one, until=NOW + 10)
    counters.reserve([dead, kept], NOW)
    counters.renew([kept.id, "nobody"], NOW + 1_000)
    ours = {dead.id, kept.id, "nobody"}
    assert [each for each in counters.lost(NOW + 11) if each[0] in ours] == [(dead.id, 20)]
    counters.settle([End(dead.id, 20)], NOW + 11)
    assert not [each for each in counters.lost(NOW + 11) if each[0] in ours]
    assert counters.read([one]) == [(20, 10)]


def spender(kind: str, where: str, one: Budget, seed: int, told: Callable[[tuple[int, int]], None]) -> None:
    """A worker that reserves, spends at most what it reserved, and settles."""
    counters, random = made(kind, where), Random(seed)
    spent = refused = 0
    for _ in range(30):
        asked = ask(random.randint(1, 40), one, until=time.time() + 60)
        (answer,) = counters.reserve([asked], NOW)
        if not answer.reserved:
            refused += 1
            continue
        cost = random.randint(0, asked.amount_pico)
        spent += cost
        if random.random() < 0.5:
            held = counters.read([one])[0]
            assert held is not None
            assert sum(held) <= one.cap_pico
        counters.settle([End(asked.id, cost)], NOW)
    counters.close()
    told((spent, refused))


def in_process(kind: str, where: str, one: Budget, seed: int, queue: multiprocessing.Queue[tuple[int, int]]) -> None:
    spender(kind, where, one, seed, queue.put)


def test_several_processes_never_overspend(place: tuple[str, str]) -> None:
    one = budget(1_000)
    counters = made(*place)
    counters.seed({one: 0})
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[tuple[int, int]] = context.Queue()
    workers = [context.Process(target=in_process, args=(*place, one, seed, queue)) for seed in range(3)]
    for each in workers:
        each.start()
    totals = [queue.get(timeout=60) for _ in workers]
    for each in workers:
        each.join(timeout=30)
    with ThreadPoolExecutor(4) as pool:  # and threads of one process, beside
        more: list[tuple[int, int]] = []
        list(pool.map(lambda seed: spender(*place, one, seed, more.append), range(10, 14)))
    spent = sum(each for each, _ in (*totals, *more))
    assert counters.read([one]) == [(spent, 0)]
    assert spent <= one.cap_pico
    assert sum(refused for _, refused in (*totals, *more)) > 0
    counters.close()
    queue.close()
    queue.join_thread()


@settings(max_examples=200)
@given(
    cap=st.integers(0, 200),
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 100), st.booleans()), max_size=40),
)
def test_spent_and_reserved_never_pass_the_cap(cap: int, steps: list[tuple[int, int, bool]]) -> None:
    one = budget(cap)
    meters = {one.meter: Meter()}
    held: list[int] = []
    for amount, share, settle in steps:
        if decide(ask(amount, one), meters, NOW).reserved:
            held.append(amount)
        if settle and held:
            back = held.pop()
            meters[one.meter].reserved_pico -= back
            meters[one.meter].spent_pico += back * share // 100
        assert meters[one.meter].spent_pico + meters[one.meter].reserved_pico <= cap
