"""Writing: kept segments of a source as one text, with a gap where something was left out.

Knows nothing of scores or budgets. What is written is slices of the original and gaps, and gaps say nothing but how much
of the same was left out.
"""

from __future__ import annotations

import functools
from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from compressor.lossless import Span, without
from compressor.segments import Segment, Source
from compressor.splitting.templates import templates_of

DEFAULT_MARKER = " … "  # one token: the space after it is part of the next word's token
MIN_COUNTED = 3  # fewer repeats cost less than the words that count them

# kinds that go on in the same line after a gap, and after which kinds they do
_RUNNING_TEXT = {"prose": ("prose",), "html": ("html",), "chat-part": ("chat", "chat-part")}
_CODE_GAP = "\n    # …\n    "  # what it is counted as: each piece of code brings its own, with its indentation


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of one source: `text` is the slices `spans` of the original, in order, joined by gap markers."""

    id: str
    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, eq=False)  # no slots: what is computed on first use is kept
class Writer:
    """Writes any choice of the segments. `blanks`: for each source, white space that is never written."""

    sources: tuple[Source, ...]
    segments: tuple[Segment, ...]
    blanks: tuple[tuple[Span, ...], ...]
    marker: str = DEFAULT_MARKER

    def written(self, number: int, kept: Set[int]) -> Kept:
        """Source `number` with those of its segments that are in `kept`."""
        source, blanks = self.sources[number], self.blanks[number]
        parts: list[str] = []
        spans: list[Span] = []
        for gap, span in self._runs(number, kept):
            left = list(without(span, blanks)) if blanks else [span]
            parts.append(gap)
            parts.extend(source.text[start:end] for start, end in left)
            spans.extend(left)
        if kept and spans and (stub := self._last_stub(number, kept)):
            parts.append(stub)
        return Kept(source.id, "".join(parts), tuple(spans))

    def gap_before(self, kind: str) -> str:
        """What stands where something was left out before a segment of `kind`: a line of its own, in what is made of lines."""
        return self._gaps.get(kind, f"\n{self.marker.strip()}\n" if self.marker.strip() else "\n")

    @functools.cached_property
    def _gaps(self) -> dict[str, str]:
        in_line = dict.fromkeys(_RUNNING_TEXT, self.marker)
        return {**in_line, "json": ",", "json-open": "", "json-close": "", "code": _CODE_GAP}

    @functools.cached_property
    def _first_segments(self) -> list[int]:
        """For each source the number of its first segment, and one past the last at the end."""
        starts = np.searchsorted([s.source for s in self.segments], np.arange(len(self.sources) + 1))
        return [int(start) for start in starts]

    @functools.cached_property
    def _templates(self) -> dict[int, int]:
        """For each segment that is an entry of a log, the number of its template."""
        entries = [i for i, segment in enumerate(self.segments) if segment.kind == "log" and not segment.skeleton]
        texts = [self.sources[(s := self.segments[i]).source].text[s.start : s.end] for i in entries]
        return dict(zip(entries, templates_of(texts), strict=True))

    def _runs(self, number: int, kept: Set[int]) -> list[tuple[str, Span]]:
        """Kept segments that follow each other as one span, each with what stands before it."""
        runs: list[tuple[str, Span]] = []
        previous: int | None = None
        for index in range(self._first_segments[number], self._first_segments[number + 1]):
            if index not in kept:
                continue
            start, end = self.segments[index].start, self.segments[index].end
            if previous is None:
                runs.append(("", (start, end)))
            elif previous == index - 1:
                gap, (start, _) = runs[-1]
                runs[-1] = (gap, (start, end))
            else:
                runs.append((self._gap(previous, index, kept), (start, end)))
            previous = index
        return runs

    def _gap(self, before: int, after: int, kept: Set[int]) -> str:
        kinds = (self.segments[before].kind, self.segments[after].kind)
        if kinds[0] == "json-open" or kinds[1] == "json-close":
            return ""
        if stub := self._stub(before, after):
            return self._after_stub(stub, before, after)
        if kinds[1].startswith("json") and not kinds[0].startswith("json"):
            return self.gap_before("line")
        own = self.segments[after].gap
        if own is not None:
            return own
        if kinds == ("log", "log") and (counted := self._counted(before, after, kept)):
            return counted
        if kinds[1] in _RUNNING_TEXT and (
            kinds[0] not in _RUNNING_TEXT[kinds[1]] or self._is_lined(before, "#") or self._is_lined(after, "#-*+")
        ):
            return self.gap_before("line")  # a sentence after a table's row, or a heading, has a line of its own
        return self.gap_before("json" if kinds[1].startswith("json") else kinds[1])

    def _is_lined(self, index: int, marks: str) -> bool:
        """Whether a segment is a heading or an item of a list, by the mark that it opens with."""
        segment = self.segments[index]
        text = self.sources[segment.source].text
        return text[segment.start] in marks and (segment.start == 0 or text[segment.start - 1] in "\n \t")

    def _counted(self, before: int, after: int, kept: Set[int]) -> str:
        """How many entries were left out, where all are like the one before, or like some that are kept above; else ""."""
        mark = self.marker.strip()
        left_out = after - before - 1
        if left_out < MIN_COUNTED or not mark or any(i not in self._templates for i in range(before, after)):
            return ""
        templates = {self._templates[i] for i in range(before + 1, after)}
        if templates == {self._templates[before]}:
            return f"\n{mark} {left_out} more like this {mark}\n"
        first = self._first_segments[self.segments[before].source]
        above = {self._templates[i] for i in range(first, before + 1) if i in kept and i in self._templates}
        return f"\n{mark} {left_out} more like those above {mark}\n" if templates <= above else ""

    def _stub(self, before: int, after: int) -> str:
        """What stands for all that is under segment `before`, if none of that is kept."""
        stub = self.segments[before].stub
        under = before in self.segments[after].skeleton and after not in self.segments[before].skeleton
        return "" if stub is None or under else stub

    def _after_stub(self, stub: str, before: int, after: int) -> str:
        """A stub says what is missing; it need not be said twice if nothing else is."""
        gap = self.segments[after].gap or self.gap_before(self.segments[after].kind)
        if before in self.segments[after - 1].skeleton:
            gap = "\n" + gap.rpartition("\n")[2]
        return stub + gap

    def _last_stub(self, number: int, kept: Set[int]) -> str:
        first, after = self._first_segments[number], self._first_segments[number + 1]
        last = next(i for i in range(after - 1, first - 1, -1) if i in kept)
        return self.segments[last].stub or "" if last + 1 < after and last in self.segments[last + 1].skeleton else ""
