"""Rows of reference: what nothing, everything, the first tokens and chance would keep."""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.peers.peer import Cut, Sent, Stateless
from benchmarks.peers.sentences import packed, sentences_of
from compressor import Source
from compressor.tokens import count_tokens, encoding


class NoContext(Stateless):
    """Nothing is sent but the question."""

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        return Cut(())


class FullContext(Stateless):
    """Everything is sent."""

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        return Cut(tuple(Sent(n, c.text, ((0, len(c.text)),)) for n, c in enumerate(contexts) if c.text))


class Head(Stateless):
    """Truncation: the first tokens of the payload, up to the budget."""

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        sent: list[Sent] = []
        room = budget_tokens
        for number, context in enumerate(contexts):
            tokens = encoding().encode_ordinary(context.text)
            end = len(context.text) if len(tokens) <= room else _whole_words(context.text, tokens[:room], room)
            if end:
                sent.append(Sent(number, context.text[:end], ((0, end),)))
            room -= len(tokens)
            if room <= 0:
                break
        return Cut(tuple(sent))


class Chance(Stateless):
    """Sentences drawn by lot, up to the budget."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def cut(self, query: str, contexts: Sequence[Source], budget_tokens: int, ratio: float) -> Cut:
        sentences = sentences_of(contexts)
        order = list(range(len(sentences)))
        # by query, so that the draw does not hang on which questions ran before
        random.Random(f"{self._seed}:{query}:{ratio}").shuffle(order)
        return packed(contexts, sentences, order, budget_tokens)


def _whole_words(text: str, tokens: Sequence[int], room: int) -> int:
    """How many characters of `text` the first tokens are, back to the last white space: no half words."""
    decoded = encoding().decode(list(tokens), errors="ignore")
    end = len(decoded)
    while end and not (text[end : end + 1].isspace() and count_tokens(text[:end]) <= room):
        end -= 1
    return len(text[:end].rstrip())
