"""Salience: what stands out by itself, for text that comes without a question, and what a question names outright.

A tool's output is read for what went wrong, what is new, what it is about and how it ended. So errors, first and last
lines, entries unlike the others, outliers, headings and signatures come first, and repeats last. Pure: texts only, no
model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.names import content_words
from compressor.segments import Segment, Source
from compressor.splitting.templates import templates_of

Scores = NDArray[np.float64]

ERROR_BONUS = 4.0
WARNING_BONUS = 2.0
FIRST_BONUS = 2.0
LAST_BONUS = 2.0
HEADING_BONUS = 1.5
SIGNATURE_BONUS = 1.5
CHANGED_BONUS = 1.0
OUTLIER_BONUS = 2.0
PARAGRAPH_BONUS = 0.5
RARITY_WEIGHT = 0.75  # of log(entries / entries alike)
REPEAT_WEIGHT = 1.0  # of log(1 + how many alike came before)
FIRST_ALIKE_BONUS = 1.5
OUTLIER_DEVIATIONS = 4.0
MIN_ALIKE = 8  # numbers by which an outlier can be told

_ERROR = re.compile(
    r"(?:\b|_)(?:errors?|exceptions?|fatal|fail(?:ed|ure|ures|s)?|panic|critical|severe|traceback|denied|refused|unreachable"
    r"|corrupt(?:ed)?|segfault|abort(?:ed)?|crash(?:ed)?|timed?[ -]?out|out of memory|oom)(?:\b|_)|[a-z](?:Error|Exception)\b",
    re.IGNORECASE,
)
_NO_ERROR = re.compile(
    r"\b(?:no|0|without|zero) (?:errors?|failures?|exceptions?)\b|\b(?:errors?|failed|failures?)\W{1,4}(?:0|null|none|false|\[\])"
    r"(?![\w.])|\b(?:0) failed\b",
    re.IGNORECASE,
)
_WARNING = re.compile(r"\b(?:warn(?:ing)?s?|deprecated|retry(?:ing)?|degraded|slow)\b", re.IGNORECASE)
_HEADING = re.compile(r"#{1,6}\s|<h[1-6]\b|[^\n]+\n(?:={3,}|-{3,})$", re.IGNORECASE)
_NUMBER_FIELD = re.compile(r"[\"']?([A-Za-z_][\w.-]*)[\"']?\s*[:=]\s*(-?\d+(?:\.\d+)?)(?![\w.:/-])")
_READ_CHARS = 4000  # of one segment


def salience(segments: Sequence[Segment], sources: Sequence[Source]) -> Scores:
    """One score a segment, by what stands out without a question; shape (segments,), of no fixed scale.

    To be used as a `Ranking`'s scores, with `shares(salience(...))` for its probabilities.
    """
    texts = [sources[s.source].text[s.start : min(s.end, s.start + _READ_CHARS)] for s in segments]
    striking = _by_wording(texts) + OUTLIER_BONUS * _outliers(texts)
    rarity = _by_rarity(segments, texts)
    # what repeats is held against no line that strikes: the tenth failure is one
    rarity = np.where(striking > 0, np.maximum(rarity, 0), rarity)
    return striking + rarity + _by_place(segments, sources) + _by_structure(segments, texts)


def shares(scores: Scores) -> Scores:
    """Scores as shares that sum to 1, e times as much for each point more; shape as given."""
    if not len(scores):
        return scores
    odds = np.exp(scores - scores.max())
    return np.asarray(odds / odds.sum())


def named(query: str, segments: Sequence[Segment], sources: Sequence[Source]) -> Scores:
    """1 for code of a definition, and for JSON with a key or a value, that the question names exactly; else 0.

    A definition is its signature and all that is under it. Names are compared with their case, letter for letter: this is
    for what a question points at, not for what it is about.
    """
    found = np.zeros(len(segments))
    if not any(s.kind == "code" or s.kind.startswith("json") for s in segments):
        return found
    asked = _names_in(query)
    defining: set[int] = set()
    for number, segment in enumerate(segments):
        text = sources[segment.source].text[segment.start : segment.end]
        if segment.kind == "code":
            if asked.intersection(name for match in _DEFINITION.finditer(text) for name in match.groups() if name):
                found[number] = 1.0
                defining.add(number)
        elif segment.kind in ("json", "json-open") and asked.intersection(_STRING.findall(text)):
            found[number] = 1.0
            defining.add(number)
    for number, segment in enumerate(segments):
        if not defining.isdisjoint(segment.skeleton):
            found[number] = 1.0
    return found


# --- what a question names -----------------------------------------------------------------------------------------------

_DEFINITION = re.compile(
    r"\b(?:def|class|function|fn|func|interface|struct|enum|trait|type|module|namespace)\s+([A-Za-z_$][\w$]*)"
    r"|^\s*(?:export\s+)?(?:const|let|var)\s+([A-Za-z_$][\w$]*)\s*=|^([A-Z_][A-Z0-9_]*)\s*(?::[^=\n]+)?=",
    re.MULTILINE,
)
_STRING = re.compile(r'"([^"\\]{2,200})"')
_QUOTED = re.compile(r"`([^`\n]{2,200})`|\"([^\"\n]{2,200})\"|'([^'\n]{2,200})'|“([^”\n]{2,200})”")
_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*(?:[.-][\w$]+)*|\d[\w.-]*\w")
MIN_NAME_CHARS = 3


def _names_in(query: str) -> set[str]:
    """The words of a question that may name a thing in code or data: each as it is written, and each part of a dotted one."""
    plain = content_words(query)
    names = {text for match in _QUOTED.finditer(query) for text in match.groups() if text}
    for word in _IDENTIFIER.findall(query):
        names.update(part for part in (word, *word.split(".")) if len(part) >= MIN_NAME_CHARS)
    return {name for name in names if not name.isalpha() or name.lower() in plain}


# --- what stands out -----------------------------------------------------------------------------------------------------


def _by_wording(texts: Sequence[str]) -> Scores:
    """Errors, then warnings. "0 errors" is none."""
    scores = np.zeros(len(texts))
    for number, text in enumerate(texts):
        if _ERROR.search(text) and _ERROR.search(_NO_ERROR.sub(" ", text)):
            scores[number] = ERROR_BONUS
        elif _WARNING.search(text):
            scores[number] = WARNING_BONUS
    return scores


def _by_place(segments: Sequence[Segment], sources: Sequence[Source]) -> Scores:
    """What opens and closes each source, and what opens a paragraph."""
    scores = np.zeros(len(segments))
    for number, segment in enumerate(segments):
        first = number == 0 or segments[number - 1].source != segment.source
        last = number + 1 == len(segments) or segments[number + 1].source != segment.source
        scores[number] += FIRST_BONUS * first + LAST_BONUS * last
        if not first and "\n\n" in sources[segment.source].text[segments[number - 1].end : segment.start]:
            scores[number] += PARAGRAPH_BONUS
    return scores


def _by_structure(segments: Sequence[Segment], texts: Sequence[str]) -> Scores:
    """Headings, signatures, and the changed lines of a diff."""
    scores = np.zeros(len(segments))
    for number, (segment, text) in enumerate(zip(segments, texts, strict=True)):
        if segment.stub is not None:
            scores[number] += SIGNATURE_BONUS
        elif _HEADING.match(text):
            scores[number] += HEADING_BONUS
        elif segment.kind == "diff" and text[0] in "+-":
            scores[number] += CHANGED_BONUS
    return scores


def _by_rarity(segments: Sequence[Segment], texts: Sequence[str]) -> Scores:
    """Of what comes in many like entries (logs, rows, records), the rare kinds, and the first of each kind."""
    scores = np.zeros(len(segments))
    listed = [i for i, s in enumerate(segments) if s.kind in ("log", "table", "json") and s.stub is None]
    templates = templates_of(texts[i] for i in listed)
    sizes = Counter(templates)
    seen: Counter[int] = Counter()
    for i, template in zip(listed, templates, strict=True):
        scores[i] = RARITY_WEIGHT * math.log(len(listed) / sizes[template]) - REPEAT_WEIGHT * math.log1p(seen[template])
        scores[i] += FIRST_ALIKE_BONUS * (seen[template] == 0)
        seen[template] += 1
    return scores


def _outliers(texts: Sequence[str]) -> Scores:
    """1 for texts with a named number far from the others of that name: more than OUTLIER_DEVIATIONS from the median."""
    fields: dict[str, list[tuple[int, float]]] = {}
    for number, text in enumerate(texts):
        for name, value in _NUMBER_FIELD.findall(text):
            fields.setdefault(name, []).append((number, float(value)))
    found = np.zeros(len(texts))
    for values in fields.values():
        if len(values) >= MIN_ALIKE:
            numbers = np.array([value for _, value in values])
            distances = np.abs(numbers - np.median(numbers))
            # the median of distances, unlike a standard deviation, is not itself moved by the outliers
            spread = 1.4826 * np.median(distances) or distances.mean()
            far = distances > OUTLIER_DEVIATIONS * spread
            for (number, _), is_far in zip(values, far, strict=True):
                found[number] = max(found[number], float(is_far and spread > 0))
    return found
