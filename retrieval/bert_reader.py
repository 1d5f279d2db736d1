"""The reader of plain BERT sentence encoders: onnxruntime, int8, a window at a time, without torch.

Windows are not put into batches. Alone, a window needs no padding, stays in its core's cache and has vectors that hang on
nothing else (a batch would share its activations' scales); the cores are filled by reading as many windows at once.
Measured on two cores, batches of 2,200 tokens took half as long again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

# Before onnxruntime starts, which is when it is imported: from 1.32 on its wheels for Linux and macOS tell Microsoft of every
# process and its sessions. Whoever wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from retrieval.bert_checkpoint import BertCheckpoint
from retrieval.bert_graph import bert_graph, saturation_probe
from retrieval.encoder import Vectors
from retrieval.late_pooling import Tokens


class BertReader:
    """Reads by `checkpoint`'s weights in int8. Safe to share between threads; it keeps no thread of its own."""

    def __init__(self, checkpoint: BertCheckpoint) -> None:
        weights = checkpoint.weights()
        self.max_tokens = checkpoint.max_tokens
        self._words = weights["embeddings.word_embeddings.weight"]
        self._positions = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        model = bert_graph(weights, checkpoint.layers, checkpoint.heads, checkpoint.epsilon)
        self._session = _session(model, exact_kernel=_saturates())
        self._tokenizer = checkpoint.tokenizer()
        marked, bare = self._tokenizer.encode("a").ids, self._tokenizer.encode("a", add_special_tokens=False).ids
        before = marked.index(bare[0])
        self.prefix, self.suffix = tuple(marked[:before]), tuple(marked[before + len(bare) :])

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        read = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [Tokens(each.ids, each.offsets) for each in read]

    def read(self, windows: Sequence[Sequence[int]]) -> Iterator[Vectors]:
        if len(windows) == 1:  # a question: no thread is worth starting
            yield self._read(windows[0])
            return
        # Threads for one call, not for good: a forked worker would inherit a pool without its threads, and hang.
        with ThreadPoolExecutor(min(_cores(), len(windows))) as pool:
            yield from pool.map(self._read, windows)

    def finish(self, means: Vectors) -> Vectors:
        return means

    def _read(self, window: Sequence[int]) -> Vectors:
        embedded = self._words[list(window)] + self._positions[: len(window)]
        (hidden,) = self._session.run(["hidden"], {"embedded": embedded[None]})
        return np.asarray(hidden[0], dtype=np.float32)


def _session(model: bytes, exact_kernel: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # and so none that spins, or that a forked worker would miss
    options.log_severity_level = 3
    if exact_kernel:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _saturates() -> bool:
    """Whether the quick kernel adds products in 16 bits on this CPU, which cuts large sums off: AVX2 and AVX-512 without
    VNNI do. The CPU is asked, since no library says; the exact kernel takes twice as long where it is not needed."""
    (sums,) = _session(saturation_probe()).run(["sums"], {"bytes": np.full((8, 64), 255, np.uint8)})
    return bool((np.asarray(sums) != 64 * 255 * 127).any())


def _cores() -> int:
    """Those that this process may use, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
