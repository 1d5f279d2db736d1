"""Features: what is known of every segment before it is decided which hold the evidence.

All are made from cached vectors and from words; the query's own encoding is the only model call. Most say how a segment
stands *among the segments of this payload* (standardised scores, ranks): a raw cosine means little by itself. The
second-hop ones look for what the best segments name: there the evidence of a multi-hop question stands, in documents
that hardly resemble the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.names import capitalised_words, content_words, mentioned, names_of, plain_words
from compressor.segments import Segment, Source
from retrieval.lexical import LexicalIndex, terms

Scores = NDArray[np.float64]

LEXICAL_WEIGHT = 0.5
NEIGHBOUR_WEIGHT = 0.2
ASKED_BONUS = 0.4  # bonuses are in standard deviations of the scores
NAMES_WEIGHT = 0.3
LINK_BONUS = 1.5
_FAR_BELOW = -3.0  # what stands in for the neighbour that a segment at an edge has not

NAMES = (
    "similarity",
    "lexical",
    "lexical_titled",
    "passage_similarity",
    "base",
    "prior",
    "raw_similarity",
    "raw_passage_similarity",
    "similarity_rank",
    "lexical_rank",
    "base_rank",
    "prior_rank",
    "previous",
    "next",
    "best_in_source",
    "behind_best_in_source",
    "source_rank",
    "tokens",
    "shared_words",
    "source_asked_for",
    "named_by_best_2",
    "named_by_best_5",
    "shares_names_of_best_3",
    "shares_names_of_best",
    "like_best_3",
    "like_question_and_best",
    "window_similarity",
    "pair_similarity",
    "source_lexical",
    "has_number",
    "has_number_asked_for",
    "segments",
    "question_words",
    "sources",
    "behind_first",
    "behind_sixth",
    "tokens_at_rank",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a payload and a question are turned into. Row i is segment i.

    `matrix`: shape (segments, len(NAMES)), float32. `prior`: one score a segment made with no training, shape
    (segments,), which the ranker mixes with the trees' odds.
    """

    matrix: NDArray[np.float32]
    prior: Scores


def evidence(
    query: str,
    sources: Sequence[Source],
    segments: Sequence[Segment],
    question: NDArray[np.float32],
    vectors: NDArray[np.float32],
    passages: NDArray[np.float32],
) -> Evidence:
    """The features of `segments`, of which there is at least one.

    `question`: shape (d,); `vectors`: (segments, d), late-pooled; `passages`: (sources, d), zero for empty sources; all
    of unit length.
    """
    return _Payload(query, sources, segments, question, vectors, passages).evidence()


