"""The real encoder: against the model's own vectors where they are defined, against its contract where they are not.

What late pooling does is tested with both readers: int8 by onnxruntime, float32 by torch.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

import retrieval.bert_reader
from retrieval import Encoder, Passage, SentenceTransformerEncoder
from retrieval.bert_checkpoint import BertCheckpoint
from retrieval.encoder import Vectors
from retrieval.late_pooling import OVERLAP_TOKENS, WINDOW_TOKENS, LatePooling
from retrieval.sentence_encoder import _packaged_minilm
from retrieval.torch_reader import TorchReader

MODEL_FOLDER = _packaged_minilm()
SENTENCES = (
    "An upload may be 5 GB.",
    "Data at rest is encrypted with AES-256, and keys are rotated every 90 days.",
    "x",
    "東京都の人口は約1400万人です。",
    "Größenänderungen sind über die API möglich — “ohne” Neustart.",
    "def f(x):\n    return x ** 2",
    "👩‍👩‍👧‍👦 and e\u0301 and \u200b and ﬁ",
)
LONG = " ".join(f"Rule {n} says that tenant {n * 7} may keep {n * 3} snapshots for {n + 2} days." for n in range(60))


def whole(text: str, title: str = "") -> Passage:
    return Passage(text, ((0, len(text)),), title)


class TorchEncoder:
    """The same model, read by torch."""

    identity = "torch"

    def __init__(self) -> None:
        self.encode = LatePooling(TorchReader(str(MODEL_FOLDER))).encode


@pytest.fixture(scope="module")
def by_torch() -> TorchEncoder:
    return TorchEncoder()


@pytest.fixture(params=["int8", "torch"])
def reading(request: pytest.FixtureRequest) -> Encoder:
    return request.getfixturevalue("encoder" if request.param == "int8" else "by_torch")


def assert_same(found: Vectors, wanted: Vectors, reading: Encoder) -> None:
    """The same vectors, as exactly as the reader gives the model's: a cosine of .99 with any span's is int8's bound."""
    assert found.shape == wanted.shape
    tolerance = 1e-5 if isinstance(reading, TorchEncoder) else 0.01
    cosines = np.sum(found * wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() > 1 - tolerance


@pytest.fixture(scope="module")
def reference() -> SentenceTransformer:
    return SentenceTransformer(str(MODEL_FOLDER), device="cpu")


@pytest.mark.parametrize("text", SENTENCES)
def test_a_whole_text_has_the_models_own_vector(reading: Encoder, reference: SentenceTransformer, text: str) -> None:
    (vectors,) = reading.encode([whole(text)])
    assert_same(vectors, reference.encode([text]), reading)


def test_white_space_around_a_text_is_nothing_to_the_model(reading: Encoder, reference: SentenceTransformer) -> None:
    (vectors,) = reading.encode([Passage("\n  An upload may be 5 GB.  ", ((3, 25),))])
    assert_same(vectors, reference.encode(["An upload may be 5 GB."]), reading)


def test_a_part_of_a_text_is_the_mean_of_its_tokens_read_in_place(
    reading: Encoder, reference: SentenceTransformer
) -> None:
    text = "The limit is 5 GB. It was raised in May."
    (vectors,) = reading.encode([Passage(text, ((0, 18), (19, 40), (19, 21)))])
    tokens = reference.encode([text], output_value="token_embeddings")[0].numpy()  # with [CLS] before and [SEP] after
    pieces = reference.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    for row, (start, end) in zip(vectors, ((0, 18), (19, 40), (19, 21)), strict=True):
        inside = [i for i, (s, e) in enumerate(pieces) if start <= s and e <= end and s < e]
        mean = tokens[inside].mean(axis=0)
        assert_same(row[None], mean[None], reading)


def test_rows_have_unit_length(reading: Encoder) -> None:
    for vectors in reading.encode([Passage(LONG, ((0, 40), (41, 90), (0, len(LONG)))), whole("x")]):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_batch_mates_do_not_matter(reading: Encoder) -> None:
    alone = [reading.encode([whole(text)])[0] for text in SENTENCES]
    together = reading.encode([whole(LONG), *(whole(text) for text in SENTENCES), whole(LONG[:900], "A title")])
    for one, other in zip(alone, together[1:-1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_every_token_of_a_long_text_has_one_vector(reading: Encoder) -> None:
    words = [(m, m + len(word)) for m, word in _words(LONG)]
    (vectors,) = reading.encode([Passage(LONG, tuple(words))])
    assert len(words) > 3 * WINDOW_TOKENS
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)  # none was left at zero


def test_the_overlap_gives_a_token_its_more_central_reading(reading: Encoder) -> None:
    """In the first window's own part the vectors are those of a text that ends with the window."""
    words = list(_words("alpha beta gamma delta " * 150))  # a token each: 600 in all
    text, spans = "alpha beta gamma delta " * 150, tuple((m, m + len(word)) for m, word in words)
    room = WINDOW_TOKENS - 2
    (long,) = reading.encode([Passage(text, spans)])
    (first,) = reading.encode([Passage(text[: spans[room - 1][1]], spans[:room])])
    taken = room - OVERLAP_TOKENS // 2
    np.testing.assert_allclose(long[:taken], first[:taken], atol=1e-4)
    assert np.abs(long[taken] - first[taken]).max() > 1e-3  # from there on the next window is the more central one
    start = room - OVERLAP_TOKENS
    offset = spans[start][0]
    (second,) = reading.encode(
        [
            Passage(
                text[offset : spans[start + room - 1][1]],
                tuple((s - offset, e - offset) for s, e in spans[start : start + room]),
            )
        ]
    )
    np.testing.assert_allclose(long[taken : taken + 100], second[taken - start : taken - start + 100], atol=1e-4)


def test_a_long_whole_text_pools_all_its_windows(reading: Encoder) -> None:
    changed = LONG[:-60] + "The moon is made of green cheese and mice go there by balloon."
    one, other = (reading.encode([whole(text)])[0][0] for text in (LONG, changed))
    assert 0.8 < one @ other < 0.9999  # SentenceTransformer.encode would have cut both at the same place: 1.0


def test_a_title_is_read_with_the_text_and_is_no_part_of_the_spans(reading: Encoder) -> None:
    text = "It may be 5 GB. It is billed monthly."
    question = reading.encode([whole("how large may an upload be?")])[0][0]
    bare, titled, other = (
        reading.encode([Passage(text, ((0, 15), (16, 37)), title)])[0]
        for title in ("", "Upload size limits", "Cat food")
    )
    assert titled.shape == bare.shape
    assert titled[0] @ question > bare[0] @ question > other[0] @ question


def test_a_title_of_any_length_leaves_room_for_the_text(reading: Encoder) -> None:
    (vectors,) = reading.encode([Passage("An upload may be 5 GB.", ((0, 22),), "very " * 3000)])
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)


def test_spans_without_tokens_are_zero(reading: Encoder) -> None:
    text = "  One.   Two.  "
    spans = ((0, 2), (2, 6), (4, 4), (6, 9), (0, 0), (15, 15), (9, 13), (13, 15))
    (vectors,) = reading.encode([Passage(text, spans)])
    assert [bool(row.any()) for row in vectors] == [False, True, False, False, False, False, True, False]


@pytest.mark.parametrize("text", ["", "   \n\t ", "\u200b", "\ud800"])
def test_texts_of_nothing_much(reading: Encoder, text: str) -> None:
    none, one = reading.encode([Passage(text, ()), whole(text)])
    assert none.shape == (0, 384)
    assert one.shape == (1, 384)
    assert np.isfinite(one).all()


def test_no_passages(reading: Encoder) -> None:
    assert reading.encode([]) == []


def test_lone_surrogates_count_as_the_replacement_character(reading: Encoder) -> None:
    spans = ((0, 6), (6, 12))
    broken, replaced = reading.encode(
        [Passage("ab\ud800cd. Limit.", spans, "t\udfff"), Passage("ab\ufffdcd. Limit.", spans, "t\ufffd")]
    )
    np.testing.assert_allclose(broken, replaced, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_text_and_any_spans(data: st.DataObject) -> None:
    text = data.draw(st.text(st.characters(codec=None), max_size=80))
    title = data.draw(st.text(max_size=20))
    cuts = st.integers(0, len(text))
    spans = tuple(tuple(sorted(pair)) for pair in data.draw(st.lists(st.tuples(cuts, cuts), max_size=5)))
    (vectors,) = _SHARED.encode([Passage(text, spans, title)])
    assert vectors.shape == (len(spans), 384)
    norms = np.linalg.norm(vectors, axis=1)
    assert all(norm == pytest.approx(1, abs=1e-4) or norm == 0 for norm in norms)
    assert all(norm == 0 for norm, (start, end) in zip(norms, spans, strict=True) if not text[start:end].strip())


def test_threads_share_one_model(encoder: SentenceTransformerEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads that all come first: the model is loaded once, and each gets the vectors of its own text."""
    loads = []
    real = retrieval.bert_reader.BertReader

    def counted(checkpoint: BertCheckpoint) -> object:
        loads.append(checkpoint)
        return real(checkpoint)

    monkeypatch.setattr(retrieval.bert_reader, "BertReader", counted)
    fresh = SentenceTransformerEncoder()
    expected = [encoder.encode([whole(f"Rule {n}.")])[0] for n in range(16)]
    got: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda n=n: got.__setitem__(n, fresh.encode([whole(f"Rule {n}.")])[0]))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    for n in range(16):
        np.testing.assert_allclose(got[n], expected[n], atol=1e-4)


_SHARED = SentenceTransformerEncoder()  # hypothesis wants no function-scoped fixtures; loads at first use


def _words(text: str) -> list[tuple[int, str]]:
    out, position = [], 0
    for word in text.split(" "):
        if word:
            out.append((position, word))
        position += len(word) + 1
    return out
