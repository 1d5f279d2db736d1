"""The difficulty router's numbers: chances that keep their promises, training that finds what was put there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.difficulty import MOST_TENFOLDS, STRENGTH_PER_TENFOLD, Difficulty, sigmoid
from routing.difficulty_training import LEAST_PROMPTS, train

WIDTH = 6
MODELS = ("steady", "coder", "strong")


def world(prompts: int = 3_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, the true chances and the drawn scores: column 0 is hard for all, column 1 for all but the coder."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(prompts, WIDTH)).astype(np.float32)
    log_odds = np.array([0.0, 0.0, 1.5]) - 1.2 * rows[:, :1] - np.outer(rows[:, 1], [1.0, -1.0, 1.0])
    chances = sigmoid(log_odds)
    return rows, chances, (rng.random(chances.shape) < chances).astype(np.float64)


def learned(prompts: int = 3_000) -> Difficulty:
    rows, _, scores = world(prompts)
    return train(rows, scores, MODELS, "six", np.full(WIDTH, 0.01))


WEIGHTS = learned(500)
ROWS = world(40, seed=7)[0]


def test_the_chances_are_those_that_the_scores_were_drawn_from() -> None:
    rows, chances, _ = world(seed=1)
    assert np.abs(learned().chances(rows) - chances).mean() < 0.03


def test_a_model_that_was_not_asked_is_no_evidence() -> None:
    """Without a score is not the same as wrong: leaving out nine of ten of a model's scores moves its chances little."""
    rows, chances, scores = world(6_000)
    scores[np.random.default_rng(5).random(len(scores)) < 0.9, 2] = np.nan
    found = train(rows, scores, MODELS, "six", np.full(WIDTH, 0.01)).chances(rows)
    assert abs(found[:, 2].mean() - chances[:, 2].mean()) < 0.04


def test_what_all_find_hard_is_told_from_what_one_finds_hard() -> None:
    weights = learned()
    hard = np.zeros(WIDTH, np.float32)
    hard[0] = 2
    code = np.zeros(WIDTH, np.float32)
    code[1] = 2
    easy = weights.qualities(np.zeros(WIDTH, np.float32), MODELS)
    assert all(weights.qualities(hard, MODELS)[model] < easy[model] - 0.1 for model in MODELS)
    coding = weights.qualities(code, MODELS)
    assert coding["coder"] > easy["coder"] > coding["steady"]


def test_qualities_are_the_chances_of_the_models_by_name() -> None:
    weights, (rows, _, _) = learned(), world(40, seed=3)
    for row, expected in zip(rows, weights.chances(rows), strict=True):
        found = weights.qualities(row, ("acme/Strong", "steady"))
        assert found == pytest.approx({"acme/Strong": expected[2], "steady": expected[0]}, abs=1e-6)


def test_the_same_rows_give_the_same_bytes_and_the_file_gives_the_same_chances(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        learned(500).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    rows = world(20, seed=9)[0]
    read = Difficulty.load(tmp_path / "a.npz")
    assert (read.columns, read.models) == ("six", MODELS)
    assert np.array_equal(read.chances(rows), learned(500).chances(rows))


def test_another_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("no weights", encoding="utf-8")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match="holds no difficulty weights"):
            Difficulty.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        Difficulty.load(tmp_path / "missing.npz")


@given(st.floats(0.01, 0.99))
def test_a_share_of_ordinary_prompts_is_a_strength_and_back(share: float) -> None:
    assert WEIGHTS.share_of(WEIGHTS.strength_of(share)) == pytest.approx(share, abs=1e-6)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(0, 39))
def test_a_larger_share_is_never_a_smaller_chance(one: float, other: float, at: int) -> None:
    low, high = sorted((one, other))
    found = WEIGHTS.qualities(ROWS[at], ("new-small", "new-large"), {"new-small": low, "new-large": high})
    assert 0 <= found["new-small"] <= found["new-large"] <= 1


@given(st.lists(st.floats(1e-9, 1e3), min_size=2, max_size=6), st.integers(0, 39))
def test_among_unknown_models_a_dearer_one_is_never_taken_to_be_weaker(prices: list[float], at: int) -> None:
    named = {f"new-{number}": price for number, price in enumerate(prices)}
    found = WEIGHTS.qualities(ROWS[at], tuple(named), None, named)
    by_price = sorted(named, key=lambda name: named[name])
    assert [found[name] for name in by_price] == sorted(found.values())


def test_an_unknown_model_is_placed_by_its_price_and_a_free_one_is_not_hopeless() -> None:
    prices = {"dear": 10.0, "tenth": 1.0, "free": 0.0}
    found = WEIGHTS.strengths(("dear", "tenth", "free", "priceless"), None, prices)
    assert found["dear"] == pytest.approx(WEIGHTS.strength.max())
    assert found["dear"] - found["tenth"] == pytest.approx(STRENGTH_PER_TENFOLD)
    assert found["dear"] - found["free"] == pytest.approx(STRENGTH_PER_TENFOLD * MOST_TENFOLDS)
    assert found["priceless"] == found["free"]


def test_models_without_any_price_are_taken_to_be_alike() -> None:
    assert len(set(WEIGHTS.strengths(("a", "b")).values())) == 1


def test_a_prompt_unlike_any_other_is_judged_within_what_was_seen() -> None:
    far = WEIGHTS.qualities(np.full(WIDTH, 1e6, np.float32), MODELS)
    edge = WEIGHTS.qualities(WEIGHTS.centre + 3 * WEIGHTS.spread, MODELS)
    assert far == pytest.approx(edge)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        WEIGHTS.strength_of(share)


def test_too_little_to_learn_from_is_refused() -> None:
    rows, _, scores = world(LEAST_PROMPTS)
    with pytest.raises(ValueError, match="too few"):
        train(rows[1:], scores[1:], MODELS, "six", np.ones(WIDTH))
    scores[:, 1] = 1
    with pytest.raises(ValueError, match="'coder' are the same"):
        train(rows, scores, MODELS, "six", np.ones(WIDTH))


def test_what_counts_more_is_learned_more() -> None:
    """Two kinds of prompts that contradict each other: the heavier kind wins."""
    rows, _, scores = world(400)
    both, contradicting = np.concatenate([rows, rows]), np.concatenate([scores, 1 - scores])
    for heavy in (0, 1):
        weights = np.repeat([4.0 - 3 * heavy, 1.0 + 3 * heavy], 400)
        found = train(both, contradicting, MODELS, "six", np.full(WIDTH, 0.01), weights).hardness[0]
        assert found > 0.1 if heavy == 0 else found < -0.1