def standardised(values: Scores) -> Scores:
    """Mean 0 and deviation 1 over the payload; zeros where all are alike."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values)


class _Payload:
    """The working state while features are made: texts once split into words, sources as an array."""

    def __init__(
        self,
        query: str,
        sources: Sequence[Source],
        segments: Sequence[Segment],
        question: NDArray[np.float32],
        vectors: NDArray[np.float32],
        passages: NDArray[np.float32],
    ) -> None:
        self.query, self.question, self.vectors, self.passages = query, question, vectors, passages
        self.size = len(segments)
        self.texts = [sources[s.source].text[s.start : s.end] for s in segments]
        self.words = [plain_words(text) for text in self.texts]
        self.source = np.fromiter((s.source for s in segments), np.int64, self.size)
        self.tokens = np.fromiter((s.tokens for s in segments), np.float64, self.size)
        self.titles = [plain_words(source.title) for source in sources]
        self.names = [names_of(source.title) for source in sources]
        self.capitalised = [capitalised_words(text) for text in self.texts]
        self.asked_words = content_words(query)
        self.same = self.source[1:] == self.source[:-1]

    def evidence(self) -> Evidence:
        raw = (self.vectors @ self.question).astype(np.float64)
        raw_passage = (self.passages @ self.question).astype(np.float64)[self.source]
        similarity = standardised(raw)
        untitled, titled = self.lexical_scores()
        base = similarity + LEXICAL_WEIGHT * titled
        base = base + NEIGHBOUR_WEIGHT * np.maximum(self.neighbours(base, -1.0).max(axis=0), -1.0)
        asked = self.asked_for()
        names_3, names_1, hop = self.shared_names(base + ASKED_BONUS * base.std() * asked)
        named_2 = self.named_by(hop, 2)
        prior = hop + LINK_BONUS * hop.std() * named_2
        best = np.argsort(-hop, kind="stable")
        like_best, like_both = self.bridges(best[:3])
        window, pair = self.windows(raw)
        base, prior = standardised(base), standardised(prior)
        previous, following = self.neighbours(base, _FAR_BELOW)
        best_in_source, source_rank = self.by_source(base)
        number, number_asked = self.numbers()
        ordered = np.sort(prior)[::-1]
        columns = (
            similarity,
            untitled,
            titled,
            standardised(raw_passage),
            base,
            prior,
            raw,
            raw_passage,
            _log_rank(raw),
            _log_rank(titled),
            _log_rank(base),
            _log_rank(prior),
            previous,
            following,
            best_in_source,
            best_in_source - base,
            source_rank,
            np.log1p(self.tokens),
            self.shared_words(),
            asked,
            named_2,
            self.named_by(hop, 5),
            names_3,
            names_1,
            like_best,
            like_both,
            window,
            pair,
            self.source_lexical(),
            number,
            number_asked,
            np.full(self.size, np.log(self.size)),
            np.full(self.size, float(len(self.asked_words))),
            np.full(self.size, float(len(self.names))),
            prior - ordered[0],
            prior - ordered[min(5, self.size - 1)],
            self.share_of_tokens_at_rank(prior),
        )
        return Evidence(np.stack(columns, axis=1).astype(np.float32), prior)

    def lexical_scores(self) -> tuple[Scores, Scores]:
        """BM25 without and with the source's title."""
        plain = LexicalIndex([terms(text) for text in self.texts]).scores(terms(self.query))
        titled = LexicalIndex([self.titles[s] + words for s, words in zip(self.source, self.words, strict=True)])
        return _standardised32(plain), _standardised32(titled.scores(plain_words(self.query)))

    def neighbours(self, scores: Scores, absent: float) -> Scores:
        """The scores of the segments before and after in the same source; shape (2, segments)."""
        beside = np.full((2, self.size), absent)
        beside[0, 1:] = np.where(self.same, scores[:-1], absent)
        beside[1, :-1] = np.where(self.same, scores[1:], absent)
        return beside

    def asked_for(self) -> Scores:
        """1 for segments of sources that the question names. A question that names most of them names none."""
        named = mentioned(self.names, [plain_words(self.query)])
        return self._of_sources(named if len(named) <= len(self.names) / 2 else set())

    def named_by(self, scores: Scores, count: int) -> Scores:
        """1 for segments of sources that one of the `count` best segments, of another source, names."""
        best = np.argsort(-scores, kind="stable")[:count]
        return self._of_sources(
            {n for i in best for n in mentioned(self.names, [self.words[i]]) if n != self.source[i]}
        )

    def shared_names(self, scores: Scores) -> tuple[Scores, Scores, Scores]:
        """BM25 of the names in the best three segments, and in the best, that the question has not; and `scores` with it."""
        index = LexicalIndex([words + self.titles[s] for s, words in zip(self.source, self.capitalised, strict=True)])
        best = np.argsort(-scores, kind="stable")[:3]
        found = [[w for w in self.capitalised[i] if w not in self.asked_words] for i in best]
        all_three = index.scores(word for words in found for word in words)
        others = all_three.copy()
        others[best] = 0
        hop = scores + NAMES_WEIGHT * scores.std() * _standardised32(others)
        return _standardised32(all_three), _standardised32(index.scores(found[0])), hop

    def bridges(self, best: NDArray[np.int64]) -> tuple[Scores, Scores]:
        """Similarity to the best segments themselves, and to the question mixed with the very best."""
        like_best = (self.vectors @ self.vectors[best].T).max(axis=1)
        both = self.vectors @ (self.question + self.vectors[best[0]])
        return _standardised32(like_best), _standardised32(both)

    def windows(self, raw: Scores) -> tuple[Scores, Scores]:
        """Similarity of a segment read with both neighbours, and with the better of them."""
        shape = (self.size - 1, 1)
        same = self.same.reshape(shape)
        window = self.vectors.copy()
        window[1:] += np.where(same, self.vectors[:-1], 0)
        window[:-1] += np.where(same, self.vectors[1:], 0)
        pairs = self.vectors[:-1] + self.vectors[1:]
        pair = np.where(self.same, _unit(pairs) @ self.question, -1.0)
        best = raw.copy()
        best[:-1] = np.maximum(best[:-1], pair)
        best[1:] = np.maximum(best[1:], pair)
        return _standardised32(_unit(window) @ self.question), standardised(best)

    def by_source(self, scores: Scores) -> tuple[Scores, Scores]:
        """The best score in the segment's source, and the (log) rank of the source by it."""
        best = np.full(len(self.names), -np.inf)
        np.maximum.at(best, self.source, scores)
        return best[self.source], _log_rank(best)[self.source]

    def source_lexical(self) -> Scores:
        """BM25 of the whole source."""
        texts = [list(title) for title in self.titles]
        for source, words in zip(self.source, self.words, strict=True):
            texts[source].extend(words)
        return _standardised32(LexicalIndex(texts).scores(plain_words(self.query)))[self.source]

    def shared_words(self) -> Scores:
        """The share of the question's content words that stand in the segment or its title."""
        if not self.asked_words:
            return np.zeros(self.size)
        titles = [self.asked_words & set(title) for title in self.titles]
        shared = (
            len((self.asked_words & set(words)) | titles[s]) for s, words in zip(self.source, self.words, strict=True)
        )
        return np.fromiter(shared, np.float64, self.size) / len(self.asked_words)

    def numbers(self) -> tuple[Scores, Scores]:
        """1 for segments with a digit; the same where the question asks for a number or a date, else 0."""
        has = np.fromiter((bool(_DIGIT.search(text)) for text in self.texts), np.float64, self.size)
        return has, has * bool(_ASKS_NUMBER.search(self.query.lower()))

    def share_of_tokens_at_rank(self, scores: Scores) -> Scores:
        """How much of the payload would be spent once this segment's turn has come."""
        order = np.argsort(-scores, kind="stable")
        spent = np.empty(self.size)
        spent[order] = np.cumsum(self.tokens[order]) / max(self.tokens.sum(), 1.0)
        return spent

    def _of_sources(self, numbers: set[int]) -> Scores:
        return np.isin(self.source, list(numbers)).astype(np.float64)


_DIGIT = re.compile(r"\d")
_ASKS_NUMBER = re.compile(
    r"\b(how many|how much|how large|how long|when|what year|amount|number|percentage|rate|cost|price|limit)\b"
)


def _standardised32(values: NDArray[np.float32]) -> Scores:
    return standardised(values.astype(np.float64))


def _log_rank(scores: Scores) -> Scores:
    """log(1 + rank), rank 0 being the best; ties in the order of the payload."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return np.log1p(ranks)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)
