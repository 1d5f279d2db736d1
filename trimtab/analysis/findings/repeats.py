"""The same paragraph twice in one request: in one message, or in a later one again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from compressor.tokens import count_each, encoding_for_model
from trimtab.analysis.anatomy import Anatomy
from trimtab.analysis.changes import Change, Removal
from trimtab.analysis.quoting import excerpt
from trimtab.analysis.study import Finding, Study
from trimtab.analysis.wording import counted

_LEAST_TOKENS: Final = 40
_LEAST_CHARS: Final = 120  # fewer are never so many tokens, and need no counting
_PARAGRAPH: Final = re.compile(r"\S.*?(?=\n[ \t]*\n|\Z)", re.S)
_LINE: Final = re.compile(r"[^\n]+")
_LABEL: Final = re.compile(r"^\W*(?:\w{1,4}[\]).:]+\s*)?")
_COUNTED: Final = re.compile(r"\s*(?:[{|\"]|\d{4}-\d\d-\d\d)")
"""Rows, records and log lines that come again say how often something happened."""


class Repeat(NamedTuple):
    """A copy: the number of its part, its characters there, and whether the first one stands in another message."""

    part: int
    start: int
    end: int
    across: bool


def repeated_chunks(study: Study) -> Iterator[Finding]:
    """For each group, what is said again within a message, and what is said again across a conversation."""
    for group in study.groups:
        by_kind: dict[bool, dict[int, list[Repeat]]] = {False: {}, True: {}}
        for i in group.requests:
            for repeat in repeats(study.anatomies[i]):
                by_kind[repeat.across].setdefault(i, []).append(repeat)
        for across, found in by_kind.items():
            changes = tuple(_changes(study, found))
            if not changes:
                continue
            tokens = sum(removal.tokens for change in changes for removal in change.removed)
            first = changes[0]
            removal = first.removed[0]
            text = study.anatomies[first.request].parts[removal.part].text[removal.start : removal.end]
            where = "in a later message of the same conversation" if across else "in the same message"
            advice = (
                "Send a document once in a conversation; point to it where it is needed again."
                if across
                else "Remove equal chunks after retrieval, before the prompt is written."
            )
            yield Finding(
                kind="repeated-across-turns" if across else "repeated-chunk",
                title=f"{counted(len(changes), 'request')} of {group.model} with a paragraph that stands again {where}",
                advice=advice,
                reckoned="our count of every copy but the first, at the price of the tokens where it stands",
                basis="estimated",
                changes=changes,
                tokens=tokens,
                excerpts=(excerpt(text),),
            )


def repeats(anatomy: Anatomy) -> Iterator[Repeat]:
    """Every second copy of a paragraph, or of a long line in a paragraph that is no copy itself."""
    seen: dict[str, int] = {}
    for number, part in enumerate(anatomy.parts):
        if part.role not in ("user", "tool", "system"):
            continue
        for paragraph in _PARAGRAPH.finditer(part.text):
            key = _key(paragraph.group())
            if key is not None and key in seen:
                yield Repeat(number, *paragraph.span(), seen[key] != part.turn)
                continue
            for line in _LINE.finditer(part.text, *paragraph.span()) if "\n" in paragraph.group() else ():
                line_key = None if _COUNTED.match(line.group()) else _key(line.group())
                if line_key is not None and line_key in seen:
                    yield Repeat(number, *line.span(), seen[line_key] != part.turn)
                elif line_key is not None:
                    seen[line_key] = part.turn
            if key is not None:
                seen[key] = part.turn


def _key(text: str) -> str | None:
    key = " ".join(_LABEL.sub("", text, count=1).split())
    return key if len(key) >= _LEAST_CHARS else None


def _changes(study: Study, found: dict[int, list[Repeat]]) -> Iterator[Change]:
    for i, repeated in found.items():
        parts = study.anatomies[i].parts
        texts = [parts[each.part].text[each.start : each.end] for each in repeated]
        counts = count_each(texts, encoding_for_model(study.requests[i].model))
        removed = tuple(
            Removal(each.part, each.start, each.end, tokens, parts[each.part].position)
            for each, tokens in zip(repeated, counts, strict=True)
            if tokens >= _LEAST_TOKENS
        )
        if removed:
            yield Change(i, removed)
