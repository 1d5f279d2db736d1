"""Judging one cut: is it within the budget, in order and verbatim, and what of the evidence does it keep?

Nothing that a compressor says about itself is believed: tokens are recounted, order and wording compared with the
original. A cut that breaks a rule keeps nothing, whatever it holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.peers.peer import Cut, Sent
from benchmarks.questions import Question, fold
from compressor import Source
from compressor.tokens import count_each

OVER_BUDGET, REORDERED, NOT_VERBATIM = "over budget", "reordered", "not verbatim"

_COUNT = re.compile(r"… \d+ more like (?:this|those above) …")
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Judgement:
    """One cut, judged.

    `coverage` is the share of evidence spans kept (0 with any violation), None for a question without evidence.
    `forgiven` is the same with violations overlooked. `answered` is whether an answer string (all of them where the
    question asks for all) stands in what is kept; None where none could.
    """

    tokens: int
    full_tokens: int
    violations: tuple[str, ...]
    coverage: float | None
    forgiven: float | None
    answered: bool | None

    @property
    def complete(self) -> bool | None:
        return None if self.coverage is None else self.coverage == 1.0


def judge(question: Question, cut: Cut, budget_tokens: int | None, markers: Sequence[str] = ()) -> Judgement:
    """`budget_tokens` None: no limit was given. `markers`: what the compressor writes where it leaves something out."""
    tokens = sum(count_each([*(sent.text for sent in cut.sent), *cut.beside]))
    full_tokens = sum(count_each([context.text for context in question.contexts]))
    found = set(_faults(question.contexts, cut, markers))
    if budget_tokens is not None and tokens > budget_tokens:
        found.add(OVER_BUDGET)
    kept: dict[int, str] = {}
    for sent in cut.sent:
        kept[sent.context] = f"{kept.get(sent.context, '')} {fold(sent.text)}"
    spans = [fold(span.text) in kept.get(span.context, "") for span in question.evidence]
    forgiven = sum(spans) / len(spans) if spans else None
    answered = _answered(question, " ".join(kept.values()))
    if found:
        answered = None if answered is None else False
    coverage = forgiven if forgiven is None or not found else 0.0
    return Judgement(tokens, full_tokens, tuple(sorted(found)), coverage, forgiven, answered)


def _answered(question: Question, kept: str) -> bool | None:
    if not question.answers or question.derived:
        return None
    found = [fold(answer).casefold() in kept.casefold() for answer in question.answers]
    return all(found) if question.all_answers else any(found)


def _faults(contexts: Sequence[Source], cut: Cut, markers: Sequence[str]) -> list[str]:
    numbers = [sent.context for sent in cut.sent]
    out = [REORDERED] if numbers != sorted(set(numbers)) else []
    for sent in cut.sent:
        if not 0 <= sent.context < len(contexts):
            out.append(NOT_VERBATIM)
        elif sent.spans is not None:
            out.extend(_span_faults(contexts[sent.context].text, sent, sent.spans, markers))
        elif fault := _word_fault(contexts[sent.context].text, sent.text, markers):
            out.append(fault)
    return out


def _span_faults(original: str, sent: Sent, spans: Sequence[tuple[int, int]], markers: Sequence[str]) -> list[str]:
    """The text must be the slices in their order, with nothing but white space and markers around them."""
    faults: list[str] = []
    if any(not 0 <= start < end <= len(original) for start, end in spans):
        return [NOT_VERBATIM]
    if any(before[1] > after[0] for before, after in pairwise(spans)):
        faults.append(REORDERED)
    position = 0
    for start, end in spans:
        at = sent.text.find(original[start:end], position)
        if at < 0 or not _is_gap(sent.text[position:at], markers):
            return [*faults, NOT_VERBATIM]
        position = at + end - start
    return faults if _is_gap(sent.text[position:], markers) else [*faults, NOT_VERBATIM]


def _is_gap(text: str, markers: Sequence[str]) -> bool:
    return not _without(text, markers).strip()


def _without(text: str, markers: Sequence[str]) -> str:
    """Longest markers first: "# …" holds "…". What counts the lines that were left out is a marker too."""
    text = _COUNT.sub(" ", text)
    for marker in sorted(markers, key=len, reverse=True):
        text = text.replace(marker.strip(), " ")
    return text


def _word_fault(original: str, text: str, markers: Sequence[str]) -> str | None:
    """For a compressor that gives no offsets: its words and marks must be some of the original's, in their order."""
    words = _WORD.findall(_without(text, markers))
    rest = iter(_WORD.findall(original))
    if all(word in rest for word in words):
        return None
    return NOT_VERBATIM if Counter(words) - Counter(_WORD.findall(original)) else REORDERED
