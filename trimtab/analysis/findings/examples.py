"""Few-shot blocks that are larger than what they are for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from compressor.tokens import count_each, encoding_for_model
from trimtab.analysis.anatomy import Anatomy, Part
from trimtab.analysis.changes import Change, Removal
from trimtab.analysis.grouping import opening
from trimtab.analysis.study import Finding, Study

KEPT: Final = 3
"""Examples that stay. Brown et al. (arXiv 2005.14165, figure 1.2) find most of the gain in the first few."""

_MOST: Final = 5
_LEAST_TOKENS: Final = 600
_LEAST_SHARE: Final = 0.3
_FEWEST: Final = 3  # requests that hold the same examples: what stands in one is content

_TAGGED: Final = re.compile(r"<(example|shot|sample)\b[^>]*>.*?</\1>", re.S | re.I)
_HEADED: Final = re.compile(r"^[#*\s]*(?:example|sample|shot)\s*#?\d+\b", re.I | re.M)
_ASKED: Final = re.compile(r"^[*\s]*(?:input|user|q|question|query|text|review)\**\s*[:：]", re.I | re.M)
_ANSWERED: Final = re.compile(
    r"^[*\s]*(?:output|assistant|a|answer|label|response|sentiment|category|intent)\**\s*[:：]", re.I | re.M
)

Example = tuple[int, int, int]
"""The number of a part, and the characters of the example there."""


def oversized_examples(study: Study) -> Iterator[Finding]:
    for group in study.groups:
        found: dict[tuple[str, ...], list[int]] = {}
        places: dict[int, list[list[Example]]] = {}
        for i in group.requests:
            places[i] = shots(study.anatomies[i])
            for key in (_texts(study.anatomies[i], shot) for shot in places[i][:1]):
                found.setdefault(key, []).append(i)
        # The same examples, for they may be picked for each request, and then each has its reason.
        for requests in (own for own in found.values() if len(own) >= _FEWEST):
            yield from _oversized(study, group.model, requests, places)


def _oversized(
    study: Study, model: str, requests: list[int], places: dict[int, list[list[Example]]]
) -> Iterator[Finding]:
    examples = places[requests[0]]
    parts = study.anatomies[requests[0]].parts
    texts = ["\n".join(_texts(study.anatomies[requests[0]], shot)) for shot in examples]
    tokens = count_each(texts, encoding_for_model(model))
    if len(examples) <= _MOST or sum(tokens) < _LEAST_TOKENS:
        return
    if sum(tokens) < _LEAST_SHARE * median(study.anatomies[i].input_tokens for i in requests):
        return
    changes = tuple(_change(study, i, places[i]) for i in requests)
    gone = sum(removal.tokens for removal in changes[0].removed)
    role = parts[examples[0][0][0]].role
    where = "system prompt" if role == "system" else "first messages"
    yield Finding(
        kind="oversized-examples",
        title=f"{len(examples)} examples ({sum(tokens):,} tokens) stand in {len(requests):,} requests of {model}",
        advice=f"Keep {KEPT} that differ most of those in the {where}: "
        f"{gone:,} tokens fewer a request. Compare answers on a sample before and after.",
        reckoned=f"our count of all examples but {KEPT}, at the price of where they stand; "
        "that answers stay as good is not measured",
        basis="estimated",
        changes=changes,
        tokens=gone * len(changes),
    )


def _change(study: Study, i: int, examples: list[list[Example]]) -> Change:
    parts = study.anatomies[i].parts
    spans = _merged(parts, [span for shot in examples[KEPT:] for span in shot])
    texts = [parts[part].text[start:end] for part, start, end in spans]
    counts = count_each(texts, encoding_for_model(study.requests[i].model))
    removed = (Removal(*span, n, parts[span[0]].position) for span, n in zip(spans, counts, strict=True))
    return Change(i, tuple(removed))


def _merged(parts: Sequence[Part], spans: Sequence[Example]) -> list[Example]:
    """One span for those of one part that only white space parts."""
    merged: list[Example] = []
    for number, start, end in spans:
        if merged and merged[-1][0] == number and not parts[number].text[merged[-1][2] : start].strip():
            merged[-1] = (number, merged[-1][1], end)
        else:
            merged.append((number, start, end))
    return merged


def _texts(anatomy: Anatomy, shot: list[Example]) -> tuple[str, ...]:
    return tuple(anatomy.parts[part].text[start:end] for part, start, end in shot)


def shots(anatomy: Anatomy) -> list[list[Example]]:
    """The examples of a request: those in its system prompt or first message, else its first turns, where a user and an
    assistant take turns before the question."""
    for number in opening(anatomy):
        if anatomy.parts[number].role != "tool schema":
            written = _written(anatomy.parts[number].text)
            if len(written) > _MOST:
                return [[(number, *span)] for span in written]
    return _turns(anatomy)


def _written(text: str) -> list[tuple[int, int]]:
    tagged = [match.span() for match in _TAGGED.finditer(text)]
    if len(tagged) > _MOST:
        return tagged
    heads = [match.start() for match in _HEADED.finditer(text)]
    if len(heads) <= _MOST:
        asked, answered = list(_ASKED.finditer(text)), list(_ANSWERED.finditer(text))
        heads = [match.start() for match in asked] if len(answered) >= len(asked) - 1 else []
    if len(heads) <= _MOST:
        return []
    # The last one ends with its paragraph, as nothing says that what follows belongs to it.
    after = text.find("\n\n", heads[-1])
    ends = [*heads[1:], len(text) if after < 0 else after]
    return list(zip(heads, ends, strict=True))


def _turns(anatomy: Anatomy) -> list[list[Example]]:
    said = [
        (n, part)
        for n, part in enumerate(anatomy.parts)
        if part.role in ("user", "assistant", "tool", "other") and part.turn >= 0
    ]
    found: list[list[Example]] = []
    at = 0
    while at + 2 < len(said) and said[at][1].role == "user" and said[at + 1][1].role == "assistant":
        found.append([(n, 0, len(part.text)) for n, part in said[at : at + 2]])
        at += 2
    return found
