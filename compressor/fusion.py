"""Fusion: a row of features into the odds that the segment holds evidence, by small boosted trees.

Knows nothing of texts. Trees are evaluated here, in arrays, and trained in `training`; the shipped ones are `fusion.npz`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.features import NAMES

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Fusion:
    """Trees as arrays of shape (trees, nodes). Node 0 is the root; a leaf is its own child.

    `feature`, `threshold`: a row goes left where its feature is at most the threshold. `value`: log-odds of the leaves.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float32]
    baseline: float
    depth: int

    def log_odds(self, matrix: NDArray[np.float32]) -> Scores:
        """One number a row; `matrix` has the columns `features.NAMES`."""
        trees = np.arange(len(self.feature))
        node = np.zeros((len(matrix), len(trees)), np.int32)
        rows = np.arange(len(matrix))[:, None]
        for _ in range(self.depth):
            goes_left = matrix[rows, self.feature[trees, node]] <= self.threshold[trees, node]
            node = np.where(goes_left, self.left[trees, node], self.right[trees, node])
        return np.asarray(self.baseline + self.value[trees, node].sum(axis=1, dtype=np.float64))

    def save(self, file: Path) -> None:
        """Write as `.npz`, the same bytes for the same trees."""
        np.savez(
            file,
            names=np.array(NAMES),
            feature=self.feature,
            threshold=self.threshold,
            left=self.left,
            right=self.right,
            value=self.value,
            baseline=np.float64(self.baseline),
            depth=np.int64(self.depth),
        )

    @staticmethod
    def load(file: Path) -> Fusion:
        """Read what `save` wrote. Raises ValueError for a file of another version's features."""
        with np.load(file, allow_pickle=False) as stored:
            if tuple(stored["names"]) != NAMES:
                raise ValueError(f"{file} was trained on other features; train it again with this version")
            arrays = {name: stored[name] for name in ("feature", "threshold", "left", "right", "value")}
            return Fusion(**arrays, baseline=float(stored["baseline"]), depth=int(stored["depth"]))


@functools.cache
def shipped_fusion() -> Fusion:
    """The trees that come with the package (see `docs/ranker.md` for what they were trained on)."""
    with as_file(files("compressor") / "fusion.npz") as file:
        return Fusion.load(file)
