"""Lexical scores: which texts share the query's words, weighed by how rare the words are *in this payload*.

Okapi BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009) with the idf of Lucene, never negative.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

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


def bm25(query: Sequence[str], texts: Sequence[Sequence[str]]) -> Vectors:
    """The BM25 score of each text (a list of terms) for the query's terms; shape (len(texts),), 0 where no term is shared.

    A word said twice in the query counts once.
    """
    scores = np.zeros(len(texts), np.float32)
    wanted = set(query)
    if not wanted or not texts:
        return scores
    lengths = np.fromiter((len(text) for text in texts), np.float64, len(texts))
    relative = 1 - B + B * lengths / max(lengths.mean(), 1e-9)
    postings: dict[str, list[tuple[int, int]]] = {}
    for i, text in enumerate(texts):
        for term, count in Counter(term for term in text if term in wanted).items():
            postings.setdefault(term, []).append((i, count))
    for hits in postings.values():
        idf = np.log1p((len(texts) - len(hits) + 0.5) / (len(hits) + 0.5))
        rows = np.array([i for i, _ in hits])
        counts = np.array([count for _, count in hits], np.float64)
        scores[rows] += (idf * counts * (K1 + 1) / (counts + K1 * relative[rows])).astype(np.float32)
    return scores
