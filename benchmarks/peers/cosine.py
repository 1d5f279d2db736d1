"""Cosine alone, at an exact budget: whole passages (the idea of LangChain's EmbeddingsFilter) and single sentences (that
of LlamaIndex's SentenceEmbeddingOptimizer), written out, because neither class can be told a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.peers.embedding import Embedder
from benchmarks.peers.peer import Cut, Sent
from benchmarks.peers.sentences import packed, sentences_of, texts_of
from compressor import Source
from compressor.tokens import count_each


class CosinePassages:
    """Whole contexts, nearest to the question first, while they fit."""

    def __init__(self) -> None:
        self._embedder = Embedder()

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        vectors = self._embedder.embed([query, *(f"{c.title} {c.text}".strip() for c in contexts)])
        order = np.argsort(-(vectors[1:] @ vectors[0]), kind="stable").tolist()
        return whole_passages(contexts, order, budget_tokens)

    def forget(self) -> None:
        self._embedder.forget()


class CosineSentences:
    """Single sentences, each embedded by itself, nearest to the question first, while they fit."""

    def __init__(self) -> None:
        self._embedder = Embedder()

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        sentences = sentences_of(contexts)
        vectors = self._embedder.embed([query, *texts_of(sentences, contexts)])
        order = np.argsort(-(vectors[1:] @ vectors[0]), kind="stable").tolist()
        return packed(contexts, sentences, order, budget_tokens)

    def forget(self) -> None:
        self._embedder.forget()


def whole_passages(contexts: Sequence[Source], order: Sequence[int], budget_tokens: int) -> Cut:
    """Contexts in `order` while they fit, one that does not being passed over; sent in their own order."""
    costs = count_each([context.text for context in contexts])
    taken: list[int] = []
    for number in order:
        if costs[number] <= budget_tokens:
            taken.append(number)
            budget_tokens -= costs[number]
    return Cut(
        tuple(Sent(n, contexts[n].text, ((0, len(contexts[n].text)),)) for n in sorted(taken) if contexts[n].text)
    )
