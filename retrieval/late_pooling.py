"""Late pooling: from passages to windows of tokens, and from a model's token vectors to one vector a span.

A passage is read in one pass, so that every token has seen its neighbours and the title, and a span's vector is the mean
of its tokens' vectors (Günther et al., "Late Chunking", arXiv 2409.04701). A span that is all of a text also takes in the
marks that the model reads around it ([CLS], [SEP]), as it did in training: a question's vector is the model's own.
Knows nothing of how a model is run: that is the `Reader`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retrieval.encoder import Passage, Span, Vectors

WINDOW_TOKENS = 256  # what all-MiniLM-L6-v2 was trained at; its quality falls towards the 512 that its positions allow
OVERLAP_TOKENS = 64  # or a third of what a model with a short window has room for
TITLE_TOKENS = 32  # a title longer than this is cut, so that it never crowds out the text it introduces
RECIPE = f"late-whole-{WINDOW_TOKENS}-{OVERLAP_TOKENS}-{TITLE_TOKENS}"


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text's tokens, without marks, and where each stands in the text."""

    ids: Sequence[int]
    offsets: Sequence[Span]


class Reader(Protocol):
    """A loaded model. `max_tokens` is the longest window it reads, `prefix` and `suffix` the marks that go around each."""

    @property
    def max_tokens(self) -> int: ...

    @property
    def prefix(self) -> tuple[int, ...]: ...

    @property
    def suffix(self) -> tuple[int, ...]: ...

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]: ...

    def read(self, windows: Sequence[Sequence[int]]) -> Iterable[Vectors]:
        """Every window's token vectors, shape (tokens, dimension), in the windows' order; no window's depend on another's."""
        ...

    def finish(self, means: Vectors) -> Vectors:
        """What the model does to pooled vectors (a projection, say), one a row."""
        ...


@dataclass(frozen=True, slots=True)
class _Window:
    """A slice of one passage's tokens as the model reads it: title, then `start:end` of the text's tokens."""

    start: int
    end: int
    title_tokens: int
    token_ids: tuple[int, ...]


class LatePooling:
    """Vectors of passages, by any reader. As safe to share between threads as its reader is."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._room = min(WINDOW_TOKENS, reader.max_tokens) - len(reader.prefix) - len(reader.suffix)
        self._title_tokens = min(TITLE_TOKENS, self._room // 4)
        self._overlap = min(OVERLAP_TOKENS, self._room // 3)

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        if not passages:
            return []
        texts = self._reader.tokenize([_sendable(p.text) for p in passages])
        titles = self._reader.tokenize([_sendable(p.title) for p in passages])
        windows = [
            tuple(self._windows(title.ids[: self._title_tokens], text.ids))
            for title, text in zip(titles, texts, strict=True)
        ]
        readings = iter(self._reader.read([window.token_ids for own in windows for window in own]))
        return [
            self._pooled(passage.spans, text, own, readings)
            for passage, text, own in zip(passages, texts, windows, strict=True)
        ]

    def _windows(self, title: Sequence[int], ids: Sequence[int]) -> Iterator[_Window]:
        prefix, suffix = self._reader.prefix, self._reader.suffix
        room = self._room - len(title)
        start = 0
        while True:
            end = min(start + room, len(ids))
            yield _Window(start, end, len(title), (*prefix, *title, *ids[start:end], *suffix))
            if end == len(ids):
                return
            start = end - self._overlap

    def _pooled(
        self, spans: Sequence[Span], text: Tokens, windows: Sequence[_Window], readings: Iterator[Vectors]
    ) -> Vectors:
        """One passage's vectors, from the next readings: as many as it has windows."""
        tokens, marks = self._assembled(len(text.ids), windows, readings)
        starts = np.fromiter((s for s, _ in text.offsets), np.int64, len(text.offsets))
        ends = np.fromiter((e for _, e in text.offsets), np.int64, len(text.offsets))
        bounds = np.asarray(spans, np.int64).reshape(-1, 2)
        first = np.searchsorted(ends, bounds[:, 0], side="right")
        last = np.maximum(np.searchsorted(starts, bounds[:, 1], side="left"), first)
        last = np.where(bounds[:, 0] < bounds[:, 1], last, first)  # an empty span may stand inside a token
        running = np.zeros((len(tokens) + 1, tokens.shape[1]))
        np.cumsum(tokens, axis=0, dtype=np.float64, out=running[1:])
        sums, counts = running[last] - running[first], last - first
        all_of_it = (counts == len(tokens)) & (counts > 0)
        sums[all_of_it] += marks.sum(axis=0, dtype=np.float64)
        counts = np.where(all_of_it, counts + len(marks), counts)
        return _unit(self._reader.finish((sums / np.maximum(counts, 1)[:, None]).astype(np.float32)))

    def _assembled(
        self, count: int, windows: Sequence[_Window], readings: Iterator[Vectors]
    ) -> tuple[Vectors, Vectors]:
        """The text's token vectors, and those of the marks around it where one window held it all (else none).

        Where windows overlap, a token's more central reading wins.
        """
        prefix, parts = len(self._reader.prefix), []
        for window in windows:
            hidden = next(readings)
            first = window.start if window.start == 0 else window.start + self._overlap // 2
            last = window.end if window.end == count else window.end - (self._overlap - self._overlap // 2)
            offset = prefix + window.title_tokens - window.start
            parts.append(hidden[first + offset : last + offset])
        if len(windows) > 1:
            return np.concatenate(parts), parts[0][:0]
        return parts[0], np.concatenate([hidden[:prefix], hidden[count + offset :]])


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _sendable(text: str) -> str:
    """Half of a surrogate pair is no character, and the tokenizer refuses it; its place is kept, so that spans still fit."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
