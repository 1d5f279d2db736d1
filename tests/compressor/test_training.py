"""Training the fusion: the same examples give the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressor.features import NAMES
from compressor.fusion import Fusion
from compressor.training import Example, train


def examples(count: int = 12, rows: int = 60) -> list[Example]:
    """Questions whose evidence is told by two features together."""
    made = []
    for seed in range(count):
        matrix = np.random.default_rng(seed).normal(size=(rows, len(NAMES))).astype(np.float32)
        made.append(Example(f"set{seed % 2}", matrix, (matrix[:, 0] > 0.5) & (matrix[:, 3] > 0)))
    return made


def test_the_same_examples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        train(examples()).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_what_is_loaded_scores_as_what_was_trained_and_finds_the_evidence(tmp_path: Path) -> None:
    fusion = train(examples())
    fusion.save(tmp_path / "f.npz")
    unseen = examples(13)[-1]
    odds = Fusion.load(tmp_path / "f.npz").log_odds(unseen.matrix)
    assert np.array_equal(odds, fusion.log_odds(unseen.matrix))
    assert odds[unseen.holds_evidence].mean() > odds[~unseen.holds_evidence].mean() + 2


def test_without_evidence_there_is_nothing_to_learn() -> None:
    empty = [Example("s", e.matrix, np.zeros(len(e.matrix), np.bool_)) for e in examples(2)]
    with pytest.raises(ValueError, match="no example"):
        train(empty)
