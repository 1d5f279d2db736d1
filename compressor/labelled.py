"""Labelled questions: recorded requests whose evidence is known, one JSON object a line, plain or gzipped.

    {"id": "...", "dataset": "...", "query": "...",
     "contexts": [{"id": "...", "title": "...", "text": "..."}],
     "evidence": [{"context": 3, "text": "..."}]}

`evidence` holds spans of `contexts[context].text`, white space apart, that hold the answer.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.segments import Segment, Source


class BadQuestion(ValueError):
    """A line that is not a labelled question. The message names the file, the line and what is wrong."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question, what was retrieved for it, and where the evidence stands: (source, start, end) in characters."""

    dataset: str
    query: str
    sources: tuple[Source, ...]
    spans: tuple[tuple[int, int, int], ...]

    def held_by(self, segments: Sequence[Segment]) -> NDArray[np.bool_]:
        """For each segment whether it holds (a part of) the evidence."""
        return np.fromiter(
            (any(s.source == n and s.start < end and s.end > start for n, start, end in self.spans) for s in segments),
            np.bool_,
            len(segments),
        )


def read_labelled(file: Path) -> Iterator[Labelled]:
    """The questions of a JSONL file, in order. Raises BadQuestion at the first bad line."""
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _question(json.loads(line))
                except (ValueError, KeyError, TypeError, IndexError) as error:
                    raise BadQuestion(f"{file}, line {number}: {error!r}") from None


def _question(row: dict[str, Any]) -> Labelled:
    sources = tuple(Source(str(c.get("id", n)), c["text"], c.get("title") or "") for n, c in enumerate(row["contexts"]))
    spans = []
    for item in row["evidence"]:
        number = int(item["context"])
        start, end = located(item["text"], sources[number].text)
        spans.append((number, start, end))
    return Labelled(str(row.get("dataset", "")).partition("-")[0], row["query"], sources, tuple(spans))


def located(span: str, text: str) -> tuple[int, int]:
    """Where `span` stands in `text`, white space apart. Raises ValueError if it does not."""
    start = text.find(span)
    if start >= 0:
        return start, start + len(span)
    loose = re.search(r"\s+".join(map(re.escape, span.split())), text)
    if loose is None:
        raise ValueError(f"the evidence {span[:40]!r} does not stand in its context")
    return loose.span()
