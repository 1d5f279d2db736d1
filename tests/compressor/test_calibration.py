"""Calibration: the promise holds where it says it does, and becomes careful where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.calibrating import calibrated, kept_shares
from compressor.calibration import LEVELS, Bound, Calibration, least_of_higher, signature
from compressor.features import NAMES
from compressor.labelled import Labelled
from compressor.ranking import Ranking
from compressor.segments import Source, segmented

RNG = np.random.default_rng


def made(seed: int, counts: tuple[int, ...] = (150, 150), hardness: tuple[float, ...] = (1.0, 3.0)) -> Calibration:
    """Kinds of questions that lose more the harder they are, and whose signatures stand apart."""
    rng = RNG(seed)
    kind = np.repeat(np.arange(len(counts)), counts)
    need = rng.beta(2, 2 * np.asarray(hardness)[kind])  # the level at which a question's evidence is kept whole
    kept = least_of_higher((LEVELS[None, :] >= 1 - need[:, None]).astype(float))
    signatures = rng.normal(size=(len(kind), 4)) + 10.0 * kind[:, None]
    spans = np.where(kind == 2, 30, 1)
    return Calibration(tuple(f"kind {number}" for number in range(len(counts))), kind, kept, signatures, spans)


def level_for(bound: Bound, coverage: float) -> float:
    """The least level that is promised to keep `coverage`; 1 where none is."""
    enough = np.flatnonzero(bound.coverages >= coverage)
    return float(LEVELS[enough[0]]) if len(enough) else 1.0


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_exchangeable_questions_keep_what_was_promised_on_average(target: float) -> None:
    """Over many draws of calibration and test questions, the mean is at least the target: the theorem's own claim."""
    means = []
    for seed in range(200):
        both = made(seed, counts=(200,), hardness=(2.0,))
        half = Calibration(both.kinds, both.kind[:100], both.kept[:100], both.signatures[:100], both.spans[:100])
        level = level_for(half.bound(both.signatures[0]), target)
        at = np.searchsorted(LEVELS, level)
        means.append(both.kept[100:, at].mean() if at < len(LEVELS) else 1.0)
    assert np.mean(means) >= target - 0.003
    assert np.mean(means) <= target + 0.05  # and it does not get there by keeping everything


def test_few_questions_promise_little() -> None:
    always = Calibration(("easy",), np.zeros(9, int), np.ones((9, len(LEVELS))), np.zeros((9, 4)), np.ones(9, int))
    assert always.bound(np.zeros(4)).coverage(0.5) == pytest.approx(0.9)  # 1 - 1 / (9 + 1)
    assert always.bound(np.zeros(4)).coverage(1.0) == 1.0


def test_a_request_gets_the_promise_of_the_kinds_that_it_is_like() -> None:
    calibration = made(0)
    easy, hard = calibration.signatures[:150].mean(axis=0), calibration.signatures[150:].mean(axis=0)
    like_easy, like_hard = calibration.bound(easy), calibration.bound(hard)
    assert "like kind 0" in like_easy.says
    assert "like kind 1" in like_hard.says
    assert level_for(like_easy, 0.9) < level_for(like_hard, 0.9)


def test_what_is_like_nothing_calibrated_is_spent_more_on() -> None:
    calibration = made(0)
    shifted = calibration.bound(np.full(4, 500.0))
    assert "unlike all" in shifted.says
    for number in range(2):
        own = calibration.bound(calibration.signatures[calibration.kind == number].mean(axis=0))
        assert (shifted.coverages <= own.coverages).all()


def test_a_kind_that_asks_for_a_bit_of_everything_counts_only_for_what_is_like_it_or_asks_so() -> None:
    calibration = made(0, counts=(150, 150, 150), hardness=(1.0, 3.0, 40.0))
    unlike = np.full(4, 500.0)
    broad = calibration.bound(np.full(4, 20.0))
    assert "like kind 2" in broad.says
    assert level_for(broad, 0.5) > level_for(calibration.bound(unlike), 0.5)
    everything = calibration.bound(unlike, everything=True)
    assert (everything.coverages <= broad.coverages).all()
    assert "needs everything" in everything.says


