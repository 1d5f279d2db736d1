"""Documents that say nearly the same as another one of the same request.

Two readings must agree: mostly the same runs of words, and nearly the same vector. And nothing that could be a fact of its
own may be lost: every number, name and negation of the document that would go stands in the one that stays.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

import numpy as np

from compressor.segments import Source
from compressor.tokens import count_each, encoding_for_model
from retrieval import Passage, near_duplicates
from retrieval.lexical import terms
from trimtab.analysis.changes import Change, Removal
from trimtab.analysis.quoting import MAX_EXCERPT_CHARS, excerpt, without_secrets
from trimtab.analysis.study import Finding, Study
from trimtab.analysis.wording import counted

_LEAST_TOKENS: Final = 40
_RUNS_ALIKE: Final = 0.6  # of all runs of three words of both; what is below is not read by the encoder
_VECTORS_ALIKE: Final = 0.95
_NUMBER: Final = re.compile(r"\d[\d.,:/-]*")
_NAME: Final = re.compile(r"(?<![.!?:]\s)(?<=\w\s)[A-ZÀ-Þ][\w-]+")
_NEGATION: Final = re.compile(r"\b(?:not?|never|none|nor|without|except|unless|cannot|\w+n[’']t)\b", re.I)

_Pair = tuple[int, int, int]
"""A request, and the numbers of two of its sources."""


def near_duplicate_documents(study: Study) -> Iterator[Finding]:
    for group in study.groups:
        sources = {i: _documents(study, i) for i in group.requests}
        pairs = [(i, a, b) for i, own in sources.items() for a, b in _alike(own)]
        if not pairs:
            continue
        removed: dict[int, list[int]] = {}
        for i, kept, goes in _confirmed(study, sources, pairs):
            if goes not in removed.setdefault(i, []) and kept not in removed[i]:
                removed[i].append(goes)
        changes = tuple(change for i, numbers in removed.items() if (change := _change(study, i, numbers)))
        if not changes:
            continue
        (i, kept, goes) = next(pair for pair in pairs if pair[0] == changes[0].request)
        yield Finding(
            kind="near-duplicate-documents",
            title=f"{counted(len(changes), 'request')} of {group.model} with a document that another one nearly repeats",
            advice="Keep one version of a document in the index, or remove near copies after retrieval: "
            "no number, name or negation of what would go is missing in what stays.",
            reckoned=f"documents that share {_RUNS_ALIKE:.0%} of their runs of three words, with vectors {_VECTORS_ALIKE} alike; "
            "our count of the copy's tokens, at the price of where it stands",
            basis="estimated",
            changes=changes,
            tokens=sum(removal.tokens for change in changes for removal in change.removed),
            excerpts=_where_they_differ(sources[i][kept].text, sources[i][goes].text),
        )


def _where_they_differ(one: str, other: str) -> tuple[str, str]:
    """A few words of each, from a little before their first difference."""
    one, other = without_secrets(one), without_secrets(other)  # first: a cut through one would hide what it is
    shared = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    start = max(0, shared - MAX_EXCERPT_CHARS // 3)
    return excerpt(one[start:]), excerpt(other[start:])


def _documents(study: Study, i: int) -> Sequence[Source]:
    payload = study.anatomies[i].payload
    return () if payload is None else payload.sources


def _alike(sources: Sequence[Source]) -> Iterator[tuple[int, int]]:
    """Pairs that share most of their words and are no equal copies, which are found elsewhere."""
    if len(sources) < 2:
        return
    runs = [Tally(_runs(terms(source.text))) for source in sources]
    sizes = [own.total() for own in runs]
    for a, b in combinations(range(len(sources)), 2):
        smaller, larger = sorted((sizes[a], sizes[b]))
        if smaller < _RUNS_ALIKE * larger or smaller < _LEAST_TOKENS // 2:
            continue
        shared = (runs[a] & runs[b]).total()
        if shared >= _RUNS_ALIKE * (sizes[a] + sizes[b] - shared) and _folded(sources[a]) != _folded(sources[b]):
            yield a, b


def _runs(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every three words in a row: long texts on one subject share their words, and only copies their order."""
    return zip(words, words[1:], words[2:], strict=False)


def _folded(source: Source) -> str:
    return " ".join(source.text.split())


def _confirmed(study: Study, sources: dict[int, Sequence[Source]], pairs: Sequence[_Pair]) -> Iterator[_Pair]:
    """The pairs whose vectors agree, each with the one that stays before the one that may go."""
    texts = list(dict.fromkeys(sources[i][n].text for i, *both in pairs for n in both))
    vectors = study.encoder().encode([Passage(text, ((0, len(text)),)) for text in texts])
    rows = {text: vector[0] for text, vector in zip(texts, vectors, strict=True)}
    for i, a, b in pairs:
        one, other = sources[i][a].text, sources[i][b].text
        # A pair at a time, because near duplicates are looked for within one request, and not among all of them.
        if near_duplicates(np.stack([rows[one], rows[other]]), _VECTORS_ALIKE)[1] != 0:
            continue
        if _holds(one, other):
            yield i, a, b
        elif _holds(other, one):
            yield i, b, a


def _holds(kept: str, goes: str) -> bool:
    """Whether no number, name or negation of `goes` is missing in `kept`."""
    return all(not (Tally(p.findall(goes)) - Tally(p.findall(kept))) for p in (_NUMBER, _NAME, _NEGATION))


def _change(study: Study, i: int, numbers: Sequence[int]) -> Change | None:
    payload, parts = study.anatomies[i].payload, study.anatomies[i].parts
    if payload is None:
        return None
    by_path = {part.path: number for number, part in enumerate(parts) if part.path}
    removed: list[Removal] = []
    for number in numbers:
        source, place = payload.sources[number], payload.places[number]
        part = None if place is None else by_path.get(place.path)
        tokens = count_each([source.text.strip()], encoding_for_model(study.requests[i].model))[0]
        if place is not None and part is not None and tokens >= _LEAST_TOKENS:
            removed.append(Removal(part, place.block.start, place.block.end, tokens, parts[part].position))
    return Change(i, tuple(removed)) if removed else None
