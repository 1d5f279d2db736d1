"""Prompt caches: what is warm, for how long, and what is expected to come back."""

from __future__ import annotations

import pytest

from routing.prompt_cache import CacheRules, Expected, Link, PromptCaches, rules_of

HERE, THERE = ("openai", "m", "sync"), ("other", "m", "sync")
RULES = CacheRules(1_000, lifetime_s=300.0)


def chain(*names: str, tokens: int = 1_000) -> list[Link]:
    """A request of so many messages of equal length; equal beginnings give equal links."""
    return [Link("/".join(names[: at + 1]).encode(), tokens * (at + 1)) for at in range(len(names))]


def came(caches: PromptCaches, chain: list[Link], now_s: float, **more: bool) -> Expected:
    """What is expected of a request that is sent then."""
    expected = caches.expected(chain, now_s, **more)
    assert caches.expected(chain, now_s, **more) == expected  # to ask is to send nothing
    caches.came(chain, now_s)
    return expected


def test_the_longest_prefix_that_was_sent_is_warm_there_and_nowhere_else() -> None:
    caches = PromptCaches()
    caches.sent(HERE, chain("sys", "u1"), 0.0)
    longer = chain("sys", "u1", "a1", "u2")
    assert caches.warm_tokens(HERE, longer, RULES, 10.0) == 2_000
    assert caches.warm_tokens(HERE, chain("sys", "other"), RULES, 10.0) == 1_000
    assert caches.warm_tokens(HERE, chain("else"), RULES, 10.0) == 0
    assert caches.warm_tokens(THERE, longer, RULES, 10.0) == 0


def test_a_prefix_cools_down_and_every_use_keeps_it_warm() -> None:
    caches = PromptCaches()
    caches.sent(HERE, chain("sys"), 0.0)
    assert caches.warm_tokens(HERE, chain("sys", "u"), RULES, 299.0) == 1_000
    assert caches.warm_tokens(HERE, chain("sys", "u"), RULES, 300.0) == 0
    caches.sent(HERE, chain("sys", "u"), 299.0)
    assert caches.warm_tokens(HERE, chain("sys", "v"), RULES, 500.0) == 1_000


def test_what_is_shorter_than_the_cache_takes_is_never_warm() -> None:
    caches = PromptCaches()
    caches.sent(HERE, chain("sys", tokens=999), 0.0)
    assert caches.warm_tokens(HERE, chain("sys", "u", tokens=999), RULES, 1.0) == 0
    assert caches.warm_tokens(HERE, chain("sys", tokens=999), CacheRules(), 1.0) == 0


def test_a_single_question_is_not_expected_to_come_back() -> None:
    caches = PromptCaches()
    assert all(came(caches, chain(f"q{n}"), float(n)).carried.times == 0 for n in range(50))


def test_conversations_that_go_on_teach_that_the_next_one_will() -> None:
    caches = PromptCaches()
    for talk in range(20):
        words = ["sys"]
        for turn in range(5):
            words += [f"u{talk}.{turn}"]
            carried = came(caches, chain(*words), talk * 1_000.0 + turn).carried
            words += [f"a{talk}.{turn}"]
    assert carried.with_context
    assert carried.prefix_tokens == 10_000
    assert 0.5 < carried.times < 1


def test_a_shared_beginning_is_expected_as_often_as_it_came() -> None:
    caches = PromptCaches()
    for number in range(10):
        carried, link = came(caches, chain("sys", f"q{number}"), float(number))
    assert (carried.prefix_tokens, carried.with_context, link) == (1_000, False, 0)
    assert carried.times == pytest.approx(9, rel=0.05)
    assert came(caches, chain("sys", "much later"), 100_000.0).carried.times < 0.01


def test_a_context_that_stands_apart_ends_what_is_repeated_before_it() -> None:
    caches = PromptCaches()
    words = ["sys"]
    for turn in range(6):
        words += [f"u{turn}"]
        carried = came(caches, chain(*words), float(turn), context_apart=True).carried
        words += [f"a{turn}"]
    assert not carried.with_context
    assert carried.prefix_tokens == 1_000 * (len(words) - 2)
    assert came(caches, chain("only"), 0.0, context_apart=True).carried.prefix_tokens == 0


def test_the_memory_is_bounded() -> None:
    caches = PromptCaches(max_links=10)
    for number in range(100):
        caches.sent(HERE, chain(f"q{number}"), float(number))
        came(caches, chain(f"q{number}"), float(number))
    assert caches.warm_tokens(HERE, chain("q0"), RULES, 99.0) == 0
    assert caches.warm_tokens(HERE, chain("q99"), RULES, 99.0) == 1_000


@pytest.mark.parametrize(
    ("kind", "model", "minimum", "marked"),
    [
        ("anthropic", "claude-sonnet-4-5", 1_024, True),
        ("anthropic", "claude-haiku-5-5", 4_096, True),
        ("openai", "gpt-6.1-sol", 1_024, False),
        ("openai", "deepseek-chat", 64, False),
        ("gemini", "gemini-2.5-pro", 2_048, False),
        ("gemini", "gemini-3.1-pro-preview", 4_096, False),
        ("unheard of", "m", 0, False),
    ],
)
def test_each_maker_has_its_own_rules(kind: str, model: str, minimum: int, marked: bool) -> None:
    rules = rules_of(kind, model)
    assert (rules.minimum_tokens, rules.marked) == (minimum, marked)
