"""Training the difficulty: rows of numbers and scores into weights. A convex fit, so that there is one answer to find.

Deterministic: the same rows in the same order give the same bytes on the same machine. Penalised maximum likelihood with
the shared part and every model's own part penalised apart (a hierarchical prior): what all models find hard is learned
from all of them, and a model departs from it only where its own scores insist. Boosted trees on the same columns were
worse within and across tasks, and a kernel machine hardly better at many times the size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from routing.difficulty import LIMIT, Difficulty, Numbers, Rows, sigmoid

SHARED_PENALTY = 2_500.0
OWN_PENALTY = 3_500.0
STEPS = 100
LEAST_PROMPTS = 20
ORDINARY = 201


def train(
    rows: Rows,
    scores: Numbers,
    models: Sequence[str],
    columns: str,
    doubt: Numbers,
    weights: Numbers | None = None,
) -> Difficulty:
    """Weights for `rows`, shape (prompts, width), and `scores`, shape (prompts, models), 0 to 1 and NaN where not known.

    `doubt`, shape (width,), is how hard each column's part is held back, beside the penalties; `weights`, shape (prompts,),
    is what each prompt counts. Raises ValueError where there is too little to learn from: fewer than LEAST_PROMPTS
    prompts, or a model whose scores are all the same.
    """
    known = ~np.isnan(scores)
    if len(rows) < LEAST_PROMPTS:
        raise ValueError(f"{len(rows)} scored prompts are too few; {LEAST_PROMPTS} are the least, hundreds are better")
    for at, model in enumerate(models):
        if len(np.unique(scores[known[:, at], at])) < 2:
            raise ValueError(f"all scores of {model!r} are the same: nothing can be learned of what it finds hard")
    centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.maximum(rows.std(axis=0, dtype=np.float64), 1e-6).astype(np.float32)
    x = np.clip((rows - centre) / spread, -LIMIT, LIMIT).astype(np.float64)
    counts = known * (np.ones(len(rows)) if weights is None else weights)[:, None]
    shared, own, strength = _fitted(x, np.where(known, scores, 0.0), counts, doubt)
    difficulties = np.quantile(-(x * shared).sum(axis=1), np.linspace(0, 1, ORDINARY))
    return Difficulty(
        columns,
        tuple(models),
        centre,
        spread,
        hardness=(-shared).astype(np.float32),
        strength=strength.astype(np.float32),
        taste=own.T.astype(np.float32),
        ordinary=difficulties.astype(np.float32),
    )


def _fitted(x: Numbers, scores: Numbers, counts: Numbers, doubt: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The shared part (width,), every model's own (width, models), and the strengths (models,)."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    width, count = x.shape[1], scores.shape[1]

    def parts(flat: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        return flat[:width], flat[width:-count].reshape(width, count), flat[-count:]

    def loss(flat: Numbers) -> tuple[float, Numbers]:
        shared, own, strength = parts(flat)
        log_odds = x @ (shared[:, None] + own) + strength
        unlikelihood = (counts * (np.logaddexp(0, log_odds) - scores * log_odds)).sum()
        held, own_held = SHARED_PENALTY * doubt * shared, OWN_PENALTY * doubt[:, None] * own
        missed = counts * (sigmoid(log_odds) - scores)
        slope = x.T @ missed
        gradient = (slope.sum(axis=1) + held, (slope + own_held).ravel(), missed.sum(axis=0))
        return float(unlikelihood + (held @ shared + (own_held * own).sum()) / 2), np.concatenate(gradient)

    start = np.zeros(width + width * count + count)
    with threadpool_limits(1):  # sums depend on how many threads made them
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return parts(np.asarray(found.x, np.float64))
