"""Relevance: a payload and a question into a `Ranking`.

Segments are split and counted, their vectors fetched, their features fused into one score. The score is the trees'
log-odds, standardised, and half as much of the training-free prior: the trees alone trust habits of their training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compressor.features import Evidence, evidence, standardised
from compressor.fusion import Fusion, shipped_fusion
from compressor.ranking import DEFAULT_MARKER, Ranking
from compressor.segments import Segment, Source, segmented
from compressor.tokens import DEFAULT_ENCODING
from retrieval import Encoder, Passage

Scores = NDArray[np.float64]

PRIOR_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Ranker:
    """Scores payloads with one encoder and one fusion. Safe to share between threads."""

    encoder: Encoder
    marker: str = DEFAULT_MARKER
    fusion: Fusion = field(default_factory=shipped_fusion)

    def rank(self, query: str, sources: Sequence[Source], encoding: str = DEFAULT_ENCODING) -> Ranking:
        """The ranking of `sources`' segments for `query`. Budgets will be in tokens of `encoding`."""
        sources = tuple(sources)
        segments = segmented(sources, encoding)
        if not segments:
            return Ranking(sources, segments, np.zeros(0), np.zeros(0), self.marker, encoding)
        scores, shares = fused(self.evidence(query, sources, segments), self.fusion)
        return Ranking(sources, segments, scores, shares, self.marker, encoding)

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


def fused(known: Evidence, fusion: Fusion) -> tuple[Scores, Scores]:
    """Each segment's score, and the share of the evidence that it is expected to hold: its chance, of the chances' sum."""
    log_odds = fusion.log_odds(known.matrix)
    chances = 1 / (1 + np.exp(-log_odds))
    return standardised(log_odds) + PRIOR_WEIGHT * known.prior, np.asarray(chances / chances.sum())
