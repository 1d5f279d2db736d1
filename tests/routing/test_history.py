"""History: expected output against the true mean of what was drawn, margins against bills drawn next, and the file."""

from __future__ import annotations

import doctest
import json
import math
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import routing.history
from routing.history import DEFAULT_MARGIN, LEAST_MARGIN, MOST_KEPT, PRIOR_OUTPUT_TOKENS, History
from routing.offers import Usage
from tests.routing.asking import offer

A = offer("a")
OTHER = offer("b", "other")


def answered(history: History, *output_tokens: int, route: str = "") -> None:
    for tokens in output_tokens:
        history.observed(A, route, None, Usage(10, tokens))


def billed(history: History, *pairs: tuple[int, int]) -> None:
    for estimated, input_tokens in pairs:
        history.observed(A, "", estimated, Usage(input_tokens, 1))


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(routing.history).failed == 0
    assert doctest.testmod(routing.history).attempted > 0


# --- output --------------------------------------------------------------------------------------------------------


def test_of_a_model_never_seen_nothing_is_expected() -> None:
    history = History()
    assert history.expected_output("m") is None
    answered(history, 100)
    assert history.expected_output("other") is None


def test_one_answer_moves_the_expectation_and_does_not_make_it() -> None:
    history = History()
    answered(history, 2_000)
    expected = history.expected_output("m")
    assert expected is not None
    assert PRIOR_OUTPUT_TOKENS < expected < 2_000


LOG_NORMAL: Callable[[random.Random], int] = lambda chance: max(1, round(chance.lognormvariate(5.5, 0.9)))  # noqa: E731
WORD_OR_PAGE: Callable[[random.Random], int] = lambda chance: chance.choice((10, 2_000))  # noqa: E731


@pytest.mark.parametrize("draw", [LOG_NORMAL, WORD_OR_PAGE], ids=["log-normal", "a word or a page"])
def test_what_is_expected_is_what_is_billed_on_average(draw: Callable[[random.Random], int]) -> None:
    """Averaged over many histories, within 5 % of the mean; the mean of logarithms misses both."""
    chance = random.Random(4)
    expected = []
    for _ in range(40):
        history = History()
        answered(history, *(draw(chance) for _ in range(300)))
        expected.append(history.expected_output("m") or 0)
    sample = [draw(chance) for _ in range(50_000)]
    mean = sum(sample) / len(sample)
    assert sum(expected) / len(expected) == pytest.approx(mean, rel=0.05)
    median = math.exp(sum(map(math.log, sample)) / len(sample))
    assert median < 0.7 * mean


def test_it_follows_when_answers_get_longer() -> None:
    history = History()
    answered(history, *[100] * 400)
    answered(history, *[900] * 400)
    assert history.expected_output("m") == pytest.approx(900, rel=0.05)


def test_routes_differ_and_a_new_one_begins_as_the_model_does() -> None:
    history = History()
    answered(history, *[50] * 200, route="classify")
    answered(history, *[1_500] * 200, route="write")
    classify, write, new = (history.expected_output("m", route) or 0 for route in ("classify", "write", "new"))
    assert classify == pytest.approx(50, rel=0.5)
    assert write == pytest.approx(1_500, rel=0.05)
    assert classify < new <= write


def test_max_tokens_bounds_it_for_each_answer() -> None:
    history = History()
    for _ in range(100):
        history.observed(A, "", None, Usage(10, 3 * 400), answers=3)
    assert history.expected_output("m") == pytest.approx(400, rel=0.02)
    assert history.expected_output("m", max_tokens=64) == 64
    assert history.expected_output("m", max_tokens=64, answers=3) == 192
    assert history.expected_output("m", max_tokens=5_000, answers=2) == pytest.approx(800, rel=0.02)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50), st.none() | st.integers(1, 10**5))
def test_it_lies_between_what_was_seen_and_the_prior(tokens: list[int], max_tokens: int | None) -> None:
    history = History()
    answered(history, *tokens)
    expected = history.expected_output("m", max_tokens=max_tokens)
    assert expected is not None
    low, high = min(*tokens, PRIOR_OUTPUT_TOKENS), max(*tokens, PRIOR_OUTPUT_TOKENS)
    if max_tokens is not None:
        low, high = min(low, max_tokens), min(high, max_tokens)
    assert math.floor(low * (1 - 1e-9)) <= expected <= math.ceil(high * (1 + 1e-9))


# --- margins -------------------------------------------------------------------------------------------------------


