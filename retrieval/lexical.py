"""Lexical scores: which texts share the query's words, weighed by how rare the words are *in this payload*.

Okapi BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) with the idf of Lucene, never negative.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from retrieval.encoder import Vectors

K1 = 1.2
B = 0.75

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_NO_SPACES = re.compile(r"[぀-ヿ㐀-鿿가-힯฀-๿]")  # Japanese, Chinese, Korean, Thai: words are not set apart


def terms(text: str) -> list[str]:
    """The words of `text`, lower case; a run in a script that sets no spaces gives its character pairs instead.

    >>> terms("The 30-day limit")
    ['the', '30', 'day', 'limit']
    >>> terms("東京都")
    ['東京', '京都']
    """
    out: list[str] = []
    for word in _WORD.findall(text.lower()):
        if len(word) > 1 and _NO_SPACES.search(word):
            out.extend(word[i : i + 2] for i in range(len(word) - 1))
        else:
            out.append(word)
    return out


class LexicalIndex:
    """The terms of some texts, counted once, so that many queries can be scored against them."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._size = len(texts)
        lengths = np.fromiter((len(text) for text in texts), np.float64, len(texts))
        self._relative = 1 - B + B * lengths / max(lengths.mean(), 1e-9) if len(texts) else lengths
        postings: dict[str, dict[int, int]] = {}
        for row, text in enumerate(texts):
            for term in text:
                rows = postings.setdefault(term, {})
                rows[row] = rows.get(row, 0) + 1
        self._postings = postings

    def scores(self, query: Iterable[str]) -> Vectors:
        """The BM25 score of each text for the query's terms; shape (number of texts,), 0 where no term is shared.

        A word said twice in the query counts once.
        """
        scores = np.zeros(self._size, np.float32)
        for term in sorted(set(query)):  # sorted: sums of floats depend on their order, and sets have none
            hits = self._postings.get(term)
            if hits is None:
                continue
            rows = np.fromiter(hits.keys(), np.int64, len(hits))
            counts = np.fromiter(hits.values(), np.float64, len(hits))
            idf = np.log1p((self._size - len(hits) + 0.5) / (len(hits) + 0.5))
            scores[rows] += (idf * counts * (K1 + 1) / (counts + K1 * self._relative[rows])).astype(np.float32)
        return scores


def bm25(query: Iterable[str], texts: Sequence[Sequence[str]]) -> Vectors:
    """The BM25 score of each text (a list of terms) for the query's terms, once: see `LexicalIndex.scores`."""
    return LexicalIndex(texts).scores(query)
