"""Training the difficulty router: scored prompts and their rows into weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from routing.difficulty import Difficulty
from routing.difficulty_training import train
from trimtab.prompt_features import Rows, doubt
from trimtab.scored import Scored, score_table


def trained(prompts: Sequence[Scored], rows: Rows, weights: NDArray[np.float64], columns: str) -> Difficulty:
    """Weights for `prompts`, whose rows are `rows` and of which each counts `weights`. A model whose scores are all the
    same is left out. Raises ValueError where there is too little to learn from."""
    models, scores = score_table(prompts)
    useful = [at for at in range(len(models)) if len(np.unique(scores[np.isfinite(scores[:, at]), at])) > 1]
    if not useful:
        raise ValueError("no model has both a better and a worse score: nothing can be learned of what is hard")
    names = [models[at] for at in useful]
    return train(rows, scores[:, useful], names, columns, doubt(rows.shape[1]), weights)


def set_weights(sizes: Sequence[int]) -> NDArray[np.float64]:
    """What each prompt counts, for sets of these sizes one after the other: a set counts as the root of its size, so that
    a large one neither drowns a small one nor is thrown away. On average a prompt counts 1."""
    weights = np.concatenate([np.full(size, max(size, 1) ** -0.5) for size in sizes])
    return np.asarray(weights / weights.mean() if len(weights) else weights)
