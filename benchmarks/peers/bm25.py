"""BM25 over sentences: the baseline without a model, and a strong one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.peers.peer import Cut, Stateless
from benchmarks.peers.sentences import packed, sentences_of, texts_of
from compressor import Source
from retrieval.lexical import bm25, terms


class Bm25Sentences(Stateless):
    """The sentences that share the question's rare words, up to the budget; the title counts as part of each."""

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        sentences = sentences_of(contexts)
        titles = [terms(context.title) for context in contexts]
        words = [
            titles[s.context] + terms(text) for s, text in zip(sentences, texts_of(sentences, contexts), strict=True)
        ]
        order = np.argsort(-bm25(terms(query), words), kind="stable")
        return packed(contexts, sentences, order.tolist(), budget_tokens)
