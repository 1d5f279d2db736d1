"""Sentences and packing for the simple baselines: rank the sentences, take the best that fit, keep the order.

On purpose not the compressor's own splitting: a baseline is what a competent person writes in an afternoon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import sentencex

from benchmarks.peers.peer import Cut, Sent, Span
from compressor import Source
from compressor.tokens import count_each, count_tokens

_WRAPPED_CHARS = 50  # lines that are all longer than this are one paragraph that was wrapped


@dataclass(frozen=True, slots=True)
class Sentence:
    """Characters `start:end` of context number `context`."""

    context: int
    start: int
    end: int


def sentences_of(contexts: Sequence[Source]) -> list[Sentence]:
    """Every sentence of every context, in order; a line of its own where lines are not wrapped prose."""
    return [
        Sentence(number, start, end)
        for number, context in enumerate(contexts)
        for block_start, block_end in _blocks(context.text)
        for start, end in _split(context.text, block_start, block_end)
    ]


def texts_of(sentences: Iterable[Sentence], contexts: Sequence[Source]) -> list[str]:
    return [contexts[s.context].text[s.start : s.end] for s in sentences]


def packed(contexts: Sequence[Source], sentences: Sequence[Sentence], order: Iterable[int], budget_tokens: int) -> Cut:
    """The sentences that fit, best first by `order`, as a cut. Neighbours are joined by what stood between them, others
    by a line break; the whole is recounted, and the last taken goes where it came out too long."""
    costs = count_each([" " + text for text in texts_of(sentences, contexts)])
    taken: list[int] = []
    spent = 0
    for index in order:
        cost = costs[index] + 1  # the separator before it
        if spent + cost <= budget_tokens:
            taken.append(index)
            spent += cost
    cut = _cut(contexts, sentences, taken)
    while taken and sum(count_tokens(sent.text) for sent in cut.sent) > budget_tokens:
        taken.pop()
        cut = _cut(contexts, sentences, taken)
    return cut


def _cut(contexts: Sequence[Source], sentences: Sequence[Sentence], taken: Sequence[int]) -> Cut:
    runs: dict[int, list[Span]] = {}
    previous = -2
    for index in sorted(taken):
        sentence = sentences[index]
        spans = runs.setdefault(sentence.context, [])
        if spans and index == previous + 1:
            spans[-1] = (spans[-1][0], sentence.end)
        else:
            spans.append((sentence.start, sentence.end))
        previous = index
    return Cut(
        tuple(
            Sent(number, "\n".join(contexts[number].text[a:b] for a, b in spans), tuple(spans))
            for number, spans in runs.items()
        )
    )


def _blocks(text: str) -> Iterator[Span]:
    """Paragraphs of wrapped prose, and single lines elsewhere."""
    position = 0
    paragraph: list[Span] = []
    for line in [*text.splitlines(keepends=True), "\n"]:
        if line.strip():
            paragraph.append((position, position + len(line)))
        elif paragraph:
            if all(end - start > _WRAPPED_CHARS for start, end in paragraph[:-1]):
                yield paragraph[0][0], paragraph[-1][1]
            else:
                yield from paragraph
            paragraph = []
        position += len(line)


def _split(text: str, start: int, end: int) -> Iterator[Span]:
    block = text[start:end]
    for boundary in sentencex.get_sentence_boundaries("en", block):
        a, b = start + boundary["start_index"], start + boundary["end_index"]
        piece = text[a:b]
        a, b = a + len(piece) - len(piece.lstrip()), b - len(piece) + len(piece.rstrip())
        if a < b:
            yield a, b
