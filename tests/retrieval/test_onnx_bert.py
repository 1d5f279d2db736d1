"""The int8 reader: how near to float32 it stays, that nothing but the window decides, and what it never needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import Passage, SentenceTransformerEncoder
from retrieval.bert_checkpoint import BertCheckpoint
from retrieval.bert_graph import bert_graph
from retrieval.bert_reader import BertReader, _saturates, _session
from retrieval.encoder import Vectors
from retrieval.late_pooling import LatePooling
from retrieval.sentence_encoder import _packaged_minilm
from retrieval.torch_reader import TorchReader

ROOT = Path(__file__).parents[2]
CHECKPOINT = BertCheckpoint.of(_packaged_minilm())


@pytest.fixture(scope="module")
def int8() -> BertReader:
    return BertReader(CHECKPOINT)


@pytest.fixture(scope="module")
def float32() -> TorchReader:
    return TorchReader(str(_packaged_minilm()))


def windows(*lengths: int) -> list[list[int]]:
    random = np.random.default_rng(7)
    return [[101, *random.integers(1000, 30000, length - 2).tolist(), 102] for length in lengths]


def cosines(one: Vectors, other: Vectors) -> Vectors:
    return np.sum(one * other, axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_vectors_of_real_text_stay_near_float32s(int8: BertReader, float32: TorchReader) -> None:
    """Measured on 3,584 spans of three data sets: .996 at least and .9991 in the mean."""
    texts = [block for name in ("README.md", "CONTRIBUTING.md") for block in (ROOT / name).read_text().split("\n\n")]
    texts += [message["content"] for message in json.loads((ROOT / "examples/payload.json").read_text())["messages"]]
    passages = [Passage(text, ((0, len(text) // 2), (0, len(text))), "A title") for text in texts if len(text) > 40]
    found = np.concatenate(LatePooling(int8).encode(passages))
    wanted = np.concatenate(LatePooling(float32).encode(passages))
    there = np.linalg.norm(wanted, axis=1) > 0
    near = cosines(found[there], wanted[there])
    assert len(near) > 60
    assert near.min() > 0.99
    assert near.mean() > 0.998


def test_tokens_of_no_sense_stay_near_too(int8: BertReader, float32: TorchReader) -> None:
    for found, wanted in zip(int8.read(drawn := windows(2, 3, 17, 200, 256)), float32.read(drawn), strict=True):
        assert found.shape == wanted.shape == (len(found), 384)
        assert cosines(found, wanted).min() > 0.95


def test_both_read_the_same_tokens(int8: BertReader, float32: TorchReader) -> None:
    texts = [
        "",
        "Größe, naïve — “x” 5 GB",
        "東京都の人口",
        "[SEP] and [MASK] in a text",
        "👩‍👩‍👧‍👦 e\u0301 \u200b ﬁ",
        "word " * 900,
    ]
    for one, other in zip(int8.tokenize(texts), float32.tokenize(texts), strict=True):
        assert list(one.ids) == list(other.ids)
        assert list(one.offsets) == list(other.offsets)
    assert (int8.prefix, int8.suffix, int8.max_tokens) == (float32.prefix, float32.suffix, float32.max_tokens)


def test_a_windows_vectors_do_not_depend_on_other_windows(int8: BertReader) -> None:
    """To the bit: what the vector cache holds is what a fresh reading would give."""
    drawn = windows(256, 5, 90, 256, 3, 31)
    together = list(int8.read(drawn))
    for window, vectors in zip(drawn, together, strict=True):
        np.testing.assert_array_equal(next(iter(int8.read([window]))), vectors)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 30521), min_size=1, max_size=256))
def test_any_tokens(ids: list[int]) -> None:
    (vectors,) = _SHARED.read([ids])
    assert vectors.shape == (len(ids), 384)
    assert np.isfinite(vectors).all()


def test_the_exact_kernel_reads_the_same(int8: BertReader) -> None:
    """What a CPU without VNNI runs. Whole numbers are summed either way: no more than float rounding may differ."""
    if _saturates():
        pytest.skip("this CPU has the exact kernel only")
    graph = bert_graph(CHECKPOINT.weights(), CHECKPOINT.layers, CHECKPOINT.heads, CHECKPOINT.epsilon)
    (window,) = windows(60)
    embedded = int8._words[window] + int8._positions[:60]
    (found,) = _session(graph, exact_kernel=True).run(["hidden"], {"embedded": embedded[None]})
    np.testing.assert_allclose(found[0], next(iter(int8.read([window]))), atol=1e-4)


def test_a_cpu_with_vnni_does_not_saturate() -> None:
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists() or "vnni" not in cpu.read_text():
        pytest.skip("not known to have VNNI")
    assert not _saturates()


# --- what it never needs -------------------------------------------------------------------------------------------------


def run(script: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_no_torch_is_imported() -> None:
    script = """
import sys
from retrieval import Passage, SentenceTransformerEncoder
encoder = SentenceTransformerEncoder()
encoder.identity
(vectors,) = encoder.encode([Passage("An upload may be 5 GB.", ((0, 22),))])
print(vectors.shape, sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))
"""
    assert run(script) == "(1, 384) []"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_worker_reads_on() -> None:
    """As gunicorn's workers do behind a preloaded application. A pool of threads kept in the parent would hang them."""
    script = """
import os, signal
from retrieval import Passage, SentenceTransformerEncoder
encoder = SentenceTransformerEncoder()
passages = [Passage(f"Rule {n} holds.", ((0, 6),)) for n in range(20)]
wanted = encoder.encode(passages)
if os.fork():
    print(os.waitstatus_to_exitcode(os.wait()[1]))
else:
    signal.alarm(20)
    same = all((one == other).all() for one, other in zip(encoder.encode(passages), wanted))
    os._exit(0 if same else 1)
"""
    assert run(script) == "0"


def test_the_encoder_takes_this_reader(int8: BertReader, encoder: SentenceTransformerEncoder) -> None:
    passage = Passage("An upload may be 5 GB.", ((0, 9), (0, 22)))
    np.testing.assert_array_equal(encoder.encode([passage])[0], LatePooling(int8).encode([passage])[0])


_SHARED = BertReader(CHECKPOINT)  # hypothesis wants no fixture that is made anew for every example
