"""Which model is read, by what, and under which identity: plain BERT by onnxruntime, any other that pools by mean by torch."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging as transformers_logging

from retrieval import Passage, SentenceTransformerEncoder
from retrieval.bert_checkpoint import BertCheckpoint, NotPlainBert
from retrieval.late_pooling import LatePooling
from retrieval.sentence_encoder import _packaged_minilm
from retrieval.torch_reader import TorchReader, UnsuitableModel

TEXT = "An upload may be 5 GB. It was raised in May, and is billed by the month. " * 4
PASSAGE = Passage(TEXT, ((0, 22), (23, 73), (0, len(TEXT))), "Limits")


def saved(folder: Path, *after: Any) -> Path:
    """A BERT of random weights and of a shape of its own, as the installed sentence-transformers saves it."""
    torch.manual_seed(0)
    transformers_logging.disable_progress_bar()
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    BertModel(BertConfig(**shape, max_position_embeddings=64)).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(_packaged_minilm()).save_pretrained(folder / "bert")
    bert = modules.Transformer(str(folder / "bert"), max_seq_length=48)
    SentenceTransformer(modules=[bert, modules.Pooling(64, "mean"), *after], device="cpu").save(str(folder / "saved"))
    return folder / "saved"


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("small"))


@pytest.fixture
def copied(small_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "tuned"))


def edit(file: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def assert_reads_as_torch(folder: Path, least_cosine: float) -> None:
    (found,) = SentenceTransformerEncoder(str(folder)).encode([PASSAGE])
    (wanted,) = LatePooling(TorchReader(str(folder))).encode([PASSAGE])
    assert found.shape == wanted.shape
    assert np.sum(found * wanted, axis=1).min() > least_cosine


# --- read by onnxruntime -------------------------------------------------------------------------------------------------


def test_a_bert_of_another_shape_with_a_window_of_48(small_model: Path) -> None:
    checkpoint = BertCheckpoint.of(small_model)
    assert (checkpoint.layers, checkpoint.heads, checkpoint.max_tokens) == (2, 4, 48)
    assert_reads_as_torch(small_model, 0.998)  # the text is longer than two windows


def test_weights_under_a_heads_names_and_in_half_precision(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    halves = {f"bert.{name}": weight.astype(np.float16) for name, weight in weights.items()}
    (wanted,) = SentenceTransformerEncoder(str(copied)).encode([PASSAGE])
    save_file(halves, copied / "model.safetensors", metadata={"format": "pt"})
    (found,) = SentenceTransformerEncoder(str(copied)).encode([PASSAGE])
    assert np.sum(found * wanted, axis=1).min() > 0.999


def test_the_packaged_model_is_plain() -> None:
    checkpoint = BertCheckpoint.of(_packaged_minilm())
    assert (checkpoint.layers, checkpoint.heads, checkpoint.max_tokens) == (6, 12, 256)


# --- read by torch -------------------------------------------------------------------------------------------------------

NOT_PLAIN = {
    "its hidden_act is 'relu'": ("config.json", {"hidden_act": "relu"}),
    "its model_type is 'mpnet'": ("config.json", {"model_type": "mpnet"}),
    "its position_embedding_type is 'relative_key'": ("config.json", {"position_embedding_type": "relative_key"}),
    "disagree about do_lower_case": ("tokenizer_config.json", {"do_lower_case": False}),
    "its tokenizer is a RobertaTokenizer": ("tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"}),
    "normalises text in a way of its own": ("sentence_bert_config.json", {"do_lower_case": True}),
    "model.safetensors lacks encoder.layer.2": ("config.json", {"num_hidden_layers": 3}),
    "it does not pool by mean": ("1_Pooling/config.json", {"pooling_mode": "cls"}),
}


@pytest.mark.parametrize("reason", NOT_PLAIN)
def test_what_is_not_plain_is_said(reason: str, copied: Path) -> None:
    file, values = NOT_PLAIN[reason]
    edit(copied / file, lambda content: content.update(values))
    with pytest.raises(NotPlainBert, match=reason):
        BertCheckpoint.of(copied)


@pytest.mark.parametrize("file", ["modules.json", "config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b'{"cut of'])
def test_a_missing_or_torn_file_is_said(file: str, content: bytes | None, copied: Path) -> None:
    if content is None:
        (copied / file).unlink()
    else:
        (copied / file).write_bytes(content)
    with pytest.raises(NotPlainBert, match=f"{file} cannot be read"):
        BertCheckpoint.of(copied)


def test_weights_of_another_kind_are_said(copied: Path) -> None:
    weights = {name: each.astype(np.int32) for name, each in load_file(copied / "model.safetensors").items()}
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotPlainBert, match="its weights are I32"):
        BertCheckpoint.of(copied)


def test_a_model_with_a_projection_is_read_by_torch_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(tmp_path, modules.Dense(64, 24))
    encoder = SentenceTransformerEncoder(str(folder))
    with caplog.at_level(logging.WARNING, "trimtab"):
        (vectors,) = encoder.encode([PASSAGE])
        encoder.encode([PASSAGE])
        assert "int8" not in encoder.identity
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "its modules are Transformer, Pooling, Dense"
    ]
    assert vectors.shape == (3, 24)
    whole = "An upload may be 5 GB."
    (own,) = encoder.encode([Passage(whole, ((0, len(whole)),))])
    wanted = SentenceTransformer(str(folder), device="cpu").encode([whole], normalize_embeddings=True)
    np.testing.assert_allclose(own, wanted, atol=1e-5)


def test_a_model_that_pools_otherwise_is_refused(copied: Path) -> None:
    edit(copied / "1_Pooling/config.json", lambda pooling: pooling.update(pooling_mode="cls"))
    with pytest.raises(UnsuitableModel, match="pool by mean"):
        SentenceTransformerEncoder(str(copied)).encode([PASSAGE])


# --- identity ------------------------------------------------------------------------------------------------------------


def test_identity_is_the_same_for_the_same_weights(copied: Path) -> None:
    one, other = SentenceTransformerEncoder(str(copied)), SentenceTransformerEncoder(str(copied))
    assert one.identity == other.identity
    assert one.identity != SentenceTransformerEncoder().identity


def test_identity_changes_with_training_in_the_middle(copied: Path) -> None:
    before = SentenceTransformerEncoder(str(copied)).identity
    weights = load_file(copied / "model.safetensors")
    name = next(name for name in weights if "layer.1" in name and name.endswith("query.weight"))
    weights[name] = weights[name] * np.float32(1.01)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert SentenceTransformerEncoder(str(copied)).identity != before


def test_identity_changes_with_the_pooling_and_the_tokenizer(copied: Path) -> None:
    seen = {SentenceTransformerEncoder(str(copied)).identity}
    for file in ("1_Pooling/config.json", "tokenizer.json", "tokenizer_config.json"):
        with (copied / file).open("a") as stream:
            stream.write(" ")
        seen.add(SentenceTransformerEncoder(str(copied)).identity)
    assert len(seen) == 4


def test_identity_names_the_precision(copied: Path) -> None:
    plain = SentenceTransformerEncoder(str(copied)).identity
    edit(copied / "config.json", lambda config: config.update(hidden_act="relu"))
    assert plain.rpartition("/")[2].startswith("int8")
    assert "int8" not in SentenceTransformerEncoder(str(copied)).identity


def test_identity_of_a_hub_name_needs_no_model(caplog: pytest.LogCaptureFixture) -> None:
    assert SentenceTransformerEncoder("someone/some-model").identity.startswith("someone/some-model/")
    assert "it is no folder" in caplog.text
