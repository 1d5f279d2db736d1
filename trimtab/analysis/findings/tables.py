"""JSON that says its keys again in every row, or is laid out for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from compressor.lossless import savings, without
from compressor.segments import Source, segmented
from compressor.tokens import count_each, encoding_for_model
from trimtab.analysis.changes import Change, Removal
from trimtab.analysis.study import Finding, Study
from trimtab.analysis.wording import counted

_FEWEST_ROWS: Final = 5
_LEAST_TOKENS: Final = 60
_LEAST_SHARE: Final = 0.2
_LEAST_CHARS: Final = 200
_MOST_TRIES: Final = 50  # openings that are looked at in one text

_DECODER: Final = json.JSONDecoder()


class Lean(NamedTuple):
    """A span of JSON, the tokens that it would save, and whether as a table (else without its blanks)."""

    start: int
    end: int
    tokens: int
    tabular: bool


def wordy_json(study: Study) -> Iterator[Finding]:
    for group in study.groups:
        encoding = encoding_for_model(group.model)
        found: dict[bool, list[Change]] = {True: [], False: []}
        for i in group.requests:
            own: dict[bool, list[Removal]] = {True: [], False: []}
            for number, part in enumerate(study.anatomies[i].parts):
                if part.role in ("user", "tool", "system") and len(part.text) >= _LEAST_CHARS:
                    for lean in leaner(part.text, encoding):
                        own[lean.tabular].append(Removal(number, lean.start, lean.end, lean.tokens, part.position))
            for tabular, removed in own.items():
                if removed:
                    found[tabular].append(Change(i, tuple(removed)))
        for tabular, changes in found.items():
            if changes:
                yield _finding(group.model, tabular, tuple(changes))


def _finding(model: str, tabular: bool, changes: tuple[Change, ...]) -> Finding:
    tokens = sum(removal.tokens for change in changes for removal in change.removed)
    held = "JSON rows with the same keys" if tabular else "JSON with indentation"
    return Finding(
        kind="tabular-json" if tabular else "indented-json",
        title=f"{counted(len(changes), 'request')} of {model} with {held}",
        advice=(
            "Write the rows as CSV with one header: the same values, each key once."
            if tabular
            else "Write the JSON without indentation: json.dumps(value, separators=(',', ':'))."
        ),
        reckoned="the same values counted both ways, in the model's own tokens or those nearest to them",
        basis="estimated",
        changes=changes,
        tokens=tokens,
    )


@lru_cache(maxsize=20_000)
def leaner(text: str, encoding: str) -> tuple[Lean, ...]:
    """The JSON in a text that can be written with fewer tokens and no loss."""
    found: list[Lean] = []
    for start, end, value in _values(text):
        written = text[start:end]
        table = as_table(value)
        lean = table if table is not None else _without_blanks(written, encoding)
        before, after = count_each([written, lean], encoding)
        if before - after >= max(_LEAST_TOKENS, _LEAST_SHARE * before):
            found.append(Lean(start, end, before - after, table is not None))
    return tuple(found)


def as_table(value: Any) -> str | None:
    """The rows of a list as CSV; None unless they are objects with the same keys and no values within values.

    >>> as_table([{"id": n, "name": "Ada, L."} for n in range(5)]).splitlines()[:2]
    ['id,name', '0,"Ada, L."']
    """
    if not isinstance(value, list) or len(value) < _FEWEST_ROWS or not all(isinstance(row, Mapping) for row in value):
        return None
    keys = list(value[0])
    if not keys or any(set(row) != set(keys) for row in value):
        return None
    if any(isinstance(cell, Mapping | list) for row in value for cell in row.values()):
        return None
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(keys)
    writer.writerows([_cell(row[key]) for key in keys] for row in value)
    return written.getvalue()


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _without_blanks(text: str, encoding: str) -> str:
    sources = [Source("json", text)]
    spared = savings(sources, segmented(sources, encoding), encoding)
    return "".join(text[a:b] for a, b in without((0, len(text)), spared.blanks[0]))


def _values(text: str) -> Iterator[tuple[int, int, Any]]:
    """The lists and objects of some length in a text, the outermost and the lists of rows within them."""
    position, tries = 0, 0
    while tries < _MOST_TRIES:
        starts = [at for at in (text.find("[", position), text.find("{", position)) if at >= 0]
        if not starts:
            return
        start, tries = min(starts), tries + 1
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            continue
        position = end
        if end - start < _LEAST_CHARS:
            continue
        rows = None if isinstance(value, list) else _rows_within(value)
        if rows is not None and as_table(value) is None:
            inner = text.find("[", start)
            while 0 <= inner < end:
                try:
                    each, stop = _DECODER.raw_decode(text, inner)
                except (ValueError, RecursionError):
                    stop = inner + 1
                    each = None
                if each == rows:
                    yield inner, stop, each
                    break
                inner = text.find("[", inner + 1)
        else:
            yield start, end, value


def _rows_within(value: object) -> list[Any] | None:
    """The list of rows that an object holds, as in {"results": [...]}."""
    if not isinstance(value, Mapping):
        return None
    return next((each for each in value.values() if as_table(each) is not None), None)
