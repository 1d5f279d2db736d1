"""Training the fusion: examples with known evidence into trees.

Deterministic: the same examples in the same order give the same bytes. scikit-learn's histogram boosting is used rather
than LightGBM, which was no better and would be another dependency.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.features import NAMES
from compressor.fusion import Fusion
from compressor.labelled import Labelled
from compressor.relevance import Ranker
from compressor.segments import segmented

TREES = 250
LEAVES = 8
LEARNING_RATE = 0.06
L2 = 5.0
FEATURE_SHARE = 0.3
MIN_LEAF = 40
SEED = 1

_MORE = frozenset(
    (
        *("similarity", "lexical", "lexical_titled", "passage_similarity", "base", "prior", "raw_similarity"),
        *("raw_passage_similarity", "best_in_source", "shared_words", "source_asked_for", "named_by_best_2"),
        *("named_by_best_5", "shares_names_of_best_3", "shares_names_of_best", "like_question_and_best"),
        *("window_similarity", "pair_similarity", "source_lexical", "has_number_asked_for", "behind_first"),
        "behind_sixth",
    )
)
_LESS = frozenset(
    (
        *("similarity_rank", "lexical_rank", "base_rank", "prior_rank", "source_rank", "tokens_at_rank"),
        "behind_best_in_source",
    )
)
MONOTONE = tuple(1 if name in _MORE else -1 if name in _LESS else 0 for name in NAMES)
"""The odds never fall as these features grow (1), or never rise (-1); 0 for those that may do either. What a data set's
habits would teach against it is not learned: on data sets left out of training it keeps more (docs/ranker.md)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question: the features of its segments (`features.evidence`), and which of them hold evidence.

    `dataset` groups questions: each group weighs the same in training, however many questions it has.
    """

    dataset: str
    matrix: NDArray[np.float32]
    holds_evidence: NDArray[np.bool_]


def examples_of(questions: Iterable[Labelled], ranker: Ranker) -> Iterator[Example]:
    """The questions as training data. The ranker's encoder and splitter are used, its fusion is not."""
    for question in questions:
        segments = segmented(question.sources)
        if segments:
            known = ranker.evidence(question.query, question.sources, segments)
            yield Example(question.dataset, known.matrix, question.held_by(segments))


def train(examples: Sequence[Example]) -> Fusion:
    """Trees for `examples`; those without evidence are left out. Raises ValueError if none is left."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    useful = [example for example in examples if example.holds_evidence.any()]
    if not useful:
        raise ValueError("no example has a segment that holds evidence: check that the evidence stands in the contexts")
    matrix = np.concatenate([example.matrix for example in useful])
    labels = np.concatenate([example.holds_evidence for example in useful])
    boosted = HistGradientBoostingClassifier(
        max_iter=TREES,
        max_leaf_nodes=LEAVES,
        learning_rate=LEARNING_RATE,
        l2_regularization=L2,
        max_features=FEATURE_SHARE,
        min_samples_leaf=MIN_LEAF,
        monotonic_cst=MONOTONE,
        early_stopping=False,
        random_state=SEED,
    )
    with threadpool_limits(1):  # sums over histograms depend on how many threads made them
        boosted.fit(matrix, labels, sample_weight=np.concatenate(list(_weights(useful))))
    return _as_arrays(boosted)


def _weights(examples: Sequence[Example]) -> Iterator[NDArray[np.float64]]:
    """Every data set weighs the same, and within it every question, whatever its number of segments."""
    questions = Counter(example.dataset for example in examples)
    for example in examples:
        rows = len(example.holds_evidence)
        yield np.full(rows, 100.0 / questions[example.dataset] * 100.0 / rows)


def _as_arrays(boosted: object) -> Fusion:
    predictors = [round_[0].nodes for round_ in boosted._predictors]  # type: ignore[attr-defined] # no public view of trees
    nodes = max(len(tree) for tree in predictors)
    shape = (len(predictors), nodes)
    feature, left, right = (np.zeros(shape, np.int32) for _ in range(3))
    threshold, value = (np.zeros(shape, np.float32) for _ in range(2))
    for number, tree in enumerate(predictors):
        size = len(tree)
        leaf = tree["is_leaf"].astype(bool)
        own = np.arange(size)
        feature[number, :size] = np.where(leaf, 0, tree["feature_idx"])
        threshold[number, :size] = np.where(leaf, 0, tree["num_threshold"])
        left[number, :size] = np.where(leaf, own, tree["left"])
        right[number, :size] = np.where(leaf, own, tree["right"])
        value[number, :size] = np.where(leaf, tree["value"], 0)
    depth = int(max(tree["depth"].max() for tree in predictors))
    baseline = float(np.ravel(boosted._baseline_prediction)[0])  # type: ignore[attr-defined]
    return Fusion(feature, threshold, left, right, value, baseline, depth)
