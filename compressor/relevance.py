"""Relevance: a payload and a question into a `Ranking`.

Segments are split and counted, their vectors fetched, their features fused into one score. The score is the trees'
log-odds, standardised, and half as much of the training-free prior: the trees alone trust habits of their training data.
What a question names outright (a function, a JSON key) comes first. Without a question, what stands out does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compressor.breadth import asks_for_everything
from compressor.calibration import Calibration, shipped_calibration, signature
from compressor.features import Evidence, evidence, standardised
from compressor.fusion import Fusion, shipped_fusion
from compressor.ranking import DEFAULT_MARKER, Ranking
from compressor.salience import named, salience, shares
from compressor.segments import Segment, Source, segmented
from compressor.tokens import DEFAULT_ENCODING
from retrieval import Encoder, Passage

Scores = NDArray[np.float64]

PRIOR_WEIGHT = 0.5
NAMED_BONUS = 2.0  # standard deviations
BETWEEN = 2  # segments: how far on either side a better one may stand
BETWEEN_LOSS = 0.5  # standard deviations


@dataclass(frozen=True, slots=True)
class Ranker:
    """Scores payloads with one encoder and one fusion; `calibration` says what the scores may promise (None: nothing).

    Safe to share between threads.
    """

    encoder: Encoder
    marker: str = DEFAULT_MARKER
    fusion: Fusion = field(default_factory=shipped_fusion)
    calibration: Calibration | None = field(default_factory=shipped_calibration)

    def rank(self, query: str, sources: Sequence[Source], encoding: str = DEFAULT_ENCODING) -> Ranking:
        """The ranking of `sources`' segments for `query`. Budgets will be in tokens of `encoding`.

        A blank `query` asks for nothing: segments are ranked by what stands out, and nothing is promised of a cut.
        """
        sources = tuple(sources)
        segments = segmented(sources, encoding)
        if query.strip() and segments:
            return self._judged(query, sources, segments, encoding)[0]
        scores = salience(segments, sources) if segments else np.zeros(0)
        return Ranking(sources, segments, scores, shares(scores), self.marker, encoding)

    def judged(self, query: str, sources: Sequence[Source]) -> tuple[Ranking, Scores]:
        """The ranking for a question, and the signature of its scores, as a calibration is made of."""
        sources = tuple(sources)
        return self._judged(query, sources, segmented(sources), DEFAULT_ENCODING)

    def _judged(
        self, query: str, sources: tuple[Source, ...], segments: tuple[Segment, ...], encoding: str
    ) -> tuple[Ranking, Scores]:
        found = fused(self.evidence(query, sources, segments), self.fusion, segments)
        scores = found.scores + NAMED_BONUS * named(query, segments, sources)
        bound = None
        if self.calibration is not None:
            bound = self.calibration.bound(found.signature, asks_for_everything(query))
        return Ranking(sources, segments, scores, found.shares, self.marker, encoding, bound), found.signature

    def evidence(self, query: str, sources: Sequence[Source], segments: Sequence[Segment]) -> Evidence:
        """The features of `segments` (at least one), with every vector that they need."""
        spans: dict[int, list[tuple[int, int]]] = {}
        for segment in segments:
            spans.setdefault(segment.source, []).append((segment.start, segment.end))
        passages = [
            Passage(sources[n].text, (*own, (0, len(sources[n].text))), sources[n].title) for n, own in spans.items()
        ]
        question = self.encoder.encode([Passage(query, ((0, len(query)),))])[0][0]
        encoded = self.encoder.encode(passages)
        whole = np.zeros((len(sources), len(question)), np.float32)
        for number, vectors in zip(spans, encoded, strict=True):
            whole[number] = vectors[-1]
        return evidence(query, sources, segments, question, np.concatenate([v[:-1] for v in encoded]), whole)


class Fused(NamedTuple):
    """Each segment's score, the share of the evidence that it is expected to hold (its chance, of the chances' sum), and
    the signature of the payload (see `calibration`)."""

    scores: Scores
    shares: Scores
    signature: Scores


def fused(known: Evidence, fusion: Fusion, segments: Sequence[Segment]) -> Fused:
    """What the trees and the prior make of a payload's features."""
    log_odds = fusion.log_odds(known.matrix)
    chances = 1 / (1 + np.exp(-log_odds))
    held = np.asarray(chances / chances.sum())
    scores = between(standardised(log_odds) + PRIOR_WEIGHT * known.prior, segments)
    return Fused(scores, held, signature(log_odds, held, known.matrix))


def between(scores: Scores, segments: Sequence[Segment]) -> Scores:
    """The scores, where a segment between two better ones of its source is little worse than the lesser of them.

    Evidence is more often a passage than a sentence, and what stands in its middle may resemble the question least.
    """
    source = np.fromiter((segment.source for segment in segments), np.int64, len(segments))
    before, after = (np.full(len(scores), -np.inf) for _ in range(2))
    for step in range(1, min(BETWEEN, len(scores) - 1) + 1):
        same = source[step:] == source[:-step]
        before[step:] = np.where(same, np.maximum(before[step:], scores[:-step]), before[step:])
        after[:-step] = np.where(same, np.maximum(after[:-step], scores[step:]), after[:-step])
    return np.asarray(np.maximum(scores, np.minimum(before, after) - BETWEEN_LOSS))
