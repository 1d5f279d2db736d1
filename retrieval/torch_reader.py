"""The reader of any sentence-transformers model: its own modules, run by torch. Slow to import and to run; reads everything."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from retrieval.encoder import Vectors
from retrieval.late_pooling import WINDOW_TOKENS, Tokens

BATCH_TOKENS = 4096


class UnsuitableModel(ValueError):
    """A model whose vectors are not means of its tokens' vectors: means over spans would mean nothing to it."""


class TorchReader:
    """Reads by the model `name_or_path`, whatever its architecture, in batches. Raises UnsuitableModel."""

    def __init__(self, name_or_path: str) -> None:
        with _no_progress_bar():
            model = SentenceTransformer(name_or_path, device="cpu")
        modules = list(model.children())
        if len(modules) < 2 or not _pools_by_mean(modules[1]):
            raise UnsuitableModel(f"{name_or_path} does not pool by mean")
        self._head = modules[2:]
        self._backbone = modules[0].auto_model
        self._tokenizer = model.tokenizer
        self._lock = threading.Lock()  # one pass at a time: torch already spreads a pass over the cores
        self.max_tokens = int(model.max_seq_length or WINDOW_TOKENS)
        self.prefix, self.suffix = _marks(self._tokenizer)

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        read = self._tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [Tokens(*each) for each in zip(read["input_ids"], read["offset_mapping"], strict=True)]

    def read(self, windows: Sequence[Sequence[int]]) -> list[Vectors]:
        found: dict[int, Vectors] = {}
        with self._lock:
            for batch in _batches(windows):
                longest = max(len(windows[n]) for n in batch)
                ids = torch.zeros((len(batch), longest), dtype=torch.long)
                mask = torch.zeros((len(batch), longest), dtype=torch.long)
                for row, number in enumerate(batch):
                    ids[row, : len(windows[number])] = torch.tensor(windows[number])
                    mask[row, : len(windows[number])] = 1
                with torch.inference_mode():
                    hidden = self._backbone(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()
                found |= {number: hidden[row, : len(windows[number])] for row, number in enumerate(batch)}
        return [found[number] for number in range(len(windows))]

    def finish(self, means: Vectors) -> Vectors:
        if not self._head or len(means) == 0:
            return means
        features: dict[str, Any] = {"sentence_embedding": torch.from_numpy(means)}
        with torch.inference_mode():
            for module in self._head:
                features = module(features)
        return np.asarray(features["sentence_embedding"].numpy(), dtype=np.float32)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers draws one on standard error while it loads weights; it is no business of a library to draw."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _batches(windows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The numbers of the windows, those of like length together, so that little is spent on padding."""
    batch: list[int] = []
    for number in sorted(range(len(windows)), key=lambda n: len(windows[n])):
        if batch and len(windows[number]) * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _pools_by_mean(module: Any) -> bool:
    """Of sentence-transformers' pooling module: release 6 names the mode, release 5 has a flag for each."""
    if hasattr(module, "pooling_mode"):
        return bool(module.pooling_mode == "mean")
    modes = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return [mode for mode in modes if getattr(module, f"pooling_mode_{mode}", False)] == ["mean_tokens"]


def _marks(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and after a text, read off an example rather than assumed ([CLS] and [SEP], say)."""
    marked = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    at = next(i for i in range(len(marked)) if marked[i : i + len(bare)] == bare)
    return tuple(marked[:at]), tuple(marked[at + len(bare) :])
