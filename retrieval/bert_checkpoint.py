"""A plain BERT sentence encoder's folder, as sentence-transformers lays it out: recognised and read without torch.

Plain means: BERT with absolute positions and exact GELU, pooled by mean and at most normalised after, float weights in
one safetensors file, and a fast tokenizer that its own settings agree with. What is not plain is said in words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from retrieval.encoder import Vectors

_EXPECTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
_LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_EMBEDDINGS = ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight")


class NotPlainBert(ValueError):
    """A model that only its own code reads. The message says what is not plain about it."""


@dataclass(frozen=True, slots=True)
class BertCheckpoint:
    """What a plain BERT is made of. `of` a folder reads the small files only; the weights are read on `weights()`."""

    folder: Path
    layers: int
    heads: int
    epsilon: float
    max_tokens: int

    @staticmethod
    def of(folder: Path) -> BertCheckpoint:
        """Raises NotPlainBert."""
        modules = _json(folder / "modules.json")
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            raise NotPlainBert(f"its modules are {', '.join(kinds)}")
        if not _is_mean(_json(folder / modules[1]["path"] / "config.json")):
            raise NotPlainBert("it does not pool by mean")
        home = folder / modules[0]["path"]
        config = _json(home / "config.json")
        for name, wanted in _EXPECTED.items():
            if config.get(name, wanted) != wanted:
                raise NotPlainBert(f"its {name} is {config[name]!r}, not {wanted!r}")
        sentences, spelling = _json(home / "sentence_bert_config.json"), _json(home / "tokenizer_config.json")
        _check_tokenizer(home, spelling, bool(sentences.get("do_lower_case")))
        _check_weights(home / "model.safetensors", int(config["num_hidden_layers"]))
        positions = int(config["max_position_embeddings"])
        longest = sentences.get("max_seq_length") or spelling.get(
            "model_max_length"
        )  # release 5's place, and release 6's
        return BertCheckpoint(
            folder=home,
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
            max_tokens=min(positions, int(longest or positions)),
        )

    def tokenizer(self) -> Tokenizer:
        """The fast tokenizer, set to neither cut nor pad."""
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def weights(self) -> Mapping[str, Vectors]:
        """Every weight that a reading needs, by its name in a bare BertModel, as float32."""
        with safe_open(self.folder / "model.safetensors", framework="numpy") as file:
            root = _root(file.keys())
            return {
                name: file.get_tensor(root + name).astype(np.float32, copy=False) for name in _weight_names(self.layers)
            }


def _weight_names(layers: int) -> list[str]:
    norms = ("attention.output.LayerNorm", "output.LayerNorm")
    blocks = [f"encoder.layer.{n}.{part}" for n in range(layers) for part in (*_LINEAR, *norms)]
    both = [f"{block}.{kind}" for block in ("embeddings.LayerNorm", *blocks) for kind in ("weight", "bias")]
    return [*(f"embeddings.{name}" for name in _EMBEDDINGS), *both]


def _root(names: list[str]) -> str:
    """What stands before every name: nothing in a bare BertModel's file, `bert.` in that of a model with a head."""
    return "bert." if "bert.embeddings.word_embeddings.weight" in names else ""


def _check_weights(file: Path, layers: int) -> None:
    try:
        with safe_open(file, framework="numpy") as weights:
            root = _root(weights.keys())
            wanted = [root + name for name in _weight_names(layers)]
            if missing := set(wanted) - set(weights.keys()):
                raise NotPlainBert(f"{file.name} lacks {min(missing)}")
            kinds = {weights.get_slice(name).get_dtype() for name in wanted}
    except (OSError, SafetensorError) as error:
        raise NotPlainBert(f"{file.name} cannot be read ({error})") from None
    if other := kinds - {"F32", "F16"}:  # numpy has no bfloat16
        raise NotPlainBert(f"its weights are {min(other)}")


def _check_tokenizer(home: Path, settings: Mapping[str, Any], lowered_before: bool) -> None:
    """transformers builds some tokenizers from their settings and not from tokenizer.json: the two have to agree."""
    kind = settings.get("tokenizer_class", "BertTokenizer")
    if kind not in ("BertTokenizer", "BertTokenizerFast"):
        raise NotPlainBert(f"its tokenizer is a {kind}")
    normalizer = _json(home / "tokenizer.json").get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer" or lowered_before:
        raise NotPlainBert("its tokenizer normalises text in a way of its own")
    agreed = {"lowercase": "do_lower_case", "strip_accents": "strip_accents"}
    agreed["handle_chinese_chars"] = "tokenize_chinese_chars"
    for own, other in agreed.items():
        if other in settings and settings[other] != normalizer.get(own):
            raise NotPlainBert(f"its tokenizer.json and its tokenizer_config.json disagree about {other}")


def _is_mean(pooling: Mapping[str, Any]) -> bool:
    """Release 6 of sentence-transformers names the mode, release 5 has a flag for each."""
    if "pooling_mode" in pooling:
        return bool(pooling["pooling_mode"] == "mean")
    return [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on] == [
        "pooling_mode_mean_tokens"
    ]


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise NotPlainBert(f"{file.name} cannot be read ({type(error).__name__})") from None
