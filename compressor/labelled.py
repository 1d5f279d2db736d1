"""Labelled questions: recorded requests whose evidence is known, one JSON object a line, plain or gzipped.

    {"id": "...", "dataset": "...", "query": "...",
     "contexts": [{"id": "...", "title": "...", "text": "..."}],     what was retrieved, in its order
     "evidence": [{"context": 3, "text": "..."}],                    spans of contexts[3].text that hold the answer
     "answers": ["..."],                                             any of them answers; all with "all_answers": true
     "kind": "numeric", "derived": false}                            derived: worked out, stands nowhere in the text

Only `query`, `contexts` and `evidence` are needed. White space apart, evidence stands in its context word for word; a
question without evidence is unanswerable. The one reader of this shape: training and the benchmarks both use it.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.segments import Segment, Source


class BadQuestion(ValueError):
    """A line that is not a labelled question. The message names the file, the line, the field and what is wrong."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question, what was retrieved for it, and where the evidence stands: (source, start, end) in characters.

    `dataset` is the row's own word for where it comes from, up to a hyphen; `kind` is empty where the row does not say.
    """

    dataset: str
    query: str
    sources: tuple[Source, ...]
    spans: tuple[tuple[int, int, int], ...]
    id: str = ""
    answers: tuple[str, ...] = ()
    kind: str = ""
    all_answers: bool = False
    derived: bool = False

    def held_by(self, segments: Sequence[Segment]) -> NDArray[np.bool_]:
        """For each segment whether it holds (a part of) the evidence."""
        return np.fromiter(
            (any(s.source == n and s.start < end and s.end > start for n, start, end in self.spans) for s in segments),
            np.bool_,
            len(segments),
        )


def read_labelled(file: Path) -> Iterator[Labelled]:
    """The questions of a JSONL file, in order. Raises BadQuestion at the first bad line, and for a file that cannot be
    read. A question without an id is called by its line."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{file}, line {number}"
                    yield labelled({"id": number, **_row(line, where)}, where)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadQuestion(f"{file}: cannot be read as UTF-8 JSON lines ({error})") from None


def labelled(row: Mapping[str, Any], where: str) -> Labelled:
    """One row of the shape above. Raises BadQuestion, which begins with `where` and names the field."""
    try:
        sources = tuple(_source(n, each) for n, each in enumerate(_list(row, "contexts")))
        if not sources:
            raise ValueError("contexts is empty: give what was retrieved for the question")
        return Labelled(
            dataset=str(row.get("dataset", "")).partition("-")[0],
            query=_text(row, "query"),
            sources=sources,
            spans=tuple(_span(n, each, sources) for n, each in enumerate(_list(row, "evidence"))),
            id=str(row.get("id", "")),
            answers=tuple(_text({"": each}, "", f"answers[{n}]") for n, each in enumerate(row.get("answers") or ())),
            kind=str(row.get("kind") or ""),
            all_answers=row.get("all_answers") is True,
            derived=row.get("derived") is True,
        )
    except ValueError as error:
        raise BadQuestion(f"{where}: {error}") from None


def located(span: str, text: str) -> tuple[int, int]:
    """Where `span` stands in `text`, white space apart. Raises ValueError if it does not."""
    start = text.find(span)
    if start >= 0:
        return start, start + len(span)
    loose = re.search(r"\s+".join(map(re.escape, span.split())), text)
    if loose is None:
        raise ValueError(f"the evidence {span[:40]!r} does not stand in its context")
    return loose.span()


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadQuestion(f"{where}: is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadQuestion(f"{where}: must be a JSON object, not {_called(row)}")
    return row


def _source(number: int, given: object) -> Source:
    at = f"contexts[{number}]"
    if not isinstance(given, Mapping):
        raise ValueError(f'{at} must be an object with a "text", not {_called(given)}')
    return Source(str(given.get("id", number)), _text(given, "text", f"{at}.text"), str(given.get("title") or ""))


def _span(number: int, given: object, sources: Sequence[Source]) -> tuple[int, int, int]:
    at = f"evidence[{number}]"
    if not isinstance(given, Mapping):
        raise ValueError(f'{at} must be an object with "context" and "text", not {_called(given)}')
    context = given.get("context")
    if type(context) is not int or not 0 <= context < len(sources):
        count = len(sources)
        raise ValueError(
            f"{at}.context must be the number of one of the {count} contexts, counted from 0, not {context!r}"
        )
    text = _text(given, "text", f"{at}.text")
    if not text.strip():
        raise ValueError(f"{at}.text is blank: quote the span that holds the answer")
    try:
        return (context, *located(text, sources[context].text))
    except ValueError:
        raise ValueError(f"{at}.text does not stand in contexts[{context}].text: {text[:60]!r}") from None


def _list(row: Mapping[str, Any], field: str) -> Sequence[Any]:
    if field not in row:
        raise ValueError(f"{field} is missing")
    value = row[field]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{field} must be a list, not {_called(value)}")
    return value


def _text(row: Mapping[str, Any], field: str, at: str = "") -> str:
    if field not in row:
        raise ValueError(f"{at or field} is missing")
    value = row[field]
    if not isinstance(value, str):
        raise ValueError(f"{at or field} must be a text, not {_called(value)}")
    return value


_CALLED = {type(None): "null", bool: "true or false", dict: "an object", list: "a list", str: "a text"}


def _called(value: object) -> str:
    """What JSON calls it."""
    return _CALLED.get(type(value), "a number")