@given(st.integers(0, 50), st.floats(0, 1), st.floats(0, 1))
def test_more_is_never_promised_to_keep_less(seed: int, one: float, other: float) -> None:
    bound = made(seed % 5).bound(np.zeros(4))
    low, high = sorted((one, other))
    assert bound.coverage(low) <= bound.coverage(high) <= 1.0


def test_what_is_saved_is_what_is_loaded_rounded_down(tmp_path: Path) -> None:
    calibration = made(1)
    calibration.save(tmp_path / "c.npz")
    loaded = Calibration.load(tmp_path / "c.npz")
    assert loaded.kinds == calibration.kinds
    np.testing.assert_array_equal(loaded.kind, calibration.kind)
    assert (loaded.kept <= calibration.kept).all()
    np.testing.assert_allclose(loaded.kept, calibration.kept, atol=0.001)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_file_that_is_no_calibration_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(ValueError, match="is no calibration"):
        Calibration.load(tmp_path / "c.npz")


def test_an_empty_calibration_is_refused() -> None:
    with pytest.raises(ValueError, match="a row for each question"):
        Calibration((), np.zeros(0, int), np.zeros((0, len(LEVELS))), np.zeros((0, 4)), np.zeros(0, int))
    with pytest.raises(ValueError, match="no question has evidence"):
        calibrated([], lambda question: pytest.fail("nothing is to be ranked"))


TEXT = "The sky is blue. Grass is green. Snow is white. Coal is black. Roses are red. Gold is yellow."


def ranked(scores: list[float]) -> Ranking:
    sources = (Source("0", TEXT),)
    segments = segmented(sources)
    odds = np.exp(np.array(scores[: len(segments)]))
    return Ranking(sources, segments, np.log(odds), odds / odds.sum())


def labelled(span: str) -> Labelled:
    start = TEXT.index(span)
    return Labelled("made", "?", (Source("0", TEXT),), ((0, start, start + len(span)),))


def test_kept_shares_are_what_cuts_at_each_level_really_keep() -> None:
    first = kept_shares(labelled("The sky is blue."), ranked([5, 4, 3, 2, 1, 0]))
    last = kept_shares(labelled("Gold is yellow."), ranked([5, 4, 3, 2, 1, 0]))
    assert first[0] == 0.0
    assert first[LEVELS >= 0.7].all()
    assert not last[LEVELS <= 0.9].any()
    assert (np.diff(first) >= 0).all()


def test_calibration_of_questions_counts_kinds_and_leaves_out_those_without_evidence() -> None:
    ranking = ranked([5, 4, 3, 2, 1, 0])
    questions = [labelled("Snow is white."), Labelled("other", "?", (), ()), labelled("Coal is black.")]
    calibration = calibrated(questions, lambda question: (ranking, np.zeros(4)))
    assert calibration.kinds == ("made",)
    assert len(calibration.kind) == 2


def test_a_bound_takes_the_place_of_the_shares() -> None:
    plain = ranked([5, 4, 3, 2, 1, 0])
    careful = Ranking(
        plain.sources, plain.segments, plain.scores, plain.probabilities, bound=Bound(LEVELS * 0.5, "half of it")
    )
    for share in (0.2, 0.5, 0.9):
        budget = int(share * plain.full_tokens)
        assert careful.coverage(budget) <= plain.coverage(budget)
        assert careful.cut(budget).contexts == plain.cut(budget).contexts
        assert careful.cut(budget).coverage_estimate <= 0.5
    assert careful.coverage(plain.full_tokens) == 1.0
    assert careful.budget_for(0.6) == careful.lean_tokens  # no cut is promised to keep so much


def test_a_signature_is_of_one_size_whatever_the_payload() -> None:
    for size in (1, 2, 300):
        odds = RNG(size).normal(size=size)
        shares = np.exp(odds) / np.exp(odds).sum()
        found = signature(odds, shares, RNG(size).uniform(size=(size, len(NAMES))).astype(np.float32))
        assert found.shape == (12,)
        assert np.isfinite(found).all()
