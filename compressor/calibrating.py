"""Calibrating: labelled questions, cut at every level, into a `Calibration`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from compressor.calibration import LEVELS, Calibration, Floats, least_of_higher
from compressor.labelled import Labelled
from compressor.ranking import Ranking, Trimmed

Ranked = tuple[Ranking, Floats]
"""A question's ranking, and the signature of its scores."""


def calibrated(questions: Iterable[Labelled], rank: Callable[[Labelled], Ranked]) -> Calibration:
    """How the rankings of `questions` fared. Raises ValueError where no question has evidence.

    For a promise that holds, `rank` must not have been trained on these questions.
    """
    kinds: dict[str, int] = {}
    rows = []
    for question in questions:
        if question.spans:
            ranking, signature = rank(question)
            number = kinds.setdefault(question.dataset or "questions", len(kinds))
            rows.append((number, kept_shares(question, ranking), signature))
    if not rows:
        raise ValueError("no question has evidence, so there is nothing to calibrate with")
    kind, kept, signatures = zip(*rows, strict=True)
    return Calibration(tuple(kinds), np.array(kind), np.stack(kept), np.stack(signatures))


def kept_shares(question: Labelled, ranking: Ranking) -> Floats:
    """The share of the question's evidence that a cut at each of LEVELS keeps, for certain at every higher one too."""
    bare = replace(ranking, bound=None)
    shares: dict[int, float] = {}
    for level in LEVELS:
        budget_tokens = bare.budget_for(float(level))
        if budget_tokens not in shares:
            shares[budget_tokens] = _share(question, bare.cut(budget_tokens))
    return least_of_higher(np.array([shares[bare.budget_for(float(level))] for level in LEVELS]))


def _share(question: Labelled, trimmed: Trimmed) -> float:
    kept = sum(
        _folded(question.sources[number].text[start:end]) in _folded(trimmed.contexts[number].text)
        for number, start, end in question.spans
    )
    return kept / len(question.spans)


def _folded(text: str) -> str:
    return " ".join(text.split())