def test_the_margin_is_the_stated_default_until_enough_is_seen() -> None:
    history = History()
    assert history.margin("m") == DEFAULT_MARGIN
    billed(history, (10_000, 10_010))
    assert history.margin("m") == DEFAULT_MARGIN
    billed(history, *[(10_000, 10_010)] * 18)
    assert history.margin("m") == DEFAULT_MARGIN
    billed(history, *[(10_000, 10_010)] * 3)
    assert history.margin("m") == LEAST_MARGIN
    assert history.margin("other") == DEFAULT_MARGIN


def test_a_bill_far_above_our_count_is_believed_at_once() -> None:
    history = History()
    billed(history, *[(10_000, 10_500)] * 3)
    assert history.margin("m") == pytest.approx(0.05)


@pytest.mark.parametrize("off", [-0.02, 0.0, 0.02, 0.08])
def test_hardly_a_bill_lands_above_the_margin_learned(off: float) -> None:
    chance = random.Random(9)
    above = total = 0
    for _ in range(30):
        history = History()
        for seen in range(400):
            estimated = chance.randint(2_000, 300_000)
            input_tokens = round(estimated * (1 + off + chance.gauss(0, 0.004)))
            if seen >= 30:
                total += 1
                above += input_tokens > estimated * (1 + history.margin("m"))
            billed(history, (estimated, input_tokens))
    assert above / total < 0.005
    assert history.margin("m") < max(0.0, off) + 0.02


def test_a_bill_in_small_change_says_nothing_of_the_tokenizer() -> None:
    history = History()
    billed(history, *[(40, 52)] * 100)
    billed(history, *[(50_000, 0)] * 100)  # some servers report nothing but zeros
    assert history.margin("m") == DEFAULT_MARGIN


def test_one_large_bill_among_small_ones_does_not_settle_it() -> None:
    """It outweighs them all, and a single value has no spread: the default must hold until there are more."""
    history = History()
    billed(history, *[(1_000, 1_000)] * 100, (900_000, 900_000))
    assert history.margin("m") == DEFAULT_MARGIN


def test_an_unbelievable_bill_makes_no_impossible_margin() -> None:
    history = History()
    billed(history, *[(1_000, 50_000), (1_000, 10)] * 30)
    assert history.margin("m") == 1.0


# --- kept ----------------------------------------------------------------------------------------------------------


def test_a_history_survives_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "history.json"
    history = History(file)
    answered(history, 100, 300, route="write")
    billed(history, *[(10_000, 10_100), (20_000, 20_300)] * 20)
    history.save()
    again = History(file)
    assert again.expected_output("m", "write") == history.expected_output("m", "write")
    assert again.margin("m") == history.margin("m")
    answered(again, 5_000)
    again.save()
    assert [one.name for one in file.parent.iterdir()] == ["history.json"]
    assert History(file).expected_output("m") == again.expected_output("m")


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    history = History()
    answered(history, 100)
    history.save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"answers": [["m"]], "bills": []}', '{"answers": [[]], "bills": {}}']
)
def test_a_file_that_is_no_history_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "history.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"history\.json is no history of ours; delete it"):
        History(file)


def test_labels_without_number_do_not_fill_the_memory(tmp_path: Path) -> None:
    history = History(tmp_path / "history.json")
    answered(history, *[100] * 50, route="kept")
    for number in range(MOST_KEPT * 2):
        answered(history, 900, route=f"request {number}")
        if number % 100 == 0:
            answered(history, 100, route="kept")
    history.save()
    assert len(json.loads((tmp_path / "history.json").read_text())["answers"]) == MOST_KEPT
    assert history.expected_output("m", "kept") == pytest.approx(100, rel=0.3)


def test_many_threads_lose_nothing() -> None:
    history = History()

    def write() -> None:
        for _ in range(500):
            answered(history, 100)
            assert history.expected_output("m") is not None

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = History()
    answered(alone, *[100] * 2_000)
    assert history.expected_output("m") == alone.expected_output("m")


def test_a_usual_length_needs_enough_answers_and_no_prior() -> None:
    history = History()
    answered(history, *[40] * 20, route="faq")
    assert history.usual_output(A.model, "faq") is None  # the first has faded by now
    answered(history, *[40] * 5, route="faq")
    assert history.usual_output(A.model, "faq") == pytest.approx(40)
    assert history.usual_output(A.model, "other") is None
    assert history.usual_output(OTHER.model) is None
