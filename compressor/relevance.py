"""Relevance: which segments hold the evidence for a question, as one score a segment.

Three voices, each standardised over the payload so that none needs a threshold: the late-pooled vector's similarity to
the question, BM25 with the title, and what stands beside a segment. Then the second hop: a document that the best
segments *name* is evidence although it resembles the question hardly at all. Weights were chosen on the development
sets that `benchmarks/` describes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.ranking import DEFAULT_MARKER, Ranking
from compressor.segments import Segment, Source, segmented
from compressor.tokens import DEFAULT_ENCODING
from retrieval import Encoder, Passage
from retrieval.lexical import bm25, terms

Scores = NDArray[np.float64]

LEXICAL_WEIGHT = 0.5
NEIGHBOUR_WEIGHT = 0.2
LINK_BONUS = 1.5  # standard deviations
LINKS_FROM = 2  # the best segments whose names are followed
SHARPNESS = 1.5  # how steeply expected evidence falls with the score: uncalibrated
MIN_NAME_CHARS = 4


@dataclass(frozen=True, slots=True)
class Ranker:
    """Scores payloads with one encoder. Stateless but for the encoder's own cache; safe to share between threads."""

    encoder: Encoder
    marker: str = DEFAULT_MARKER

    def rank(self, query: str, sources: Sequence[Source], encoding: str = DEFAULT_ENCODING) -> Ranking:
        """The ranking of `sources`' segments for `query`. Budgets will be in tokens of `encoding`."""
        sources = tuple(sources)
        segments = segmented(sources, encoding)
        scores = self._scores(query, sources, segments)
        return Ranking(sources, segments, scores, _expected_shares(scores), self.marker, encoding)

    def _scores(self, query: str, sources: Sequence[Source], segments: Sequence[Segment]) -> Scores:
        if not segments:
            return np.zeros(0)
        texts = [sources[s.source].text[s.start : s.end] for s in segments]
        titles = [terms(source.title) for source in sources]
        words = [titles[s.source] + terms(text) for s, text in zip(segments, texts, strict=True)]
        lexical = bm25(terms(query), words).astype(np.float64)
        scores = _standardised(self._similarity(query, sources, segments)) + LEXICAL_WEIGHT * _standardised(lexical)
        scores += NEIGHBOUR_WEIGHT * _best_neighbour(scores, segments)
        return np.asarray(scores + LINK_BONUS * scores.std() * _is_named(scores, texts, sources, segments))

    def _similarity(self, query: str, sources: Sequence[Source], segments: Sequence[Segment]) -> Scores:
        spans: dict[int, list[tuple[int, int]]] = {}
        for segment in segments:
            spans.setdefault(segment.source, []).append((segment.start, segment.end))
        passages = [Passage(sources[n].text, tuple(s), sources[n].title) for n, s in spans.items()]
        question = self.encoder.encode([Passage(query, ((0, len(query)),))])[0][0]
        return np.asarray(np.concatenate(self.encoder.encode(passages)).astype(np.float64) @ question)


def _standardised(values: Scores) -> Scores:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values)


def _best_neighbour(scores: Scores, segments: Sequence[Segment]) -> Scores:
    """The better score of the segments just before and after in the same source, never below one deviation under par:
    evidence runs over sentence ends, and the sentence after a heading answers it."""
    source = np.fromiter((s.source for s in segments), np.int64, len(segments))
    same = source[1:] == source[:-1]
    best = np.full(len(segments), -1.0)
    best[1:] = np.where(same, np.maximum(best[1:], scores[:-1]), best[1:])
    best[:-1] = np.where(same, np.maximum(best[:-1], scores[1:]), best[:-1])
    return best


def _is_named(scores: Scores, texts: Sequence[str], sources: Sequence[Source], segments: Sequence[Segment]) -> Scores:
    """1 for segments of documents whose title one of the best segments (of another document) mentions, else 0."""
    best = np.argsort(-scores, kind="stable")[:LINKS_FROM]
    names = [_name(source.title) for source in sources]
    named = {
        number
        for i in best
        for number, name in enumerate(names)
        if len(name) >= MIN_NAME_CHARS and number != segments[i].source and f" {name} " in f" {_words(texts[i])} "
    }
    return np.fromiter((s.source in named for s in segments), np.float64, len(segments))


_DISAMBIGUATION = re.compile(r"\s*\([^)]*\)\s*$")
_NOT_WORD = re.compile(r"[\W_]+", re.UNICODE)


def _words(text: str) -> str:
    return _NOT_WORD.sub(" ", text.lower()).strip()


def _name(title: str) -> str:
    """A title as running text would say it: "Mercury (planet)" is called "mercury"."""
    return _words(_DISAMBIGUATION.sub("", title))


def _expected_shares(scores: Scores) -> Scores:
    if not len(scores):
        return scores
    weights = np.exp(SHARPNESS * (scores - scores.max()))
    return np.asarray(weights / weights.sum())
