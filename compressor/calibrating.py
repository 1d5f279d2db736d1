"""Calibrating: labelled questions, cut at every level, into a `Calibration`.

A promise is worth nothing on questions that the ranking was trained on. So either the questions are others, or each data
set is ranked by weights that were trained on the rest (`left_out`), as the shipped calibration was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from compressor.calibration import LEVELS, Calibration, Floats, least_of_higher
from compressor.labelled import Labelled
from compressor.ranking import Ranking, Trimmed
from compressor.relevance import Ranker
from compressor.training import examples_of, train

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
            rows.append((number, kept_shares(question, ranking), signature, len(question.spans)))
    if not rows:
        raise ValueError("no question has evidence, so there is nothing to calibrate with")
    kind, kept, signatures, spans = zip(*rows, strict=True)
    return Calibration(tuple(kinds), np.array(kind), np.stack(kept), np.stack(signatures), np.array(spans))


def left_out(questions: Sequence[Labelled], ranker: Ranker) -> Calibration:
    """How questions fare that are ranked by weights which have seen the other data sets only.

    Raises ValueError for fewer than two data sets with evidence.
    """
    useful = [question for question in questions if question.spans]
    examples = {id(each): example for each, example in zip(useful, examples_of(useful, ranker), strict=True)}
    names = dict.fromkeys(question.dataset for question in useful)
    if len(names) < 2:
        raise ValueError("to leave a data set out of training takes two; name them in `dataset`")
    fusions = {name: train([examples[id(each)] for each in useful if each.dataset != name]) for name in names}
    rankers = {name: replace(ranker, fusion=fusion, calibration=None) for name, fusion in fusions.items()}
    return calibrated(useful, lambda each: rankers[each.dataset].judged(each.query, each.sources))


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
    """The share of evidence spans whose text stands in what is kept. Of its own context or of another: of text that
    stands twice, one copy is kept, and is evidence enough."""
    texts = [_folded(kept.text) for kept in trimmed.contexts]
    spans = [_folded(question.sources[number].text[start:end]) for number, start, end in question.spans]
    return sum(any(span in text for text in texts) for span in spans) / len(spans)


def _folded(text: str) -> str:
    return " ".join(text.split())
